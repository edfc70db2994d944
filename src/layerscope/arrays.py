"""The arrays of a record's file: of the kind that is expected, each given once, none of a file that has changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layerscope.errors import RecordError
from layerscope.text import printable

__all__ = ["Arrays"]


class Arrays:
    """The arrays of an open safetensors file by their names, and its `text`.

    What is made of a file is no larger than the file, for each array is given once. A file that another program has
    written over since it was opened is not read any further: where it is shorter now, reading the rest of what is
    mapped would end the process.
    """

    def __init__(self, path: str) -> None:
        from safetensors import safe_open

        opened: Any = safe_open  # it has no types
        self._path, self._file, self._given = path, Path(path), set[str]()
        self._handle = opened(path, framework="numpy")
        self._state = self._now()
        self.text: str = (self._handle.metadata() or {})["layerscope"]

    def read(self, name: str, kind: str, axes: int) -> NDArray:
        """An array; kind as safetensors names it. Raises ValueError where it is of another kind."""
        self._part(name, kind, axes)
        return self._read(name)

    def any(self, name: str) -> NDArray:
        """An array of whatever kind."""
        self._take(name)
        return self._read(name)

    def later(self, name: str) -> tuple[tuple[int, int, int], Callable[[], NDArray]]:
        """The sizes of some maps, and what reads them: it raises RecordError for a file that has changed."""
        channels, height, width = self._part(name, "U8", 3).get_shape()
        return (channels, height, width), lambda: self._read(name)

    def statistics(self, name: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """mean, m2, min, max (4, C) and count, zeros, nan, inf (4, C). Raises ValueError for what cannot be any."""
        floats, counts = self.read(f"{name}.floats", "F64", 2), self.read(f"{name}.counts", "I64", 2)
        if floats.shape != counts.shape or len(floats) != 4:
            raise ValueError(f"{name} has statistics of {floats.shape} and counts of {counts.shape}, not (4, channels)")
        if (counts < 0).any() or (floats[1] < 0).any():
            raise ValueError(f"{name} has a count or a sum of squares below zero")
        return floats, counts

    def _take(self, name: str) -> None:
        if name in self._given:
            raise ValueError(f"{name} is used twice")
        self._given.add(name)

    def _part(self, name: str, kind: str, axes: int) -> Any:
        self._take(name)
        part = self._handle.get_slice(name)
        if part.get_dtype() != kind or len(part.get_shape()) != axes:
            raise ValueError(f"{name} is {part.get_dtype()} of {len(part.get_shape())} axes, not {kind} of {axes}")
        return part

    def _read(self, name: str) -> NDArray:
        self._unchanged()
        array = self._handle.get_tensor(name)
        return np.asarray(array)

    def _now(self) -> tuple[int, ...]:
        found = self._file.stat()
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns

    def _unchanged(self) -> None:
        try:
            now = self._now()
        except OSError:
            return  # its name is gone; what is mapped stays
        if now[:2] == self._state[:2] and now != self._state:
            raise RecordError(f"{printable(self._path)}: has been written over since it was opened; open it again")
