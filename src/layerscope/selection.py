"""Which modules are looked at, and why some of them never run."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from layerscope.hooks import aliases, everything, tappable
from layerscope.sites import choose

__all__ = ["Selection", "absent", "select"]


@dataclass(frozen=True)
class Selection:
    """`paths` of the chosen layers, tied ones by their first path; `unmet`: patterns that select no module."""

    paths: list[str]
    unmet: list[str]
    notes: list[str]


def select(model: nn.Module, patterns: Sequence[str], lenient: bool = False) -> Selection:
    """The layers that the patterns select, every leaf if there are none.

    `lenient`: a pattern may select nothing, for it may mean a function. Raises NoMatch.
    """
    rows = [(path, type(module).__name__, leaf) for path, module, leaf in everything(model)]
    other = aliases(model)
    kinds = {path: (kind, leaf) for path, kind, leaf in rows}
    table = rows + [(path, *kinds[first]) for path, first in other.items() if first in kinds]
    unmet = [pattern for pattern in patterns if lenient and not _selects(pattern, table)]
    met = [pattern for pattern in patterns if pattern not in unmet]
    chosen = choose(met, table) if patterns else [path for path, _, leaf in rows if leaf]
    tied = [path for path in other if path.rpartition(".")[0] not in other]
    notes = [f"{path} is the same module as {other[path]}: its calls are listed there" for path in tied[:3]]
    if len(tied) > 3:
        notes.append(f"{len(tied) - 3} more paths lead to modules that are listed once")
    return Selection(list(dict.fromkeys(other.get(path, path) for path in chosen)), unmet, notes)


def _selects(pattern: str, table: list[tuple[str, str, bool]]) -> bool:
    return any(fnmatchcase(path, pattern) or fnmatchcase(kind, pattern) for path, kind, _ in table)


def absent(model: nn.Module, chosen: Iterable[str], ran: Counter[str]) -> tuple[list[str], list[str]]:
    """The chosen modules that never ran, and why where it can be told."""
    never = [path for path in chosen if not ran[path]]
    open_ = {path for path, _, _ in tappable(model)}
    modules = {path: module for path, module, _ in everything(model)}
    inside, bypassed = [], []
    for path in never:
        above, _, name = path.rpartition(".")
        if path not in open_:
            inside.append(path)
        elif _bypasses(type(modules.get(above, model)), name):
            bypassed.append(path)
    notes = []
    if inside:
        notes.append(f"{_named(inside)} never ran: the module around computes with the weights by itself")
    if bypassed:
        notes.append(f"{_named(bypassed)} never ran: the code around calls .forward(), or takes the weights itself")
    return never, notes


def _named(paths: list[str]) -> str:
    return paths[0] if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"


def _bypasses(parent: type, child: str) -> bool:
    """Whether the source of the parent's forward uses a child otherwise than by calling it."""
    try:
        source = inspect.getsource(parent.forward)  # type: ignore[attr-defined]
    except (OSError, TypeError, AttributeError):
        return False
    return re.search(rf"\.{re.escape(child)}\.(forward\(|weight\b|bias\b)", source) is not None
