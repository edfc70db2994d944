"""The arrays of a record's file: of the kind that is expected, each given once, none of a file that has changed."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from layerscope.errors import RecordError
from layerscope.stats import Columns
from layerscope.text import printable

__all__ = ["Arrays", "Packed"]

#: where the statistics of all tensors as a whole are: hundreds of arrays of one column would take longer than the rest
_TOTALS = "totals"


class Packed:
    """What becomes a file: arrays by their names."""

    def __init__(self, arrays: dict[str, NDArray]) -> None:
        self.arrays = arrays
        self._totals: list[Columns] = []

    def put(self, name: str, array: ArrayLike, dtype: type[np.generic]) -> str:
        """Add an array; its name."""
        self.arrays[name] = np.ascontiguousarray(array, dtype)
        return name

    def statistics(self, name: str, columns: Columns) -> str:
        """Add NAME.floats and NAME.counts; the name."""
        self.put(f"{name}.floats", np.array(columns.floats).reshape(4, -1), np.float64)
        self.put(f"{name}.counts", np.array(columns.counts).reshape(4, -1), np.int64)
        return name

    def total(self, columns: Columns) -> int:
        """Add the statistics of a whole tensor; their place in the table of all of them, which `close` adds."""
        self._totals.append(columns)
        return len(self._totals) - 1

    def close(self) -> None:
        """Add what has been collected."""
        if self._totals:
            self.statistics(_TOTALS, Columns(*map(np.concatenate, zip(*self._totals, strict=True))))


class Arrays:
    """The arrays of an open safetensors file by their names, and its `text`.

    What is made of a file is no larger than the file, for each array is given once. A file that another program has
    written over since it was opened is not read any further: where it is shorter now, reading the rest of what is
    mapped would end the process. `sizes`: of the axes that have been read, by their letters.
    """

    def __init__(self, path: str) -> None:
        from safetensors import safe_open

        opened: Any = safe_open  # it has no types
        self._path, self._names = path, set[str]()
        self._handle = opened(path, framework="numpy")
        self._state = self._now()
        self.text: str = (self._handle.metadata() or {})["layerscope"]
        self.sizes: dict[str, int] = {}
        self._totals: Columns | None = None

    def read(self, name: str, dtype: type[np.generic], axes: str) -> NDArray:
        """An array; axes as letters and sizes: `C h w`. Raises ValueError where it is of another kind or size."""
        self._shape(name, dtype, axes)
        return self._read(name)

    def later(self, name: str, dtype: type[np.generic], axes: str) -> tuple[tuple[int, ...], Callable[[], NDArray]]:
        """The sizes of an array, and what reads it: it raises RecordError for a file that has changed."""
        return self._shape(name, dtype, axes), lambda: self._read(name)

    def statistics(self, name: str, channels: str) -> Columns:
        """NAME.floats and NAME.counts; channels: a letter or size. Raises ValueError for what cannot be statistics."""
        axes = f"4 {channels}"
        floats, counts = self.read(f"{name}.floats", np.float64, axes), self.read(f"{name}.counts", np.int64, axes)
        if (counts < 0).any() or (floats[1] < 0).any():
            raise ValueError(": a count or a sum of squares below zero")
        return Columns.of(floats, counts)

    def total(self, at: Any) -> Columns:
        """The statistics of a whole tensor; at: their place in the table, in schema 1 a name of their own."""
        if isinstance(at, str):
            return self.statistics(at, "1")
        if self._totals is None:
            self._totals = self.statistics(_TOTALS, "T")
        if type(at) is not int or not 0 <= at < len(self._totals.count):
            raise ValueError(f" is not one of the {len(self._totals.count)} columns of {_TOTALS}")
        return self._totals.take(np.s_[at : at + 1])

    def _shape(self, name: str, dtype: Any, axes: str) -> tuple[int, ...]:
        if name in self._names:
            raise ValueError(f": {name} is used twice")
        self._names.add(name)
        part, (kind, letters) = self._handle.get_slice(name), _expected(dtype, axes)
        shape = tuple(part.get_shape())
        if part.get_dtype() != kind or len(shape) != len(letters):
            raise ValueError(f": {name} is {part.get_dtype()} of {len(shape)} axes, not {kind} of {len(letters)}")
        for (letter, fixed), size in zip(letters, shape, strict=True):
            if size != (fixed or self.sizes.setdefault(letter, size)):
                raise ValueError(f": {name} has axes of {shape}, which do not fit {axes!r} of what stands beside it")
        return shape

    def _read(self, name: str) -> NDArray:
        self._unchanged()
        array = self._handle.get_tensor(name)
        return np.asarray(array)

    def _now(self) -> tuple[int, ...]:
        state = os.stat(self._path)  # noqa: PTH116  a Path costs as much again, for every array
        return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns

    def _unchanged(self) -> None:
        try:
            now = self._now()
        except OSError:
            return  # its name is gone; what is mapped stays
        if now[:2] == self._state[:2] and now != self._state:
            raise RecordError(f"{printable(self._path)}: has been written over since it was opened; open it again")


@cache
def _expected(dtype: Any, axes: str) -> tuple[str, list[tuple[str, int]]]:
    """The element type as safetensors names it; of each axis its letter, or its size."""
    kind = np.dtype(dtype)
    letters = [("", int(axis)) if axis.isdigit() else (axis, 0) for axis in axes.split()]
    return f"{kind.kind.upper()}{kind.itemsize * 8}", letters
