"""Two networks on one page: the same stage of both side by side, with the share of dead channels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from layerscope.records.record import Entry, Pair, Record, by_change, last_of_size
from layerscope.text import number, spaced
from layerscope.views.png import feature_tiles, short
from layerscope.views.sheet import Ink, Sheet, measure

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
        sheet.text(x, 18, short(subject), 20, Ink.TEXT, room=_WIDTH)
        sheet.text(x, 48, _seen(record, column), 14, Ink.MUTED, room=_WIDTH)
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
    sheet.text(_MARGIN, 16, short(record.subject), 20, Ink.TEXT, room=width - 2 * _MARGIN)
    y = 60
    for entry, row, height in zip(stages, rows, heights, strict=True):
        dead = f"   {len(entry.dead)} dead" if entry.dead else ""
        sheet.heading(left, y, entry.key, 15, f"{entry.type} \u00b7 {spaced(entry.shape[1:])}{dead}", 13)
        sheet.paste(left, y + 20, row)
        y += height
    top = record.predictions[image] if image < len(record.predictions) else []
    if image >= len(record.pictures):
        return sheet.png()
    photo = Image.fromarray(record.pictures[image].pixels)
    photo.thumbnail((224, 224))
    y = 60 + photo.height + 14
    sheet.text(_MARGIN, y, record.pictures[image].name, 14, Ink.MUTED, room=224)
    for row_, prediction in enumerate(top):
        at, share = y + 28 + 38 * row_, f"{prediction.probability:.1%}"
        sheet.text(_MARGIN, at, prediction.label, 14, Ink.TEXT, room=170)
        sheet.text(_MARGIN + 224 - measure(share, 14), at, share, 14, Ink.MUTED)
        sheet.share(_MARGIN, at + 20, 224, 6, prediction.probability)
    sheet.picture(_MARGIN, 60, np.asarray(photo))
    return sheet.png()


def _x(column: int) -> int:
    return _MARGIN + column * (_WIDTH + _GAP)


def _seen(record: Record, column: int) -> str:
    picture = record.pictures[0].name if record.pictures else "one input"
    if column >= len(record.predictions) or not record.predictions[column]:
        return picture
    best = record.predictions[column][0]
    return f"{picture}: {best.label} {best.probability:.0%}"


def _tiles(entry: Entry, image: int, columns: int, tile: int) -> NDArray[np.uint8]:
    return feature_tiles(entry.maps[image], set(entry.dead), columns=columns, tile=tile, channels=_CHANNELS)[0]


def _stage(sheet: Sheet, x: int, y: int, entry: Entry, tiles: NDArray[np.uint8]) -> None:
    channels, dead = entry.maps[0].shape[0], len(entry.dead)
    sheet.fill(x, y, _WIDTH, 1, Ink.LINE)
    sheet.heading(x, y + 8, entry.site.key, 16, f"{entry.type} \u00b7 {spaced(entry.shape[1:])}", room=_WIDTH)
    share = f"dead {dead} of {channels}, {dead / channels:.0%}"
    sheet.text(x, y + 28, share, 14, Ink.ACCENT if dead else Ink.MUTED)
    left = measure("dead 9999 of 9999, 100%", 14) + 20
    sheet.share(x + left, y + 33, 160, 6, dead / channels, Ink.ACCENT + 7)
    sheet.paste(x, y + 50, tiles)


def changes(record: Record) -> bytes:
    """What changed most, as a PNG: mean |A-B| of the forty tensors or layers that differ most, on one scale."""
    pairs = [pair for pair in by_change(record.pairs) if pair.max_abs][:40]
    compared = sum(pair.mean_abs is not None for pair in record.pairs)
    sheet = Sheet(112 + 24 * max(len(pairs), 1), 900)
    sheet.text(_MARGIN, 16, f"{Path(record.subject).name}  against  {Path(record.subject_b).name}", 20, Ink.TEXT)
    same = sum(pair.status == "same" for pair in record.pairs)
    facts = f"{compared} compared, {same} the same; bars: mean |A-B|"
    sheet.text(_MARGIN, 48, facts, 14, Ink.MUTED)
    if not pairs:
        sheet.text(_MARGIN, 84, "nothing of the same name and shape differs", 16, Ink.TEXT)
    finite = [pair.mean_abs for pair in pairs if pair.shape_a and pair.mean_abs and np.isfinite(pair.mean_abs)]
    most = max(finite, default=1.0) or 1.0
    for row, pair in enumerate(pairs):
        _change(sheet, 84 + 24 * row, pair, most)
    return sheet.png()


def _change(sheet: Sheet, y: int, pair: Pair, most: float) -> None:
    assert pair.mean_abs is not None and pair.max_abs is not None and pair.cosine is not None
    sheet.text(_MARGIN, y, pair.name, 14, Ink.TEXT, room=300)
    if pair.shape_a:  # single numbers have another scale
        wide = pair.mean_abs / most if np.isfinite(pair.mean_abs) else 1.0
        sheet.fill(340, y + 3, max(1, round(260 * wide)), 12, Ink.BAR)
    text = f"{number(pair.mean_abs)}   max {number(pair.max_abs)}   cosine {pair.cosine:.4f}"
    sheet.text(612, y, text, 14, Ink.MUTED)
