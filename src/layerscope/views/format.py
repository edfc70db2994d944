"""The viewer's format: an index as JSON, a binary block a layer and image, pictures as PNG.

The server, the HTML file and the notebook all speak it; `docs/viewer.md` describes it byte by byte.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layerscope.errors import NoMatch, RecordError
from layerscope.records.kinds import KINDS
from layerscope.records.profiles import Profile, Shown
from layerscope.records.record import Entry, Picture, Record
from layerscope.stats import Columns
from layerscope.stats.table import figures, shown
from layerscope.text import json_text
from layerscope.views.summary import channels_of, entry_word

__all__ = ["block", "block_of", "index", "picture_of", "predicted", "profile_block", "profile_of", "thumbnail_of"]

#: version of the format, in the index
SCHEMA = 1
#: flag of a block whose codes are differences from what their neighbours let expect
PREDICTED = 1

_HEAD = struct.Struct("<4I")  # channels, height, width, flags
_MOST = np.iinfo(np.uint32).max


def index(record: Record, live: Mapping[str, bool] | None = None, left_out: Collection[str] = ()) -> dict[str, Any]:
    """Everything but the maps, as plain data. `live`: what a running network can do beyond the record.

    `left_out`: keys of layers whose maps are not to be had.
    """
    kind, entries = KINDS[record.kind], record.values()
    return {
        "schema": SCHEMA,
        "kind": record.kind,
        "entry": entry_word(record),
        "compares": kind.compares,
        "dataset": kind.dataset,
        "statistics": [_plain(statistic, "name", "label", "type", "text", "brief") for statistic in shown()],
        "block": layout(),
        **_plain(record, "subject", "subject_b", "never", "foreign", "provenance", "stages"),
        "notes": list(record.notes),  # to which the HTML file adds its own
        "pictures": [_picture(picture) for picture in record.pictures],
        "predictions": [[vars(prediction) for prediction in top] for top in record.predictions],
        "findings": [vars(finding) for finding in record.findings],
        "pairs": [vars(pair) for pair in record.pairs],
        "layers": [_layer(number, entry, entry.key in left_out) for number, entry in enumerate(entries)],
        "left_out": [entry.key for entry in entries if entry.key in left_out],
        "live": dict(live) if live else None,
        **(_of_dataset(record) if kind.dataset else {}),
    }


def layout() -> dict[str, Any]:
    """Where things lie in a block: the bytes of its header, then arrays of a value a plane (name, type), then codes."""
    arrays = [["lo", "f4"], ["hi", "f4"], *([row.name, "f4" if row.type == "float" else "u4"] for row in shown())]
    return {"header_bytes": _HEAD.size, "arrays": arrays}


def _plain(data: object, *fields: str) -> dict[str, Any]:
    return {name: getattr(data, name) for name in fields}


def _of_dataset(record: Record) -> dict[str, Any]:
    """Classes, the images of the examples, and how alike the layers are."""
    fields = ("number", "name", "label", "width", "height")
    alike = record.similarity
    return {
        "classes": list(record.classes),
        "images": [_plain(image, *fields) | {"pixels": image.data.size > 0} for image in record.shown],
        "similarity": vars(alike) | {"value": alike.value.tolist()} if alike else None,
    }


def _picture(picture: Picture) -> dict[str, Any]:
    height, width, _ = picture.pixels.shape
    return {"name": picture.name, "width": width, "height": height}


def _layer(number: int, entry: Entry, left_out: bool) -> dict[str, Any]:
    total, histogram, pictured = entry.total, entry.histogram, [] if left_out else entry.maps
    return {
        "id": number,
        **_plain(entry.site, "path", "call", "layout"),
        **_plain(entry, "key", "side", "type", "shape", "dtype", "note", "dead"),
        "channels": _channels(entry),
        "maps": [dict(zip("chw", maps.shape, strict=True), reduced=maps.reduced) for maps in pictured],
        "total": total and {"count": total.count.item()} | {name: row[0] for name, row in figures(total).items()},
        "histogram": histogram and {"edges": histogram.edges.tolist(), "counts": histogram.counts.tolist()},
        **({"profile": True} if entry.profile else {}),
    }


def _channels(entry: Entry) -> int:
    """Statistics there are; a vector has those of the whole."""
    if entry.columns is not None:
        return channels_of(entry)
    return entry.maps[0].shape[0] if entry.maps else int(entry.total is not None)


def block(entry: Entry, image: int, maps: bool = True) -> bytes:
    """One layer on one image: sizes, statistics a channel, and codes. Little-endian; see docs/viewer.md.

    A layer without maps (of this image), or `maps=False`, has statistics and height 0. Raises RecordError where the
    statistics are of other channels than the maps.
    """
    pictured = entry.maps[image] if 0 <= image < len(entry.maps) and maps else None
    columns = _columns(entry, pictured.shape[0] if pictured else None)
    low, high = (pictured.lo, pictured.hi) if pictured else (columns.min, columns.max)
    height, width = pictured.shape[1:] if pictured else (0, 0)
    arrays = [low, high, *(statistic.of(columns) for statistic in shown())]
    parts = [_bytes(array, kind) for array, (_, kind) in zip(arrays, layout()["arrays"], strict=True)]
    codes = pictured.codes.tobytes() if pictured and height else b""
    return b"".join([_HEAD.pack(columns.count.size, height, width, 0), *parts, codes])


def predicted(block: bytes) -> bytes:
    """The same block with flag PREDICTED, for packing: each code less the mean of its left and upper one, modulo 256.

    The mean is rounded down. The first row has a left neighbour alone, the first column an upper one, the first code
    of a plane none. A predictor of PNG (ISO/IEC 15948, filter type 3), but for its edges.
    """
    channels, height, width, flags = _HEAD.unpack_from(block)
    start = _HEAD.size + 4 * len(layout()["arrays"]) * channels
    codes = np.frombuffer(block, np.uint8, offset=start).reshape(channels, height, width)
    left, upper = codes[:, 1:, :-1].astype(np.uint16), codes[:, :-1, 1:]
    gaps = codes.copy()
    gaps[:, 1:, 1:] -= ((left + upper) >> 1).astype(np.uint8)
    gaps[:, :1, 1:] -= codes[:, :1, :-1]
    gaps[:, 1:, :1] -= codes[:, :-1, :1]
    return _HEAD.pack(channels, height, width, flags | PREDICTED) + block[_HEAD.size : start] + gaps.tobytes()


def _bytes(values: NDArray, kind: str) -> bytes:
    """Little-endian; what is beyond uint32 stops at its greatest."""
    with np.errstate(over="ignore"):  # a float64 beyond float32 is infinite there
        return np.ascontiguousarray(
            (np.minimum(values, _MOST) if kind == "u4" else values).astype(f"<{kind}")
        ).tobytes()


def _columns(entry: Entry, planes: int | None) -> Columns:
    """Statistics for each of `planes` maps; for each channel there is, without maps.

    A kernel tensor has one column an output channel but one map a kernel slice: the column is repeated for each of
    its slices. A matrix is one map: it has the statistics of the whole.
    """
    columns = entry.columns
    if columns is None or (planes == 1 and columns.count.size != 1):
        size = 0 if planes is None else 1
        columns = entry.total or Columns.of(np.full((4, size), np.nan), np.zeros((4, size), np.int64))
    size = columns.count.size
    if planes is None or planes == size:
        return columns
    if size == 0 or planes % size:
        what = f"statistics of {size} channels for {planes} maps"
        raise RecordError(f"{entry.key}: the record contradicts itself ({what}); make it again")
    return columns.take(np.arange(planes) // (planes // size))


def profile_block(profile: Profile) -> bytes:
    """What a survey knows of one layer: length of a head (uint32), the head as JSON, arrays at multiples of 4 bytes.

    Counts above 2**32 - 1 are cut off there; histograms are given to float32.
    """
    arrays: list[tuple[str, str, NDArray[Any] | None]] = [("silent", "u4", profile.inactive)]
    arrays += [("favourite", "i4", profile.preferred_class), ("selectivity", "f4", profile.selectivity)]
    arrays += [("explained", "f4", profile.eta_squared)]
    if of := profile.examples:
        arrays += [("image", "i4", of.image), ("value", "f4", of.value)]
        arrays += [("position", "i4", of.position), ("at", "i4", of.origin)]
    if profile.histograms:
        arrays += [("spread", "f4", profile.histograms.counts), ("bins", "i4", profile.histograms.bins)]
    present = [(name, kind, array) for name, kind, array in arrays if array is not None]
    head = {
        "images": profile.images,
        "copies": [list(pair) for pair in profile.redundant_channels],
        "rank": profile.rank,
        "grid": list(profile.grid),
        "lines": [[line.low, line.high, line.step, line.whole] for line in profile.lines] if profile.lines else None,
        "arrays": [[name, kind, list(array.shape)] for name, kind, array in present],
    }
    text = json_text(head).encode()
    block = struct.pack("<I", len(text)) + text
    for _, kind, array in present:
        block += b"\0" * (-len(block) % 4) + _bytes(array, kind)
    return block


def thumbnail(image: Shown) -> bytes:
    """An image of the data set as WebP. Raises RecordError if it is none, or not in the record."""
    data = image.data.tobytes()
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        raise RecordError(f"image {image.number}: is not in this record")
    return data


def block_of(record: Record, number: int, image: int) -> bytes:
    """The block of a layer by its number. Raises NoMatch where the record has no such layer or image."""
    entries = list(record.values())
    entry = _at(entries, number, "layer")
    _at(range(max([1, len(record.pictures), *(len(entry.maps) for entry in entries)])), image, "image")
    return block(entry, image)


def profile_of(record: Record, number: int) -> bytes:
    """What a survey knows of a layer by its number. Raises NoMatch where it knows nothing."""
    profile = _at(list(record.values()), number, "layer").profile
    if profile is None:
        raise NoMatch(f"nothing more is known of layer {number} in this record")
    return profile_block(profile)


def picture_of(record: Record, number: int) -> bytes:
    """Input picture `number` as PNG. Raises NoMatch where there is none."""
    from layerscope.views.sheet import encode  # Pillow: the server starts without it

    return encode(_at(record.pictures, number, "picture").pixels, level=6)  # it goes into files that are mailed


def thumbnail_of(record: Record, number: int) -> bytes:
    """An image of the data set by its number, as WebP. Raises NoMatch where the record does not have it."""
    for image in record.shown:
        if image.number == number and image.data.size:
            return thumbnail(image)
    raise NoMatch(f"no image {number} in this record")


def _at(items: Sequence[Any], number: int, what: str) -> Any:
    if number >= len(items):
        raise NoMatch(f"no {what} {number} in this record")
    return items[number]
