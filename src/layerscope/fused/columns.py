"""Statistics of many rows or channels as columns, and how they merge. Plain numpy."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Columns", "merge", "total"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Columns(NamedTuple):
    """Statistics over the finite values, one element a row or channel; all fields have the same shape.

    An element without a finite value has count 0, mean 0, m2 0, and min and max NaN.
    """

    count: Ints  # finite values
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

    def take(self, index: object) -> Columns:
        """The columns of some elements: numpy's indexing, applied to every field."""
        return Columns(*(np.asarray(field[index]) for field in self))  # type: ignore[index]


def merge(a: Columns, b: Columns) -> Columns:
    """Statistics of the union, elementwise: the pairwise update of Chan, Golub and LeVeque, 1983."""
    count = a.count + b.count
    share = b.count / np.maximum(count, 1)
    delta = b.mean - a.mean
    return Columns(
        count=count,
        mean=np.where(a.count == 0, b.mean, a.mean + delta * share),
        m2=a.m2 + b.m2 + delta * delta * (a.count * share),
        min=np.fmin(a.min, b.min),  # fmin: NaN stands for "no finite value" and loses
        max=np.fmax(a.max, b.max),
        zeros=a.zeros + b.zeros,
        nan=a.nan + b.nan,
        inf=a.inf + b.inf,
    )


def total(columns: Columns, axis: int | None = None) -> Columns:
    """Statistics of the union along an axis, or of everything: Chan's update for any number of parts at once."""
    count = columns.count.sum(axis)
    mean = (columns.count * columns.mean).sum(axis) / np.maximum(count, 1)
    delta = columns.mean - (mean if axis is None else np.expand_dims(mean, axis))
    return Columns(
        count=np.asarray(count),
        mean=np.asarray(mean),
        m2=np.asarray((columns.m2 + columns.count * delta * delta).sum(axis)),
        min=np.asarray(np.fmin.reduce(columns.min, axis, initial=np.nan)),
        max=np.asarray(np.fmax.reduce(columns.max, axis, initial=np.nan)),
        zeros=np.asarray(columns.zeros.sum(axis)),
        nan=np.asarray(columns.nan.sum(axis)),
        inf=np.asarray(columns.inf.sum(axis)),
    )
