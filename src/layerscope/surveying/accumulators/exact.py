"""Sums that come out the same in any order: whole numbers of any length, as limbs of 32 bits; statistics made of them.

A sum is kept in units of a power of two: limb k counts 2**(32*k) units. Limbs are int64 and may run over 32 bits while
they are added to, up to 2**30 times; `carry` brings them into the one form that a number has: all limbs have its sign
and less than 32 bits.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layerscope.stats import Columns, survey_calls
from layerscope.stats.signatures import LIMBS, LIMBS_MEAN
from layerscope.surveying.accumulators.part import Array, Output, Part

__all__ = ["LIMBS", "LIMBS_MEAN", "Moments", "add", "carry", "moments", "numbers"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_MASK = np.int64(0xFFFFFFFF)


def carry(limbs: Ints, *starts: int) -> Ints:
    """The same numbers in canonical form. limbs (R, K): of several numbers a row if they begin at these limbs too."""
    limbs, ends = limbs.copy(), (*starts, limbs.shape[1])
    for first, last in pairwise((0, *ends)):
        survey_calls.carry(limbs, first, last)
    return limbs


def numbers(limbs: Ints) -> Any:
    """limbs (R, K) as Python's integers, an array of objects (R,)."""
    found = np.zeros(len(limbs), object)
    used = np.flatnonzero(limbs.any(0))
    for k in used:
        found = found + limbs[:, k].astype(object) * (1 << 32 * int(k))
    return found


def add(limbs: Ints, values: Floats, under: int) -> None:
    """Add finite floats (R,) to limbs (R, K) in units of 2**-under; what is finer than a unit is cut off.

    Raises ValueError for a value that is beyond the limbs.
    """
    fraction, exponent = np.frexp(values)
    mantissa = np.abs(np.ldexp(fraction, 53)).astype(np.int64)
    place = exponent.astype(np.int64) - 53 + under
    mantissa >>= np.clip(-place, 0, 63)
    place = np.maximum(place, 0)
    first, shift = place >> 5, place & 31
    if len(values) and int(first.max()) + 2 >= limbs.shape[1]:
        raise ValueError(f"{np.abs(values).max():g} is beyond an exact sum of {limbs.shape[1]} limbs")
    sign = np.where(values < 0, -1, 1)
    rows = np.arange(len(values))
    # A shift of 32 bits of mantissa at a time stays within 63 bits.
    below, above = (mantissa & _MASK) << shift, (mantissa >> 32) << shift
    limbs[rows, first] += sign * (below & _MASK)
    limbs[rows, first + 1] += sign * ((below >> 32) + (above & _MASK))
    limbs[rows, first + 2] += sign * (above >> 32)


def moments(count: Ints, sums: Ints) -> tuple[Floats, Floats]:
    """Mean and sum of squared deviations (C,), each the float next to what the exact sums say.

    count (C,). sums (C, LIMBS): of n*mean in units of 2**-256, then of m2 + n*mean**2 in units of 2**-512, over the
    images. The one thing lost is what each image's own mean and m2, float64, were rounded to.
    """
    first, second = numbers(sums[:, :LIMBS_MEAN]), numbers(sums[:, LIMBS_MEAN:])
    many = [int(n) for n in count]
    mean = [total / (n << 256) if n else 0.0 for n, total in zip(many, first, strict=True)]
    m2 = [
        max(n * squares - total * total, 0) / (n << 512) if n else 0.0
        for n, total, squares in zip(many, first, second, strict=True)
    ]
    return np.array(mean, np.float64), np.array(m2, np.float64)


class Moments(Part):
    """ints int64 (5, C): count of finite values, zeros, nan, inf, and images on which the channel is zero everywhere.
    ends float64 (2, C): min and max, NaN without a finite value. sums int64 (C, 42): see `moments`."""

    ARRAYS = {  # noqa: RUF012 - typed in Part
        "ints": ((np.int64,), (5, "C")),
        "ends": ((np.float64,), (2, "C")),
        "sums": ((np.int64,), ("C", LIMBS)),
    }

    def __init__(self, ints: Array, ends: Array, sums: Array) -> None:
        self.ints, self.ends, self.sums = ints, ends, sums

    @classmethod
    def empty(cls, channels: int) -> Moments:
        """Of no image."""
        ints, ends = np.zeros((5, channels), np.int64), np.full((2, channels), np.nan)
        return cls(ints, ends, np.zeros((channels, LIMBS), np.int64))

    @property
    def silent(self) -> NDArray[np.int64]:
        """Images on which the channel is zero everywhere, (C,). A channel is dead if that is all of them."""
        return np.asarray(self.ints[4])

    def update(self, output: Output) -> None:
        """Add the images of one batch."""
        survey_calls.fold(output.table, output.channels, self.ints, self.ends, self.sums)

    def settle(self) -> None:
        self.sums = carry(self.sums, LIMBS_MEAN)

    def merge(self, other: Moments) -> Moments:
        ends = np.stack([np.fmin(self.ends[0], other.ends[0]), np.fmax(self.ends[1], other.ends[1])])
        return Moments(self.ints + other.ints, ends, carry(self.sums + other.sums, LIMBS_MEAN))

    def compute(self) -> Columns:
        """(C,) each."""
        return Columns.of((*moments(self.ints[0], self.sums), *self.ends), self.ints[:4])
