"""The kernels of a survey as functions of arrays. Machine code believes any address: what does not fit is an error."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .calls import _FLOAT32, _FLOAT64, _INT64, _UINT8, _UINT16, _UINT32, _read, _write
from .objects import kernel
from .signatures import BINS, BLOCK, FIRST_BIN, LIMBS

__all__ = ["carry", "enlist", "fold", "reach", "spectrum"]

Array = NDArray[Any]

_INT16 = np.dtype("i2")


def carry(limbs: Array, first: int, last: int) -> None:
    """Bring the numbers that the limbs `first` to `last` of each row are into canonical form. limbs int64 (R, K)"""
    many, size = limbs.shape
    if not 0 <= first < last <= size:
        raise ValueError(f"expected limbs of {size}, got {first} to {last}")
    kernel("carry_i8")(_write(limbs, _INT64, (many, size)), many, size, first, last)


def fold(table: Array, channels: int, ints: Array, ends: Array, sums: Array) -> None:
    """Add images, table float64 (8, B*C) as `rows` wrote it, to ints (5, C), ends (2, C) and sums (C, LIMBS).

    No count may be 2**31 or more.
    """
    images = table.shape[1] // channels
    at = _read(table, _FLOAT64, (8, images * channels))
    room = _write(ints, _INT64, (5, channels)), _write(ends, _FLOAT64, (2, channels))
    kernel("fold_f8")(at, at + images * channels * 32, images, channels, *room, _write(sums, _INT64, (channels, LIMBS)))


def enlist(
    values: Array,
    table: Array,
    numbers: Array,
    layout: Array,
    floor: Array,
    lists: tuple[Array, Array, Array, Array, Array],
) -> None:
    """Put images into lists of the best: keys, slots, at, low and codes; see the kernel of that name."""
    images, each, channels, size, last, skip, height, width, across, high, wide = layout.tolist()
    keys, slots, at, low, codes = lists
    top = keys.shape[1]
    if min(images, each, channels, size, height, width, across) < 1 or last not in (0, 1):
        raise ValueError(f"expected sizes of at least 1, got {layout.tolist()}")
    if skip < 0 or skip + height * width > size or not (1 <= high <= height and 1 <= wide <= width) or top > 255:
        raise ValueError(f"a window {high} x {wide} in {height} x {width} of {size} values does not fit")
    born = np.empty(1 + top, np.int64)
    born[0] = top
    many = images * channels
    inputs = _read(values, _FLOAT32, (images * each * channels * size,)), _read(table, _FLOAT64, (8, many))
    kernel("enlist_f4")(
        *inputs,
        inputs[1] + many * 32,
        _read(layout, _INT64, (11,)),
        _read(numbers, _INT64, (images,)),
        _read(floor, _INT64, (channels,)),
        _write(keys, _INT64, (channels, top)),
        _write(slots, _UINT8, (channels, top)),
        _write(at, _INT16, (channels, top, 2)),
        _write(low, _FLOAT32, (channels, top)),
        _write(codes, _UINT8, (channels, top, high * wide)),
        _write(born, _INT64, (1 + top,)),
    )


def spectrum(values: Array, table: Array, channels: int, counts: Array, delta: Array | None, room: Array) -> None:
    """Add values float32 (B*C*N,) to the counters counts uint32 (C, signs, width), and to delta if there is one.

    room uint16 (8*BINS + BLOCK,): zeros, and zeros again afterwards but for its end. Counters that are not as wide as
    `reach` says are an error.
    """
    many = table.shape[1]
    size = values.size // many
    signs, width = counts.shape[1:]
    least = reach(table)
    if not (least[0] <= signs <= 2 and least[1] <= width <= BINS):
        raise ValueError(f"values of {least[0]} signs and {least[1]} bins do not fit into {signs} and {width}")
    inputs = _read(values, _FLOAT32, (many * size,)), _read(table, _FLOAT64, (8, many)) + many * 32
    to = _write(counts, _UINT32, (channels, signs, width))
    # Without a delta the counts are handed on only once: the kernel is given a line to throw away.
    rest = np.empty((1, signs, width), np.uint32) if delta is None else delta
    lost = _write(rest, _UINT32, (1 if delta is None else channels, signs, width))
    into = to, lost, _write(room, _UINT16, (8 * BINS + BLOCK,))
    kernel("spectrum_f4")(*inputs, many // channels, channels, size, int(delta is not None), signs, width, *into)


def reach(table: Array) -> tuple[int, int]:
    """How many signs and how many bins a sign the values have of which `rows` wrote this table, float64 (8, B*C)."""
    low, high = np.fmin.reduce(table[2], initial=0.0), np.fmax.reduce(table[3], initial=0.0)
    bits = int(np.float32(max(-low, high)).view(np.int32))
    return 1 + bool(low < 0), min(max((bits >> 20) - FIRST_BIN, 0), BINS - 1) + 1
