"""A record as the viewer reads it: an index as JSON, a binary block a layer and image, pictures as PNG.

The server, the HTML file and the notebook all speak this one format; `docs/viewer.md` describes it byte by byte.
What comes out is checked against what the record claims, for a record may come from anyone.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layerscope.errors import RecordError
from layerscope.maps import Maps
from layerscope.profiles import Shown
from layerscope.record import Entry, Histogram, Picture, Record
from layerscope.stats import Columns
from layerscope.text import finite

__all__ = ["PREDICTED", "WIRE", "block", "dumps", "finite", "images_of", "index", "png", "predicted", "webp"]

#: version of the format, in the index
WIRE = 1
#: flag of a block whose codes are differences from what their neighbours let expect
PREDICTED = 1

_HEAD = struct.Struct("<4I")  # channels, height, width, flags
_CHANNEL_BYTES = 36  # six floats and three counts
_MOST = np.iinfo(np.uint32).max


def dumps(document: Any) -> bytes:
    """JSON without a blank too many, UTF-8."""
    return json.dumps(finite(document), allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode(
        "utf-8", "replace"
    )


def images_of(record: Record) -> int:
    """How many image numbers a block may be asked for: 0 up to this."""
    return max([1, len(record.pictures), *(len(entry.maps) for entry in record.values())])


def index(record: Record, live: Mapping[str, bool] | None = None, left_out: Collection[str] = ()) -> dict[str, Any]:
    """Everything but the maps, as plain data. `live`: what a running network can do beyond the record.

    `left_out`: keys of layers whose maps are not to be had. Raises RecordError for a record that contradicts itself.
    """
    try:
        return {
            "schema": WIRE,
            "kind": record.kind,
            "subject": record.subject,
            "subject_b": record.subject_b,
            "notes": list(record.notes),
            "never": list(record.never),
            "foreign": list(record.foreign),
            "provenance": dict(record.provenance),
            "pictures": [_picture(one) for one in record.pictures],
            "predictions": [[vars(one) for one in top] for top in record.predictions],
            "findings": [vars(one) for one in record.findings],
            "pairs": [vars(one) for one in record.pairs],
            "stages": [list(pair) for pair in record.stages],
            "layers": [_layer(number, entry, entry.key in left_out) for number, entry in enumerate(record.values())],
            "left_out": [entry.key for entry in record.values() if entry.key in left_out],
            "live": dict(live) if live else None,
            **(_survey(record) if record.kind == "survey" else {}),
        }
    except (TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        raise RecordError(f"{record.subject}: the record contradicts itself ({error}); make it again") from error


def _survey(record: Record) -> dict[str, Any]:
    """What the index of a survey has beside: classes, the images of the examples, and how alike the layers are."""
    fields = ("number", "name", "label", "width", "height")
    alike = record.similarity
    return {
        "classes": list(record.classes),
        "images": [
            {name: getattr(one, name) for name in fields} | {"pixels": one.data.size > 0} for one in record.shown
        ],
        "similarity": vars(alike) | {"value": alike.value.tolist()} if alike else None,
    }


def _picture(picture: Picture) -> dict[str, Any]:
    height, width, _ = picture.pixels.shape
    return {"name": str(picture.name), "width": width, "height": height}


def _layer(number: int, entry: Entry, left_out: bool) -> dict[str, Any]:
    maps = [] if left_out else entry.maps
    return {
        "id": number,
        "key": entry.key,
        "path": str(entry.site.path),
        "call": int(entry.site.call),
        "side": str(entry.side),
        "type": str(entry.type),
        "shape": [int(size) for size in entry.shape],
        "layout": str(entry.site.layout),
        "dtype": str(entry.dtype),
        "note": str(entry.note),
        "dead": entry.dead,
        "channels": _channels(entry),
        "maps": [dict(zip("chw", one.shape, strict=True), reduced=int(one.reduced)) for one in maps],
        "total": _total(entry.total),
        "histogram": _histogram(entry.histogram),
        **({"profile": True} if entry.profile else {}),
    }


def _channels(entry: Entry) -> int:
    """Statistics there are; a vector has those of the whole."""
    if entry.columns is not None:
        return entry.columns.count.size
    return entry.maps[0].shape[0] if entry.maps else int(entry.total is not None)


def _total(total: Columns | None) -> dict[str, Any] | None:
    if total is None:
        return None
    floats = {name: float(getattr(total, name).item()) for name in ("mean", "std", "min", "max")}
    counts = {name: int(getattr(total, name).item()) for name in ("zeros", "nan", "inf")}
    return {"count": int(total.count.item()), **floats, **counts}


def _histogram(histogram: Histogram | None) -> dict[str, Any] | None:
    if histogram is None:
        return None
    edges, counts = np.ravel(histogram.edges), np.ravel(histogram.counts)
    if edges.size != counts.size + 1:
        raise ValueError(f"{edges.size} edges do not fit {counts.size} counts of a histogram")
    return {"edges": edges.tolist(), "counts": counts.tolist()}


def block(entry: Entry, image: int, maps: bool = True) -> bytes:
    """One layer on one image: sizes, statistics a channel, and codes. Little-endian; see docs/viewer.md.

    A layer without maps (of this image), or `maps=False`, gives statistics and height 0.
    Raises RecordError where the arrays do not have the sizes that the record claims.
    """
    given = entry.maps[image] if 0 <= image < len(entry.maps) and maps else None
    if given is not None:
        _check(entry, given)
    columns = _columns(entry, given.shape[0] if given else None)
    channels = columns.count.size
    low, high = (given.lo, given.hi) if given else (columns.min, columns.max)
    height, width = given.shape[1:] if given else (0, 0)
    with np.errstate(over="ignore"):  # a float64 beyond float32 is infinite there
        floats = [_as(one, "<f4") for one in (low, high, columns.mean, columns.std, columns.min, columns.max)]
    counts = [_as(np.minimum(one, _MOST), "<u4") for one in (columns.zeros, columns.nan, columns.inf)]
    codes = given.codes.tobytes() if given and height else b""
    return b"".join([_HEAD.pack(channels, height, width, 0), *floats, *counts, codes])


def predicted(block: bytes) -> bytes:
    """The same block with flag PREDICTED, for packing: each code less the mean of its left and upper one, modulo 256.

    The mean is rounded down. The first row has a left neighbour alone, the first column an upper one, the first code
    of a plane none. A predictor of PNG (ISO/IEC 15948, filter type 3), but for its edges.
    """
    channels, height, width, flags = _HEAD.unpack_from(block)
    start = _HEAD.size + _CHANNEL_BYTES * channels
    codes = np.frombuffer(block, np.uint8, offset=start).reshape(channels, height, width)
    left, upper = codes[:, 1:, :-1].astype(np.uint16), codes[:, :-1, 1:]
    gaps = codes.copy()
    gaps[:, 1:, 1:] -= ((left + upper) >> 1).astype(np.uint8)
    gaps[:, :1, 1:] -= codes[:, :1, :-1]
    gaps[:, 1:, :1] -= codes[:, :-1, :1]
    return _HEAD.pack(channels, height, width, flags | PREDICTED) + block[_HEAD.size : start] + gaps.tobytes()


def _as(values: NDArray, dtype: str) -> bytes:
    return np.ascontiguousarray(values.astype(dtype)).tobytes()


def _check(entry: Entry, maps: Maps) -> None:
    """That codes and ranges have the sizes that the index told."""
    channels = maps.shape[0]
    if maps.codes.shape != tuple(maps.shape) or maps.codes.dtype != np.uint8:
        raise _lies(entry, f"codes of {maps.codes.shape} where {maps.shape} was said")
    if maps.lo.shape != (channels,) or maps.hi.shape != (channels,):
        raise _lies(entry, f"{maps.lo.size} ranges for {channels} channels")


def _lies(entry: Entry, what: str) -> RecordError:
    return RecordError(f"{entry.key}: the record contradicts itself ({what}); make it again")


def _columns(entry: Entry, channels: int | None) -> Columns:
    """Statistics for each of `channels` maps; for each channel there is, without maps.

    A kernel tensor has one column an output channel but one map a kernel slice: the column is repeated for each of
    its slices. A matrix is one map: it has the statistics of the whole.
    """
    columns = entry.columns
    if columns is None or (channels == 1 and columns.count.size != 1):
        columns = entry.total or _nothing(0 if channels is None else 1)
    columns = columns._replace(**{name: np.ravel(field) for name, field in columns._asdict().items()})
    sizes = {field.size for field in columns}
    if len(sizes) > 1:
        raise _lies(entry, f"statistics of {sorted(sizes)} channels")
    size = sizes.pop()
    if channels is None or channels == size:
        return columns
    if size == 0 or channels % size:
        raise _lies(entry, f"statistics of {size} channels for {channels} maps")
    return columns.take(np.arange(channels) // (channels // size))


def _nothing(size: int) -> Columns:
    none, gap = np.zeros(size, np.int64), np.full(size, np.nan)
    return Columns(count=none, mean=gap, m2=gap, min=gap, max=gap, zeros=none, nan=none, inf=none)


def webp(shown: Shown) -> bytes:
    """An image of the data set as WebP. Raises RecordError if it is none, or not in the record."""
    data = shown.data.tobytes()
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        raise RecordError(f"image {shown.number}: is not in this record")
    return data


def png(record: Record, number: int) -> bytes:
    """Input picture `number` as PNG. Raises RecordError if it is none."""
    from PIL import Image

    pixels = record.pictures[number].pixels
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise RecordError(f"picture {number}: is {pixels.dtype} {pixels.shape}, not 8-bit RGB; make the record again")
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()
