"""The loops of a survey of a data set, in numba's Python; see `kernels` for what holds of all of them.

`floats` and `lines` are what `rows` wrote, for every image and channel: float64 (4, B*C) mean, m2, min, max; int64
(4, B*C) count, zeros, nan, inf. Everything is added up in whole numbers, so that no order of images can be told
from the result.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from numba.np.numpy_support import carray
from numpy.typing import NDArray

from .kernels import flip
from .signatures import BINS, BLOCK, FIRST_BIN, LIMBS, LIMBS_MEAN

__all__ = ["carry", "enlist", "fold", "spectrum"]

Array = NDArray[Any]

njit = numba.njit(error_model="numpy")

MASK = np.uint64(0xFFFFFFFF)
WORD = np.uint64(32)
#: limbs beyond which no value of float32 and no sum of its squares begins: nothing is written past the end
LAST_MEAN = LIMBS_MEAN - 4
LAST_SQUARE = LIMBS - LIMBS_MEAN - 4
#: counters of 16 bits are emptied before one of them can overflow
FULL = 4 * 60000


@njit
def digits(value: float, under: int) -> tuple[Any, Any, Any, Any]:
    """|value| in units of 2**-under: number of the first limb and three limbs of 32 bits; what is finer is cut off."""
    bits = np.float64(value).view(np.int64)
    mantissa: Any = np.uint64(bits & 0xFFFFFFFFFFFFF)
    exponent: Any = (bits >> 52) & 2047
    if exponent:
        mantissa = mantissa | np.uint64(1 << 52)
    else:
        exponent = 1
    place = exponent - 1075 + under
    if place < 0:
        mantissa = mantissa >> np.uint64(-place) if place > -64 else np.uint64(0)
        place = 0
    shift = np.uint64(place & 31)
    low = (mantissa << shift) & MASK
    # In two steps: a shift by 64 is undefined.
    middle = (mantissa >> (WORD - shift)) & MASK
    high = (mantissa >> WORD) >> (WORD - shift)
    return place >> 5, low, middle, high


@njit
def add(sums: Array, first: Any, number: Any, times: Any, sign: Any) -> None:
    """Add sign * times * number, exactly: long multiplication. number: columns of less than 2**35, not yet carried."""
    column = carry = np.uint64(0)
    for k in range(len(number)):
        column += number[k]
        carry += times * (column & MASK)
        sums[first + k] += sign * np.int64(carry & MASK)
        column >>= WORD
        carry >>= WORD
    sums[first + len(number)] += sign * np.int64(carry)


@njit
def add_mean(sums: Array, mean: float, count: Any) -> None:
    """Add count*mean, exactly. sums int64 (LIMBS_MEAN,) in units of 2**-256."""
    first, a, b, c = digits(mean, 256)
    if first <= LAST_MEAN:
        add(sums, first, (a, b, c), np.uint64(count), np.int64(-1) if mean < 0 else np.int64(1))


@njit
def add_square(sums: Array, mean: float, count: Any) -> None:
    """Add count*mean*mean, exactly. sums int64 (LIMBS - LIMBS_MEAN,) in units of 2**-512."""
    first, a, b, c = digits(mean, 256)
    if first > LAST_MEAN:
        return
    aa, ab, ac, bb, bc, cc = a * a, a * b, a * c, b * b, b * c, c * c
    two = np.uint64(2)
    columns = (
        aa & MASK,
        (aa >> WORD) + two * (ab & MASK),
        two * (ab >> WORD) + two * (ac & MASK) + (bb & MASK),
        two * (ac >> WORD) + (bb >> WORD) + two * (bc & MASK),
        two * (bc >> WORD) + (cc & MASK),
        cc >> WORD,
    )
    add(sums, 2 * first, columns, np.uint64(count), np.int64(1))


@njit
def add_m2(sums: Array, m2: float) -> None:
    """Add m2, cut to multiples of 2**-512."""
    first, a, b, c = digits(m2, 512)
    if first <= LAST_SQUARE:
        add(sums, first, (a, b, c), np.uint64(1), np.int64(1))


def fold(floats, lines, images, channels, ints, ends, sums):
    """Add the images to what is known of the channels.

    ints int64 (5, C): count, zeros, nan, inf, images on which all is zero. ends float64 (2, C): min, max; NaN before
    the first. sums int64 (C, LIMBS): of n*mean, then of m2 + n*mean**2, as limbs that are yet to be carried.
    """
    many = images * channels
    floats, lines = carray(floats, (4, many)), carray(lines, (4, many))
    ints, ends, sums = carray(ints, (5, channels)), carray(ends, (2, channels)), carray(sums, (channels, LIMBS))
    for channel in range(channels):
        mine, squares = sums[channel, :LIMBS_MEAN], sums[channel, LIMBS_MEAN:]
        for image in range(images):
            row = image * channels + channel
            count, zeros, nan, inf = lines[0, row], lines[1, row], lines[2, row], lines[3, row]
            ints[0, channel] += count
            ints[1, channel] += zeros
            ints[2, channel] += nan
            ints[3, channel] += inf
            if count == 0:
                continue
            if zeros == count and nan == 0 and inf == 0:
                ints[4, channel] += 1
            # Plus zero: -0.0 and 0.0 are equal, and which of them came first must not be seen.
            low, high = floats[2, row] + 0.0, floats[3, row] + 0.0
            if low < ends[0, channel] or math.isnan(ends[0, channel]):
                ends[0, channel] = low
            if high > ends[1, channel] or math.isnan(ends[1, channel]):
                ends[1, channel] = high
            mean = floats[0, row]
            if mean != 0.0:
                add_mean(mine, mean, count)
                add_square(squares, mean, count)
            if floats[1, row] > 0.0:
                add_m2(squares, floats[1, row])


@njit
def run(limbs: Array, row: int, first: int, last: int) -> None:
    """Hand on what is over 32 bits, so that all limbs but the last are positive."""
    for k in range(first, last - 1):
        over = limbs[row, k] >> 32
        limbs[row, k] &= 0xFFFFFFFF
        limbs[row, k + 1] += over


def carry(limbs, many, size, first, last):
    """Bring numbers, the limbs `first` to `last` of each row, into canonical form in place. limbs int64 (R, size)"""
    limbs = carray(limbs, (many, size))
    for row in range(many):
        run(limbs, row, first, last)
        if limbs[row, last - 1] < 0:
            # Of a negative number the amount is carried, and then given its sign again.
            for k in range(first, last):
                limbs[row, k] = -limbs[row, k]
            run(limbs, row, first, last)
            for k in range(first, last):
                limbs[row, k] = -limbs[row, k]


@njit
def seek(values: Array, start: int, step: int, size: int, target: Any) -> int:
    """Where the value is first met in a row; -1 if nowhere."""
    i = 0
    if step == 1:
        part = values[start : start + size]
        while i + 64 <= size:  # without an early end inside, which vector units cannot do
            met = np.int32(0)
            for j in range(64):
                met = np.int32(met | np.int32(part[i + j] == target))
            if met:
                break
            i += 64
    while i < size:
        if values[start + i * step] == target:
            return i
        i += 1
    return -1


def enlist(values, floats, lines, layout, numbers, floor, keys, slots, at, low, codes, born):
    """Put the images into each channel's list of the best.

    values float32 (B*each*C*N,). layout int64 (11,): images, rows an image, channels, values a row, whether the
    channels are last, values in front without a place, height and width of a row's picture, rows side by side,
    height and width of the window. The length of a list comes in born int64 (1 + top,), the rest of it is room.
    numbers int64 (B,). floor int64 (C,): what is below cannot be among the best. keys int64 (C, top), falling; slots
    uint8 (C, top): where the rest of it lies: at int16 (C, top, 2), low float32 (C, top), codes uint8 (C, top, M).
    """
    layout = carray(layout, 11)
    images, each, channels, size, last = layout[0], layout[1], layout[2], layout[3], layout[4]
    skip, height, width, across, high_w, wide_w = layout[5], layout[6], layout[7], layout[8], layout[9], layout[10]
    top = carray(born, 1)[0]
    born = carray(born, 1 + top)[1:]
    many, cells = images * channels, high_w * wide_w
    values = carray(values, images * each * channels * size)
    floats, lines = carray(floats, (4, many)), carray(lines, (4, many))
    numbers, floor = carray(numbers, images), carray(floor, channels)
    keys, slots = carray(keys, (channels, top)), carray(slots, (channels, top))
    at, low, codes = carray(at, (channels, top, 2)), carray(low, (channels, top)), carray(codes, (channels, top, cells))
    step = channels if last else 1
    for channel in range(channels):
        fresh = 0
        least = max(keys[channel, top - 1], floor[channel] - 1)
        for image in range(images):
            row = image * channels + channel
            best = np.float32(floats[3, row] + 0.0)
            key = np.int64(flip(best.view(np.int32), np.int32(0x7FFFFFFF))) << 32 | (0xFFFFFFFF - numbers[image])
            if key <= least or lines[2, row] or lines[3, row] or lines[1, row] == lines[0, row]:
                continue
            if not fresh:
                for i in range(top):
                    born[i] = -1
            fresh = 1
            place, slot = top - 1, slots[channel, top - 1]
            while place > 0 and keys[channel, place - 1] < key:
                keys[channel, place], slots[channel, place] = keys[channel, place - 1], slots[channel, place - 1]
                place -= 1
            keys[channel, place], slots[channel, place] = key, slot
            born[slot] = image
            least = max(keys[channel, top - 1], floor[channel] - 1)
        if not fresh:
            continue
        for slot in range(top):
            image = born[slot]
            if image < 0:
                continue
            row = image * channels + channel
            base, best = floats[2, row], floats[3, row]
            start, index, part = 0, -1, 0
            for part_ in range(each):
                line = image * each + part_
                start = line * size * channels + channel if last else (line * channels + channel) * size
                index = seek(values, start, step, size, np.float32(best))
                if index >= 0:
                    part = part_
                    break
            y = x = 0
            at[channel, slot, 0] = at[channel, slot, 1] = -1
            if index >= skip:
                y, x = (index - skip) // width, (index - skip) % width
                at[channel, slot, 0] = part // across * height + y
                at[channel, slot, 1] = part % across * width + x
            y = min(max(y - high_w // 2, 0), height - high_w)
            x = min(max(x - wide_w // 2, 0), width - wide_w)
            low[channel, slot] = base + 0.0
            scale = 254.0 / (best - base) if best > base else 0.0
            for i in range(high_w):
                for j in range(wide_w):
                    value = np.float64(values[start + (skip + (y + i) * width + x + j) * step])
                    codes[channel, slot, i * wide_w + j] = np.uint8(np.int32((value - base) * scale + 0.5))


@njit
def number_of(bits: Any) -> Any:
    """The bin of a float32: 1 to BINS - 1 by its size, BINS more if it is negative; 0 and BINS for what is tiny."""
    # 32 bits all the way, or vector units hold half as many.
    size = np.int32(np.int32(np.int32(bits & np.int32(0x7FFFFFFF)) >> np.int32(20)) - np.int32(FIRST_BIN))
    size = min(max(size, np.int32(0)), np.int32(BINS - 1))
    return np.int32(size | np.int32(np.int32(bits >> np.int32(31)) & np.int32(BINS)))


@njit
def empty(tables: Array, counts: Array, delta: Array) -> None:
    """Hand the counters of 16 bits on. tables (4, 2*BINS); counts, delta (signs, width)."""
    signs, width = counts.shape
    for sign in range(signs):
        part = tables[:, sign * BINS : sign * BINS + width]
        for i in range(width):
            added = np.uint32(np.uint32(part[0, i]) + np.uint32(part[1, i]))
            added = np.uint32(added + np.uint32(np.uint32(part[2, i]) + np.uint32(part[3, i])))
            counts[sign, i] = np.uint32(counts[sign, i] + added)
            delta[sign, i] = np.uint32(delta[sign, i] + added)
        for i in range(width):
            part[0, i] = part[1, i] = part[2, i] = part[3, i] = 0
    tables[:, BINS] = 0  # of -0.0, where nothing else is negative


def spectrum(bits, lines, images, channels, size, rest, signs, width, counts, delta, room):
    """Add the finite values to each channel's counters of bins of float bits.

    bits int32 (B, C, N): float32 values. lines as in `fold`. counts uint32 (C, signs, width), positive first: no value
    is in another bin. delta the same, if `rest` is 1, else of one channel, to throw away: what this call adds. room
    uint16 (8*BINS + BLOCK,), zeros. Several tables, as an increment has to wait for the one before of the same counter.
    """
    bits, lines = carray(bits, images * channels * size), carray(lines, (4, images * channels))
    counts = carray(counts, (channels, signs, width))
    delta = carray(delta, (channels if rest else 1, signs, width))
    tables, block = carray(room, (4, 2 * BINS)), carray(room, 8 * BINS + BLOCK)[8 * BINS :]
    first, second, third, fourth = tables[0], tables[1], tables[2], tables[3]
    for channel in range(channels):
        held = 0
        for image in range(images):
            row = image * channels + channel
            finite = lines[2, row] == 0 and lines[3, row] == 0
            for start in range(row * size, (row + 1) * size, BLOCK):
                part = bits[start : min(start + BLOCK, (row + 1) * size)]
                length = part.shape[0]
                if held + length > FULL:
                    empty(tables, counts[channel], delta[channel * rest])
                    held = 0
                held += length + 4
                for i in range(length):
                    block[i] = np.uint16(number_of(part[i]))
                if not finite:
                    for i in range(length):
                        if part[i] & 0x7F800000 == 0x7F800000:
                            block[i] = 0  # as if it were tiny, which is not counted here
                whole = length // 4 * 4
                for i in range(0, whole, 4):
                    first[block[i]] += np.uint16(1)
                    second[block[i + 1]] += np.uint16(1)
                    third[block[i + 2]] += np.uint16(1)
                    fourth[block[i + 3]] += np.uint16(1)
                for i in range(whole, length):
                    first[block[i]] += np.uint16(1)
        empty(tables, counts[channel], delta[channel * rest])
