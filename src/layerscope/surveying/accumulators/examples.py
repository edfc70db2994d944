"""The images that excite each channel most, in a form that merges in any order.

An entry is ranked by one integer: the bits of the channel's maximum over the image in an order-preserving form, then
2**32 - 1 less the image's number, so that of equal maxima the smaller number comes first. An image on which the channel
is zero everywhere, or has a value that is not finite, is no example.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from layerscope.records.maps import Maps
from layerscope.records.profiles import Examples
from layerscope.stats import survey_calls
from layerscope.surveying.accumulators.part import Array, Get, Output, Part

__all__ = ["NONE", "WINDOW", "BestExamples"]

#: key of a place in a list that is not taken
NONE = np.iinfo(np.int64).min
#: sides of the surroundings that are kept of a maximum, in cells of the map
WINDOW = 8


def _window(grid: tuple[int, int]) -> tuple[int, int]:
    return min(WINDOW, grid[0]), min(WINDOW, grid[1])


class BestExamples(Part):
    """The best images of C channels, at most k each, best first.

    key int64 (C, k). at int16 (C, k, 2): row and column of the maximum, the first in reading order, -1 if it is at a
    token that has no place. low float32 (C, k): the map's minimum. codes uint8 (C, k, h*w): the surroundings, where
    code 0 is the minimum and 254 the maximum. grid: height and width of a map, or of one of the windows it is made of.
    What belongs to no entry is 0. Until `settle` all but the keys lies in slots uint8 (C, k): only what is new moves.
    """

    ARRAYS = {  # noqa: RUF012 - typed in Part
        "key": ((np.int64,), ("C", None)),
        "at": ((np.int16,), (None, 2)),  # of the places that are taken, as the next two
        "low": ((np.float32,), (None,)),
        "codes": ((np.uint8,), (None, None)),
        "grid": ((np.int64,), (2,)),
    }

    def __init__(self, key: Array, at: Array, low: Array, codes: Array, grid: Sequence[int] | Array) -> None:
        self.key, self.at, self.low, self.codes = key, at, low, codes
        self.grid = int(grid[0]), int(grid[1])
        self._slots = np.tile(np.arange(key.shape[1], dtype=np.uint8), (len(key), 1))
        #: least key that can be among the best, (C,)
        self.floor = np.full(len(key), NONE + 1, np.int64)

    @classmethod
    def empty(cls, channels: int, top: int, grid: tuple[int, int]) -> BestExamples:
        """Of no image."""
        key, at = np.full((channels, top), NONE, np.int64), np.zeros((channels, top, 2), np.int16)
        high, wide = _window(grid)
        return cls(
            key, at, np.zeros((channels, top), np.float32), np.zeros((channels, top, high * wide), np.uint8), grid
        )

    @property
    def top(self) -> int:
        """k"""
        return self.key.shape[1]

    @property
    def taken(self) -> NDArray[np.bool_]:
        """Which places have an entry (C, k)."""
        return self.key != NONE

    @property
    def image(self) -> NDArray[np.int64]:
        """Numbers in the data set (C, k); -1 where there is none."""
        return np.where(self.taken, 0xFFFFFFFF - (self.key & 0xFFFFFFFF), -1)

    @property
    def value(self) -> NDArray[np.float32]:
        """The channel's maxima (C, k); NaN where there is no entry."""
        bits = (self.key >> 32).astype(np.int32)
        bits ^= (bits >> 31) & 0x7FFFFFFF
        return np.where(self.taken, bits.view(np.float32), np.float32(np.nan))

    @property
    def position(self) -> NDArray[np.int32]:
        """Row and column of each maximum in the map, (C, k, 2)."""
        return self.at.astype(np.int32)

    @property
    def window(self) -> tuple[int, int]:
        """Height and width of the surroundings."""
        return _window(self.grid)

    @property
    def corner(self) -> NDArray[np.int32]:
        """Row and column of the map where the surroundings begin, (C, k, 2)."""
        at = np.maximum(self.position, 0)
        grid, window = np.array(self.grid, np.int32), np.array(self.window, np.int32)
        inside = np.clip(at % grid - window // 2, 0, grid - window)
        return np.asarray(at // grid * grid + inside, np.int32)

    @property
    def maps(self) -> NDArray[np.uint8]:
        """The surroundings as (C, k, h, w)."""
        return self.codes.reshape(*self.key.shape, *self.window)

    def update(self, output: Output, numbers: NDArray[np.int64]) -> None:
        """Add the images of one batch, which have these numbers in the data set."""
        size = output.values.shape[1 if output.last else 2]
        sizes = len(numbers), output.each, output.channels, size, output.last
        places = output.skip, *self.grid, output.across, *self.window
        lists = self.key, self._slots, self.at, self.low, self.codes
        layout = np.array((*sizes, *places), np.int64)
        survey_calls.enlist(output.values.reshape(-1), output.table, numbers, layout, self.floor, lists)

    @property
    def form(self) -> tuple[int, tuple[int, int]]:
        return self.top, self.grid

    def settle(self) -> None:
        rows, slots = np.arange(len(self.key))[:, None], self._slots
        # Slots that no entry was written to are still zeros.
        self.at, self.low, self.codes = self.at[rows, slots], self.low[rows, slots], self.codes[rows, slots]
        self._slots = np.sort(slots, axis=1)

    def merge(self, other: BestExamples) -> BestExamples:
        if not other.taken.any():
            return self
        key = np.concatenate([self.key, other.key], 1)  # (C, 2k)
        order = np.argsort(key, axis=1, kind="stable")[:, : -self.top - 1 : -1]
        rows = np.arange(len(key))[:, None]

        def best(ours: Array, theirs: Array) -> Array:
            return np.concatenate([ours, theirs], 1)[rows, order]

        rest = best(self.at, other.at), best(self.low, other.low), best(self.codes, other.codes)
        return BestExamples(key[rows, order], *rest, self.grid)

    def compute(self) -> tuple[list[Maps], Examples]:
        """The surroundings of the best, second best, ... as maps, and where they are."""
        # A map without an example has no range at all.
        high = self.value
        low, shape = np.where(np.isnan(high), high, self.low), (len(high), *self.window)
        maps = [
            Maps(low[:, place], high[:, place], shape, np.ascontiguousarray(self.maps[:, place]))
            for place in range(self.top)
        ]
        return maps, Examples(self.image, np.nan_to_num(high, nan=0.0), self.position, self.corner)

    def arrays(self) -> dict[str, Array]:
        # Most chunks have few images that are among the best of all before them.
        taken = self.taken
        return super().arrays() | {name: getattr(self, name)[taken] for name in ("at", "low", "codes")}

    @classmethod
    def restore(cls, get: Get, channels: int) -> BestExamples:
        packed = super().restore(get, channels)
        whole, taken = cls.empty(channels, packed.top, packed.grid), packed.taken
        for name in ("at", "low", "codes"):
            rows, places = getattr(packed, name), getattr(whole, name)
            if rows.shape != places[taken].shape:
                raise ValueError(f"{name} of best images are {rows.shape}, not {places[taken].shape}")
            places[taken] = rows
        whole.key = packed.key
        return whole

    def check(self) -> None:
        if min(self.grid) < 1 or (self.key[:, 1:] > self.key[:, :-1]).any():
            raise ValueError(f"best images out of order, or on maps of {self.grid}")
