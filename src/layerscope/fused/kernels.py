"""The loops. They take flat, contiguous, aligned arrays that numba sees as writable (see `memory.plain`).

`floats` is float64 (4, R): mean, m2, min, max. `ints` is int64 (4, R): count, zeros, nan, inf.
"""

from __future__ import annotations

import math

import numba
import numpy as np

__all__ = ["bin_values", "channels_last", "codes", "count_patterns", "rows", "warm"]

njit = numba.njit(cache=True, nogil=True)


@njit
def careful(values, start, step, size, floats, ints, row):
    """One row in two passes in float64, finite values only. values (N,), start, step: where the row lies in it."""
    count = zeros = nans = infs = 0
    total = 0.0
    low, high = math.inf, -math.inf
    for i in range(size):
        value = np.float64(values[start + i * step])
        if math.isnan(value):
            nans += 1
        elif math.isinf(value):
            infs += 1
        else:
            count += 1
            zeros += value == 0.0
            total += value
            low = min(low, value)
            high = max(high, value)
    mean = total / max(count, 1)
    if not math.isfinite(mean):  # the sum went over the top of float64
        mean = 0.0
        for i in range(size):
            value = np.float64(values[start + i * step])
            if math.isfinite(value):
                mean += value / count
    m2 = rest = 0.0
    for i in range(size):
        value = np.float64(values[start + i * step])
        if math.isfinite(value):
            m2 += (value - mean) ** 2
            rest += value - mean
    if count:
        floats[0, row] = mean + rest / count
        floats[1, row] = m2 - rest * rest / count
        floats[2, row], floats[3, row] = low, high
    else:
        floats[0, row] = floats[1, row] = 0.0
        floats[2, row] = floats[3, row] = math.nan
    ints[0, row], ints[1, row], ints[2, row], ints[3, row] = count, zeros, nans, infs


@njit
def rows(values, size, floats, ints):
    """Statistics of every row of `size` values. values (R*size,)."""
    for row in range(ints.shape[1]):
        careful(values, row * size, 1, size, floats, ints, row)


@njit
def channels_last(values, channels, floats, ints):
    """Statistics of every image and channel. values (B, N, C) -> (4, B*C)."""
    images = ints.shape[1] // channels
    size = values.shape[0] // max(images * channels, 1)
    for image in range(images):
        for channel in range(channels):
            start = image * size * channels + channel
            careful(values, start, channels, size, floats, ints, image * channels + channel)


@njit
def bin_values(values, edges, counts):
    """Add the finite values to the bins, to the letter as numpy.histogram does in the edges' type."""
    bins = counts.shape[0]
    first, last = edges[0], edges[bins]
    span = last - first
    many = values.dtype.type(bins)
    for i in range(values.shape[0]):
        value = values[i]
        if math.isfinite(value):
            index = int((value - first) / span * many)
            if index == bins:
                index -= 1
            if value < edges[index]:
                index -= 1
            if value >= edges[index + 1] and index != bins - 1:
                index += 1
            counts[index] += 1


@njit
def count_patterns(bits, counts):
    """Add every bit pattern to its counter. bits uint8 or uint16 (N,), counts int64 (256 or 65536,)."""
    for i in range(bits.shape[0]):
        counts[bits[i]] += 1


@njit
def codes(values, low, high, out):
    """values float32 (C, N), low and high float64 (C,), out uint8 (C, N)."""
    for channel in range(values.shape[0]):
        scale = 254.0 / (high[channel] - low[channel]) if high[channel] > low[channel] else 0.0
        for i in range(values.shape[1]):
            value = np.float64(values[channel, i])
            if math.isfinite(value):
                code = math.floor((value - low[channel]) * scale + 0.5) if scale > 0.0 else 0.0
                out[channel, i] = np.uint8(min(max(code, 0.0), 254.0))
            else:
                out[channel, i] = 255


def warm() -> None:
    """Compile every kernel for every type it is used with."""
    floats, ints, counts = np.empty((4, 1)), np.empty((4, 1), np.int64), np.zeros(1, np.int64)
    for kind in (np.float32, np.float64):
        values = np.ones(1, kind)
        rows(values, 1, floats, ints)
        bin_values(values, np.array([0, 1], kind), counts)
    single = np.ones((1, 1), np.float32)
    channels_last(single.ravel(), 1, floats, ints)
    codes(single, floats[0], floats[0], np.empty((1, 1), np.uint8))
    for kind in (np.uint8, np.uint16):
        count_patterns(np.zeros(1, kind), counts)
