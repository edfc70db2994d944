"""What the kernels compute, in numpy: for processes that have no machine code, and to check the kernels against.

Counts, bins, codes, least and greatest values are the same; mean and m2 come from two passes in float64. They take
addresses, as the kernels do, so that `calls` checks the arrays once for both; `signatures` lists the types.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ctypes import c_char
from functools import partial
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .signatures import SIGNATURES

__all__ = ["TWINS", "places"]

Array = NDArray[Any]

#: values at a time: a few arrays of them stay in the second-level cache
_MANY = 1 << 15


def places(values: Array, edges: Array) -> NDArray[np.int64]:
    """The bins of finite values within the edges (bins + 1,) of their type, to the letter as numpy.histogram has them.

    numpy's result is kept even where the edges say otherwise: an estimate, then one step at most either way.
    """
    last = len(edges) - 2
    estimate = (values - edges[0]) / (edges[-1] - edges[0]) * edges.dtype.type(last + 1)
    index = np.clip(estimate, 0, last).astype(np.int64)
    index -= (values < edges[index]) & (index > 0)
    index += (values >= edges[index + 1]) & (index != last)
    return index


def _at(address: int, kind: str, *shape: int) -> Array:
    """The array that lies there."""
    dtype = np.dtype(kind)
    memory: Any = (c_char * (prod(shape) * dtype.itemsize)).from_address(address)
    return np.ndarray(shape, dtype, memory)


def _parts(size: int, each: int = 1) -> Iterator[slice]:
    """Slices over `size` things of `each` values."""
    step = max(1, _MANY // max(each, 1))
    return (slice(start, min(start + step, size)) for start in range(0, size, step))


def _moments(values: Array, floats: Array, ints: Array) -> None:
    """values (R, N) of any float type -> floats (4, R): mean, m2, min, max; ints (4, R): count, zeros, nan, inf."""
    x = values.astype(np.float64)
    finite = np.isfinite(x)
    ints[:] = finite.sum(1), (x == 0).sum(1), np.isnan(x).sum(1), np.isinf(x).sum(1)
    low, high = x.min(1, initial=np.inf, where=finite), x.max(1, initial=-np.inf, where=finite)
    x[~finite] = 0
    count = np.maximum(ints[0], 1)
    mean = x.sum(1) / count
    over = ~np.isfinite(mean)
    mean[over] = (x[over] / count[over, None]).sum(1)
    x -= mean[:, None]
    x[~finite] = 0
    rest = np.nan_to_num(x.sum(1) / count, nan=0, posinf=0, neginf=0)
    m2 = (x * x).sum(1)
    none = ints[0] == 0
    # Squares that have gone over the top stay there: infinity less infinity is NaN.
    m2 = np.where(m2 < np.inf, np.maximum(m2 - rest * rest * count, 0), m2)
    floats[:] = mean + rest, m2, np.where(none, np.nan, low), np.where(none, np.nan, high)


def _rows(kind: str, values: int, bits: int, size: int, floats: int, ints: int, many: int) -> None:
    x, to, counts = _at(values, kind, many, size), _at(floats, "f8", 4, many), _at(ints, "i8", 4, many)
    for part in _parts(many, size):
        _moments(x[part], to[:, part], counts[:, part])


def _channels_last(kind: str, values: int, bits: int, images: int, size: int, channels: int, *others: int) -> None:
    floats, ints = (_at(at, of, 4, images, channels) for at, of in zip(others[2:], ("f8", "i8"), strict=True))
    for image, x in enumerate(_at(values, kind, images, size, channels)):
        _moments(np.ascontiguousarray(x.T), floats[:, image], ints[:, image])


def _bin_values(kind: str, values: int, size: int, edges: int, bins: int, counts: int) -> None:
    x, ends, to = _at(values, kind, size), _at(edges, kind, bins + 1), _at(counts, "i8", bins)
    for part in _parts(size):
        to += np.bincount(places(x[part][np.isfinite(x[part])], ends), minlength=bins)


def _bin_pairs(kind: str, values: int, size: int, edges: int, bins: int, slack: float, *others: int) -> None:
    _bin_values(kind, values, size, edges, bins, others[2])


def _count_patterns(kind: str, bits: int, size: int, counts: int) -> None:
    to = _at(counts, "i8", 1 << 8 * np.dtype(kind).itemsize)
    to += np.bincount(_at(bits, kind, size), minlength=to.size)


def _spread(kind: str, bits: int, size: int, table: int, counts: int, out: int) -> None:
    _count_patterns(kind, bits, size, counts)
    values = _at(table, "f4", 1 << 8 * np.dtype(kind).itemsize)
    np.take(values, _at(bits, kind, size), out=_at(out, "f4", size))


def _codes(kind: str, values: int, channels: int, size: int, low: int, high: int, out: int) -> None:
    x, to = _at(values, kind, channels, size), _at(out, "u1", channels, size)
    base, top = _at(low, "f8", channels, 1), _at(high, "f8", channels, 1)
    scale = np.where(top > base, 254.0 / (top - base), 0.0)
    for part in _parts(channels, size):
        finite = np.isfinite(x[part])
        steps = np.where(finite & (scale[part] > 0), (x[part] - base[part]) * scale[part] + 0.5, 0)
        to[part] = np.where(finite, np.clip(steps, 0, 254), 255)


def _quiet(function: Callable[..., None]) -> Callable[..., None]:
    """Kernels say nothing of NaN and infinities."""

    def twin(*arguments: Any) -> None:
        with np.errstate(all="ignore"):
            function(*arguments)

    return twin


_FUNCTIONS = {
    f.__name__[1:]: f for f in (_rows, _channels_last, _bin_values, _bin_pairs, _count_patterns, _spread, _codes)
}
#: a kernel's name -> its twin; the kernels of a survey have none
TWINS = {name: _quiet(partial(_FUNCTIONS[name[:-3]], name[-2:])) for name in SIGNATURES if name[:-3] in _FUNCTIONS}
