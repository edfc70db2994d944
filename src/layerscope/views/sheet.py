"""A picture as 8-bit palette indices: a colour map, ink for text, and a pattern for what is not finite.

Palette images are a quarter of the size of RGB and far quicker to encode, and a colour table costs nothing in a PNG.
"""

from __future__ import annotations

import io
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from layerscope.maps import colormap
from layerscope.text import printable

__all__ = ["ACCENT", "BAR", "FRAME", "INK", "LINE", "MUTED", "PAPER", "STEPS", "Sheet", "encode", "measure"]

#: palette: 0..223 the colour map, then three inks of eight strengths (text is smoothed), then single colours
STEPS = 224
INK, MUTED, ACCENT = 224, 232, 240
PAPER, FRAME, LINE, BAR, HATCH_A, HATCH_B = 248, 249, 250, 251, 252, 253

_PAPER = (17, 19, 24)
#: more fit on no line, and to measure a name of a million takes a minute
_MOST_LETTERS = 1000
#: letters of a text that is drawn once and kept
_LABEL = 6
_COLORS = {
    INK: (236, 239, 244),
    MUTED: (150, 160, 175),
    ACCENT: (255, 176, 59),  # orange: told apart from viridis and from gray with any colour vision
}
_SINGLE = {
    PAPER: _PAPER,
    FRAME: (38, 42, 51),
    LINE: (72, 79, 92),
    BAR: (94, 160, 214),
    HATCH_A: (240, 240, 240),
    HATCH_B: (90, 90, 90),
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

    def __init__(self, height: int, width: int, cmap: str) -> None:
        self.pixels = np.full((height, width), PAPER, np.uint8)
        self.cmap = cmap

    def text(self, x: int, y: int, text: str, size: int, ink: int = INK, room: int | None = None) -> int:
        """Write at (x, y), the left end of the top line; cut to `room` pixels with an ellipsis. The width drawn."""
        text = printable(text[:_MOST_LETTERS])
        room = self.pixels.shape[1] - x if room is None else room
        if measure(text, size) > room:
            while text and measure(text + "...", size) > room:
                text = text[: -max(1, len(text) // 16)]
            text += "..."
        strokes = (_label if len(text) <= _LABEL else _strokes)(text, size)
        area = self.pixels[y : y + strokes.shape[0], x : x + strokes.shape[1]]
        seen = strokes[: area.shape[0], : area.shape[1]]
        np.copyto(area, seen + np.uint8(ink), where=seen > 0)
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

    def gradient(self, x: int, y: int, width: int, height: int) -> None:
        """The colour map from left to right."""
        self.paste(x, y, np.tile(np.linspace(0, STEPS - 1, width).round().astype(np.uint8), (height, 1)))

    def rgb(self) -> NDArray[np.uint8]:
        """The sheet in true colour, (height, width, 3)."""
        return palette(self.cmap)[self.pixels]

    def png(self) -> bytes:
        """The sheet as a palette PNG."""
        image = Image.fromarray(self.pixels)
        image.putpalette(palette(self.cmap).tobytes())
        return encode(image)


def encode(image: Image.Image) -> bytes:
    """PNG bytes, quick rather than smallest: level 1 costs a quarter of level 6 for a tenth more bytes."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
