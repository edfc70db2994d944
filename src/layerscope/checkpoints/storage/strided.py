"""Where the elements of a tensor lie in a buffer, checked before anything is read."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from layerscope.dtypes import STORAGE, itemsize

from .errors import Damage, show

__all__ = ["Layout", "contiguous", "map_file", "shape_of"]

MAX_DIMENSIONS = 32  # numpy 1.26 has no more
MAX_ELEMENTS = 1 << 58
#: elements that a view may repeat out of a smaller storage; a file of one number could ask for a year of work
MAX_REPEATED = 1 << 31


def map_file(path: Path) -> mmap.mmap:
    """The whole file, mapped read-only."""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def shape_of(value: object) -> tuple[int, ...]:
    """`value` as the shape (or strides) of a tensor: not too many non-negative 64-bit integers."""
    if not isinstance(value, (tuple, list)) or len(value) > MAX_DIMENSIONS:
        raise Damage(f"a tensor has {show(value)} for its shape or strides, not up to {MAX_DIMENSIONS} numbers")
    for n in value:
        if type(n) is not int or not 0 <= n < 1 << 63:
            raise Damage(f"a tensor has {show(n)} in its shape or strides, not a number from 0 to 2**63 - 1")
    return tuple(value)


def contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of a dense tensor in C order, in elements."""
    return tuple(prod(shape[i + 1 :]) for i in range(len(shape)))


@dataclass(frozen=True, slots=True)
class Layout:
    """A tensor within a buffer: `offset` and `strides` count elements."""

    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0

    @classmethod
    def dense(cls, dtype: str, shape: tuple[int, ...]) -> Layout:
        """In C order, from the beginning of the buffer."""
        return cls(dtype, shape, contiguous(shape))

    def __post_init__(self) -> None:
        # numpy multiplies all sizes but the zeros, also for an array without elements
        if prod(n for n in self.shape if n) >= MAX_ELEMENTS:
            raise Damage(f"a tensor has the shape {show(self.shape)}, which is too large for any memory")

    @property
    def end(self) -> int:
        """One past the last element of the buffer that the tensor touches."""
        if 0 in self.shape:
            return 0
        return self.offset + sum((n - 1) * step for n, step in zip(self.shape, self.strides, strict=True)) + 1

    @property
    def distinct(self) -> int:
        """Number of elements that are not repeats by a stride of 0."""
        return prod(n for n, step in zip(self.shape, self.strides, strict=True) if step or n == 0)

    def check(self, nbytes: int, where: str) -> None:
        """Raise Damage unless the tensor lies inside a buffer of `nbytes`."""
        if len(self.shape) != len(self.strides):
            raise Damage(f"a tensor has {len(self.shape)} dimensions but {len(self.strides)} strides")
        if self.offset < 0:
            raise Damage(f"a tensor starts at element {show(self.offset)} of {where}, before its beginning")
        if self.end * itemsize(self.dtype) > nbytes:
            need = show(self.end * itemsize(self.dtype))
            raise Damage(f"a tensor of shape {show(self.shape)} needs {need} bytes of {where}, which has {nbytes}")
        if prod(self.shape) > max(MAX_REPEATED, nbytes):
            raise Damage(f"a tensor of shape {show(self.shape)} repeats the {nbytes} bytes of {where} too often")

    def array(self, buffer: object) -> NDArray[Any]:
        """The tensor as a view of `buffer`."""
        kind = np.dtype(STORAGE[self.dtype])
        if 0 in self.shape:
            return np.empty(self.shape, kind)
        flat = np.frombuffer(buffer, kind, self.end - self.offset, self.offset * kind.itemsize)  # type: ignore[call-overload]
        steps = tuple(step * kind.itemsize for step in self.strides)
        return as_strided(flat, self.shape, steps)
