"""Hooks on, hooks off, nothing else.

Every output is handed on the moment the layer produces it and no reference is kept, because an in-place operation
that follows overwrites the very tensor that the layer returned: the ReLU after a convolution of AlexNet does.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from layerscope.sites import Site, choose

__all__ = ["capture", "everything", "looking", "tap", "tappable", "tensors_in"]

Emit = Callable[[Site, nn.Module, Tensor], None]

# Modules that compute the whole layer themselves: their children are storage, and the children's hooks never fire.
_OPAQUE = (nn.MultiheadAttention,)


def everything(model: nn.Module) -> list[tuple[str, nn.Module, bool]]:
    """Every module below the root as (path, module, leaf), in the order of registration, tied modules once.

    A root without children is its own only layer, named after its type.
    """
    found: list[tuple[str, nn.Module, bool]] = []
    for path, module in model.named_modules():
        if path:
            found.append((path, module, isinstance(module, _OPAQUE) or next(module.children(), None) is None))
    return found or [(type(model).__name__, model, True)]


def tappable(model: nn.Module) -> list[tuple[str, nn.Module, bool]]:
    """What can be looked at: everything but the insides of modules that compute the whole layer themselves."""
    table = everything(model)
    closed = tuple(f"{path}." for path, module, _ in table if isinstance(module, _OPAQUE))
    return [row for row in table if not row[0].startswith(closed)]


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


@contextmanager
def tap(model: nn.Module, emit: Emit, paths: Iterable[str]) -> Iterator[None]:
    """Call `emit(site, module, tensor)` for every output of the modules at `paths` while the block runs.

    `emit` runs inside the forward pass, before any later operation can change the tensor. It must not change it.
    """
    calls: Counter[str] = Counter()

    def hook_for(path: str) -> Callable[[nn.Module, object, object], None]:
        def hook(module: nn.Module, _inputs: object, output: object) -> None:
            call = calls[path]
            calls[path] += 1
            for name, tensor in tensors_in(output, path):
                emit(Site(name, call), module, tensor)
            # Returning nothing matters: a hook's value would replace the output.

        return hook

    modules = {path: module for path, module, _ in everything(model)}
    handles: list[torch.utils.hooks.RemovableHandle] = []
    try:
        for path in paths:
            handles.append(modules[path].register_forward_hook(hook_for(path)))
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def looking(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards training flags and random state are as they were.

    Training flags are restored module by module: a network may have frozen batch norms inside a training trunk.
    """
    flags = [(module, module.training) for module in model.modules()]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        try:
            model.eval()
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
