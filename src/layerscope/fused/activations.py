"""Statistics and 8-bit maps of activations: the hot path inside forward hooks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .columns import Columns
from .memory import plain

__all__ = ["activations", "quantize"]


def activations(x: NDArray[np.float32], channels_last: bool = False, threads: int = 1) -> Columns:
    """Statistics of every image and channel; all fields are (B, C).

    x: float32, C-contiguous, (B, C, N), or (B, N, C) when `channels_last`.
    """
    from . import kernels

    if channels_last:
        images, _, channels = x.shape
    else:
        images, channels, size = x.shape
    floats = np.empty((4, images * channels))
    ints = np.empty((4, images * channels), np.int64)
    values = plain(x).reshape(-1)
    if channels_last:
        kernels.channels_last(values, channels, floats, ints)
    else:
        kernels.rows(values, size, floats, ints)
    mean, m2, low, high = floats.reshape(4, images, channels)
    count, zeros, nan, inf = ints.reshape(4, images, channels)
    return Columns(count, mean, m2, low, high, zeros, nan, inf)


def quantize(
    x: NDArray[np.float32],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    out: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """8-bit codes of channels. x float32 (C, N), low and high (C,) -> uint8 (C, N).

    code = floor((value - low) * (254 / (high - low)) + 0.5) in float64, held within 0 to 254; 255 for NaN and
    infinities; 0 where high == low. Back: value = low + code * (high - low) / 254, off by half a step at most.
    """
    from . import kernels

    if out is None:
        out = np.empty(x.shape, np.uint8)
    values = plain(np.ascontiguousarray(x))
    kernels.codes(values, np.array(low, np.float64), np.array(high, np.float64), out)
    return out
