"""The modules of a network by their paths: which there are, which can be observed, and which one a name means."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from layerscope.errors import NoMatch
from layerscope.sites import Site
from layerscope.text import nearest

__all__ = ["BYPASSED", "CLOSED", "Table", "copied", "tensors_in", "unwrapped"]

# Modules that compute the whole layer themselves: their children are storage, and the children's hooks never fire.
# torchvision's by name: it is not imported for this.
_OPAQUE = (nn.MultiheadAttention, torch.jit.ScriptModule)
_OPAQUE_NAMES = ("ShiftedWindowAttention", "ShiftedWindowAttentionV2", "ShiftedWindowAttention3d")

#: why a module never runs
CLOSED = "the module around computes with the weights by itself"
BYPASSED = "the code around calls .forward(), or takes the weights itself"


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
    """One walk through a network: every module below the root by its first path, in the order of registration.

    `root`: the network without what `torch.compile` and `DataParallel` put around it. `leaves`: modules without
    children, and those that compute the whole layer themselves. `inside`: what is in the latter: storage, whose hooks
    never fire. `observable`: all others. `aliases`: the other paths of tied modules, each with the first one, which is
    the module's name. A root without children, or one that computes all by itself, is a layer, named after its type.
    """

    def __init__(self, model: nn.Module) -> None:
        self.root = unwrapped(model)
        self.modules: dict[str, nn.Module] = {}
        self.leaves: set[str] = set()
        self.inside: set[str] = set()
        self.aliases: dict[str, str] = {}
        self._first: dict[int, str] = {id(self.root): ""}
        closed = _opaque(self.root)
        self._walk(self.root, "", closed)
        if closed or not self.modules:
            name = type(self.root).__name__
            self.modules[name] = self.root
            self.leaves.add(name)
            self._first[id(self.root)] = name
        self.observable = {path: module for path, module in self.modules.items() if path not in self.inside}

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

    @property
    def rows(self) -> list[tuple[str, str, bool]]:
        """(path, type, whether it is a leaf) of every module, those of the other paths of tied ones at the end."""
        named = [(path, path) for path in self.modules]
        named += [(path, first) for path, first in self.aliases.items() if first in self.modules]
        return [(path, type(self.modules[first]).__name__, first in self.leaves) for path, first in named]

    def path_of(self, module: nn.Module) -> str | None:
        """The first path of a module; None for one that is no layer of this network."""
        return self._first.get(id(module)) or None

    def resolve(self, layer: str) -> tuple[str, Site]:
        """The first path of a module, and the site of one of its outputs: `relu:1` for its second call, `fork[1]`.

        Raises NoMatch, with the nearest paths, for a layer that is not there, and for one that cannot be observed.
        """
        name, colon, call = layer.rpartition(":")
        if not (colon and call.isdigit()):
            name, call = layer, "0"
        known = [*self.modules, *self.aliases]
        path = max((path for path in known if name == path or name.startswith(f"{path}[")), key=len, default=None)
        if path is None:
            raise NoMatch(f"no layer {name!r}{nearest(name, known)}")
        first = self.aliases.get(path, path)
        if first in self.inside:
            raise self.closed(first)
        return first, Site(first + name[len(path) :], int(call))

    def closed(self, path: str) -> NoMatch:
        """The error for a module that cannot be observed, with the one to ask for instead."""
        around = path
        while around in self.inside:
            around = around.rpartition(".")[0]
        return NoMatch(f"{path} never runs: {CLOSED}; ask for {around or type(self.root).__name__}")

    def why_silent(self, path: str) -> str:
        """Why a module of the network has not run: CLOSED, BYPASSED, or "" where that cannot be told."""
        above, _, name = path.rpartition(".")
        if path in self.inside:
            return CLOSED
        return BYPASSED if _bypasses(type(self.modules.get(above, self.root)), name) else ""


def _bypasses(parent: type, child: str) -> bool:
    """Whether the source of the parent's forward uses a child otherwise than by calling it."""
    try:
        source = inspect.getsource(parent.forward)  # type: ignore[attr-defined]
    except (OSError, TypeError, AttributeError):
        return False
    return re.search(rf"\.{re.escape(child)}\.(forward\(|weight\b|bias\b)", source) is not None


def copied(value: Any, device: torch.device | None = None) -> Any:
    """Arguments of a call with copies of their tensors, on `device` if one is given: a network may write into them."""
    return tree_map_only(Tensor, lambda tensor: tensor.detach().to(device or tensor.device, copy=True), value)


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
