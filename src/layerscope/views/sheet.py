"""A picture as 8-bit palette indices: a colour map, ink for text, and a pattern for what is not finite.

Palette images are a quarter of the size of RGB and far quicker to encode, and a colour table costs nothing in a PNG.
Colour pictures may be laid on it; then it is written in true colour.
"""

from __future__ import annotations

import io
from enum import IntEnum
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from layerscope.records.maps import colormap
from layerscope.text import printable

__all__ = ["RGB", "STEPS", "Ink", "Sheet", "colored", "encode", "fit", "framed", "measure", "plane"]

RGB = NDArray[np.uint8]  # (h, w, 3)

#: palette indices of the colour map
STEPS = 224


class Ink(IntEnum):
    """Palette indices behind the colour map: three inks of eight strengths, since text is smoothed; single colours."""

    TEXT, MUTED, ACCENT = 224, 232, 240
    PAPER, FRAME, LINE, BAR, HATCH_A, HATCH_B = 248, 249, 250, 251, 252, 253


_PAPER = (17, 19, 24)
#: more fit on no line, and to measure a name of a million takes a minute
_MOST_LETTERS = 1000
#: letters of a text that is drawn once and kept
_LABEL = 6
_COLORS = {
    Ink.TEXT: (236, 239, 244),
    Ink.MUTED: (150, 160, 175),
    Ink.ACCENT: (255, 176, 59),  # orange: told apart from viridis and from gray with any colour vision
}
_SINGLE = {
    Ink.PAPER: _PAPER,
    Ink.FRAME: (38, 42, 51),
    Ink.LINE: (72, 79, 92),
    Ink.BAR: (94, 160, 214),
    Ink.HATCH_A: (240, 240, 240),
    Ink.HATCH_B: (90, 90, 90),
}


@cache
def palette(cmap: str) -> NDArray[np.uint8]:
    """The 256 colours of a sheet, (256, 3)."""
    table = np.zeros((256, 3), np.uint8)
    table[:STEPS] = colormap(cmap, STEPS)
    for first, color in _COLORS.items():
        for strength in range(8):
            share = strength / 7
            table[first + strength] = [round(p + (c - p) * share) for p, c in zip(_PAPER, color, strict=True)]
    for index, color in _SINGLE.items():
        table[index] = color
    return table


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def measure(text: str, size: int) -> int:
    """Width of a text in pixels."""
    if len(text) <= _LABEL:
        return _label(text, size).shape[1] - 2
    return round(_font(size).getlength(text[:_MOST_LETTERS]))


