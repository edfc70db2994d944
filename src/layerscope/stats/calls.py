"""The kernels as functions of arrays. Machine code believes any address: what does not fit is an error here."""

from __future__ import annotations

from ctypes import addressof, c_char
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .columns import Columns
from .objects import kernel
from .signatures import HALF, SIGNATURES

__all__ = ["bin_pairs", "bin_values", "channels_last", "codes", "columns", "count_patterns", "rows", "spread"]

Array = NDArray[Any]

_NAMES = {np.dtype(name): name for name in ("f4", "f8", "u1", "u2")}
_FLOAT32, _FLOAT64 = np.dtype("f4"), np.dtype("f8")
_INT64 = np.dtype("i8")
_UINT8, _UINT16, _UINT32 = np.dtype("u1"), np.dtype("u2"), np.dtype("u4")
_NOTHING = c_char * 0


def _read(array: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> int:
    """The address of an array of that type and shape."""
    flags = array.flags
    if array.dtype != dtype or array.shape != shape or not (flags.c_contiguous and flags.aligned):
        raise ValueError(f"expected {dtype}{shape}, contiguous and aligned, got {array.dtype}{array.shape}")
    if flags.writeable:  # four times as fast, but not for memory maps
        return addressof(_NOTHING.from_buffer(array))
    return array.__array_interface__["data"][0]


def _write(array: Array, dtype: np.dtype[Any], shape: tuple[int, ...]) -> int:
    """The same, of one that may be changed."""
    if not array.flags.writeable:
        raise ValueError(f"expected an array to write to, got a read-only {array.dtype}{array.shape}")
    return _read(array, dtype, shape)


def _bins(counts: Array) -> int:
    if counts.size == 0:
        raise ValueError("expected at least one bin")
    return counts.size


def _kernel(name: str, dtype: np.dtype[Any]) -> Any:
    if dtype not in _NAMES or (key := f"{name}_{_NAMES[dtype]}") not in SIGNATURES:
        raise ValueError(f"there is no {name} for {dtype}")
    return kernel(key)


def columns(table: Array, *shape: int) -> Columns:
    """What `rows` and `channels_last` wrote to a table (8, R), in the shape of R."""
    return Columns.of(table[:4].reshape(4, *shape), table[4:].view(np.int64).reshape(4, *shape))


def rows(values: Array, size: int, table: Array) -> None:
    """Statistics of rows of that size. values float32 or float64 (R*size,), table float64 (8, R)."""
    many = table.shape[1]
    at, to = _read(values, values.dtype, (many * size,)), _write(table, _FLOAT64, (8, many))
    _kernel("rows", values.dtype)(at, at, size, to, to + 4 * many * 8, many)


def channels_last(values: Array, table: Array) -> None:
    """Statistics of the channels of every image. values float32 (B, N, C), table float64 (8, B*C)."""
    images, size, channels = values.shape
    at, to = _read(values, _FLOAT32, values.shape), _write(table, _FLOAT64, (8, images * channels))
    room = np.empty((5, channels))  # three lines of float64, three of int32
    sums, ints = _write(room, _FLOAT64, (5, channels)), to + 4 * images * channels * 8
    kernel("channels_last_f4")(at, at, images, size, channels, sums, sums + 3 * channels * 8, to, ints)


def bin_values(values: Array, edges: Array, counts: NDArray[np.int64]) -> None:
    """Add the finite values (N,), float32 or float64, to the counts (bins,) between edges (bins + 1,)."""
    bins, kind = _bins(counts), values.dtype
    at, ends = _read(values, kind, (values.size,)), _read(edges, kind, (bins + 1,))
    _kernel("bin_values", kind)(at, values.size, ends, bins, _write(counts, _INT64, (bins,)))


def bin_pairs(values: Array, edges: Array, tolerance: float, counts: NDArray[np.int64]) -> None:
    """The same for finite values and at most 255 bins; tolerance, in bins: see `histogram.slack`."""
    bins, kind = _bins(counts), values.dtype
    at, ends = _read(values, kind, (values.size,)), _read(edges, kind, (bins + 1,))
    if bins > 255:
        raise ValueError(f"pairs of {bins} bins do not fit into 16 bits")
    pairs, halves = np.empty(1 << 16, np.uint32), np.empty((2, HALF), np.uint16)
    room = _write(pairs, _UINT32, (1 << 16,)), _write(halves, _UINT16, (2, HALF))
    _kernel("bin_pairs", kind)(at, values.size, ends, bins, tolerance, *room, _write(counts, _INT64, (bins,)))


def count_patterns(bits: Array, counts: NDArray[np.int64]) -> None:
    """Add every bit pattern, uint8 or uint16 (N,), to its counter of 256 or 65536."""
    to = _write(counts, _INT64, (1 << 8 * bits.itemsize,))
    _kernel("count_patterns", bits.dtype)(_read(bits, bits.dtype, (bits.size,)), bits.size, to)


def spread(bits: Array, table: NDArray[np.float32], counts: NDArray[np.int64], out: NDArray[np.float32]) -> None:
    """The same, and write the values of the patterns, from a table as long as the counters, to out (N,)."""
    many, size = (1 << 8 * bits.itemsize,), (bits.size,)
    inputs = _read(bits, bits.dtype, size), bits.size, _read(table, _FLOAT32, many)
    _kernel("spread", bits.dtype)(*inputs, _write(counts, _INT64, many), _write(out, _FLOAT32, size))


def codes(values: Array, low: Array, high: Array, out: NDArray[np.uint8]) -> None:
    """8-bit codes of float32 (C, N) between low and high, float64 (C,): see `quantize`."""
    channels, size = values.shape
    inputs = _read(values, _FLOAT32, values.shape), channels, size
    ends = _read(low, _FLOAT64, (channels,)), _read(high, _FLOAT64, (channels,))
    kernel("codes_f4")(*inputs, *ends, _write(out, _UINT8, values.shape))
