"""The loops, in numba's Python. Importing this file imports numba: `objects` does it once a machine.

What `signatures` lists, types included, takes pointers and sizes, as C does, and trusts them: `calls` has checked them.
Nothing here allocates, raises or touches a Python object, so that the machine code stands alone.

`floats` is float64 (4, R): mean, m2, min, max. `ints` is int64 (4, R): count, zeros, nan, inf. R is the
number of rows, or of images times channels. Most kernels serve float32 and float64, each compiled by itself.

Fast loops assume finite values, find out on the way whether that holds, and leave the rest to `careful`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba.np.numpy_support import carray
from numpy.typing import NDArray

from .signatures import HALF

__all__ = ["bin_pairs", "bin_values", "channels_last", "codes", "count_patterns", "rows", "spread"]

Array = NDArray[Any]

#: how far the squared mean of the shifted values may exceed their variance: a factor of 1e3 costs three
#: digits of sixteen; beyond, the pivot was an outlier
STEEP = 1e3
#: positions that `channels_last` joins before it touches the sums
TILE = 8

njit = numba.njit(error_model="numpy")
# Sums may be reordered, which lets them use vector registers. NaN and infinities keep their meaning: "nnan"
# and "ninf" are not among the flags.
reduction = numba.njit(error_model="numpy", fastmath={"reassoc", "nsz", "contract"})


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
    if not math.isfinite(rest):  # a deviation has gone over the top
        rest = 0.0
    if count:
        floats[0, row] = mean + rest
        # Squares that have gone over the top stay there: infinity less infinity is NaN.
        floats[1, row] = max(m2 - rest * rest * count, 0.0) if m2 < math.inf else m2
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


@njit
def value(bits: Any, wide: bool) -> Any:
    """The float64 or float32 that has these bits."""
    return np.int64(bits).view(np.float64) if wide else np.float64(np.int32(bits).view(np.float32))


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
def settle(values: Array, bits: Array, channels: int, size: int, floats: Array, ints: Array) -> None:
    """Turn what the sweeps left into statistics, or go over a row again where it held a trap.

    In: floats pivot, sum and sum of squares of the shifted values; ints lowest key, highest key, zeros.
    values, bits (B*N*C,) with N = size; channels is 1 where rows lie one after the other.
    One call for all rows: handing arrays from function to function costs as much as a short row.
    """
    top = np.iinfo(bits.dtype).max
    wide = bits.itemsize == 8
    for row in range(floats.shape[1]):
        pivot, total, squares = floats[0, row], floats[1, row], floats[2, row]
        mean = total / max(size, 1)
        m2 = squares - total * mean
        low, high, zeros = value(flip(ints[0, row], top), wide), value(flip(ints[1, row], top), wide), ints[2, row]
        if size > 0 and total * mean <= STEEP * m2:  # false where a NaN or an infinity came in
            floats[0, row], floats[1, row], floats[2, row], floats[3, row] = pivot + mean, m2, low, high
            ints[0, row], ints[1, row], ints[2, row], ints[3, row] = size, zeros, 0, 0
        else:
            start = row // channels * channels * size + row % channels
            careful(values, start, channels, size, floats, ints, row)


def rows(values, bits, size, floats, ints, many):
    """Statistics of every row. values (many*size,); bits: the same as integers."""
    values, bits = carray(values, many * size), carray(bits, many * size)
    floats, ints = carray(floats, (4, many)), carray(ints, (4, many))
    for row in range(many):
        pivot = np.float64(values[row * size]) if size else 0.0
        low, high, zeros, total, squares = sweep(values, bits, row * size, size, pivot)
        floats[0, row], floats[1, row], floats[2, row] = pivot, total, squares
        ints[0, row], ints[1, row], ints[2, row] = low, high, zeros
    settle(values, bits, 1, size, floats, ints)


def tile_sweep(lines: int) -> Callable[..., None]:
    """Like `sweep`, for every column of some lines at once: a sum is loaded and stored once a tile."""

    @reduction
    def sweep_tile(
        values: Array, bits: Array, pivot: Array, lows: Array, highs: Array, zeros: Array, totals: Array, squares: Array
    ) -> None:
        """values, bits (lines, C), the others (C,)"""
        top = np.int32(0x7FFFFFFF)
        # Two loops: with more arrays in one, the compiler stops proving that they do not overlap.
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


def channels_last(values, bits, images, size, channels, sums, marks, floats, ints):
    """Statistics of all channels of every image. values, bits (B, N, C) -> (4, B*C).

    sums float64 (3, C), marks int32 (3, C): room to work in.
    """
    top = np.int32(0x7FFFFFFF)
    whole_values, whole_bits = carray(values, images * size * channels), carray(bits, images * size * channels)
    values, bits = carray(values, (images, size, channels)), carray(bits, (images, size, channels))
    sums, marks = carray(sums, (3, channels)), carray(marks, (3, channels))
    floats, ints = carray(floats, (4, images * channels)), carray(ints, (4, images * channels))
    pivot, totals, squares = sums[0], sums[1], sums[2]
    lows, highs, zeros = marks[0], marks[1], marks[2]
    for image in range(images):
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
    settle(whole_values, whole_bits, channels, size, floats, ints)


@njit
def bin_of(value: Any, edges: Array, bins: int) -> int:
    """The bin of a finite value within the edges, to the letter as numpy.histogram finds it, in their type.

    numpy's result is kept even where the edges say otherwise: an estimate, then one step at most either way.
    """
    first, last = edges[0], edges[bins]
    # Values of a file that changes while it is read lie anywhere: no bin may lie outside.
    index = min(max(int((value - first) / (last - first) * edges.dtype.type(bins)), 0), bins - 1)
    if value < edges[index] and index > 0:
        index -= 1
    if value >= edges[index + 1] and index != bins - 1:
        index += 1
    return index


@njit
def add(values: Array, edges: Array, counts: Array) -> None:
    """Add the finite values to the bins."""
    for i in range(values.shape[0]):
        if math.isfinite(values[i]):
            counts[bin_of(values[i], edges, counts.shape[0])] += 1


def bin_values(values, size, edges, bins, counts):
    """Add the finite values to the bins. values (N,), edges (bins + 1,) of the same type, counts (bins,)."""
    add(carray(values, size), carray(edges, bins + 1), carray(counts, bins))


def bin_pairs(values, size, edges, bins, tolerance, pairs, room, counts):
    """Like `bin_values` for finite values only and at most 255 bins, many times faster.

    A value is estimated twice, the tolerance below and above. Where both fall into one bin it is the right
    one; the rare others are looked up. Two values then share one increment, of a table of all pairs of bins.

    pairs uint32 (65536,), as long as indices reach; room uint16 (2, HALF).
    """
    values, edges, counts = carray(values, size), carray(edges, bins + 1), carray(counts, bins)
    pairs, room = carray(pairs, 65536), carray(room, (2, HALF))
    below, above = room[0], room[1]
    kind = values.dtype.type
    first, width, slack = edges[0], np.int32(bins), kind(tolerance)
    scale = kind(bins) / (edges[bins] - first)
    for i in range(bins * bins):
        pairs[i] = 0
    whole = size // (2 * HALF) * (2 * HALF)
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
    add(values[whole:], edges, counts)


def count_patterns(bits, size, counts):
    """Add every bit pattern to its counter. bits uint8 or uint16 (N,), counts int64 (256 or 65536,)."""
    for i in range(size):
        counts[bits[i]] += 1


def spread(bits, size, table, counts, out):
    """Like `count_patterns`, and write down the values. table float32 (256 or 65536,), out float32 (N,)."""
    for i in range(size):
        counts[bits[i]] += 1
        out[i] = table[bits[i]]


def codes(values, channels, size, low, high, out):
    """values float32 (C, N), low and high float64 (C,), out uint8 (C, N). The formula: see `quantize`."""
    values, out = carray(values, (channels, size)), carray(out, (channels, size))
    for channel in range(channels):
        base = low[channel]
        scale = 254.0 / (high[channel] - base) if high[channel] > base else 0.0
        for i in range(size):
            value = np.float64(values[channel, i])
            finite = abs(value) < math.inf
            steps = (value - base) * scale + 0.5 if finite and scale > 0.0 else 0.0
            code = np.uint8(np.int32(min(max(steps, 0.0), 254.0)))
            out[channel, i] = code if finite else np.uint8(255)
