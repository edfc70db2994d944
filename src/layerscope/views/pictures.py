"""All pictures of a record as PNG files in a folder."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from layerscope.files import save
from layerscope.maps import Range
from layerscope.record import Record, last_of_size
from layerscope.views import examples, figure, png

__all__ = ["write"]


def _file_name(key: str, what: str) -> str:
    """A file name that every file system takes: names of tensors come from files and may hold anything."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", key).strip(".") or "_"
    return f"{safe[:150]}.{what}.png" if what else f"{safe[:150]}.png"


def write(
    record: Record,
    out: Path,
    channels: int | None = 12,
    cmap: str = "viridis",
    mode: Range = "channel",
    overview: bool = True,
    progress: Callable[[int, int, str], None] = lambda done, of, what: None,
) -> list[Path]:
    """Write every picture of a record into a folder; the paths, in order. Raises OutputError."""
    pictures = list(_pictures(record, channels, cmap, mode, overview))
    written = []
    for number_, (name, draw) in enumerate(pictures):
        progress(number_, len(pictures), name)
        written.append(save(draw(), out / name))
    progress(len(pictures), len(pictures), "")
    return written


def _pictures(
    record: Record, channels: int | None, cmap: str, mode: Range, overview: bool
) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """(file name, what draws it): names first, so that a progress bar knows how many there are."""
    taken: set[str] = set()

    def unique(key: str, what: str) -> str:
        name, number_ = _file_name(key, what), 1
        while name.lower() in taken:  # file systems that ignore case, and names cut to the same length
            number_ += 1
            name = _file_name(f"{key[:140]}-{number_}", what)
        taken.add(name.lower())
        return name

    if record.kind == "compare":
        if record.stages:
            yield "stages.png", partial(figure.side_by_side, record)
        if not record.stages or any(pair.mean_abs is not None for pair in record.pairs):
            yield "changes.png", partial(figure.changes, record)
        return
    if record.kind == "weights":
        for entry in record.values():
            if entry.histogram:
                yield unique(entry.key, "histogram"), partial(png.histogram_sheet, entry)
            if entry.maps:
                yield unique(entry.key, "kernels"), partial(png.kernel_mosaic, record, entry)
        return
    if record.kind == "survey":
        for entry in record.values():
            if entry.profile and entry.profile.examples:
                name = unique(entry.key.replace(":", "-"), "examples")
                yield name, partial(examples.examples_sheet, record, entry, channels)
        return
    for image in range(max((len(entry.maps) for entry in record.values()), default=0)):
        network = png.span_of(record, image) if mode == "network" else None
        many = len(record.pictures) > 1 and image < len(record.pictures)
        stem = f"{Path(record.pictures[image].name).stem}." if many else ""
        if overview and record.pictures and last_of_size(record.values()):
            yield unique(f"{stem}overview", ""), partial(figure.overview, record, image)
        for entry in record.values():
            if image >= len(entry.maps):
                continue
            name = unique(stem + entry.key.replace(":", "-"), "features")
            yield name, partial(png.feature_mosaic, record, entry, image, channels, cmap, mode, network)
