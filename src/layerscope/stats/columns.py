"""Statistics of many rows or channels as columns, and how they merge. Plain numpy."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Columns", "merge", "total"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Columns(NamedTuple):
    """Statistics over the finite values, one element a row or channel; all fields have the same shape.

    An element without a finite value has count 0, mean 0, m2 0, and min and max NaN.
    """

    count: Ints  # type: ignore[assignment]  # finite values; every tuple has a method of that name
    mean: Floats
    m2: Floats  # sum of squared deviations from the mean
    min: Floats
    max: Floats
    zeros: Ints  # -0.0 counts
    nan: Ints
    inf: Ints  # of either sign

    @property
    def std(self) -> Floats:
        """Standard deviation with ddof 1; NaN below two finite values."""
        freedom = np.where(self.count > 1, self.count - 1, np.nan)
        return np.sqrt(self.m2 / freedom)

    @classmethod
    def of(cls, floats: Any, counts: Any) -> Columns:
        """From mean, m2, min, max (4, ...) and count, zeros, nan, inf (4, ...): the order of kernels and files."""
        (mean, m2, low, high), (count, zeros, nan, inf) = floats, counts
        return cls(count, mean, m2, low, high, zeros, nan, inf)

    @property
    def floats(self) -> tuple[Floats, ...]:
        """mean, m2, min, max: what `of` takes first."""
        return self.mean, self.m2, self.min, self.max

    @property
    def counts(self) -> tuple[Ints, ...]:
        """count, zeros, nan, inf: what `of` takes second."""
        return self.count, self.zeros, self.nan, self.inf

    def take(self, index: Any) -> Columns:
        """The columns of some elements: numpy's indexing, applied to every field."""
        return Columns(*(np.asarray(field[index]) for field in self))


def merge(a: Columns, b: Columns) -> Columns:
    """Statistics of the union, elementwise: the pairwise update of Chan, Golub and LeVeque, 1983."""
    count = a.count + b.count
    share = b.count / np.maximum(count, 1)
    with np.errstate(over="ignore"):
        delta = b.mean - a.mean
        m2 = a.m2 + b.m2 + delta * delta * (a.count * share)
    return Columns(
        count=count,
        mean=(1 - share) * a.mean + share * b.mean,
        m2=m2,
        min=np.fmin(a.min, b.min),  # fmin: NaN stands for "no finite value" and loses
        max=np.fmax(a.max, b.max),
        zeros=a.zeros + b.zeros,
        nan=a.nan + b.nan,
        inf=a.inf + b.inf,
    )


def total(columns: Columns, axis: int | None = None) -> Columns:
    """Statistics of the union along an axis, or of everything: Chan's update for any number of parts."""
    count = columns.count.sum(axis, keepdims=True)
    # Shares, not sums: count * mean may overflow where the mean does not.
    mean = (columns.count / np.maximum(count, 1) * columns.mean).sum(axis, keepdims=True)
    delta = columns.mean - mean
    with np.errstate(over="ignore"):
        m2 = columns.m2 + columns.count * delta * delta
    return Columns(
        count=np.asarray(count.squeeze(axis)),
        mean=np.asarray(mean.squeeze(axis)),
        m2=np.asarray(m2.sum(axis)),
        min=np.asarray(np.fmin.reduce(columns.min, axis, initial=np.nan)),
        max=np.asarray(np.fmax.reduce(columns.max, axis, initial=np.nan)),
        zeros=np.asarray(columns.zeros.sum(axis)),
        nan=np.asarray(columns.nan.sum(axis)),
        inf=np.asarray(columns.inf.sum(axis)),
    )
