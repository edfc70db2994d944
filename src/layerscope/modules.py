"""The modules of a network by their paths, and the tensors of what they return."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from functools import cache
from typing import cast

import torch
from torch import Tensor, nn

__all__ = ["Table", "aliases", "everything", "tappable", "tensors_in", "unwrapped"]

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


class Table:
    """One walk through a network: every module by its first path, the leaves, the closed ones, the other paths."""

    def __init__(self, model: nn.Module) -> None:
        self.modules: dict[str, nn.Module] = {}
        self.leaves: set[str] = set()
        self.inside: set[str] = set()  # of modules that compute the whole layer themselves
        self.aliases: dict[str, str] = {}
        self._first: dict[int, str] = {id(model): ""}
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
    table = Table(unwrapped(model))
    return [(path, module, path in table.leaves) for path, module in table.modules.items()]


def aliases(model: nn.Module) -> dict[str, str]:
    """The other paths of tied modules: path -> the path under which the module comes first."""
    return Table(unwrapped(model)).aliases


def tappable(model: nn.Module) -> list[tuple[str, nn.Module, bool]]:
    """What can be looked at: everything but the insides of modules that compute the whole layer themselves."""
    table = Table(unwrapped(model))
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
            # Not with a dot: a module may have a child of that name.
            yield from tensors_in(getattr(output, field.name), f"{path}[{field.name}]")
    elif hasattr(output, "__dict__") and not isinstance(output, nn.Module | type):
        # A class of the user's own, or torchvision's ImageList: its tensors, and no deeper.
        for name, value in vars(output).items():
            if isinstance(value, Tensor):
                yield f"{path}[{name}]", value
