"""One unit on one page, and one decision on one page: photo, maps, and the numbers of the sum."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from layerscope.records.units import Arithmetic, Evidence, UnitReport, written
from layerscope.text import number
from layerscope.views.png import short
from layerscope.views.sheet import RGB, Ink, Sheet, colored, fit, framed, measure, plane

__all__ = ["evidence_page", "unit_page"]

_MARGIN, _GAP, _PANEL, _COLUMNS, _CELL = 24, 24, 264, 8, 108
_WIDTH = 2 * _MARGIN + 4 * _PANEL + 3 * _GAP


def unit_page(look: UnitReport) -> bytes:
    """One unit as a PNG: where it looks, what it saw, and the sum that gave its value."""
    arithmetic = look.arithmetic
    height = 476 + (_sum_height(arithmetic) if arithmetic else 44)
    page = Sheet(height, _WIDTH)
    page.heading(_MARGIN, 18, look.layer, 22, f"{look.name.removeprefix(look.layer).strip()}   {look.type}", 15)
    page.text(_MARGIN, 52, f"{short(look.network)} · {look.picture.name}", 14, Ink.MUTED, room=_WIDTH - 2 * _MARGIN)
    _places(page, look)
    page.fill(_MARGIN, 458, _WIDTH - 2 * _MARGIN, 1, Ink.LINE)
    if arithmetic:
        _sum(page, arithmetic, 476)
    else:
        note = next((note for note in look.notes if look.layer in note), f"{look.type} has no arithmetic to show")
        page.text(_MARGIN, 476, note, 14, Ink.MUTED, room=_WIDTH - 2 * _MARGIN)
    return page.png()


def _column(page: Sheet, column: int, title: str, pixels: RGB, caption: str, *ends: str) -> None:
    """A titled picture in one of the four columns, with the ends of its colour bar if it has one."""
    y = 88
    x = _MARGIN + column * (_PANEL + _GAP)
    page.text(x, y, title, 15, Ink.TEXT, room=_PANEL)
    page.picture(x, y + 26, pixels)
    below = y + 26 + _PANEL + 8
    if ends:
        page.scale(x, below, _PANEL, "viridis", *ends)
    page.text(x, below + (32 if ends else 0), caption, 13, Ink.MUTED, room=_PANEL)


def _places(page: Sheet, look: UnitReport) -> None:
    """The four pictures: photo with the field, the field itself, what moves the unit, its map."""
    photo, mask = look.picture.pixels, look.field.mask
    (y0, y1), (x0, x1) = ((0, 1), *look.field.box)[-2:]  # all rows for one axis
    fits = mask.shape == photo.shape[:2] and x1 > x0  # else the input is no image, or nothing of it is used
    dimmed = np.where(mask[:, :, None], photo, (photo * 0.45).astype(np.uint8)) if fits else photo
    small = fit(dimmed, _PANEL, _PANEL, smooth=True)
    if fits:
        factor = small.shape[1] / photo.shape[1]
        small = framed(small, (x0 * factor, y0 * factor, x1 * factor, y1 * factor))
    caption = f"{' x '.join(map(str, look.field.size))} of {' x '.join(map(str, mask.shape))} pixels"
    _column(page, 0, "receptive field", small, caption)
    crop = photo[y0:y1, x0:x1] if fits else photo
    caption = f"rows {y0} to {y1 - 1}, columns {x0} to {x1 - 1}" if fits else "the whole input"
    _column(page, 1, "what it sees", fit(crop, _PANEL, _PANEL), caption)
    if look.effective is not None:
        inside = tuple(slice(*pair) for pair in look.field.box)
        moving = plane(look.effective[inside] if x1 > x0 else look.effective)
        top = float(np.nan_to_num(moving).max()) or 1.0
        heat = fit(colored(np.sqrt(moving / top), 0, 1, "viridis"), _PANEL, _PANEL)
        _column(page, 2, "what moves it", heat, "|gradient| by pixel, square-root colours", "0", number(top))
    _map(page, look)


def _map(page: Sheet, look: UnitReport) -> None:
    """The channel's map with the unit framed; a single value in large letters."""
    if look.map.size == 1:
        x = _MARGIN + 3 * (_PANEL + _GAP)
        page.text(x, 88, "its value", 15)
        page.text(x, 118, written(look.value), 40, Ink.ACCENT, room=_PANEL)
        return
    values = plane(look.map)
    low, high = float(np.nan_to_num(values).min()), float(np.nan_to_num(values).max())
    drawn = fit(colored(values, low, high, "viridis"), _PANEL, _PANEL)
    row, column = divmod(int(np.ravel_multi_index(look.position, look.map.shape)), values.shape[1])
    tall, wide = drawn.shape[0] / values.shape[0], drawn.shape[1] / values.shape[1]
    drawn = framed(drawn, (column * wide, row * tall, (column + 1) * wide, (row + 1) * tall))
    caption = f"{written(look.value)} here, in the map of {' x '.join(map(str, look.map.shape))}"
    _column(page, 3, "its map", drawn, caption, number(low), number(high))


