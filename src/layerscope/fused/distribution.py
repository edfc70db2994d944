"""Statistics and the exact histogram of one tensor of a checkpoint, in blocks, on all cores."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .. import dtypes
from .columns import Columns, total
from .memory import plain

__all__ = ["Distribution", "distribution"]

#: elements that a thread reads at a time: with copies at most 12 MiB a thread
_PIECE = 1 << 20
#: from this many elements on, counting all 65,536 patterns of a 16-bit type is cheaper than converting the values
_MANY = 1 << 17

_COMPLEX = {"complex32": "float16", "complex64": "float32", "complex128": "float64"}

Piece = tuple[int, int, int]  # start and stop in the flat tensor, and the length of a row
T = TypeVar("T")


class Distribution(NamedTuple):
    """What `distribution` returns."""

    whole: Columns  # of one element
    rows: Columns | None
    edges: NDArray | None  # (bins + 1,)
    counts: NDArray[np.int64] | None  # (bins,)


def distribution(
    values: NDArray, dtype: str, bins: int = 50, rows: int | None = None, threads: int | None = None
) -> Distribution:
    """Statistics and histogram over the finite values of a tensor of any size.

    values: the bits of the tensor, of type `dtypes.STORAGE[dtype]`; may be a read-only memory map, any layout.
    rows: length of the first axis (output channels), if each is to have its own statistics.
    threads: all cores if None.

    Counts and edges equal those of `numpy.histogram`, for float64 and integers as float64, for all smaller floats
    as float32. Where numpy has no answer in float32 (the range overflows, or is too narrow for so many distinct
    edges) they equal those of the values as float64, and where it has none there either, the range is widened by
    `bins` units in the last place, or, when it overflows, cut evenly without regard to numpy.

    Complex numbers count as two values each, the real and the imaginary part.
    """
    values, dtype = _real(values, dtype)
    read = partial(_read, _flat(values), dtype)
    run = _runner(threads, values.size)
    pieces = _pieces(values.size, rows or 1)
    kind = _kind(dtype)
    counted = dtypes.itemsize(dtype) <= 2 and values.size >= _MANY
    if counted:
        table = dtypes.patterns(dtype).astype(kind)
        amounts = _amounts(_flat(values), len(table), pieces, run)
        whole = _weigh(table, amounts)
    if not counted or rows is not None:
        parts = list(run(partial(_scan, read), pieces))
        columns = Columns(*map(np.concatenate, zip(*parts, strict=True)))
        per_row = _per_row(columns, rows or 1)
        if not counted:
            whole = Columns(*(field.reshape(1) for field in total(columns)))
    row_columns = per_row if rows is not None else None
    if whole.count[0] == 0:
        return Distribution(whole, row_columns, None, None)
    edges = _edges(whole.min[0], whole.max[0], kind, bins)
    if whole.min[0] == whole.max[0]:
        counts = _bin(np.array([whole.min[0]]), whole.count, edges)
    elif counted:
        counts = _bin(table, amounts, edges)
    else:
        counts = sum(run(partial(_bin_piece, read, edges), pieces), np.zeros(bins, np.int64))
    return Distribution(whole, row_columns, edges, counts)


def _real(values: NDArray, dtype: str) -> tuple[NDArray, str]:
    """A complex tensor as one of real numbers, with a last axis of twice the length."""
    if dtype not in _COMPLEX:
        return values, dtype
    part = _COMPLEX[dtype]
    whole = np.ascontiguousarray(np.atleast_1d(values))
    return whole.view(dtypes.STORAGE[part]), part


def _kind(dtype: str) -> DTypeLike:
    """The float type that numpy.histogram would work in."""
    return np.float32 if dtypes.is_float(dtype) and dtype != "float64" else np.float64


def _flat(values: NDArray) -> NDArray | np.flatiter:
    """Something whose slices are one-dimensional arrays: without a copy where the layout allows."""
    if values.flags.c_contiguous and values.flags.aligned:
        return plain(values).reshape(-1)
    return values.flat


def _read(flat: NDArray | np.flatiter, dtype: str, piece: Piece) -> NDArray:
    """The values of a piece as float32 or float64."""
    values = dtypes.decode(flat[piece[0] : piece[1]], dtype)
    return np.asarray(values, _kind(dtype))


def _runner(threads: int | None, size: int) -> Callable[[Callable[[Piece], T], Sequence[Piece]], Iterable[T]]:
    """A map over pieces: in threads when there is enough to do. The kernels release the lock."""
    threads = threads or os.cpu_count() or 1
    if threads == 1 or size < _PIECE:
        return map  # type: ignore[return-value]

    def run(function: Callable[[Piece], T], pieces: Sequence[Piece]) -> Iterable[T]:
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(function, pieces))

    return run


def _pieces(size: int, rows: int) -> list[Piece]:
    """Cut a tensor into pieces of several whole rows, or else every row into equally many pieces."""
    length = size // max(rows, 1)
    if length == 0:
        return [(0, 0, 0)] * max(rows, 1)
    if length <= _PIECE:
        step = _PIECE // length * length
        return [(start, min(start + step, size), length) for start in range(0, size, step)]
    return [
        (start + i, min(start + i + _PIECE, start + length), min(_PIECE, length - i))
        for start in range(0, size, length)
        for i in range(0, length, _PIECE)
    ]


def _scan(read: Callable[[Piece], NDArray], piece: Piece) -> Columns:
    """Statistics of every row of a piece."""
    from . import kernels

    start, stop, length = piece
    many = (stop - start) // length if length else 1
    floats, ints = np.empty((4, many)), np.empty((4, many), np.int64)
    kernels.rows(read(piece), length, floats, ints)
    return Columns(ints[0], *floats, *ints[1:])


def _per_row(columns: Columns, rows: int) -> Columns:
    """Pieces of rows joined to rows."""
    if len(columns.count) == rows:
        return columns
    return total(Columns(*(field.reshape(rows, -1) for field in columns)), axis=1)


def _amounts(
    flat: NDArray | np.flatiter, patterns: int, pieces: Sequence[Piece], run: Callable
) -> NDArray[np.int64]:
    """How often every bit pattern occurs."""
    from . import kernels

    def count(piece: Piece) -> NDArray[np.int64]:
        amounts = np.zeros(patterns, np.int64)
        bits = flat[piece[0] : piece[1]]
        kernels.count_patterns(bits.view(f"u{bits.itemsize}"), amounts)
        return amounts

    return sum(run(count, pieces), np.zeros(patterns, np.int64))


def _weigh(table: NDArray, amounts: NDArray[np.int64]) -> Columns:
    """Statistics of values that occur so many times each."""
    finite = np.isfinite(table)
    values, times = table[finite].astype(np.float64), amounts[finite]
    present = values[times > 0]
    count = times.sum()
    mean = (values * times).sum() / max(count, 1)
    fields = (
        count,
        mean,
        (times * (values - mean) ** 2).sum(),
        present.min() if count else np.nan,
        present.max() if count else np.nan,
        times[values == 0].sum(),
        amounts[np.isnan(table)].sum(),
        amounts[np.isinf(table)].sum(),
    )
    return Columns(*(np.array([field]) for field in fields))


def _edges(low: float, high: float, kind: DTypeLike, bins: int) -> NDArray:
    """numpy's edges, in float32 or float64, or the nearest thing where numpy has none."""
    for number in (kind, np.float64):
        ends = np.array([low, high], number)
        with np.errstate(over="ignore"):
            span = ends[1] - ends[0]
        if np.isfinite(span):
            try:
                return np.histogram_bin_edges(ends, bins)
            except ValueError:  # too many bins for the range
                pass
    pad = bins * np.spacing(max(abs(low), abs(high))) if np.isfinite(high - low) else 0.0
    edges = 4 * np.linspace(low / 4 - pad / 4, high / 4 + pad / 4, bins + 1)
    return np.clip(edges, -np.finfo(np.float64).max, np.finfo(np.float64).max)


