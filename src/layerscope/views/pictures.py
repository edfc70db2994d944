"""All pictures of a record as PNG files in a folder."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from layerscope.files import save
from layerscope.records.maps import Range
from layerscope.records.record import Record, last_of_size
from layerscope.views import examples, figure, png

__all__ = ["write"]

Draw = Callable[[], bytes]


def write(
    record: Record,
    out: Path | str,
    channels: int | None = 12,
    cmap: str = "viridis",
    mode: Range = "channel",
    overview: bool = True,
    progress: Callable[[int, int, str], None] = lambda done, of, what: None,
) -> list[Path]:
    """Write every picture of a record into a folder; the paths, in order. Raises OutputError."""
    pictures = drawings(record, channels, cmap, mode, overview)
    written = []
    for number, (name, draw) in enumerate(pictures.items()):
        progress(number, len(pictures), name)
        written.append(save(draw(), Path(out) / name))
    progress(len(pictures), len(pictures), "")
    return written


def drawings(record: Record, *options: Any) -> dict[str, Draw]:
    """What draws each picture, by the name of its file: a progress bar knows how many there are. See `write`."""
    by_name: dict[str, Draw] = {}
    taken: set[str] = set()
    for key, what, draw in _DRAWINGS[record.kind](record, *options):
        name, number = _file_name(key, what), 1
        while name.lower() in taken:  # file systems that ignore case, and names cut to the same length
            number += 1
            name = _file_name(f"{key[:140]}-{number}", what)
        taken.add(name.lower())
        by_name[name] = draw
    return by_name


def _file_name(key: str, what: str) -> str:
    """A file name that every file system takes: names of tensors come from files and may hold anything."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", key).strip(".") or "_"
    return f"{safe[:150]}.{what}.png" if what else f"{safe[:150]}.png"


#: what a picture is of, what it shows ("" where there is no doubt), and what draws it
Drawings = Iterator[tuple[str, str, Draw]]


def _compare(record: Record, *_: Any) -> Drawings:
    if record.stages:
        yield "stages", "", partial(figure.side_by_side, record)
    if not record.stages or any(pair.mean_abs is not None for pair in record.pairs):
        yield "changes", "", partial(figure.changes, record)


def _weights(record: Record, *_: Any) -> Drawings:
    for entry in record.values():
        if entry.histogram:
            yield entry.key, "histogram", partial(png.histogram_sheet, entry)
        if entry.maps:
            yield entry.key, "kernels", partial(png.kernel_mosaic, record, entry)


def _survey(record: Record, channels: int | None, *_: Any) -> Drawings:
    for entry in record.values():
        if entry.profile and entry.profile.examples:
            draw = partial(examples.examples_sheet, record, entry, channels)
            yield entry.key.replace(":", "-"), "examples", draw


def _features(record: Record, channels: int | None, cmap: str, mode: Range, overview: bool) -> Drawings:
    entries = record.values()
    for image in range(max((len(entry.maps) for entry in entries), default=0)):
        network = png.span_of(record, image) if mode == "network" else None
        many = len(record.pictures) > 1 and image < len(record.pictures)
        stem = f"{Path(record.pictures[image].name).stem}." if many else ""
        if overview and record.pictures and last_of_size(entries):
            yield f"{stem}overview", "", partial(figure.overview, record, image)
        for entry in entries:
            if image < len(entry.maps):
                draw = partial(png.feature_mosaic, record, entry, image, channels, cmap, mode, network)
                yield stem + entry.key.replace(":", "-"), "features", draw


_DRAWINGS: dict[str, Callable[..., Drawings]] = {
    "weights": _weights,
    "features": _features,
    "compare": _compare,
    "survey": _survey,
}
