"""8-bit maps of channels with their float range, and how codes become colours and mosaics.

A value v of a channel with range lo..hi is kept as code = round((v - lo) / (hi - lo) * 254); code 255 marks NaN and
infinities. v is recovered to half a step as lo + code * (hi - lo) / 254. Since the range of every channel is kept,
the same codes can be shown over the range of the channel, of the layer or of the network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["COLORMAPS", "NONFINITE", "Maps", "Range", "colormap", "columns_for", "levels", "mosaic", "shrunk"]

NONFINITE = 255
Range = Literal["channel", "layer", "network"]


@dataclass
class Maps:
    """Codes of one image (or one kernel tensor), uint8 (C, h, w), with lo and hi, float32 (C,).

    `reduced` is the factor by which height and width were reduced to stay within the budget; 1 is native size.
    The codes of a loaded record are read from the file when they are first asked for.
    """

    lo: NDArray[np.float32]
    hi: NDArray[np.float32]
    shape: tuple[int, int, int]
    source: NDArray[np.uint8] | Callable[[], NDArray[np.uint8]]
    reduced: int = 1

    @property
    def codes(self) -> NDArray[np.uint8]:
        """uint8 (C, h, w)"""
        if callable(self.source):
            self.source = self.source()
        return self.source

    def span(self, channels: int | None = None) -> tuple[float, float]:
        """Least and greatest finite value of the first channels, of all for None; NaN where there is none."""
        low, high = self.lo[:channels], self.hi[:channels]
        if np.isnan(low).all():
            return float("nan"), float("nan")
        return float(np.nanmin(low)), float(np.nanmax(high))

    def values(self) -> NDArray[np.float32]:
        """The values to half a step, float32 (C, h, w); NaN where they were not finite."""
        step = (self.hi - self.lo) / np.float32(254)
        values = self.lo[:, None, None] + self.codes * step[:, None, None]
        return np.where(self.codes == NONFINITE, np.float32("nan"), values)


def levels(maps: Maps, lo: NDArray | float, hi: NDArray | float, steps: int) -> NDArray[np.uint8]:
    """Map codes to colour steps 0..steps-1 over lo..hi (scalars, or one a channel): uint8 (C, 256).

    Row c, column k is the step of code k in channel c. Column 255 is left 0: the caller draws non-finite values.
    """
    code = np.arange(255, dtype=np.float64)
    own_lo, own_hi = maps.lo.astype(np.float64)[:, None], maps.hi.astype(np.float64)[:, None]
    value = own_lo + code * ((own_hi - own_lo) / 254)  # (C, 255)
    low = np.broadcast_to(np.asarray(lo, np.float64), maps.lo.shape)[:, None]
    high = np.broadcast_to(np.asarray(hi, np.float64), maps.lo.shape)[:, None]
    width = np.where(high > low, high - low, 1.0)
    share = np.nan_to_num((value - low) / width, nan=0.0)
    table = np.zeros((maps.lo.size, 256), np.uint8)
    table[:, :255] = np.rint(np.clip(share, 0, 1) * (steps - 1))
    return table


def columns_for(count: int, height: int, width: int, aspect: float = 1.6) -> int:
    """Columns that give a mosaic of `count` tiles about `aspect` times as wide as high."""
    best = round((count * aspect * height / width) ** 0.5)
    return int(min(max(best, 1), count))


def mosaic(tiles: NDArray[np.uint8], columns: int, gap: int, fill: int) -> NDArray[np.uint8]:
    """Lay tiles (C, h, w) in rows of `columns`, `gap` pixels apart: (rows*(h+gap)-gap, columns*(w+gap)-gap)."""
    count, height, width = tiles.shape
    rows = -(-count // columns)
    sheet = np.full((rows * columns, height + gap, width + gap), fill, np.uint8)
    sheet[:count, :height, :width] = tiles
    sheet = sheet.reshape(rows, columns, height + gap, width + gap).transpose(0, 2, 1, 3)  # (rows, h, columns, w)
    sheet = sheet.reshape(rows * (height + gap), columns * (width + gap))
    return sheet[: rows * (height + gap) - gap, : columns * (width + gap) - gap]


def _sums(planes: NDArray, factor: int) -> NDArray:
    """Sums of factor x factor blocks, the last ones filled up with their neighbours. (C, h, w) -> (C, rows, cols)

    Line by line: numpy's reduction over two short axes takes ten times as long, and its `pad` twice.
    """
    channels, height, width = planes.shape
    rows, cols = -(-height // factor), -(-width // factor)
    filled = np.empty((channels, rows * factor, cols * factor), np.uint16 if factor <= 16 else np.uint32)
    filled[:, :height, :width] = planes
    filled[:, height:, :width] = planes[:, -1:]
    filled[:, :, width:] = filled[:, :, width - 1 : width]
    lines = sum(filled[:, at::factor] for at in range(1, factor)) + filled[:, ::factor]
    return sum(lines[:, :, at::factor] for at in range(1, factor)) + lines[:, :, ::factor]


def shrunk(maps: Maps, factor: int) -> Maps:
    """Means of factor x factor values, (C, ceil(h/factor), ceil(w/factor)): right to a step of the codes.

    The range stays. The last rows and columns are filled up with their neighbours. Where a value is not finite, their
    mean is not.
    """
    if factor == 1 or maps.shape[1:] == (1, 1):
        return maps
    means = ((_sums(maps.codes, factor) + factor * factor // 2) // (factor * factor)).astype(np.uint8)
    nonfinite = maps.codes == NONFINITE
    if nonfinite.any():
        means[_sums(nonfinite, factor) > 0] = NONFINITE
    return Maps(maps.lo, maps.hi, means.shape, means, maps.reduced * factor)


#: anchors, equally spaced, straight lines between them
COLORMAPS: dict[str, str] = {
    # matplotlib's viridis (S. van der Walt, N. Smith, E. Firing; CC0) to 2/255: every eighth colour
    "viridis": "440154 470d60 48186a 482374 472d7b 453681 424086 3f4989 3b528b 375a8d 33638d "
    "2f6a8e 2c728e 297a8e 26818e 23898e 21908c 1f988b 1f9f88 21a685 28ae80 31b57b "
    "3ebc74 4cc26c 5dc963 6ece58 82d34c 96d83f abdc32 c0df24 d5e21a eae51a fde725",
    "gray": "000000 ffffff",
    # blue - pale - red, readable with any colour vision; ends of equal lightness
    "diverging": "123a6f 2166ac 4393c3 92c5de d1e5f0 f7f7f7 fddbc7 f4a582 d6604d b2182b 6f0d20",
}


@cache
def colormap(name: str, steps: int) -> NDArray[np.uint8]:
    """Colour table, uint8 (steps, 3)."""
    anchors = np.array([list(bytes.fromhex(color)) for color in COLORMAPS[name].split()], np.float64)
    at = np.linspace(0, len(anchors) - 1, steps)
    table = np.stack([np.interp(at, np.arange(len(anchors)), anchors[:, rgb]) for rgb in range(3)], axis=1)
    return np.rint(table).astype(np.uint8)
