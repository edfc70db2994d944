"""Sums that come out the same in any order: whole numbers of any length, as limbs of 32 bits.

A sum is kept in units of a power of two: limb k counts 2**(32*k) units. Limbs are int64 and may run over 32 bits while
they are added to, up to 2**30 times; `carry` brings them into the one form that a number has: all limbs have its sign
and less than 32 bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from layerscope.stats import survey_calls
from layerscope.stats.signatures import LIMBS, LIMBS_MEAN

__all__ = ["LIMBS", "add", "carry", "moments", "numbers", "settled"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_MASK = np.int64(0xFFFFFFFF)


def carry(limbs: Ints) -> Ints:
    """The same numbers in canonical form. limbs (R, K)"""
    limbs = limbs.copy()
    survey_calls.carry(limbs, 0, limbs.shape[1])
    return limbs


def settled(sums: Ints) -> Ints:
    """The two sums of each channel (C, LIMBS) in canonical form, each for itself."""
    sums = sums.copy()
    survey_calls.carry(sums, 0, LIMBS_MEAN)
    survey_calls.carry(sums, LIMBS_MEAN, LIMBS)
    return sums


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
