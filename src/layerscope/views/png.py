"""PNG pictures: mosaics of feature maps and kernels, histograms. One array through one colour table, no subplots."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from layerscope.records.maps import NONFINITE, Maps, Range, columns_for, levels, mosaic
from layerscope.records.record import Entry, Record
from layerscope.stats.table import shown
from layerscope.text import counted, number, spaced
from layerscope.views.sheet import STEPS, Ink, Sheet, measure
from layerscope.views.summary import statistics_of, written

__all__ = ["feature_mosaic", "feature_tiles", "histogram_sheet", "kernel_mosaic", "short", "span_of"]

_MARGIN, _WIDTH = 16, 1100
_TITLE, _SMALL, _LABEL = 20, 14, 11
_LEGEND = "    bars: counts    line: the same on a logarithmic scale"


def _grown(tiles: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    return tiles.repeat(factor, 1).repeat(factor, 2) if factor > 1 else tiles


def _indices(maps: Maps, table: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """Palette indices (C, h*factor, w*factor) of codes through a table (C, 256); hatched where not finite."""
    codes = maps.codes
    same = len(table) == 1 or bool((table == table[0]).all())
    tiles = table[0][codes] if same else table[np.arange(len(codes))[:, None, None], codes]
    tiles = _grown(tiles, factor)
    bad = _grown(codes == NONFINITE, factor)
    if bad.any():
        rows, cols = np.indices(tiles.shape[1:])
        hatch = np.where((rows + cols) // 2 % 2, Ink.HATCH_A, Ink.HATCH_B).astype(np.uint8)
        tiles = np.where(bad, hatch, tiles)
    return tiles


def _range(maps: Maps, mode: Range, network: tuple[float, float]) -> tuple[NDArray | float, NDArray | float, str]:
    """lo, hi and in words what they are. Single values have no range of their own: they share the layer's."""
    if mode == "network":
        return network[0], network[1], "range of the network"
    if mode == "layer" or maps.shape[1:] == (1, 1):
        return *maps.span(), "range of the layer"
    return maps.lo, maps.hi, "each channel over its own range"


def _factor(maps: Maps, count: int, tile: int | None) -> int:
    """Whole factor by which tiles grow: few channels to about 128 pixels, many to at least 24 where they fit."""
    side = max(maps.shape[1:])
    target = tile or (128 if count <= 16 else min(64, max(24, int((_WIDTH * _WIDTH / count) ** 0.5))))
    return max(1, round(target / side)) if side < target else 1


