"""Observing a network while it runs: hooks on, hooks off, and everything as it was.

Every output is handed on the moment the layer produces it and no reference is kept, because an in-place operation
that follows overwrites the very tensor that the layer returned: the ReLU after a convolution of AlexNet does.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any, NoReturn
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map_only

from layerscope.activations.modules import Table, tensors_in, unwrapped
from layerscope.errors import ForwardError, LayerscopeError
from layerscope.records.sites import Site

__all__ = ["Observation", "OnOutput", "call", "calls_in_full_pass", "looking", "observing", "tensors_in", "unwrapped"]

OnOutput = Callable[[Site, nn.Module, Tensor], Any]
OnInput = Callable[[str, nn.Module, tuple[Any, ...], dict[str, Any]], tuple[tuple[Any, ...], dict[str, Any]] | None]
OnExit = Callable[[str, nn.Module, tuple[Any, ...], Any], None]
OnShape = Callable[[nn.Module, tuple[int, ...]], object]


class _Stop(BaseException):
    """All that a block was for is over. No Exception: a network may catch those in its own forward."""


class Observation:
    """A block of `observing`. `calls`: how often each module has run so far, where there is an `on_output`."""

    def __init__(self, on_output: Any, replacing: bool, limits: Mapping[str, int]) -> None:
        self.calls = Counter[str]()
        self._on_output, self._replacing, self._limits, self._waiting = on_output, replacing, limits, set(limits)

    def stop(self) -> NoReturn:
        """End the block at once: to be called by one of its callbacks."""
        raise _Stop(self)

    def _output_hook(self, path: str) -> Callable[..., Any]:
        # Local names, and no call beyond that of `on_output`: this runs for every module of every pass.
        calls, on_output, replacing, waiting = self.calls, self._on_output, self._replacing, self._waiting
        last = self._limits.get(path, 0)

        def hook(module: nn.Module, _inputs: object, output: object) -> object:
            call = calls[path]
            calls[path] = call + 1
            if replacing:
                for name, tensor in list(tensors_in(output, path)):
                    new = on_output(Site(name, call), module, tensor)
                    output = output if new is None else tree_map_only(Tensor, partial(_swapped, tensor, new), output)
            elif type(output) is Tensor:
                on_output(Site(path, call), module, output)
            else:
                for name, tensor in tensors_in(output, path):
                    on_output(Site(name, call), module, tensor)
            if call + 1 == last:
                waiting.discard(path)
                if not waiting:
                    self.stop()
            # What a hook returns goes on in place of the output.
            return output if replacing else None

        return hook

    def _fallback_hook(self, path: str, paths: Iterable[str]) -> Callable[..., Any]:
        hook, calls, within = self._output_hook(path), self.calls, f"{path}."

        def fallback(module: nn.Module, inputs: object, output: object) -> object:
            ran = any(calls[other] for other in paths if other.startswith(within))
            return None if ran else hook(module, inputs, output)

        return fallback


def _swapped(old: Tensor, new: Tensor, tensor: Tensor) -> Tensor:
    return new if tensor is old else tensor


@contextmanager
def observing(
    model: nn.Module | Table,
    modules: Iterable[str],
    on_output: OnOutput | None = None,
    stop_after: Counter[str] | None = None,
    *,
    replacing: bool = False,
    fallback: Iterable[str] = (),
    on_shape: OnShape | None = None,
    on_input: OnInput | None = None,
    on_exit: OnExit | None = None,
) -> Iterator[Observation]:
    """Observe the modules at these paths while the block runs, compiled ones as they were written; "" is the network.

    A tied module counts, and is named, under its first path. Paths that cannot be observed are passed over.

    `on_output(site, module, tensor)`: called for every tensor that a module returns, before any later operation can
    change it; it must not change it itself. `replacing`: what it returns goes on in the tensor's place, unless None.
    `fallback`: paths of containers that are observed until one of `modules` inside of them has run.
    `on_shape(module, shape)`: for outputs of leaves that are not among `modules`: what the axes of a layer mean is
    known from the layers before it, whether they are looked at or not.
    `on_input(path, module, args, kwargs)`: before a module runs; (args, kwargs) that it returns go in instead.
    `on_exit(path, module, args, output)`: after it ran; where it raised an exception `output` is None.

    The block ends silently when a callback calls `Observation.stop`, or when every module has run as often as
    `stop_after` says; an empty one is filled by a block that runs to its end, see `calls_in_full_pass`.
    """
    table = model if isinstance(model, Table) else Table(model)
    observation = Observation(on_output, replacing, stop_after or {})
    paths = dict.fromkeys(table.aliases.get(path, path) for path in modules)
    # Not the methods of the module: TorchScript modules forbid them, though their hooks do fire.
    before, after = nn.Module.register_forward_pre_hook, nn.Module.register_forward_hook
    with ExitStack() as handles:
        for path in paths:
            module = table.observable.get(path) if path else table.root
            if module is None:
                continue
            if on_input is not None:
                handles.callback(before(module, partial(on_input, path), with_kwargs=True).remove)
            if on_output is not None:
                handles.callback(after(module, observation._output_hook(path)).remove)
            if on_exit is not None:
                handles.callback(after(module, partial(on_exit, path), always_call=True).remove)
        for path in fallback:
            if path not in paths:
                handles.callback(after(table.observable[path], observation._fallback_hook(path, paths)).remove)
        for path, module in table.observable.items() if on_shape is not None else ():
            if path in table.leaves and path not in paths:
                handles.callback(after(module, _shape_hook(on_shape)).remove)
        try:
            with _eager():
                yield observation
        except _Stop as stop:
            if stop.args[0] is not observation:
                raise
            return
    if stop_after is not None and not stop_after:
        stop_after.update(observation.calls)


def _shape_hook(on_shape: OnShape | None) -> Callable[..., None]:
    def hook(module: nn.Module, _inputs: object, output: object) -> None:
        if on_shape and type(output) is Tensor and not output.is_nested and output.dim():
            on_shape(module, tuple(output.shape))

    return hook


#: network -> modules that were observed, shapes of the inputs, mode -> how often each ran
_LEARNED: WeakKeyDictionary[nn.Module, dict[Hashable, Counter[str]]] = WeakKeyDictionary()


def calls_in_full_pass(model: nn.Module, modules: Iterable[str], inputs: Any) -> Counter[str]:
    """How often each of the modules runs on inputs of these shapes, for `stop_after`; empty until that is known.

    A module that runs again late in the pass is never lost: only a pass that ran to its end tells.
    """
    model = unwrapped(model)
    key = tuple(modules), _signature(inputs), model.training
    return _LEARNED.setdefault(model, {}).setdefault(key, Counter())


def _signature(value: Any) -> Hashable:
    leaves, structure = tree_flatten(value)
    return str(structure), *(
        (leaf.shape, leaf.dtype, leaf.device) if isinstance(leaf, Tensor)
        else leaf if isinstance(leaf, int | float | str | None) else type(leaf)
        for leaf in leaves
    )  # fmt: skip


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
def _same_buffers(model: nn.Module, unmarked: bool) -> Iterator[None]:
    """Copies back the buffers that a forward pass wrote into: counters, running statistics that know no eval mode.

    `unmarked`: also where no version tells of it, as when a batch norm learns.
    """
    kept = [
        (buffer, buffer._version, buffer.detach().clone())
        for buffer in model.buffers()
        if not (buffer.is_meta or buffer.is_inference())
    ]
    try:
        yield
    finally:
        for buffer, version, copy in kept:
            if unmarked or buffer._version != version:
                buffer.copy_(copy)


@contextmanager
def looking(model: nn.Module, evaluating: bool = True) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards training flags, buffers and random state are as they were.

    Training flags are restored module by module: a network may have frozen batch norms inside a training trunk.
    Not `evaluating`: each module in the mode that it is in.
    """
    flags = [(module, module.training) for module in model.modules() if hasattr(module, "training")]  # frozen: none
    with _same_random_state(model), torch.no_grad(), _same_buffers(model, not evaluating):
        try:
            if evaluating:
                try:
                    model.eval()
                except NotImplementedError:  # the module of an exported program has no modes
                    for module, _ in flags:
                        module.training = False
            yield
        finally:
            for module, training in flags:
                module.training = training


def call(model: nn.Module, x: Any, name: str, given: Any = None) -> Any:
    """What a network returns for a tuple of arguments, a dict of named ones, or anything else as the only one.

    Raises ForwardError, which names the network as `name` and its input, or what was `given` for it.
    """
    try:
        if isinstance(x, dict) and x:
            return model(**x)
        return model(*x) if isinstance(x, tuple) else model(x)
    except LayerscopeError:  # of a hook of ours, which says what to do
        raise
    except Exception as error:  # a network may raise anything
        raise _failed(name, x if given is None else given, error) from error


def _failed(name: str, given: Any, error: Exception) -> ForwardError:
    said = " ".join(str(error).split())[:300] or "no message"
    shape = f"of shape {tuple(given.shape)}" if hasattr(given, "shape") else f"({type(given).__name__})"
    return ForwardError(
        f"{name}: forward raised {type(error).__name__} on an input {shape}: "
        f"{said}; check the input size (--size) and the network"
    )