def _bin(values: NDArray, times: NDArray[np.int64], edges: NDArray) -> NDArray[np.int64]:
    """Counts of values that occur so many times each, to the letter as numpy.histogram makes them."""
    keep = np.isfinite(values) & (times > 0)
    values, times = values[keep].astype(edges.dtype), times[keep]
    bins = len(edges) - 1
    index = ((values - edges[0]) / (edges[-1] - edges[0]) * edges.dtype.type(bins)).astype(np.int64)
    index[index == bins] -= 1
    index[values < edges[index]] -= 1
    index[(values >= edges[index + 1]) & (index != bins - 1)] += 1
    counts = np.zeros(bins, np.int64)
    np.add.at(counts, index, times)
    return counts


def _bin_piece(read: Callable[[Piece], NDArray], edges: NDArray, piece: Piece) -> NDArray[np.int64]:
    """Counts of the finite values of a piece."""
    from . import kernels

    counts = np.zeros(len(edges) - 1, np.int64)
    values = read(piece).astype(edges.dtype, copy=False)
    with np.errstate(over="ignore"):
        span = edges[-1] - edges[0]
    if np.isfinite(span):
        kernels.bin_values(values, edges, counts)
        return counts
    index = np.searchsorted(edges, values[np.isfinite(values)], "right") - 1
    return np.bincount(np.minimum(index, len(counts) - 1), minlength=len(counts))