def feature_tiles(
    maps: Maps,
    dead: set[int],
    mode: Range = "channel",
    network: tuple[float, float] = (0.0, 0.0),
    columns: int | None = None,
    tile: int | None = None,
    channels: int | None = None,
) -> tuple[NDArray[np.uint8], str]:
    """The mosaic alone, palette indices (H, W), and the range in words. Dead channels are framed.

    `tile`: pixels of a tile's longer side, reached by whole factors; chosen by the number of channels if None.
    `channels`: the first ones alone.
    """
    step = max(1, round(max(maps.shape[1:]) / tile)) if tile and max(maps.shape[1:]) > 1.5 * tile else 1
    codes = maps.codes[:channels, ::step, ::step]
    maps = Maps(maps.lo[:channels], maps.hi[:channels], codes.shape, codes, maps.reduced * step)
    low, high, words = _range(maps, mode, network)
    count = len(maps.lo)
    factor = _factor(maps, count, tile)
    tiles = _indices(maps, levels(maps, low, high, STEPS), factor)
    _, height, wide = tiles.shape
    columns = columns or min(columns_for(count, height, wide), max(1, _WIDTH // (wide + 3)))
    labelled = wide >= 40
    above = _LABEL + 4 if labelled else 2
    padded = np.full((count, height + above, wide + 1), Ink.PAPER, np.uint8)
    padded[:, above:, :wide] = tiles
    sheet = mosaic(padded, columns, 2, Ink.PAPER)
    drawing = Sheet(*sheet.shape)
    drawing.pixels = sheet
    for channel in range(count):
        x, y = channel % columns * (wide + 3), channel // columns * (height + above + 2)
        is_dead = channel in dead
        if labelled:
            label = f"{channel} dead" if is_dead else str(channel)
            drawing.text(x, y, label, _LABEL, Ink.ACCENT if is_dead else Ink.MUTED, room=wide)
        if is_dead:
            drawing.box(x, y + above, wide, height, Ink.ACCENT + 7)
    return drawing.pixels, words


def _framed(title: str, kind: str, lines: list[str], body: NDArray[np.uint8], cmap: str, *bar: str) -> bytes:
    """PNG of title and lines above a body, (h, w) or in colour (h, w, 3), and a scale bar: two ends, and captions."""
    texts = [*(measure(line, _SMALL) for line in lines), measure(title + "   " + kind, _TITLE), 460]
    width = max(body.shape[1], min(max(texts), _WIDTH)) + 2 * _MARGIN
    top = _MARGIN + 30 + 20 * len(lines) + 8
    below = top + body.shape[0] + 14
    sheet = Sheet(below + 36 + _MARGIN, width, cmap)
    sheet.heading(_MARGIN, _MARGIN, title, _TITLE, kind, _SMALL, width - 2 * _MARGIN)
    for row, line in enumerate(lines):
        sheet.text(_MARGIN, _MARGIN + 30 + 20 * row, line, _SMALL, Ink.MUTED, room=width - 2 * _MARGIN)
    lay = sheet.picture if body.ndim == 3 else sheet.paste
    lay(_MARGIN, top, body)
    low, high, *captions = bar
    sheet.paste(_MARGIN, below, np.tile(np.linspace(0, STEPS - 1, 200).round().astype(np.uint8), (12, 1)))
    sheet.box(_MARGIN, below, 200, 12, Ink.LINE)
    sheet.text(_MARGIN, below + 16, low, _SMALL)
    sheet.text(_MARGIN + 200 - measure(high, _SMALL), below + 16, high, _SMALL)
    for row, caption in enumerate(captions):
        sheet.text(_MARGIN + 216, below - 3 + 18 * row, caption, _SMALL, Ink.MUTED)
    return sheet.png()


def feature_mosaic(
    record: Record,
    entry: Entry,
    image: int = 0,
    channels: int | None = 12,
    cmap: str = "viridis",
    mode: Range = "channel",
    network: tuple[float, float] | None = None,
) -> bytes:
    """One layer on one image as a PNG: the first `channels` maps, or all of them for None.

    `network`: the range of all layers, found from the record if it is needed and not given.
    """
    maps = entry.maps[image]
    shared = (network or span_of(record, image)) if mode == "network" else (0.0, 0.0)
    body, words = feature_tiles(maps, set(entry.dead), mode, shared, channels=channels)
    low, high = shared if mode == "network" else maps.span(channels)
    total = len(maps.lo)
    first = min(channels or total, total)
    of = f"all {total} channels" if first == total else f"channels 0 to {first - 1} of {total}"
    if maps.reduced > 1:
        of += f", reduced {maps.reduced} times"
    dead = f", {len(entry.dead)} dead" if entry.dead else ""
    picture = f" \u00b7 {record.pictures[image].name}" if image < len(record.pictures) else ""
    lines = [f"{short(record.subject)}{picture}", f"{of}{dead}"]
    own = words.startswith("each")
    ends = number(low), number(high)
    bar = ("min", "max", words, f"the layer spans {' to '.join(ends)}") if own else (*ends, words)
    return _framed(entry.key, f"{entry.type} \u00b7 {spaced(entry.shape[1:])}", lines, body, cmap, *bar)


def short(subject: str) -> str:
    """Name and file of a network without the folders."""
    name, equals, file = subject.partition("=")
    return f"{name} = {Path(file).name}" if equals else Path(subject).name


def span_of(record: Record, image: int = 0) -> tuple[float, float]:
    """Least and greatest value of all layers."""
    spans = np.array([entry.maps[image].span() for entry in record.values() if image < len(entry.maps)])
    if not np.isfinite(spans).any():
        return 0.0, 0.0
    return float(np.nanmin(spans[:, 0])), float(np.nanmax(spans[:, 1]))


def kernel_mosaic(record: Record, entry: Entry) -> bytes:
    """The kernels of one tensor as a PNG: RGB tiles, tiles around zero in blue and red, or a matrix."""
    maps = entry.maps[0]
    kind = f"{entry.type} \u00b7 {spaced(entry.shape)}"
    lines = [short(record.subject), entry.note]
    low, high = maps.span()
    planes = len(maps.lo)
    if planes == 3 * entry.shape[0] and len(entry.shape) == 4 and entry.shape[1] == 3:
        return _rgb_kernels(entry, maps, kind, lines)
    top = max(abs(low), abs(high)) if np.isfinite(low) else 0.0
    colors, ends = levels(maps, -top, top, STEPS), (number(-top), number(top))
    if planes == 1:
        factor = max(1, min(24, 480 // max(maps.shape[1:])))
        body = _indices(maps, colors, factor)[0]
        body = body.repeat(max(1, 120 // len(body)), axis=0)  # ten rows of 512 would be a thread
        return _framed(entry.key, kind, lines, body, "diverging", *ends, "one range for all", "zero in the middle")
    rows = entry.shape[1] if planes == entry.shape[0] * entry.shape[1] and entry.shape[1] > 1 else None
    factor = max(1, min(18, round((36 if planes > 64 else 54) / max(maps.shape[1:]))))
    if rows and rows * (maps.shape[2] * factor + 2) > 1600:
        factor = max(1, 1600 // (rows * (maps.shape[2] + 1)))
    tiles = _indices(maps, colors, factor)
    columns = rows or columns_for(planes, *tiles.shape[1:])
    body = mosaic(tiles, columns, 2 if factor > 1 else 1, Ink.FRAME)
    return _framed(entry.key, kind, lines, body, "diverging", *ends, "one range for all kernels", "zero in the middle")


def _rgb_kernels(entry: Entry, maps: Maps, kind: str, lines: list[str]) -> bytes:
    """First-layer kernels in colour: each kernel over its own range, so that its structure can be seen."""
    codes = maps.codes.reshape(-1, 3, *maps.shape[1:])  # (O, RGB, h, w)
    factor = max(1, round(56 / max(maps.shape[1:])))
    finite = np.where(codes == NONFINITE, 0, codes).astype(np.uint16) * 255 // 254
    columns = columns_for(len(codes), *maps.shape[1:])
    colors = [mosaic(_grown(finite[:, c].astype(np.uint8), factor), columns, 3, 38) for c in range(3)]
    low, high = maps.span()
    bar = ("min", "max", "each kernel over its own range", f"all lie in {number(low)} to {number(high)}")
    return _framed(entry.key, kind, lines, np.stack(colors, axis=2), "gray", *bar)


def histogram_sheet(entry: Entry) -> bytes:
    """The histogram of one tensor as a PNG: bars to scale, and a line on a logarithmic scale that shows outliers."""
    assert entry.histogram and entry.total
    width, height, left, top = 720, 400, 64, 96
    sheet = Sheet(height, width, "gray")
    kind = f"{entry.type} \u00b7 {spaced(entry.shape)} \u00b7 {entry.dtype}"
    sheet.heading(_MARGIN, _MARGIN, entry.key, _TITLE, kind, _SMALL, width - 2 * _MARGIN)
    brief = shown(brief=True)
    more = [statistic for statistic in statistics_of([entry]) if statistic not in brief]
    values = counted(int(entry.total.count.item()), "finite value")
    for row, statistics, end, ink in ((30, brief, "", Ink.TEXT), (50, more, values + _LEGEND, Ink.MUTED)):
        figures = [f"{statistic.label} {written(statistic, entry.total)}" for statistic in statistics]
        sheet.text(_MARGIN, _MARGIN + row, "    ".join([*figures, *filter(None, [end])]), _SMALL, ink)
    _bars(sheet, entry.histogram.edges, entry.histogram.counts, left, top, width - left - _MARGIN, height - top - 44)
    return sheet.png()


def _bars(sheet: Sheet, edges: NDArray, counts: NDArray, x: int, y: int, width: int, height: int) -> None:
    most = max(int(counts.max()), 1)
    at = np.rint(np.linspace(x, x + width, len(counts) + 1)).astype(int)
    logs = np.log1p(counts) / np.log1p(most)
    for line in range(5):
        row = y + round(height * line / 4)
        sheet.fill(x, row, width, 1, Ink.FRAME if line < 4 else Ink.LINE)
        label = f"{round(most * (4 - line) / 4):,}"
        sheet.text(x - 8 - measure(label, _LABEL), row - 7, label, _LABEL, Ink.MUTED)
    last = y + height
    for bin_, count in enumerate(counts):
        left, right = at[bin_], at[bin_ + 1]
        tall = round(height * int(count) / most)
        # A single value in a bin of a million others must not vanish: one pixel at least.
        tall = max(tall, 1) if count else 0
        sheet.fill(left, y + height - tall, max(right - left - 1, 1), tall, Ink.BAR)
        level = y + height - round(height * float(logs[bin_]))
        sheet.fill(left, level, right - left, 1, Ink.ACCENT + 7)
        sheet.fill(left, min(last, level), 1, abs(level - last) + 1, Ink.ACCENT + 7)
        last = level
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        value = float(edges[0] + (edges[-1] - edges[0]) * share)
        label = number(value)
        sheet.fill(x + round(width * share) - (share == 1), y + height, 1, 5, Ink.LINE)
        offset = {0.0: 0, 1.0: measure(label, _SMALL)}.get(share, measure(label, _SMALL) // 2)
        sheet.text(x + round(width * share) - offset, y + height + 8, label, _SMALL, Ink.TEXT)
