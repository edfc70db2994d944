"""Statistics and the exact histogram of one tensor of a checkpoint, in pieces, on all cores."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from .. import dtypes
from . import calls, histogram
from .columns import Columns, total

__all__ = ["Distribution", "distribution"]

#: values that a thread reads at a time: at most 20 MiB a thread with conversions
_PIECE = 1 << 20
#: the same where values of 8 and 16 bits are written out as float32: 512 KiB stay in the second-level cache
_SMALL_PIECE = 1 << 17
#: from here on counting all bit patterns of an 8-bit or 16-bit type is cheaper than converting the values
_MANY = 1 << 17
#: groups of pieces a thread: some are slower than others, and nobody should wait long for the last
_GROUPS = 4

_COMPLEX = {"complex32": "float16", "complex64": "float32", "complex128": "float64"}

T = TypeVar("T")
Array = NDArray[Any]


class Piece(NamedTuple):
    """A stretch of a flat tensor that holds whole rows, or a part of one."""

    start: int
    stop: int
    length: int  # of a row

    @property
    def rows(self) -> int:
        return (self.stop - self.start) // self.length if self.length else 1


class Distribution(NamedTuple):
    """Statistics of a whole tensor (one element) and of its rows; its histogram, if a value is finite."""

    whole: Columns
    rows: Columns | None
    edges: Array | None  # (bins + 1,)
    counts: NDArray[np.int64] | None  # (bins,)


def distribution(
    values: Array, dtype: str, bins: int = 50, rows: int | None = None, threads: int | None = None
) -> Distribution:
    """Statistics and histogram over the finite values of a tensor of any size.

    values: the bits of the tensor, of type `dtypes.STORAGE[dtype]`, of any layout; may be a read-only map.
    rows: length of the first axis (output channels), if each is to have its own statistics.
    threads: all cores if None.

    Counts and edges equal those of `numpy.histogram`: of the values as float64 for float64 and integers, as
    float32 for all smaller floats. Where numpy has no answer in float32 (the range overflows, or is too
    narrow for so many distinct edges) they equal those of the values as float64. Where it has none there
    either, the range is widened by `bins` units in the last place, or, if it overflows, cut evenly, and a
    value is where the edges say.

    Complex numbers count as two values each, the real and the imaginary part.
    """
    values, dtype = _real(values, dtype)
    counted = dtypes.itemsize(dtype) <= 2 and values.size >= _MANY
    tensor = _Tensor(values, dtype, threads)
    whole, row_columns, amounts = (tensor.tally if counted else tensor.scan)(rows)
    low, high = float(whole.min[0]), float(whole.max[0])
    if not whole.count[0]:
        return Distribution(whole, row_columns, None, None)
    edges = histogram.edges(low, high, tensor.kind, bins)
    if low == high:
        counts = histogram.weighted(np.array([low]), whole.count, edges)
    elif amounts is not None:
        counts = histogram.weighted(tensor.table, amounts, edges)
    else:
        counts = tensor.histogram(edges, finite=not (whole.nan[0] or whole.inf[0]))
    return Distribution(whole, row_columns, edges, counts)


def _real(values: Array, dtype: str) -> tuple[Array, str]:
    """A complex tensor as one of real numbers, with a last axis of twice the length."""
    if dtype not in _COMPLEX:
        return values, dtype
    part = _COMPLEX[dtype]
    return np.ascontiguousarray(np.atleast_1d(values)).view(dtypes.STORAGE[part]), part


class _Tensor:
    """A tensor in pieces."""

    def __init__(self, values: Array, dtype: str, threads: int | None) -> None:
        self.dtype = dtype
        self.size = values.size
        self.threads = threads or os.cpu_count() or 1
        #: the float type that numpy.histogram would work in
        self.kind = np.dtype("f4" if dtypes.is_float(dtype) and dtype != "float64" else "f8")
        # The kernels take alignment for granted; files do not.
        self.dense = values.flags.c_contiguous and values.flags.aligned
        self.array = np.asarray(values).reshape(-1) if self.dense else values

    @property
    def table(self) -> Array:
        return dtypes.patterns(self.dtype)

    def stored(self, piece: Piece) -> Array:
        """A piece as it is stored (N,): a view where the layout allows, else a copy."""
        # `flat` anew each time: it is an iterator with a position, which threads must not share.
        return (self.array if self.dense else self.array.flat)[piece.start : piece.stop]

    def bits(self, piece: Piece) -> Array:
        return self.stored(piece).view(f"u{self.array.itemsize}")

    def values(self, piece: Piece, kind: np.dtype | None = None) -> Array:
        with np.errstate(invalid="ignore"):  # a signalling NaN becomes a quiet one
            return np.asarray(dtypes.decode(self.stored(piece), self.dtype), kind or self.kind)

    def scan(self, rows: int | None) -> tuple[Columns, Columns | None, None]:
        """Statistics of the whole and of its rows by reading the values."""

        def group(pieces: Sequence[Piece]) -> Columns:
            return _join([_scan(self.values(piece), piece) for piece in pieces])

        columns = _join(self.run(group, _pieces(self.size, rows or 1, _PIECE)))
        return _whole(columns), _rows(columns, rows), None

    def tally(self, rows: int | None) -> tuple[Columns, Columns | None, NDArray[np.int64]]:
        """The same by counting bit patterns; and their counts."""
        table = self.table

        def count(pieces: Sequence[Piece]) -> NDArray[np.int64]:
            amounts = np.zeros(len(table), np.int64)
            for piece in pieces:
                calls.count_patterns(self.bits(piece), amounts)
            return amounts

        def spread(pieces: Sequence[Piece]) -> tuple[NDArray[np.int64], Columns]:
            amounts, parts = np.zeros(len(table), np.int64), []
            room = np.empty(_SMALL_PIECE, np.float32)
            for piece in pieces:
                out = room[: piece.stop - piece.start]
                calls.spread(self.bits(piece), table, amounts, out)
                parts.append(_scan(out, piece))
            return amounts, _join(parts)

        if rows is None:
            amounts = _sum(self.run(count, _pieces(self.size, 1, _PIECE)))
            return _weigh(table, amounts), None, amounts
        results = self.run(spread, _pieces(self.size, rows, _SMALL_PIECE))
        amounts = _sum([amounts for amounts, _ in results])
        return _weigh(table, amounts), _rows(_join([columns for _, columns in results]), rows), amounts

    def histogram(self, edges: Array, finite: bool) -> NDArray[np.int64]:
        """Counts of the finite values; `finite` tells that all are."""
        slack = histogram.slack(edges)

        def group(pieces: Sequence[Piece]) -> NDArray[np.int64]:
            counts = np.zeros(len(edges) - 1, np.int64)
            for piece in pieces:
                values = self.values(piece, edges.dtype)
                clean = finite or bool(np.isfinite(values).all())
                histogram.count(values, edges, slack, clean, counts)
            return counts

        return _sum(self.run(group, _pieces(self.size, 1, _PIECE)))

    def run(self, function: Callable[[Sequence[Piece]], T], pieces: Sequence[Piece]) -> list[T]:
        """Map over groups of pieces, in threads when there is enough to do: the kernels release the lock."""
        if self.threads == 1 or self.size < _PIECE:
            return [function(pieces)]
        many = min(len(pieces), self.threads * _GROUPS)
        cuts = [len(pieces) * i // many for i in range(many + 1)]
        with ThreadPoolExecutor(self.threads) as pool:
            return list(pool.map(function, [pieces[a:b] for a, b in pairwise(cuts)]))


def _pieces(size: int, rows: int, most: int) -> list[Piece]:
    """Cut a tensor into pieces of several whole rows, or else every row into equally many pieces."""
    if size == 0:
        return [Piece(0, 0, 0)] * max(rows, 1)
    length = size // rows
    if length * rows != size:
        raise ValueError(f"{size} values do not make {rows} rows: pass the length of the first axis")
    if length <= most:
        step = most // length * length
        return [Piece(start, min(start + step, size), length) for start in range(0, size, step)]
    starts = [(row + i, min(most, length - i)) for row in range(0, size, length) for i in range(0, length, most)]
    return [Piece(start, start + part, part) for start, part in starts]


def _scan(values: Array, piece: Piece) -> Columns:
    """Statistics of every row of a piece."""
    table = np.empty((8, piece.rows))
    calls.rows(values, piece.length, table)
    return calls.columns(table, piece.rows)


def _map(function: Callable[..., Array], *columns: Columns) -> Columns:
    """A function of arrays, field by field."""
    return Columns(*map(function, *columns))


def _join(parts: Sequence[Columns]) -> Columns:
    if len(parts) == 1:  # most tensors are one piece
        return parts[0]
    return _map(lambda *fields: np.concatenate(fields), *parts)


def _whole(columns: Columns) -> Columns:
    return columns if columns.count.shape == (1,) else _map(np.atleast_1d, total(columns))


def _rows(columns: Columns, rows: int | None) -> Columns | None:
    """Columns of pieces joined to columns of rows."""
    if rows is None or len(columns.count) == rows:
        return columns if rows is not None else None
    if rows == 0:
        return _map(lambda field: field[:0], columns)
    return total(_map(lambda field: field.reshape(rows, -1), columns), axis=1)


def _sum(counts: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.sum(counts, axis=0)


def _weigh(table: Array, amounts: NDArray[np.int64]) -> Columns:
    """Statistics of values, each of which occurs several times."""
    finite = np.isfinite(table)
    values, times = table[finite].astype(np.float64), amounts[finite]
    present = values[times > 0]
    low: Any = present.min() if present.size else np.nan
    high: Any = present.max() if present.size else np.nan
    count = times.sum()
    mean = (values * times).sum() / max(count, 1)
    return _map(
        np.atleast_1d,
        Columns(
            count=count,
            mean=mean,
            m2=(times * (values - mean) ** 2).sum(),
            min=low,
            max=high,
            zeros=times[values == 0].sum(),
            nan=amounts[np.isnan(table)].sum(),
            inf=amounts[np.isinf(table)].sum(),
        ),
    )
