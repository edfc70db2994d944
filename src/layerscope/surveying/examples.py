"""The images that excite each channel most, in a form that merges in any order.

An entry is ranked by one integer: the bits of the channel's maximum over the image in an order-preserving form, then
2**32 - 1 less the image's number, so that of equal maxima the smaller number comes first. An image on which the channel
is zero everywhere, or has a value that is not finite, is no example.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layerscope.errors import RecordError

__all__ = ["NONE", "WINDOW", "Examples"]

Array = NDArray[Any]

#: key of a place in a list that is not taken
NONE = np.iinfo(np.int64).min
#: sides of the surroundings that are kept of a maximum, in cells of the map
WINDOW = 8


@dataclass(frozen=True)
class Examples:
    """The best images of C channels, at most k each, best first.

    key int64 (C, k). at int16 (C, k, 2): row and column of the maximum, the first in reading order, -1 if it is at a
    token that has no place. low float32 (C, k): the map's minimum. codes uint8 (C, k, h*w): the surroundings, where
    code 0 is the minimum and 254 the maximum. grid: height and width of a map, or of one of the windows it is made of.
    What belongs to no entry is 0.
    """

    key: NDArray[np.int64]
    at: NDArray[np.int16]
    low: NDArray[np.float32]
    codes: NDArray[np.uint8]
    grid: tuple[int, int]

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
        return min(WINDOW, self.grid[0]), min(WINDOW, self.grid[1])

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

    @classmethod
    def of(cls, key: Array, slots: Array, at: Array, low: Array, codes: Array, grid: tuple[int, int]) -> Examples:
        """Entries whose rest lies in slots (C, k)."""
        rows = np.arange(len(key))[:, None]
        # Slots that no entry was written to are still zeros.
        return cls(key, at[rows, slots], low[rows, slots], codes[rows, slots], grid)

    def fits(self, other: Examples) -> None:
        """Raises RecordError where they were not made alike."""
        if self.top != other.top or self.grid != other.grid:
            raise RecordError(
                f"the best {self.top} images on maps of {self.grid} and {other.top} on {other.grid} do not merge; "
                f"survey all images in the same way"
            )

    def merge(self, other: Examples) -> Examples:
        """The best of both. Raises RecordError where they were not made alike."""
        self.fits(other)
        if not other.taken.any():
            return self
        key = np.concatenate([self.key, other.key], 1)  # (C, 2k)
        order = np.argsort(key, axis=1, kind="stable")[:, : -self.top - 1 : -1]
        rows = np.arange(len(key))[:, None]

        def best(mine: Array, theirs: Array) -> Array:
            return np.concatenate([mine, theirs], 1)[rows, order]

        joined = best(self.at, other.at), best(self.low, other.low), best(self.codes, other.codes)
        return Examples(key[rows, order], *joined, self.grid)

    def arrays(self) -> dict[str, Array]:
        """What is written: keys, and the rest for places that are taken."""
        taken = self.taken
        return {"key": self.key, "at": self.at[taken], "low": self.low[taken], "codes": self.codes[taken]}

    @classmethod
    def restore(cls, get: Callable[..., Array], channels: int, top: int, grid: tuple[int, int]) -> Examples:
        """The way back; `get(name, dtype, shape)` checks what it hands out. Raises RecordError."""
        key = get("key", np.int64, (channels, top))
        if (key[:, 1:] > key[:, :-1]).any():
            raise RecordError("best images out of order")
        taken = key != NONE
        many, cells = int(taken.sum()), min(WINDOW, grid[0]) * min(WINDOW, grid[1])

        def spread(array: Array) -> Array:
            whole = np.zeros((channels, top, *array.shape[1:]), array.dtype)
            whole[taken] = array
            return whole

        at, low = get("at", np.int16, (many, 2)), get("low", np.float32, (many,))
        return cls(key, spread(at), spread(low), spread(get("codes", np.uint8, (many, cells))), grid)
