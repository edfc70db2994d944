"""A page in colour: a sheet for text and lines, and pictures laid on it, enlarged, framed or coloured."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from layerscope.maps import colormap
from layerscope.views.sheet import INK, Sheet, encode, measure

__all__ = ["RGB", "Page", "colored", "fit", "framed", "plane"]

RGB = NDArray[np.uint8]

_ORANGE, _DARK = (255, 176, 59), (17, 19, 24)


class Page:
    """A sheet for text and lines, and colour pictures laid on it."""

    def __init__(self, height: int, width: int) -> None:
        self.sheet = Sheet(height, width, "gray")
        self._pictures: list[tuple[int, int, Image.Image]] = []

    def text(self, x: int, y: int, text: str, size: int = 14, ink: int = INK, room: int | None = None) -> int:
        """Write at (x, y), cut to `room` pixels; the width drawn."""
        return self.sheet.text(x, y, text, size, ink, room)

    def centred(self, x: int, y: int, width: int, text: str, size: int, ink: int = INK) -> None:
        """Write in the middle of `width` pixels."""
        self.text(x + max(0, (width - measure(text, size)) // 2), y, text, size, ink, room=width)

    def picture(self, x: int, y: int, pixels: RGB) -> None:
        """Lay a colour picture (h, w, 3) at (x, y)."""
        self._pictures.append((x, y, Image.fromarray(pixels)))

    def scale(self, x: int, y: int, width: int, cmap: str, low: str, high: str) -> None:
        """A colour bar with its two ends below."""
        self.picture(x, y, np.tile(colormap(cmap, width)[None], (8, 1, 1)))
        self.text(x, y + 12, low, 13)
        self.text(x + width - measure(high, 13), y + 12, high, 13)

    def png(self) -> bytes:
        """The page as a PNG in true colour."""
        page = Image.fromarray(self.sheet.rgb())
        for x, y, picture in self._pictures:
            page.paste(picture, (x, y))
        return encode(page)


def plane(values: NDArray) -> NDArray:
    """Any number of axes as rows and columns: depth slices below each other, a line as one row."""
    return values.reshape(-1, values.shape[-1]) if values.ndim else values.reshape(1, 1)


def colored(values: NDArray, low: float, high: float, cmap: str) -> RGB:
    """Values through a colour map over low..high, what lies outside cut off: (rows, columns, 3)."""
    share = np.nan_to_num((plane(values) - low) / (high - low if high > low else 1.0))
    return colormap(cmap, 256)[np.rint(np.clip(share, 0, 1) * 255).astype(np.uint8)]


def fit(pixels: RGB, width: int, height: int, smooth: bool = False) -> RGB:
    """Enlarged or reduced to fit into width x height; blocks stay blocks when they grow."""
    rows, columns = pixels.shape[:2]
    factor = min(width / columns, height / rows)
    size = max(1, round(columns * factor)), max(1, round(rows * factor))
    how = Image.Resampling.LANCZOS if factor < 1 or smooth else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(pixels).resize(size, how))


def framed(pixels: RGB, box: tuple[float, float, float, float], width: int = 2) -> RGB:
    """With an orange frame around x0, y0, x1, y1 (pixels, the ends outside), on a dark edge so that it is seen."""
    image = Image.fromarray(pixels)
    x0, y0 = (max(round(one), width) for one in box[:2])  # at the edge of the picture the frame lies inside of it
    x1, y1 = (min(round(one), size - width) for one, size in zip(box[2:], image.size, strict=True))
    draw = ImageDraw.Draw(image)
    draw.rectangle((x0 - width - 1, y0 - width - 1, x1 + width, y1 + width), outline=_DARK, width=width + 2)
    draw.rectangle((x0 - width, y0 - width, x1 + width - 1, y1 + width - 1), outline=_ORANGE, width=width)
    return np.asarray(image)
