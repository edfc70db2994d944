"""Histograms that merge exactly: bins of float bits, the same for every channel of every network.

A bin is named by sign, exponent and the first three bits of the mantissa, so that none is wider than an eighth of its
values. What is smaller than 2**-32 is in no bin and is counted by what is missing; all that is 1.75 * 2**31 or more
shares the last bin of its sign.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layerscope.stats.signatures import BINS, FIRST_BIN

__all__ = ["Bins", "narrow"]

Array = NDArray[Any]

#: bins a sign, without the tiny
_SIDE = BINS - 1


def narrow(counts: Array) -> Array:
    """The same counts in the narrowest type that holds them: the one form that equal counts have."""
    return counts.astype(_holding(int(counts.max(initial=0))), copy=False)


def _holding(most: int) -> type[np.integer[Any]]:
    return np.uint16 if most < 1 << 16 else np.uint32 if most < 1 << 32 else np.int64


@dataclass(frozen=True)
class Bins:
    """counts (C, n) of bins first, first + 1, ... in the order of values: 0 to 510 negative, 511 to 1021 positive.

    The first and the last of the n have a value in some channel; n is 0 where none has.
    """

    first: int
    counts: Array

    @classmethod
    def of(cls, counters: NDArray[np.uint32]) -> Bins:
        """From the kernel's counters (C, signs, width), positive first, tiny ones at 0."""
        _, signs, width = counters.shape
        if signs == 1:
            return cls._trimmed(_SIDE, counters[:, 0, 1:])
        return cls._trimmed(_SIDE - width + 1, np.concatenate([counters[:, 1, :0:-1], counters[:, 0, 1:]], 1))

    @classmethod
    def _trimmed(cls, first: int, counts: Array) -> Bins:
        used = np.flatnonzero(counts.any(0))
        if not len(used):
            return cls(0, np.zeros((len(counts), 0), np.uint16))
        # Not a part of an array that is larger, and would be kept for its sake.
        return cls(first + int(used[0]), np.ascontiguousarray(narrow(counts[:, used[0] : used[-1] + 1])))

    @property
    def numbers(self) -> NDArray[np.int64]:
        """The bins as `profiles.edges_of` numbers them (n,)."""
        at = self.first + np.arange(self.counts.shape[1])
        size = np.where(at < _SIDE, _SIDE - at, at - _SIDE + 1) + FIRST_BIN
        return np.where(at < _SIDE, 2047 - size, 2048 + size)

    def fits(self, other: Bins) -> None:
        """Any two do: bins are the same everywhere."""

    def merge(self, other: Bins) -> Bins:
        """The sum of both."""
        if not other.counts.shape[1]:
            return self
        if not self.counts.shape[1]:
            return other
        first = min(self.first, other.first)
        end = max(one.first + one.counts.shape[1] for one in (self, other))
        kind = _holding(int(self.counts.max()) + int(other.counts.max()))  # half the memory of int64, or a quarter
        total = np.zeros((len(self.counts), end - first), kind)
        for one in (self, other):
            total[:, one.first - first : one.first - first + one.counts.shape[1]] += one.counts.astype(kind, copy=False)
        return Bins(first, narrow(total))

    def arrays(self) -> dict[str, Array]:
        """What is written."""
        return {"bins": self.counts}

    @classmethod
    def restore(cls, get: Callable[..., Array], channels: int, first: int) -> Bins:
        """The way back; `get(name, dtype, shape)` checks what it hands out. Raises RecordError."""
        counts = get("bins", (np.uint16, np.uint32, np.int64), (channels, None))
        if not 0 <= first <= 2 * _SIDE - counts.shape[1]:
            raise ValueError(f"{counts.shape[1]} bins from {first} on are out of range")
        return cls(first, counts)
