"""Where a tensor lives in a network or checkpoint, which of its axes are the channels, and choosing by pattern."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from layerscope.errors import NoMatch
from layerscope.text import nearest

__all__ = ["Site", "choose"]


@dataclass(frozen=True, slots=True)
class Site:
    """A dotted module path (or the name of a tensor), which call of it, and the meaning of the axes.

    `call` counts from 0: one ReLU module of a ResNet block fires twice a pass.
    `layout` has one letter an axis: N batch, C channels, D H W space, L tokens; O I for the output and input
    channels of a kernel. At most one of C and O is there.
    """

    path: str
    call: int = 0
    layout: str = ""

    @property
    def key(self) -> str:
        """The name that is unique within a record: `layer1.0.relu`, and `layer1.0.relu:1` for its second call."""
        return f"{self.path}:{self.call}" if self.call else self.path

    @property
    def channel_axis(self) -> int | None:
        """Index of the channel axis; None where the layout has none."""
        for letter in "CO":
            if letter in self.layout:
                return self.layout.index(letter)
        return None


def choose(patterns: Sequence[str], layers: Iterable[tuple[str, str, bool]], what: str = "layer") -> list[str]:
    """Paths of the layers that the patterns select, in the order of the network.

    `layers` are (path, type, leaf). A pattern is a glob over the path or the type, such as `layer1*` or `Conv2d`.
    It selects leaves; a pattern that matches no leaf selects the containers that it matches, so that `layer1`
    means the output of the whole stage. Raises NoMatch with the nearest names for a pattern that selects nothing.
    """
    table = list(layers)
    chosen: set[str] = set()
    for pattern in patterns:
        matched = [
            (path, leaf) for path, kind, leaf in table if fnmatchcase(path, pattern) or fnmatchcase(kind, pattern)
        ]
        if not matched:
            known = [path for path, _, _ in table] + sorted({kind for _, kind, _ in table})
            several = "; give each on its own" if "," in pattern else ""
            raise NoMatch(f"no {what} matches {pattern!r}{several or nearest(pattern, known) or '; there are none'}")
        leaves = [path for path, leaf in matched if leaf]
        chosen.update(leaves or [path for path, _ in matched])
    return [path for path in dict.fromkeys(path for path, _, _ in table) if path in chosen]
