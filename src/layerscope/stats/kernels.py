"""The loops. They take contiguous, aligned arrays that numba sees as writable (see `memory.plain`).

`floats` is float64 (4, R): mean, m2, min, max. `ints` is int64 (4, R): count, zeros, nan, inf. R is the
number of rows, or of images times channels. Most kernels serve float32 and float64; numba compiles for each.

Fast loops assume finite values, find out on the way whether that holds, and leave the rest to `careful`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

__all__ = ["bin_pairs", "bin_values", "channels_last", "codes", "count_patterns", "rows", "spread", "warm"]

Array = NDArray[Any]

#: how far the squared mean of the shifted values may exceed their variance: a factor of 1e3 costs three
#: digits of sixteen; beyond, the pivot was an outlier
STEEP = 1e3
#: half of the values that `bin_pairs` takes at a time: few enough that most blocks have none near an edge
HALF = 1024
#: positions that `channels_last` joins before it touches the sums
TILE = 8

njit = numba.njit(cache=True, nogil=True, error_model="numpy")
# Sums may be reordered, which lets them use vector registers. NaN and infinities keep their meaning: "nnan"
# and "ninf" are not among the flags.
reduction = numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "nsz", "contract"})


@njit
def careful(values: Array, start: int, step: int, size: int, floats: Array, ints: Array, row: int) -> None:
    """One row in two passes in float64, finite values only. values (N,); start, step: where the row lies."""
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
            rest += (value - mean) / count
    if count:
        floats[0, row] = mean + rest
        floats[1, row] = max(m2 - rest * rest * count, 0.0)
        floats[2, row], floats[3, row] = low, high
    else:
        floats[0, row] = floats[1, row] = 0.0
        floats[2, row] = floats[3, row] = math.nan
    ints[0, row], ints[1, row], ints[2, row], ints[3, row] = count, zeros, nans, infs


@njit
def flip(bits: Any, top: Any) -> Any:
    """Bits of a float as an integer of the same order, and back. top: the largest integer of that width.

    Vector units compare integers several times faster than floats whose NaN must be minded.
    """
    return bits ^ ((bits >> 63) & top)  # narrow integers are widened by their sign first


@reduction
def sweep(values: Array, bits: Array, start: int, size: int, pivot: float) -> tuple[Any, Any, Any, float, float]:
    """Lowest and highest key, zeros, sums of the shifted values and of their squares. values, bits (N,)."""
    values, bits = values[start : start + size], bits[start : start + size]
    integer = bits.dtype.type
    top = np.iinfo(bits.dtype).max
    low, high, zeros = integer(top), integer(~top), integer(0)
    total = squares = 0.0
    for i in range(size):
        key = integer(flip(bits[i], top))
        low = min(low, key)
        high = max(high, key)
        zeros = integer(zeros + integer(bits[i] & top == 0))
        shifted = np.float64(values[i]) - pivot
        total += shifted
        squares += shifted * shifted
    return low, high, zeros, total, squares


@njit
def settle(
    values: Array, bits: Array, channels: int, size: int, first: int, last: int, floats: Array, ints: Array
) -> None:
    """Turn what the sweeps left into statistics, or go over a row again where it held a trap.

    In: floats pivot, sum and sum of squares of the shifted values; ints lowest key, highest key, zeros.
    values, bits (B*N*C,) with N = size; channels is 1 where rows lie one after the other.
    One call for all rows: handing arrays from function to function costs as much as a short row.
    """
    top = np.iinfo(bits.dtype).max
    keys = np.empty(2, bits.dtype)
    ends = keys.view(values.dtype)
    for row in range(first, last):
        pivot, total, squares = floats[0, row], floats[1, row], floats[2, row]
        mean = total / max(size, 1)
        m2 = squares - total * mean
        keys[0], keys[1], zeros = flip(ints[0, row], top), flip(ints[1, row], top), ints[2, row]
        low, high = np.float64(ends[0]), np.float64(ends[1])
        if size > 0 and total * mean <= STEEP * m2:  # false where a NaN or an infinity came in
            floats[0, row], floats[1, row], floats[2, row], floats[3, row] = pivot + mean, m2, low, high
            ints[0, row], ints[1, row], ints[2, row], ints[3, row] = size, zeros, 0, 0
        else:
            start = row // channels * channels * size + row % channels
            careful(values, start, channels, size, floats, ints, row)


@njit
def rows(values: Array, bits: Array, size: int, first: int, last: int, floats: Array, ints: Array) -> None:
    """Statistics of the rows from `first` to `last`. values (R*size,), bits: the same memory as integers."""
    for row in range(first, last):
        pivot = np.float64(values[row * size]) if size else 0.0
        low, high, zeros, total, squares = sweep(values, bits, row * size, size, pivot)
        floats[0, row], floats[1, row], floats[2, row] = pivot, total, squares
        ints[0, row], ints[1, row], ints[2, row] = low, high, zeros
    settle(values, bits, 1, size, first, last, floats, ints)


def tile_sweep(lines: int) -> Callable[..., None]:
    """Like `sweep`, for every column of so many lines at once: a sum is loaded and stored once a tile."""

    @reduction
    def sweep_tile(
        values: Array,
        bits: Array,
        pivot: Array,
        lows: Array,
        highs: Array,
        zeros: Array,
        totals: Array,
        squares: Array,
    ) -> None:
        """values, bits (lines, C), the others (C,)"""
        top = np.int32(0x7FFFFFFF)
        # Two loops: with more arrays in one, the compiler gives up proving that they do not overlap.
        for channel in range(pivot.shape[0]):
            low, high, none = lows[channel], highs[channel], zeros[channel]
            for i in range(lines):
                bit = bits[i, channel]
                key = np.int32(flip(bit, top))
                low = min(low, key)
                high = max(high, key)
                none = np.int32(none + np.int32(bit & top == 0))
            lows[channel], highs[channel], zeros[channel] = low, high, none
        for channel in range(pivot.shape[0]):
            total = square = 0.0
            for i in range(lines):
                shifted = np.float64(values[i, channel]) - pivot[channel]
                total += shifted
                square += shifted * shifted
            totals[channel] += total
            squares[channel] += square

    return sweep_tile


sweep_tile = tile_sweep(TILE)
sweep_line = tile_sweep(1)


@njit
def channels_last(values: Array, bits: Array, first: int, last: int, floats: Array, ints: Array) -> None:
    """Statistics of all channels of the images `first` to `last`. values, bits (B, N, C) -> (4, B*C)."""
    _, size, channels = values.shape
    top = np.int32(0x7FFFFFFF)
    lows, highs, zeros = (
        np.empty(channels, np.int32),
        np.empty(channels, np.int32),
        np.empty(channels, np.int32),
    )
    pivot, totals, squares = np.empty(channels), np.empty(channels), np.empty(channels)
    for image in range(first, last):
        lines, signs = values[image], bits[image]
        for channel in range(channels):
            pivot[channel] = lines[0, channel] if size else 0.0
            lows[channel], highs[channel], zeros[channel] = top, ~top, 0
            totals[channel] = squares[channel] = 0.0
        whole = size // TILE * TILE
        for i in range(0, whole, TILE):
            tile = slice(i, i + TILE)
            sweep_tile(lines[tile], signs[tile], pivot, lows, highs, zeros, totals, squares)
        for i in range(whole, size):
            sweep_line(lines[i : i + 1], signs[i : i + 1], pivot, lows, highs, zeros, totals, squares)
        for channel in range(channels):
            row = image * channels + channel
            floats[0, row], floats[1, row], floats[2, row] = pivot[channel], totals[channel], squares[channel]
            ints[0, row], ints[1, row], ints[2, row] = lows[channel], highs[channel], zeros[channel]
    first, last = first * channels, last * channels
    settle(values.reshape(-1), bits.reshape(-1), channels, size, first, last, floats, ints)


@njit
def bin_of(value: Any, edges: Array, bins: int) -> int:
    """The bin of a finite value within the edges, to the letter as numpy.histogram finds it, in their type.

    numpy's result is kept even where the edges say otherwise: an estimate, then one step at most either way.
    """
    first, last = edges[0], edges[bins]
    index = int((value - first) / (last - first) * edges.dtype.type(bins))
    if index == bins:
        index -= 1
    if value < edges[index]:
        index -= 1
    if value >= edges[index + 1] and index != bins - 1:
        index += 1
    return index


@njit
def bin_values(values: Array, edges: Array, counts: Array) -> None:
    """Add the finite values to the bins. values (N,), edges (bins + 1,) of the same type, counts (bins,)."""
    for i in range(values.shape[0]):
        if math.isfinite(values[i]):
            counts[bin_of(values[i], edges, counts.shape[0])] += 1


@njit
def bin_pairs(values: Array, edges: Array, tolerance: float, counts: Array) -> None:
    """Like `bin_values` for finite values only and at most 255 bins, many times faster.

    A value is estimated twice, the tolerance below and above. Where both fall into one bin it is the right
    one; the rare others are looked up. Two values then share one increment, of a table of all pairs of bins.
    """
    bins, kind = counts.shape[0], values.dtype.type
    first, width, slack = edges[0], np.int32(bins), kind(tolerance)
    scale = kind(bins) / (edges[bins] - first)
    pairs = np.zeros(bins * bins, np.uint32)
    below, above = np.empty(HALF, np.uint16), np.empty(HALF, np.uint16)
    whole = values.shape[0] // (2 * HALF) * (2 * HALF)
    for start in range(0, whole, 2 * HALF):
        left, right = values[start : start + HALF], values[start + HALF : start + 2 * HALF]
        doubtful = np.uint16(0)
        for i in range(HALF):
            a, b = (left[i] - first) * scale, (right[i] - first) * scale
            under = np.uint16(np.int32(np.int32(a - slack) * width + np.int32(b - slack)))
            over = np.uint16(np.int32(np.int32(a + slack) * width + np.int32(b + slack)))
            below[i], above[i] = under, over
            doubtful = np.uint16(doubtful | (under ^ over))
        if doubtful:
            for i in range(HALF):
                if below[i] != above[i]:
                    below[i] = bin_of(left[i], edges, bins) * bins + bin_of(right[i], edges, bins)
        for i in range(HALF):
            pairs[below[i]] += np.uint32(1)
    for a in range(bins):
        for b in range(bins):
            counts[a] += pairs[a * bins + b]
            counts[b] += pairs[a * bins + b]
    bin_values(values[whole:], edges, counts)


@njit
def count_patterns(bits: Array, counts: Array) -> None:
    """Add every bit pattern to its counter. bits uint8 or uint16 (N,), counts int64 (256 or 65536,)."""
    for i in range(bits.shape[0]):
        counts[bits[i]] += 1


@njit
def spread(bits: Array, table: Array, counts: Array, out: Array) -> None:
    """Like `count_patterns`, and write down the values. table float32 (256 or 65536,), out float32 (N,)."""
    for i in range(bits.shape[0]):
        counts[bits[i]] += 1
        out[i] = table[bits[i]]


@njit
def codes(values: Array, low: Array, high: Array, out: Array) -> None:
    """values float32 (C, N), low and high float64 (C,), out uint8 (C, N). The formula: see `quantize`."""
    for channel in range(values.shape[0]):
        base = low[channel]
        scale = 254.0 / (high[channel] - base) if high[channel] > base else 0.0
        for i in range(values.shape[1]):
            value = np.float64(values[channel, i])
            finite = abs(value) < math.inf
            steps = (value - base) * scale + 0.5 if finite and scale > 0.0 else 0.0
            code = np.uint8(np.int32(min(max(steps, 0.0), 254.0)))
            out[channel, i] = code if finite else np.uint8(255)


def warm() -> None:
    """Compile every kernel for every type it is used with."""
    floats, ints, counts = np.empty((4, 1)), np.empty((4, 1), np.int64), np.zeros(1, np.int64)
    for values, bits in ((np.ones(1, np.float32), "i4"), (np.ones(1), "i8")):
        rows(values, values.view(bits), 1, 0, 1, floats, ints)
        edges = np.arange(2, dtype=values.dtype)
        bin_values(values, edges, counts)
        bin_pairs(values, edges, 0.1, counts)
    single = np.ones((1, 1, 1), np.float32)
    channels_last(single, single.view(np.int32), 0, 1, floats, ints)
    codes(single[0], floats[0], floats[0], np.empty((1, 1), np.uint8))
    for patterns in (np.zeros(1, np.uint8), np.zeros(1, np.uint16)):
        count_patterns(patterns, counts)
        spread(patterns, single[0, 0], counts, single[0, 0])
