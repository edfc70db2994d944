"""One layer while it is measured: counters that kernels add to, until they become a part of a state."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from layerscope.sites import Site
from layerscope.stats import survey_calls
from layerscope.stats.signatures import BINS, BLOCK, LIMBS
from layerscope.surveying.bins import Bins
from layerscope.surveying.exact import settled
from layerscope.surveying.examples import NONE, WINDOW, Examples
from layerscope.surveying.pooled import Pooled
from layerscope.surveying.state import LayerState

__all__ = ["Seen", "Working"]

Array = NDArray[Any]

#: bins from one power of two to the next
_OCTAVE = 8


class Seen(NamedTuple):
    """An output, reduced.

    values float32 (R, C, N), or (R, N, C) when `last`. table (8, B*C), of every image and channel. each: rows of values
    that make an image. skip, grid: see `layouts.Plan`; across: windows side by side.
    """

    values: NDArray[np.float32]
    table: Array
    last: bool
    each: int
    channels: int
    skip: int
    grid: tuple[int, int]
    across: int


class Working:
    """What is known of one layer since the last state."""

    def __init__(
        self, site: Site, kind: str, shape: tuple[int, ...], dtype: str, note: str, seen: Seen, top: int
    ) -> None:
        channels = seen.channels
        self.site, self.kind, self.shape, self.dtype, self.note = site, kind, shape, dtype, note
        self.channels, self.grid = channels, seen.grid
        self.rank = self.images = 0
        self.gram = self.mixed = False
        self.ints = np.zeros((5, channels), np.int64)
        self.ends = np.full((2, channels), np.nan)
        self.sums = np.zeros((channels, LIMBS), np.int64)
        self.floor = np.full(channels, NONE + 1, np.int64)
        self.examples: tuple[Array, Array, Array, Array, Array] | None = None
        if top:
            self.examples = _lists(channels, top, seen.grid)
        self.counters: Array | None = None  # uint32 (C, signs, width), of at most `counted` values a channel
        self.counted = 0
        self.bins: Bins | None = None  # what the counters held before they were full
        self.delta: Array | None = None
        self.rectified = False

    @staticmethod
    def room() -> Array:
        """Where the kernel counts; shared by all layers."""
        return np.zeros(8 * BINS + BLOCK, np.uint16)

    def begin_counting(self) -> None:
        """A histogram from now on."""
        self.counters = np.zeros((self.channels, 1, 1), np.uint32)
        self.counted = 0

    def _room_for(self, seen: Seen) -> Array:
        """The counters, with the signs and bins that these values need: most layers need less than half of them all."""
        assert self.counters is not None
        signs, width = survey_calls.reach(seen.table)
        _, had_signs, had_width = self.counters.shape
        if signs > had_signs or width > had_width:
            width = min(-(-width // _OCTAVE) * _OCTAVE, BINS)
            wider = np.zeros((self.channels, max(signs, had_signs), max(width, had_width)), np.uint32)
            wider[:, :had_signs, :had_width] = self.counters
            self.counters = wider
        return self.counters

    def _histogram(self) -> Bins | None:
        if self.counters is None:
            return None
        found = Bins.of(self.counters)
        return self.bins.merge(found) if self.bins else found

    def add(self, seen: Seen, numbers: NDArray[np.int64]) -> None:
        """The images of one batch."""
        survey_calls.fold(seen.table, self.channels, self.ints, self.ends, self.sums)
        if self.examples is None:
            return
        height, width = seen.grid
        size = seen.values.shape[1 if seen.last else 2]
        window = min(WINDOW, height), min(WINDOW, width)
        sizes = (
            len(numbers),
            seen.each,
            self.channels,
            size,
            seen.last,
            seen.skip,
            height,
            width,
            seen.across,
            *window,
        )
        layout = np.array(sizes, np.int64)
        survey_calls.enlist(seen.values.reshape(-1), seen.table, numbers, layout, self.floor, self.examples)

    def make_room(self, values: int) -> None:
        """Empty the counters before so many values more could be too many for one of them."""
        if self.counted + values >= 1 << 32:
            self.bins = self._histogram()
            self.begin_counting()
        self.counted += values

    def count(self, seen: Seen, room: Array, delta: Array) -> None:
        """The values of one batch into the histogram. delta (C*2*BINS or more,): room for what this batch adds."""
        counters = self._room_for(seen)
        values = np.ascontiguousarray(seen.values.swapaxes(1, 2)) if seen.last else seen.values
        rows = seen.values.shape[0]
        table = seen.table
        if seen.each > 1:  # rows of the table are images, those of the values windows
            shape = (8, rows // seen.each, 1, self.channels)
            table = np.repeat(seen.table.reshape(shape), seen.each, axis=2).reshape(8, -1)
        self.delta = delta[: counters.size].reshape(counters.shape) if self.rectified else None
        if self.delta is not None:
            self.delta[:] = 0
        survey_calls.spectrum(values.reshape(-1), table, self.channels, counters, self.delta, room)

    def rectify(self, source: Working, seen: Seen) -> bool:
        """Add the values of a batch, max(x, 0) of what `source` has just counted; False if it has not kept that."""
        if source.delta is None or source.channels != self.channels:
            source.rectified = True  # it will from the next batch on
            return False
        counters = self._room_for(seen)
        width = min(counters.shape[2], source.delta.shape[2])
        counters[:, 0, :width] += source.delta[:, 0, :width]
        source.delta = None  # the room is everyone's
        return True

    def state(self, pooled: Pooled | None) -> LayerState:
        """In canonical form."""
        examples = Examples.of(*self.examples, self.grid) if self.examples is not None else None
        found = LayerState(
            self.site,
            self.kind,
            self.shape,
            self.dtype,
            self.note,
            self.rank,
            self.images,
            self.ints,
            self.ends,
            settled(self.sums),
            examples=examples,
            bins=self._histogram(),
            pooled=pooled,
        )
        return found.emptied() if self.mixed else found


def _lists(channels: int, top: int, grid: tuple[int, int]) -> tuple[Array, Array, Array, Array, Array]:
    """Empty lists of the best: keys, slots, at, low, codes."""
    cells = min(WINDOW, grid[0]) * min(WINDOW, grid[1])
    keys = np.full((channels, top), NONE, np.int64)
    slots = np.tile(np.arange(top, dtype=np.uint8), (channels, 1))
    at, low = np.zeros((channels, top, 2), np.int16), np.zeros((channels, top), np.float32)
    return keys, slots, at, low, np.zeros((channels, top, cells), np.uint8)
