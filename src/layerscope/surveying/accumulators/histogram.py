"""Histograms that merge exactly: bins of float bits, the same for every channel of every network.

A bin is named by sign, exponent and the first three bits of the mantissa, so that none is wider than an eighth of its
values. What is smaller than 2**-32 is in no bin and is counted by what is missing; all that is 1.75 * 2**31 or more
shares the last bin of its sign.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from layerscope.records.profiles import ChannelHistograms
from layerscope.stats import survey_calls
from layerscope.stats.signatures import BINS, FIRST_BIN
from layerscope.surveying.accumulators.part import Array, Output, Part, Scratch

__all__ = ["BitHistogram", "narrow"]

#: bins a sign, without the tiny
_SIDE = BINS - 1
#: bins from one power of two to the next
_OCTAVE = 8


def narrow(counts: Array, most: int | None = None) -> Array:
    """The same counts in the narrowest type that holds them, or `most`: the one form that equal counts have."""
    most = int(counts.max(initial=0)) if most is None else most
    return counts.astype(np.uint16 if most < 1 << 16 else np.uint32 if most < 1 << 32 else np.int64, copy=False)


class BitHistogram(Part):
    """bins (C, n): how many values are in the bins first, first + 1, ...: 0 to 510 negative, 511 to 1021 positive.

    The first and the last of the n have a value in some channel; n is 0 where none has. While it is updated the kernel
    adds to counters, uint32 (C, signs, width), positive first, tiny values at 0, which `settle` turns into counts.
    """

    ARRAYS = {"first": ((np.int64,), ()), "bins": ((np.uint16, np.uint32, np.int64), ("C", None))}  # noqa: RUF012

    def __init__(self, first: Any, bins: Array) -> None:
        self.first, self.bins = int(first), bins
        self._counters: Array | None = None
        self._values = 0  # that one counter may hold
        self._added: Array | None = None  # what the last batch added to the counters, if that is wanted
        self._wanted = False

    @classmethod
    def empty(cls, channels: int) -> BitHistogram:
        """Of no image."""
        return cls(0, np.zeros((channels, 0), np.uint16))

    def update(self, output: Output, scratch: Scratch) -> None:
        """Add the values of one batch."""
        counters = self._room_for(output)
        values = np.ascontiguousarray(output.values.swapaxes(1, 2)) if output.last else output.values
        self._added = scratch.counts(counters.shape) if self._wanted else None
        survey_calls.spectrum(values.reshape(-1), output.by_row, output.channels, counters, self._added, scratch.bins)

    def follow(self, source: BitHistogram, output: Output) -> bool:
        """Add max(x, 0) of the values that `source` was just updated with; False if it has not kept what they added."""
        if source._added is None or len(source.bins) != len(self.bins):
            source._wanted = True  # it will from the next batch on
            return False
        counters = self._room_for(output)
        width = min(counters.shape[2], source._added.shape[2])
        counters[:, 0, :width] += source._added[:, 0, :width]
        source._added = None  # the memory is everyone's
        return True

    def _room_for(self, output: Output) -> Array:
        """The counters, with the signs and bins that these values need: most layers need less than half of them all."""
        values = output.values.size // output.channels
        if self._values + values >= 1 << 32:
            self.settle()
        self._values += values
        signs, width = survey_calls.reach(output.table)
        shape = (len(self.bins), 1, 1) if self._counters is None else self._counters.shape
        if self._counters is None or signs > shape[1] or width > shape[2]:
            width = min(-(-width // _OCTAVE) * _OCTAVE, BINS)
            wider = np.zeros((shape[0], max(signs, shape[1]), max(width, shape[2])), np.uint32)
            if self._counters is not None:
                wider[:, : shape[1], : shape[2]] = self._counters
            self._counters = wider
        return self._counters

    def settle(self) -> None:
        counters, self._counters, self._values = self._counters, None, 0
        if counters is None:
            return
        _, signs, width = counters.shape
        first, counts = _SIDE, counters[:, 0, 1:]
        if signs == 2:
            first, counts = _SIDE - width + 1, np.concatenate([counters[:, 1, :0:-1], counts], 1)
        used = np.flatnonzero(counts.any(0))
        if not len(used):
            return
        # Not a part of an array that is larger, and would be kept for its sake.
        trimmed = np.ascontiguousarray(narrow(counts[:, used[0] : used[-1] + 1]))
        whole = self.merge(BitHistogram(first + int(used[0]), trimmed))
        self.first, self.bins = whole.first, whole.bins

    def merge(self, other: BitHistogram) -> BitHistogram:
        if not other.bins.shape[1]:
            return self
        if not self.bins.shape[1]:
            return other
        both = self, other
        first = min(part.first for part in both)
        end = max(part.first + part.bins.shape[1] for part in both)
        most = sum(int(part.bins.max()) for part in both)  # half the memory of int64, or a quarter
        total = narrow(np.zeros((len(self.bins), end - first), np.uint16), most)
        for part in both:
            at = part.first - first
            total[:, at : at + part.bins.shape[1]] += part.bins.astype(total.dtype, copy=False)
        return BitHistogram(first, narrow(total))

    def check(self) -> None:
        if not 0 <= self.first <= 2 * _SIDE - self.bins.shape[1]:
            raise ValueError(f"{self.bins.shape[1]} bins from {self.first} on are out of range")

    @property
    def numbers(self) -> NDArray[np.int64]:
        """The bins as `profiles.edges_of` numbers them (n,)."""
        at = self.first + np.arange(self.bins.shape[1])
        size = np.where(at < _SIDE, _SIDE - at, at - _SIDE + 1) + FIRST_BIN
        return np.where(at < _SIDE, 2047 - size, 2048 + size)

    def compute(self) -> ChannelHistograms:
        """The histograms of all channels."""
        return ChannelHistograms(self.numbers, self.bins.astype(np.int64))
