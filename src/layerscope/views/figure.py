"""Two networks on one page: the same stage of both side by side, with the share of dead channels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from layerscope.record import Entry, Pair, Record, by_change, last_of_size
from layerscope.text import number, spaced
from layerscope.views.png import feature_tiles, short, subset
from layerscope.views.sheet import ACCENT, BAR, FRAME, INK, LINE, MUTED, Sheet, encode, measure

__all__ = ["changes", "overview", "side_by_side"]

_CHANNELS, _WIDTH, _GAP, _MARGIN = 8, 536, 40, 20


def side_by_side(record: Record) -> bytes:
    """The stages of a comparison as a PNG: eight channels of A on the left, eight of B on the right."""
    rows = []
    for pair in record.stages:
        entries = [record[f"{side}:{key}"] for side, key in zip("ab", pair, strict=True)]
        rows.append([(entry, _tiles(entry, 0, 4, 128)[:, :_WIDTH]) for entry in entries])
    heights = [max(tiles.shape[0] for _, tiles in row) for row in rows]
    top = 92
    sheet = Sheet(top + sum(height + 66 for height in heights) + 8, 2 * (_MARGIN + _WIDTH) + _GAP, "viridis")
    for column, subject in enumerate((record.subject, record.subject_b)):
        x = _x(column)
        sheet.text(x, 18, short(subject), 20, INK, room=_WIDTH)
        sheet.text(x, 48, _seen(record, column), 14, MUTED, room=_WIDTH)
    y = top
    for row, height in zip(rows, heights, strict=True):
        for column, (entry, tiles) in enumerate(row):
            _stage(sheet, _x(column), y, entry, tiles)
        y += height + 66
    return sheet.png()


def overview(record: Record, image: int = 0) -> bytes:
    """One image through a network as a PNG: the photo, its classes, and eight channels of every stage."""
    stages = last_of_size(entry for entry in record.values() if image < len(entry.maps))[:6]
    left, width = 264, 264 + 8 * 115 + _MARGIN
    rows = [_tiles(entry, image, 8, 112)[:, : width - left] for entry in stages]
    heights = [row.shape[0] + 40 for row in rows]
    sheet = Sheet(max(_MARGIN + 44 + sum(heights), 480) + 8, width, "viridis")
    sheet.text(_MARGIN, 16, short(record.subject), 20, INK, room=width - 2 * _MARGIN)
    y = 60
    for entry, row, height in zip(stages, rows, heights, strict=True):
        used = sheet.text(left, y, entry.key, 15, INK)
        dead = f"   {len(entry.dead)} dead" if entry.dead else ""
        kind = f"{entry.type} \u00b7 {spaced(entry.shape[1:])}{dead}"
        sheet.text(left + used + 8, y + 1, kind, 13, MUTED)
        sheet.paste(left, y + 20, row)
        y += height
    top = record.predictions[image] if image < len(record.predictions) else []
    if image >= len(record.pictures):
        return sheet.png()
    photo = Image.fromarray(record.pictures[image].pixels)
    photo.thumbnail((224, 224))
    y = 60 + photo.height + 14
    sheet.text(_MARGIN, y, record.pictures[image].name, 14, MUTED, room=224)
    for row_, one in enumerate(top):
        at = y + 28 + 38 * row_
        sheet.text(_MARGIN, at, one.label, 14, INK, room=170)
        sheet.text(_MARGIN + 224 - measure(f"{one.probability:.1%}", 14), at, f"{one.probability:.1%}", 14, MUTED)
        sheet.fill(_MARGIN, at + 20, 224, 6, FRAME)
        sheet.fill(_MARGIN, at + 20, round(224 * one.probability) if one.probability >= 0 else 0, 6, BAR)  # NaN is not
    page = Image.fromarray(sheet.rgb())
    page.paste(photo, (_MARGIN, 60))
    return encode(page)


def _x(column: int) -> int:
    return _MARGIN + column * (_WIDTH + _GAP)


def _seen(record: Record, column: int) -> str:
    picture = record.pictures[0].name if record.pictures else "one input"
    if column >= len(record.predictions) or not record.predictions[column]:
        return picture
    best = record.predictions[column][0]
    return f"{picture}: {best.label} {best.probability:.0%}"


def _tiles(entry: Entry, image: int, columns: int, tile: int) -> NDArray[np.uint8]:
    maps = subset(entry.maps[image], _CHANNELS)
    return feature_tiles(maps, set(entry.dead), columns=columns, tile=tile)[0]


def _stage(sheet: Sheet, x: int, y: int, entry: Entry, tiles: NDArray[np.uint8]) -> None:
    channels, dead = entry.maps[0].shape[0], len(entry.dead)
    sheet.fill(x, y, _WIDTH, 1, LINE)
    used = sheet.text(x, y + 8, entry.site.key, 16, INK, room=_WIDTH)
    kind = f"{entry.type} \u00b7 {spaced(entry.shape[1:])}"
    sheet.text(x + used + 8, y + 10, kind, 14, MUTED, room=max(_WIDTH - used - 8, 0))
    share = f"dead {dead} of {channels}, {dead / channels:.0%}"
    sheet.text(x, y + 28, share, 14, ACCENT if dead else MUTED)
    left = measure("dead 9999 of 9999, 100%", 14) + 20
    sheet.fill(x + left, y + 33, 160, 6, FRAME)
    sheet.fill(x + left, y + 33, round(160 * dead / channels), 6, ACCENT + 7)
    sheet.paste(x, y + 50, tiles)


def changes(record: Record) -> bytes:
    """What changed most, as a PNG: mean |A-B| of the forty tensors or layers that differ most, on one scale."""
    pairs = [pair for pair in by_change(record.pairs) if pair.max_abs][:40]
    compared = sum(pair.mean_abs is not None for pair in record.pairs)
    sheet = Sheet(112 + 24 * max(len(pairs), 1), 900, "gray")
    sheet.text(_MARGIN, 16, f"{Path(record.subject).name}  against  {Path(record.subject_b).name}", 20, INK)
    same = sum(pair.status == "same" for pair in record.pairs)
    facts = f"{compared} compared, {same} the same; bars: mean |A-B|"
    sheet.text(_MARGIN, 48, facts, 14, MUTED)
    if not pairs:
        sheet.text(_MARGIN, 84, "nothing of the same name and shape differs", 16, INK)
    finite = [pair.mean_abs for pair in pairs if pair.shape_a and pair.mean_abs and np.isfinite(pair.mean_abs)]
    most = max(finite, default=1.0) or 1.0
    for row, pair in enumerate(pairs):
        _change(sheet, 84 + 24 * row, pair, most)
    return sheet.png()


def _change(sheet: Sheet, y: int, pair: Pair, most: float) -> None:
    assert pair.mean_abs is not None and pair.max_abs is not None and pair.cosine is not None
    sheet.text(_MARGIN, y, pair.name, 14, INK, room=300)
    if pair.shape_a:  # single numbers have another scale
        wide = pair.mean_abs / most if np.isfinite(pair.mean_abs) else 1.0
        sheet.fill(340, y + 3, max(1, round(260 * wide)), 12, BAR)
    text = f"{number(pair.mean_abs)}   max {number(pair.max_abs)}   cosine {pair.cosine:.4f}"
    sheet.text(612, y, text, 14, MUTED)
