"""Hooks on, hooks off, nothing else.

Every output is handed on the moment the layer produces it and no reference is kept, because an in-place operation
that follows overwrites the very tensor that the layer returned: the ReLU after a convolution of AlexNet does.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from layerscope.modules import Table, aliases, everything, tappable, tensors_in, unwrapped
from layerscope.sites import Site, choose

__all__ = ["aliases", "capture", "everything", "looking", "noting", "tap", "tappable", "tensors_in", "unwrapped"]

Emit = Callable[[Site, nn.Module, Tensor], None]


class _Stop(BaseException):
    """All calls that were awaited are over. No Exception: a network may catch those in its own forward."""

    def __init__(self, calls: Counter[str]) -> None:
        self.calls = calls


#: model -> what was tapped, on inputs of what shapes, in which mode -> how often each module ran in a full pass
_LEARNED: WeakKeyDictionary[nn.Module, dict[Hashable, Counter[str]]] = WeakKeyDictionary()


def _signature(value: Any) -> Hashable:
    if isinstance(value, Tensor):
        return tuple(value.shape), value.dtype, value.device
    if isinstance(value, Mapping):
        return tuple((key, _signature(one)) for key, one in value.items())
    if isinstance(value, list | tuple):
        return type(value), tuple(map(_signature, value))
    return value if isinstance(value, int | float | str | None) else str(type(value))


def _eager() -> Any:
    """Compiled parts run as they were written while this lasts: hooks never fire in compiled code, silently."""
    if "torch._dynamo" not in sys.modules:
        return nullcontext()
    return torch.compiler.set_stance("force_eager") if hasattr(torch.compiler, "set_stance") else _eager_before_2_6()


@contextmanager
def _eager_before_2_6() -> Iterator[None]:
    """The same where torch has no stances: a compiled function sets its compiler for each call, and here sets none."""
    dynamo: Any = sys.modules["torch._dynamo"].eval_frame
    name = "_maybe_set_eval_frame" if hasattr(dynamo, "_maybe_set_eval_frame") else "set_eval_frame"
    kept = getattr(dynamo, name)
    setattr(dynamo, name, lambda _compiler: kept(None))
    try:
        yield
    finally:
        setattr(dynamo, name, kept)


@contextmanager
def tap(
    model: nn.Module, emit: Emit, paths: Iterable[str], inputs: Any = None, spare: Iterable[str] = ()
) -> Iterator[Counter[str]]:
    """Call `emit(site, module, tensor)` for every output of the modules at `paths` while the block runs.

    `emit` runs inside the forward pass, before any later operation can change the tensor. It must not change it.
    Yields how often each of the modules ran; a tied module counts, and is named, under its first path.

    `inputs`: what the one pass of the block is given. Once a pass on inputs of the same shapes has run to its end, it
    is known how often each module runs, and later passes end the block as soon as all of that has been seen: a module
    that runs again later is never lost. Without `inputs` every pass is run to its end.
    """
    model = unwrapped(model)
    table = Table(model)
    chosen = list(dict.fromkeys(table.aliases.get(path, path) for path in paths))
    key = None if inputs is None else (tuple(chosen), _signature(inputs), model.training)
    learned = _LEARNED.setdefault(model, {}) if key else {}
    awaited = learned.get(key)
    calls: Counter[str] = Counter()
    waiting = set(awaited or ())
    hooks = {path: _hook(path, emit, calls, awaited, waiting) for path in chosen}
    hooks |= {path: _spare_hook(path, emit, calls, chosen) for path in spare if path not in hooks}
    handles = []
    try:
        with _eager():
            for path, hook in hooks.items():
                if path in table.modules and path not in table.inside:
                    # Not the method: TorchScript modules forbid it, though their hooks do fire.
                    handles.append(nn.Module.register_forward_hook(table.modules[path], hook))
            yield calls
        if key and awaited is None:
            learned[key] = calls
    except _Stop as stop:
        if stop.calls is not calls:
            raise
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def noting(
    model: nn.Module, note: Callable[[nn.Module, tuple[int, ...]], object], but: Iterable[str]
) -> Iterator[None]:
    """Call `note(module, shape)` for every output of the leaves beside those at `but` while the block runs.

    What the axes of a layer mean is known from the layers before it, whether they are looked at or not.
    """
    model = unwrapped(model)
    left_out = set(but)

    def hook(module: nn.Module, _inputs: object, output: object) -> None:
        if type(output) is Tensor and not output.is_nested and output.dim():
            note(module, tuple(output.shape))

    leaves = [module for path, module, leaf in tappable(model) if leaf and path not in left_out]
    handles = [nn.Module.register_forward_hook(module, hook) for module in leaves]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


Hook = Callable[[nn.Module, object, object], None]


def _hook(
    path: str, emit: Emit, calls: Counter[str], awaited: Counter[str] | None = None, waiting: set[str] | None = None
) -> Hook:
    last = awaited[path] if awaited else 0

    def hook(module: nn.Module, _inputs: object, output: object) -> None:
        call = calls[path]
        calls[path] = call + 1
        if type(output) is Tensor:
            emit(Site(path, call), module, output)
        else:
            for name, tensor in tensors_in(output, path):
                emit(Site(name, call), module, tensor)
        if call + 1 == last and waiting is not None:
            waiting.discard(path)
            if not waiting:
                raise _Stop(calls)
        # Returning nothing matters: a hook's value would replace the output.

    return hook


def _spare_hook(path: str, emit: Emit, calls: Counter[str], chosen: Sequence[str]) -> Hook:
    hook, inside = _hook(path, emit, calls), f"{path}."

    def spare(module: nn.Module, inputs: object, output: object) -> None:
        if not any(calls[one] for one in chosen if one.startswith(inside)):
            hook(module, inputs, output)

    return spare


@contextmanager
def _same_random_state(model: nn.Module) -> Iterator[None]:
    devices = {p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"}
    ours, numpys = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=sorted(devices)):
        try:
            yield
        finally:
            random.setstate(ours)
            np.random.set_state(numpys)


@contextmanager
def _same_buffers(model: nn.Module) -> Iterator[None]:
    """Copies back the buffers that a forward pass wrote into: counters, running statistics that know no eval mode."""
    kept = [
        (buffer, buffer._version, buffer.detach().clone())
        for buffer in model.buffers()
        if not (buffer.is_meta or buffer.is_inference())
    ]
    try:
        yield
    finally:
        for buffer, version, copy in kept:
            if buffer._version != version:
                buffer.copy_(copy)


def _evaluating(model: nn.Module) -> None:
    try:
        model.eval()
    except NotImplementedError:  # the module of an exported program has no modes
        for module in model.modules():
            module.training = False


@contextmanager
def looking(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards training flags, buffers and random state are as they were.

    Training flags are restored module by module: a network may have frozen batch norms inside a training trunk.
    """
    flags = [(module, module.training) for module in model.modules() if hasattr(module, "training")]  # frozen: none
    with _same_random_state(model), torch.no_grad(), _same_buffers(model):
        try:
            _evaluating(model)
            yield
        finally:
            for module, training in flags:
                module.training = training


@contextmanager
def capture(model: nn.Module, layers: str | Sequence[str] = "*") -> Iterator[dict[str, Tensor]]:
    """Collect the outputs of layers as the layers produced them, for whatever passes run inside the block.

    `layers` are globs over paths or types. Keys are paths, with `:1`, `:2`, ... for later calls of the same module.
    Values are copies on the tensor's own device, detached. The network is run as it is: its mode is not changed.

        with layerscope.capture(model, layers="layer*.conv1") as seen:
            model(x)
        seen["layer1.0.conv1"]  # (N, C, H, W)

    Raises NoMatch when a pattern selects nothing.
    """
    patterns = [layers] if isinstance(layers, str) else list(layers)
    seen: dict[str, Tensor] = {}

    def keep(site: Site, _module: nn.Module, tensor: Tensor) -> None:
        seen[site.key] = tensor.detach().clone()

    table = [(path, type(module).__name__, leaf) for path, module, leaf in tappable(model)]
    with tap(model, keep, choose(patterns, table)):
        yield seen
