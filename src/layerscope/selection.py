"""Which layers are meant: by paths, globs, types and module objects; and why some of them never ran."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from glob import escape
from typing import TypeAlias

from torch import nn

from layerscope.errors import NoMatch, UsageError
from layerscope.modules import BYPASSED, CLOSED, Table
from layerscope.sites import choose
from layerscope.text import nearest

__all__ = ["LayerLike", "Layers", "Selection", "absent", "is_layers", "select"]

#: a glob over paths or types, a class of modules, or a module of the network
LayerLike: TypeAlias = str | type[nn.Module] | nn.Module
Layers: TypeAlias = LayerLike | Iterable[LayerLike]
_KINDS = (str, type, nn.Module)


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
    silent: dict[str, list[str]] = {CLOSED: [], BYPASSED: [], "": []}
    for path in never:
        silent[table.why_silent(path)].append(path)
    return never, [f"{_named(silent[why])} never ran: {why}" for why in (CLOSED, BYPASSED) if silent[why]]


def _named(paths: list[str]) -> str:
    return paths[0] if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
