"""What a comparison counts, how it states its largest deviation, and the tables in docs/verification.md."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["PAGE", "Comparison", "table", "version", "write"]

PAGE = Path(__file__).parents[1] / "docs" / "verification.md"
#: exceptions that are spelled out; the others are counted
_NAMED = 8


@dataclass
class Comparison:
    """One line of a table: ours against theirs, over many cases.

    `unit`: the type whose units in the last place the deviation is told in. `limit`: how many of them are allowed; a
    deviation beyond it, NaN where the other is a number and unequal infinities are exceptions.
    """

    what: str
    against: str
    limit: float = 0.0
    unit: str = "float64"
    cases: int = 0
    values: int = 0
    unequal: int = 0
    absolute: float = 0.0
    size: float = 0.0  # of the values that the greatest absolute deviation is one of
    ulp: float = 0.0
    exceptions: list[str] = field(default_factory=list)

    def see(self, case: str, ours: Any, theirs: Any, scale: Any = None) -> None:
        """Compare two arrays of the same shape.

        scale: what one unit in the last place is taken of, the other's absolute value if None. For a sum of terms
        of either sign that is the mean of their sizes: the sum itself may be next to nothing.
        """
        a, b = (np.atleast_1d(np.asarray(one)) for one in (ours, theirs))
        self.cases += 1
        self.values += a.size
        if a.shape != b.shape:
            self.exceptions.append(f"{case}: shape {a.shape}, not {b.shape}")
            return
        if np.array_equal(a, b):
            return
        different = ~((a == b) | ((a != a) & (b != b)))
        if not different.any():
            return
        size = np.broadcast_to(np.abs(b) if scale is None else np.atleast_1d(scale), a.shape)[different]
        a, b = (np.asarray(one[different], np.float64) for one in (a, b))
        self.unequal += a.size
        with np.errstate(invalid="ignore", over="ignore"):
            apart = np.abs(a - b)
            units = apart / np.maximum(_spacing(size, self.unit), np.finfo(np.float64).smallest_subnormal)
        broken = ~np.isfinite(apart)
        units[broken] = np.inf
        worst = int(units.argmax())
        self.ulp = max(self.ulp, float(units[worst]))
        if (~broken).any():
            most = int(np.where(broken, -1, apart).argmax())
            if apart[most] > self.absolute:
                self.absolute, self.size = float(apart[most]), float(abs(b[most]))
        if units[worst] > self.limit:
            self.exceptions.append(f"{case}: {a[worst]!r}, not {b[worst]!r}")

    def fail(self, case: str, why: str) -> None:
        """A case in which there was nothing to compare, though there should have been."""
        self.cases += 1
        self.exceptions.append(f"{case}: {why}")

    @property
    def row(self) -> str:
        """The line of the table."""
        deviation = ulp = "0"
        if self.absolute:
            deviation = f"{self.absolute:.2g} (of {self.size:.2g})"
        if self.ulp:
            ulp = f"{self.ulp:.2g} of {self.unit}" if math.isfinite(self.ulp) else "unequal"
        allowed = f"{self.limit:g}" if self.limit else "none"
        cells = (self.what, self.against, f"{self.cases:,}", f"{self.values:,}", f"{self.unequal:,}", deviation, ulp,
                 allowed, f"{len(self.exceptions):,}")  # fmt: skip
        return f"| {' | '.join(cells)} |"


def _spacing(size: NDArray, unit: str) -> NDArray[np.float64]:
    """The distance from each size to the next greater number of the type."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.spacing(np.abs(size).astype(unit)).astype(np.float64)


_HEAD = (
    "| what | against | cases | values | unequal | largest deviation | last places | allowed | exceptions |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)


def table(comparisons: Iterable[Comparison], notes: Iterable[str]) -> str:
    """The comparisons as Markdown, every exception below, and notes."""
    found = [one for one in comparisons if one.cases]
    lines = [_HEAD, *(one.row for one in found)]
    said = []
    for one in found:
        said += [f"- Exception, {one.what}: {text}" for text in one.exceptions[:_NAMED]]
        if len(one.exceptions) > _NAMED:
            said.append(f"- and {len(one.exceptions) - _NAMED} more exceptions of that kind")
    said += [f"- {note}" for note in notes]
    return "\n".join([*lines, "", *said]).rstrip()


def version(package: str) -> str:
    """`numpy 2.4.6`"""
    return f"{package} {metadata.version(package).partition('+')[0]}"


def write(name: str, text: str, page: Path = PAGE) -> None:
    """Put the text between the page's markers of that name. Raises ValueError if they are not there."""
    begin, end = f"<!-- {name}: measured -->", f"<!-- {name}: end -->"
    old = page.read_text()
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.S)
    if len(pattern.findall(old)) != 1:
        raise ValueError(f"{page.name}: expected one {begin} and one {end}")
    page.write_text(pattern.sub(lambda _: f"{begin}\n{text}\n{end}", old))
