"""Statistics and 8-bit codes of activations: the hot path inside forward hooks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import calls
from .columns import Columns

__all__ = ["activations", "quantize"]


def activations(x: NDArray[np.float32], channels_last: bool = False) -> Columns:
    """Statistics over the finite values of every image and channel, in one reading; all fields are (B, C).

    x: float32, C-contiguous, (B, C, N), or (B, N, C) when `channels_last`.

    Values are summed in float64 after a shift by the first value of their channel, so that a large mean does
    not swallow a small deviation. Where that value was an outlier, or a value is not finite, the channel is
    done again in two passes.
    """
    images, size, channels = x.shape if channels_last else (x.shape[0], x.shape[2], x.shape[1])
    table = np.empty((8, images * channels))
    if channels_last:
        calls.channels_last(x, table)
    else:
        calls.rows(x.reshape(-1), size, table)
    return calls.columns(table, images, channels)


def quantize(x: NDArray[np.float32], low: NDArray[np.floating], high: NDArray[np.floating]) -> NDArray[np.uint8]:
    """8-bit codes of channels. x float32 (C, N), low and high (C,) -> uint8 (C, N).

    code = floor((value - low) * (254 / (high - low)) + 0.5) in float64, held within 0 to 254; 255 for NaN
    and infinities; 0 where not high > low. The way back, half a step off: low + code * (high - low) / 254.
    """
    out = np.empty(x.shape, np.uint8)
    calls.codes(np.ascontiguousarray(x), np.array(low, np.float64), np.array(high, np.float64), out)
    return out