def _planes(values: NDArray) -> NDArray:
    """(C, rows, columns): depth slices below each other, a line as one row, a vector as single cells."""
    return values.reshape(len(values), -1, values.shape[-1] if values.ndim > 1 else 1)


def _tile(arithmetic: Arithmetic) -> tuple[int, int]:
    """Height and width of a tile of the sum: a single number needs little, large windows a whole square."""
    _, rows, columns = _planes(arithmetic.patch).shape
    if rows == columns == 1:
        return 36, _CELL
    factor = _CELL / max(rows, columns)
    return max(22, round(rows * factor)), max(22, round(columns * factor))


def _sum_height(arithmetic: Arithmetic) -> int:
    tall = _tile(arithmetic)[0]
    if arithmetic.kernel is not None:
        return 3 * (tall + 22) + 164
    return (tall if arithmetic.patch.size > 1 else 48) + 116


def _sum(page: Sheet, arithmetic: Arithmetic, y: int) -> None:
    """Patch, kernel and products of the input channels that weigh most, the rest, and the sum written out."""
    if arithmetic.kernel is None or arithmetic.products is None:
        _formula(page, arithmetic, y)
        return
    patch, kernel, products = (_planes(values) for values in (arithmetic.patch, arithmetic.kernel, arithmetic.products))
    sums = products.sum((1, 2))
    order = np.argsort(-np.abs(sums), kind="stable")[:_COLUMNS]
    more = f"the {len(order)} of {len(sums):,} input channels that weigh most"
    if len(order) == len(sums):
        more = "every input channel, the heaviest first"
    page.heading(_MARGIN, y, "how the value came about", 15, more)
    tall, wide = _tile(arithmetic)
    ends = [float(np.abs(values[order]).max()) or 1.0 for values in (patch, kernel, products)]
    top, left = y + 50, _MARGIN + 84
    for row, name in enumerate(("patch", "x kernel", "= product")):
        at = top + row * (tall + 22)
        page.text(_MARGIN, at + tall // 2 - 14, name, 14)
        page.text(_MARGIN, at + tall // 2 + 4, f"±{number(ends[row])}", 12, Ink.MUTED)
        for column, channel in enumerate(order):
            x = left + column * (_CELL + 12) + (_CELL - wide) // 2
            values = (patch, kernel, products)[row][channel]
            _numbers(page, x, at, values, ends[row], tall, wide)
    for column, channel in enumerate(order):
        x = left + column * (_CELL + 12)
        page.centred(x, top - 20, _CELL, f"input {arithmetic.inputs[channel]}", 13, Ink.MUTED)
        page.centred(x, top + 3 * (tall + 22) - 12, _CELL, f"{sums[channel]:+.4g}", 15)
    at = top + 3 * (tall + 22) + 22
    if len(order) < len(sums):
        page.text(left, at - 4, f"{written(float(sums[order].sum()))} from these", 14, Ink.MUTED)
        rest = f"{float(sums.sum() - sums[order].sum()):+.5g} from the other {len(sums) - len(order):,} input channels"
        page.text(left + 200, at - 4, rest, 14, Ink.MUTED)
    _total(page, arithmetic, at + 24)


def _numbers(page: Sheet, x: int, y: int, values: NDArray, most: float, tall: int, wide: int) -> None:
    """A tile around zero in blue and red, with its numbers in the cells where they can be read."""
    rows, columns = values.shape
    colors = colored(values, -most, most, "diverging")
    image = Image.fromarray(colors).resize((wide, tall), Image.Resampling.NEAREST)
    if wide / columns >= 34 and tall / rows >= 20:
        draw = ImageDraw.Draw(image)
        for row in range(rows):
            for column in range(columns):
                dark = int(colors[row, column].astype(int).sum()) < 380
                middle = (column + 0.5) * wide / columns, (row + 0.5) * tall / rows
                ink = (255, 255, 255) if dark else (20, 20, 20)
                draw.text(middle, _brief(float(values[row, column])), ink, anchor="mm", font_size=12)
    page.picture(x, y, np.asarray(image))


def _brief(value: float) -> str:
    """At most five characters: they stand in a cell of 36 pixels."""
    if value == 0:
        return "0"
    size = abs(value)
    decimals = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 0.1 else 3
    text = f"{value:.{decimals}f}"
    return text if size >= 0.1 else text.replace("0.", ".", 1)


def _formula(page: Sheet, arithmetic: Arithmetic, y: int) -> None:
    page.heading(_MARGIN, y, "how the value came about", 15, arithmetic.formula)
    tall, wide = _tile(arithmetic)
    left, room = _MARGIN, 48
    if arithmetic.patch.size > 1:
        patch, room = _planes(arithmetic.patch)[0], tall
        _numbers(page, _MARGIN, y + 32, patch, float(np.abs(patch).max()) or 1.0, tall, wide)
        left += wide + 24
    for row, (name, value) in enumerate(arithmetic.terms.items()):
        at = left + row % 3 * 240, y + 34 + row // 3 * 24
        used = page.text(*at, name, 14, Ink.MUTED)
        page.text(at[0] + used + 8, at[1], written(value), 14)
    _total(page, arithmetic, y + room + 48)


def _total(page: Sheet, arithmetic: Arithmetic, y: int) -> None:
    """The sum in large letters, and what the layer produced beside it."""
    page.fill(_MARGIN, y, _WIDTH - 2 * _MARGIN, 44, Ink.FRAME)
    if arithmetic.kernel is not None:
        total = written(arithmetic.sum - arithmetic.bias)
        line = f"sum of {arithmetic.patch.size:,} products {total}  +  bias {written(arithmetic.bias)}  =  "
    else:
        line = f"{arithmetic.formula}  =  "
    x = _MARGIN + 14 + page.text(_MARGIN + 14, y + 10, line, 19)
    x += page.text(x, y + 10, written(arithmetic.sum), 19, Ink.ACCENT)
    produced = f"the layer produced {written(arithmetic.value)}, {number(abs(arithmetic.sum - arithmetic.value))} apart"
    page.text(max(x + 24, _WIDTH - _MARGIN - 14 - measure(produced, 14)), y + 14, produced, 14, Ink.MUTED)


def evidence_page(evidence: Evidence) -> bytes:
    """One decision as a PNG: the photo, Grad-CAM over it, and what covering each place does to the class's score."""
    panel = 352
    width = 2 * _MARGIN + 3 * panel + 2 * _GAP
    page = Sheet(84 + 26 + panel + 56, width)
    what = "predicted" if evidence.predicted else "chosen, not the predicted class"
    page.heading(_MARGIN, 18, evidence.label, 22, f"{evidence.probability:.1%}   class {evidence.target}, {what}", 15)
    page.share(width - _MARGIN - 160, 28, 160, 8, evidence.probability)
    names = f"{short(evidence.network)} · {evidence.picture.name}"
    page.text(_MARGIN, 52, names, 14, Ink.MUTED, room=width - 2 * _MARGIN)
    photo = evidence.picture.pixels
    top = float(evidence.cam_full.max()) or 1.0
    most = float(np.abs(evidence.occlusion).max()) or 1.0
    grid = " x ".join(map(str, evidence.cam.shape))
    side = f"squares of {evidence.window}, every {evidence.stride} pixels"
    panels = (
        ("the photo", "", photo),
        ("Grad-CAM", f"{evidence.layer}, {grid}", _laid(photo, evidence.cam_full, 0, top, "viridis")),
        ("covered", side, _laid(photo, evidence.occlusion, -most, most, "diverging")),
    )
    for column, (title, detail, pixels) in enumerate(panels):
        x = _MARGIN + column * (panel + _GAP)
        page.heading(x, 84, title, 15, detail, 13, panel)
        page.picture(x, 110, fit(pixels, panel, panel, smooth=True))
    x, y = _MARGIN + panel + _GAP, 110 + panel + 10
    page.scale(x, y, panel, "viridis", "0", f"{number(top)} speaks for it")
    x += panel + _GAP
    page.scale(x, y, panel, "diverging", f"rises by {number(most)}", f"the score falls by {number(most)}")
    return page.png()


def _laid(photo: RGB, values: NDArray, low: float, high: float, cmap: str) -> RGB:
    """Colours over the gray photo: the stronger the value, the more colour; at zero the photo alone."""
    if values.shape != photo.shape[:2]:
        return colored(values, low, high, cmap)
    gray = np.repeat(photo.mean(2, keepdims=True), 3, 2) * 0.75
    most = max(abs(low), abs(high)) or 1.0
    share = np.clip(np.abs(np.nan_to_num(values))[:, :, None] / most, 0, 1) ** 0.7 * 0.75
    return np.rint(gray * (1 - share) + colored(values, low, high, cmap) * share).astype(np.uint8)
