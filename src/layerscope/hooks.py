"""Hooks on, hooks off, nothing else.

Every output is handed on the moment the layer produces it and no reference is kept, because an in-place operation
that follows overwrites the very tensor that the layer returned: the ReLU after a convolution of AlexNet does.
"""

from __future__ import annotations

import dataclasses
import random
import sys
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any, cast
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from layerscope.sites import Site, choose

__all__ = ["aliases", "capture", "everything", "looking", "tap", "tappable", "tensors_in", "unwrapped"]

Emit = Callable[[Site, nn.Module, Tensor], None]

# Modules that compute the whole layer themselves: their children are storage, and the children's hooks never fire.
# torchvision's by name: it is not imported for this.
_OPAQUE = (nn.MultiheadAttention, torch.jit.ScriptModule)
_OPAQUE_NAMES = ("ShiftedWindowAttention", "ShiftedWindowAttentionV2", "ShiftedWindowAttention3d")


def unwrapped(model: nn.Module) -> nn.Module:
    """The network inside of `torch.compile` and of `DataParallel`, whose paths are those that the user wrote."""
    while True:
        if type(model).__name__ == "OptimizedModule":  # by name: torch._dynamo costs a second to import
            model = cast(nn.Module, model._orig_mod)
        elif isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        else:
            return model


@cache
def _opaque_kind(kind: type) -> bool:
    # What is quantised holds its weights packed, in a child that is no layer.
    quantised = kind.__module__.startswith(("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized"))
    return quantised or issubclass(kind, _OPAQUE) or kind.__name__ in _OPAQUE_NAMES


def _opaque(module: nn.Module) -> bool:
    # Not getattr on the module: it would search parameters, buffers and children of every module.
    kind = cast(type, type(module))
    return _opaque_kind(kind) or (hasattr(kind, "hides_inside") and bool(module.hides_inside))


class _Table:
    """One walk through a network: every module by its first path, the leaves, the closed ones, the other paths."""

    def __init__(self, model: nn.Module) -> None:
        self.modules: dict[str, nn.Module] = {}
        self.leaves: set[str] = set()
        self.inside: set[str] = set()  # of modules that compute the whole layer themselves
        self.aliases: dict[str, str] = {}
        self._first: dict[int, str] = {}
        self._walk(model, "", False)
        if not self.modules:
            name = type(model).__name__
            self.modules, self.leaves = {name: model}, {name}

    def _walk(self, module: nn.Module, path: str, inside: bool) -> None:
        for name, child in module._modules.items():
            if child is None or name == "_packed_params":
                continue
            own = f"{path}.{name}" if path else name
            first = self._first.setdefault(id(child), own)
            closed = _opaque(child)
            if first != own:
                self.aliases[own] = first
            else:
                self.modules[own] = child
                if inside:
                    self.inside.add(own)
                if closed or not child._modules:
                    self.leaves.add(own)
            if child._modules:
                self._walk(child, own, inside or closed)


def everything(model: nn.Module) -> list[tuple[str, nn.Module, bool]]:
    """Every module below the root as (path, module, leaf), in the order of registration, tied modules once.

    A root without children is its own only layer, named after its type.
    """
    table = _Table(unwrapped(model))
    return [(path, module, path in table.leaves) for path, module in table.modules.items()]


def aliases(model: nn.Module) -> dict[str, str]:
    """The other paths of tied modules: path -> the path under which the module comes first."""
    return _Table(unwrapped(model)).aliases


def tappable(model: nn.Module) -> list[tuple[str, nn.Module, bool]]:
    """What can be looked at: everything but the insides of modules that compute the whole layer themselves."""
    table = _Table(unwrapped(model))
    return [(p, module, p in table.leaves) for p, module in table.modules.items() if p not in table.inside]


def tensors_in(output: object, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors of an output that may be a tuple, dict or dataclass, each with the path that leads to it."""
    if isinstance(output, Tensor):
        yield path, output
    elif isinstance(output, Mapping):
        for key, value in output.items():
            yield from tensors_in(value, f"{path}[{key}]")
    elif isinstance(output, list | tuple):
        for index, value in enumerate(output):
            # The first of several is what nearly every layer means by its output.
            yield from tensors_in(value, f"{path}[{index}]" if index else path)
    elif dataclasses.is_dataclass(output) and not isinstance(output, type):
        for field in dataclasses.fields(output):
            yield from tensors_in(getattr(output, field.name), f"{path}.{field.name}")
    elif hasattr(output, "__dict__") and not isinstance(output, nn.Module | type):
        # A class of the user's own, or torchvision's ImageList: its tensors, and no deeper.
        for name, value in vars(output).items():
            if isinstance(value, Tensor):
                yield f"{path}.{name}", value


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
    compiled = "torch._dynamo" in sys.modules and hasattr(torch.compiler, "set_stance")
    return torch.compiler.set_stance("force_eager") if compiled else nullcontext()


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
    table = _Table(model)
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
    devices = {p.device.index for p in model.parameters() if p.device.type == "cuda"}
    ours, numpys = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=sorted(filter(None.__ne__, devices))):
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
    flags = [(module, module.training) for module in model.modules()]
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
