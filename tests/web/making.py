"""Records made of known arrays, so that what the page says can be compared with what is true."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from layerscope.records.maps import Maps
from layerscope.records.record import Entry
from layerscope.records.sites import Site
from layerscope.stats import activations, quantize

__all__ = ["entry_of"]


def entry_of(
    path: str,
    images: list[NDArray[np.float32]],
    type: str = "Conv2d",
    call: int = 0,
    side: str = "",
    layout: str = "NCHW",
) -> Entry:
    """A layer whose output on each image is one of these arrays, (C, h, w); (C, 1, 1) for a vector."""
    stacked = np.stack(images).astype(np.float32)  # (N, C, h, w)
    number, channels, height, width = stacked.shape
    columns = activations(np.ascontiguousarray(stacked.transpose(1, 0, 2, 3)).reshape(1, channels, -1)).take(0)
    maps = []
    for one in stacked:
        flat = np.ascontiguousarray(one.reshape(channels, -1))
        finite = np.where(np.isfinite(flat), flat, np.nan)
        low, high = np.nanmin(finite, axis=1), np.nanmax(finite, axis=1)
        codes = quantize(flat, low, high).reshape(channels, height, width)
        maps.append(Maps(low.astype(np.float32), high.astype(np.float32), (channels, height, width), codes))
    shape = (number, channels) if layout == "NC" else (number, channels, height, width)
    return Entry(Site(path, call, layout), type, shape, "float32", columns, maps=maps, side=side)
