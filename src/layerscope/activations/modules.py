"""The modules of a network by their paths: which there are, which can be observed, and which are meant."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from glob import escape
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from layerscope.errors import NoMatch, UsageError
from layerscope.records.sites import Site, choose
from layerscope.text import nearest

__all__ = [
    "LayerLike",
    "Layers",
    "Selection",
    "Table",
    "absent",
    "copied",
    "is_layers",
    "select",
    "tensors_in",
    "unwrapped",
]

# Modules that compute the whole layer themselves: their children are storage, and the children's hooks never fire.
# torchvision's by name: it is not imported for this.
_OPAQUE = (nn.MultiheadAttention, torch.jit.ScriptModule)
_OPAQUE_NAMES = ("ShiftedWindowAttention", "ShiftedWindowAttentionV2", "ShiftedWindowAttention3d")

#: a glob over paths or types, a class of modules, or a module of the network
LayerLike: TypeAlias = str | type[nn.Module] | nn.Module
Layers: TypeAlias = LayerLike | Iterable[LayerLike]
_KINDS = (str, type, nn.Module)

#: why a module never runs
_CLOSED = "the module around computes with the weights by itself"
_BYPASSED = "the code around calls .forward(), or takes the weights itself"


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
        return NoMatch(f"{path} never runs: {_CLOSED}; ask for {around or type(self.root).__name__}")

    def why_silent(self, path: str) -> str:
        """Why a module of the network has not run: _CLOSED, _BYPASSED, or "" where that cannot be told."""
        above, _, name = path.rpartition(".")
        if path in self.inside:
            return _CLOSED
        return _BYPASSED if _bypasses(type(self.modules.get(above, self.root)), name) else ""


def _bypasses(parent: type, child: str) -> bool:
    """Whether the source of the parent's forward uses a child otherwise than by calling it."""
    try:
        source = inspect.getsource(parent.forward)  # type: ignore[attr-defined]
    except (OSError, TypeError, AttributeError):
        return False
    return re.search(rf"\.{re.escape(child)}\.(forward\(|weight\b|bias\b)", source) is not None


@dataclass(frozen=True)
class Selection:
    """`paths` of the chosen layers of `table`, tied ones by their first path; `patterns`: the same as globs.

    `unmet`: those globs that select no module. `notes`: what a reader of the paths has to know.
    """

    table: Table
    patterns: list[str]
    paths: list[str]
    unmet: list[str]
    notes: list[str]


def is_layers(value: object) -> bool:
    """Whether this says which layers are meant, rather than what a network is called with."""
    several = value if isinstance(value, list | tuple | set) else [value]
    return all(isinstance(layer, _KINDS) for layer in several)


def select(model: nn.Module | Table, layers: Layers = (), lenient: bool = False) -> Selection:
    """The layers that are meant, every leaf if none are named.

    `lenient`: a glob may select nothing, for it may mean a function. Raises NoMatch for a layer that is not there, and
    for a glob that selects nothing but modules that cannot be observed; UsageError for what names no layer.
    """
    table = model if isinstance(model, Table) else Table(model)
    rows = table.rows
    several = [layers] if isinstance(layers, str | type | nn.Module) else layers
    patterns = [pattern for layer in several for pattern in _globs(table, layer)]
    chosen: set[str] = set() if patterns else set(table.leaves)
    unmet = []
    for pattern in patterns:
        try:
            found = {table.aliases.get(path, path) for path in choose([pattern], rows)}
        except NoMatch:
            if not lenient:
                raise
            unmet.append(pattern)
            continue
        if found <= table.inside:
            raise table.closed(min(found))
        chosen |= found
    return Selection(table, patterns, [path for path in table.modules if path in chosen], unmet, _tied(table))


def _globs(table: Table, layer: LayerLike) -> Iterator[str]:
    """The globs that a layer as it was given stands for."""
    if isinstance(layer, str):
        yield layer
    elif isinstance(layer, nn.Module):
        path = table.path_of(layer)
        if path is None:
            raise NoMatch(f"this {type(layer).__name__} is no layer of the network; give one of its modules, or a path")
        yield escape(path)
    elif isinstance(layer, type) and issubclass(layer, nn.Module):
        # By name, too: the modules of TorchScript and of exported programs are called what they were.
        alike = {path: layer.__name__ == type(m).__name__ or isinstance(m, layer) for path, m in table.modules.items()}
        every = [path for path in table.modules if alike[path]]
        paths = [path for path in every if path not in table.inside] or every
        if not paths:
            raise NoMatch(f"no layer is a {layer.__name__}{nearest(layer.__name__, {row[1] for row in table.rows})}")
        yield from map(escape, [path for path in paths if path in table.leaves] or paths)
    else:
        raise UsageError(f"layers: {layer!r} names no layer; give a path, a glob, a class of modules or a module")


def _tied(table: Table) -> list[str]:
    tied = [path for path in table.aliases if path.rpartition(".")[0] not in table.aliases]
    notes = [f"{path} is the same module as {table.aliases[path]}: its calls are listed there" for path in tied[:3]]
    return notes + ([f"{len(tied) - 3} more paths lead to modules that are listed once"] if len(tied) > 3 else [])


def absent(table: Table, chosen: Iterable[str], ran: Counter[str]) -> tuple[list[str], list[str]]:
    """The chosen modules that never ran, and why where it can be told."""
    never = [path for path in chosen if not ran[path]]
    silent: dict[str, list[str]] = {_CLOSED: [], _BYPASSED: [], "": []}
    for path in never:
        silent[table.why_silent(path)].append(path)
    return never, [f"{_named(silent[why])} never ran: {why}" for why in (_CLOSED, _BYPASSED) if silent[why]]


def _named(paths: list[str]) -> str:
    return paths[0] if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"


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
