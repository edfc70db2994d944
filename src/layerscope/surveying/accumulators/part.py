"""What is kept of a layer consists of parts; what they are updated with is the reduced output of a batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from layerscope.activations.layouts import Plan
from layerscope.errors import UsageError
from layerscope.stats import Columns, calls, total
from layerscope.stats.signatures import BINS, BLOCK

__all__ = ["Array", "Get", "Output", "Part", "Scratch"]

Array = NDArray[Any]
#: name, types, shape with None for any size -> the array; raises KeyError or ValueError where it is another
Get = Callable[[str, tuple[Any, ...], tuple[int | None, ...]], Array]


class Scratch:
    """Memory that is used for one layer after the other: new memory has to be cleared by the system each time."""

    def __init__(self) -> None:
        self.bins = np.zeros(8 * BINS + BLOCK, np.uint16)
        self._table, self._counts = np.empty(0), np.zeros(0, np.uint32)

    def table(self, columns: int) -> Array:
        """float64 (8, columns) of anything."""
        if self._table.size < 8 * columns:
            self._table = np.empty(8 * columns)
        return self._table[: 8 * columns].reshape(8, columns)

    def counts(self, shape: tuple[int, ...]) -> Array:
        """uint32 zeros (C, signs, width)."""
        if len(self._counts) < shape[0] * 2 * BINS:
            self._counts = np.zeros(shape[0] * 2 * BINS, np.uint32)
        counts = self._counts[: np.prod(shape)].reshape(shape)
        counts[:] = 0
        return counts


class Output(NamedTuple):
    """values float32 (R, C, N), or (R, N, C) when `last`. table (8, B*C): statistics of every image and channel, as
    the kernels write them. each: rows of values that make an image. skip, grid: see `layouts.Plan`; across: windows
    side by side."""

    values: NDArray[np.float32]
    table: Array
    last: bool
    each: int
    channels: int
    skip: int
    grid: tuple[int, int]
    across: int

    @classmethod
    def reduced(cls, values: NDArray[np.float32], last: bool, plan: Plan, images: int, scratch: Scratch) -> Output:
        """The values of so many images. Raises UsageError for an image of more values than exact sums take."""
        rows, size, channels = values.shape if last else (len(values), values.shape[2], values.shape[1])
        table = scratch.table(rows * channels)
        if last:
            calls.channels_last(values, table)
        else:
            calls.rows(values.reshape(-1), size, table)
        each = rows // images
        if size * each >= 1 << 31:  # the products of the exact sums would not fit
            raise UsageError(
                f"{size * each} values of one channel in one image; give smaller images, or leave the layer out"
            )
        if each > 1:
            table = _table(total(calls.columns(table, images, each, channels), axis=1))
        across = plan.windows[1] if each == plan.windows[0] * plan.windows[1] else 1
        return cls(values, table, last, each, channels, plan.prefix_tokens, plan.grid, across)

    @property
    def by_row(self) -> Array:
        """The table with a column for every row of values and channel: what is known of an image, for its windows."""
        if self.each == 1:
            return self.table
        shape = (8, len(self.values) // self.each, 1, self.channels)
        return np.repeat(self.table.reshape(shape), self.each, axis=2).reshape(8, -1)


def _table(columns: Columns) -> Array:
    """Columns (B, C) as the kernels take them."""
    floats = np.stack(columns.floats).reshape(4, -1)
    counts = np.stack(columns.counts).reshape(4, -1)
    return np.concatenate([floats, counts.astype(np.int64).view(np.float64)])


class Part(ABC):
    """One of the things that are kept of a layer. It has `update` of its own, and `compute` for what is read from it.

    ARRAYS: its arrays, which it is made of, by their names: types and shape, "C" for channels, None for any size.
    """

    ARRAYS: ClassVar[dict[str, tuple[tuple[Any, ...], tuple[Any, ...]]]]

    @property
    def form(self) -> Any:
        """What is equal where two can be merged."""
        return None

    def settle(self) -> None:  # noqa: B027 - most have nothing to do
        """Give it the one form that equal parts have, after it was updated and before anything else."""

    @abstractmethod
    def merge(self, other: Self) -> Self:
        """What is known of the images of both."""

    def check(self) -> None:  # noqa: B027
        """Raises ValueError where arrays of the right shapes contradict each other."""

    def arrays(self) -> dict[str, Array]:
        """What is written."""
        return {name: np.asarray(getattr(self, name)) for name in self.ARRAYS}

    @classmethod
    def restore(cls, get: Get, channels: int) -> Self:
        """The way back. Raises what `get` raises."""
        sizes = {name: tuple(channels if n == "C" else n for n in shape) for name, (_, shape) in cls.ARRAYS.items()}
        return cls(**{name: get(name, types, sizes[name]) for name, (types, _) in cls.ARRAYS.items()})