def _strokes(text: str, size: int) -> NDArray[np.uint8]:
    """How much ink there is, 0 to 7, (height, width)."""
    font = _font(size)
    mask = Image.new("L", (round(font.getlength(text)) + 2, round(size * 1.35)))
    if text:
        ImageDraw.Draw(mask).text((0, 0), text, fill=255, font=font)
    return ((np.asarray(mask).astype(np.uint16) * 7 + 127) // 255).astype(np.uint8)


@lru_cache(maxsize=8192)
def _label(text: str, size: int) -> NDArray[np.uint8]:
    """The same of a short one, kept: channels have the same numbers on every sheet."""
    return _strokes(text, size)


class Sheet:
    """A canvas of palette indices, uint8 (height, width), and the drawing on it."""

    def __init__(self, height: int, width: int, cmap: str = "gray") -> None:
        self.pixels = np.full((height, width), Ink.PAPER, np.uint8)
        self.cmap = cmap
        self._pictures: list[tuple[int, int, RGB]] = []

    def text(self, x: int, y: int, text: str, size: int, ink: int = Ink.TEXT, room: int | None = None) -> int:
        """Write at (x, y), the left end of the top line; cut to `room` pixels with an ellipsis. The width drawn."""
        text = printable(text[:_MOST_LETTERS])
        room = self.pixels.shape[1] - x if room is None else room
        if measure(text, size) > room:
            while text and measure(text + "...", size) > room:
                text = text[: -max(1, len(text) // 16)]
            text += "..."
        strokes = (_label if len(text) <= _LABEL else _strokes)(text, size)
        area = self.pixels[y : y + strokes.shape[0], x : x + strokes.shape[1]]
        drawn = strokes[: area.shape[0], : area.shape[1]]
        np.copyto(area, drawn + np.uint8(ink), where=drawn > 0)
        return strokes.shape[1]

    def paste(self, x: int, y: int, indices: NDArray[np.uint8]) -> None:
        """Lay a block of indices at (x, y)."""
        self.pixels[y : y + indices.shape[0], x : x + indices.shape[1]] = indices

    def box(self, x: int, y: int, width: int, height: int, index: int) -> None:
        """A frame of one pixel around the block at (x, y)."""
        top, left = max(y - 1, 0), max(x - 1, 0)
        self.pixels[top, left : x + width + 1] = index
        self.pixels[min(y + height, len(self.pixels) - 1), left : x + width + 1] = index
        self.pixels[top : y + height + 1, left] = index
        self.pixels[top : y + height + 1, min(x + width, self.pixels.shape[1] - 1)] = index

    def fill(self, x: int, y: int, width: int, height: int, index: int) -> None:
        """A filled rectangle."""
        self.pixels[y : y + height, x : x + width] = index

    def heading(self, x: int, y: int, title: str, size: int, more: str, small: int = 14, room: int = 1 << 16) -> None:
        """A title, and in small on its line what it is about; cut to `room` pixels."""
        room = min(room, self.pixels.shape[1] - x)
        used = self.text(x, y, title, size, Ink.TEXT, room) + 10
        self.text(x + used, y + round((size - small) * 0.9), more, small, Ink.MUTED, max(room - used, 0))

    def centred(self, x: int, y: int, width: int, text: str, size: int, ink: int = Ink.TEXT) -> None:
        """Write in the middle of `width` pixels."""
        self.text(x + max(0, (width - measure(text, size)) // 2), y, text, size, ink, room=width)

    def share(self, x: int, y: int, width: int, height: int, share: float, index: int = Ink.BAR) -> None:
        """A bar that is filled to a share of its width; not at all for NaN."""
        self.fill(x, y, width, height, Ink.FRAME)
        self.fill(x, y, round(width * share) if share >= 0 else 0, height, index)

    def picture(self, x: int, y: int, pixels: RGB) -> None:
        """Lay a colour picture (h, w, 3) at (x, y), over all that is drawn."""
        self._pictures.append((x, y, pixels))

    def scale(self, x: int, y: int, width: int, cmap: str, low: str, high: str) -> None:
        """A colour bar with its two ends below."""
        self.picture(x, y, np.tile(colormap(cmap, width)[None], (8, 1, 1)))
        self.text(x, y + 12, low, 13)
        self.text(x + width - measure(high, 13), y + 12, high, 13)

    def png(self) -> bytes:
        """The sheet as a PNG: in palette colours, in true colour where a colour picture lies on it."""
        if not self._pictures:
            image = Image.fromarray(self.pixels)
            image.putpalette(palette(self.cmap).tobytes())
            return encode(image)
        page = Image.fromarray(palette(self.cmap)[self.pixels])
        for x, y, pixels in self._pictures:
            page.paste(Image.fromarray(pixels), (x, y))
        return encode(page)


def encode(image: Image.Image | RGB, level: int = 1) -> bytes:
    """PNG bytes, quick rather than smallest: level 1 costs a quarter of level 6 for a tenth more bytes."""
    buffer = io.BytesIO()
    picture = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    picture.save(buffer, "PNG", compress_level=level)
    return buffer.getvalue()


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
    x0, y0 = (max(round(end), width) for end in box[:2])  # at the edge of the picture the frame lies inside of it
    x1, y1 = (min(round(end), size - width) for end, size in zip(box[2:], image.size, strict=True))
    draw = ImageDraw.Draw(image)
    draw.rectangle((x0 - width - 1, y0 - width - 1, x1 + width, y1 + width), outline=_PAPER, width=width + 2)
    draw.rectangle((x0 - width, y0 - width, x1 + width - 1, y1 + width - 1), outline=_COLORS[Ink.ACCENT], width=width)
    return np.asarray(image)
