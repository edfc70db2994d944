"""A record as one safetensors file: the arrays as tensors, everything else as JSON in its metadata.

The JSON stands under the key `layerscope`. `docs/record.md` describes the file well enough to read it without this
package.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import save as serialised

from layerscope import claims, files
from layerscope.arrays import Arrays
from layerscope.errors import LayerscopeError, RecordError
from layerscope.maps import Maps
from layerscope.profiles import Shown, Similarity, pack, unpack
from layerscope.record import Entry, Finding, Histogram, Pair, Picture, Prediction, Record
from layerscope.sites import Site
from layerscope.stats import Columns
from layerscope.text import printable

__all__ = ["SCHEMA", "body_of", "load", "save"]

#: raised when an older layerscope could not read a file, or would misread it
SCHEMA = 2
#: where the statistics of all tensors as a whole are: hundreds of arrays of one column would take longer than the rest
_TOTALS = "totals"


def save(record: Record, path: str | os.PathLike[str]) -> Path:
    """See `Record.save`."""
    arrays: dict[str, NDArray] = {}
    body = json.dumps(body_of(record, arrays), allow_nan=True)
    return files.save(serialised(arrays, metadata={"layerscope": body}), Path(path))


def body_of(record: Record, arrays: dict[str, NDArray]) -> dict[str, Any]:
    """The JSON of a record; its arrays are put into `arrays`, by the names that the JSON gives them."""

    def put(name: str, array: NDArray) -> str:
        arrays[name] = np.ascontiguousarray(array)
        return name

    def columns(name: str, value: Columns | None) -> str | None:
        if value is None:
            return None
        floats = np.array((value.mean, value.m2, value.min, value.max), np.float64).reshape(4, -1)
        counts = np.array((value.count, value.zeros, value.nan, value.inf), np.int64).reshape(4, -1)
        put(f"{name}.floats", floats)
        put(f"{name}.counts", counts)
        return name

    totals: list[Columns] = []

    def total(value: Columns | None) -> int | None:
        if value is None:
            return None
        totals.append(value)
        return len(totals) - 1

    def entry(number: int, value: Entry) -> dict[str, Any]:
        name = str(number)
        if value.histogram:
            put(f"{name}.edges", value.histogram.edges.astype(np.float64))
            put(f"{name}.bins", value.histogram.counts)
        return {
            "path": value.site.path,
            "call": value.site.call,
            "layout": value.site.layout,
            "type": value.type,
            "shape": value.shape,
            "dtype": value.dtype,
            "side": value.side,
            "note": value.note,
            "columns": columns(f"{name}.channels", value.columns),
            "total": total(value.total),
            "histogram": value.histogram is not None,
            "maps": [
                {
                    "codes": put(f"{name}.codes.{image}", maps.codes),
                    "range": put(f"{name}.range.{image}", np.stack([maps.lo, maps.hi]).astype(np.float32)),
                    "reduced": maps.reduced,
                }
                for image, maps in enumerate(value.maps)
            ],
            "profile": pack(name, value.profile, put) if value.profile else None,
        }

    def likeness(value: Similarity) -> dict[str, Any]:
        put("similarity", value.value.astype(np.float32))
        return {"keys": value.keys, "minibatches": value.minibatches}

    entries = [entry(number, value) for number, value in enumerate(record)]
    if totals:
        columns(_TOTALS, Columns(*(np.concatenate(field) for field in zip(*totals, strict=True))))
    return {
        "schema": SCHEMA,
        "kind": record.kind,
        "subject": record.subject,
        "subject_b": record.subject_b,
        "entries": entries,
        "pictures": [
            {"name": picture.name, "pixels": put(f"picture.{number}", picture.pixels)}
            for number, picture in enumerate(record.pictures)
        ],
        "predictions": [[vars(one) for one in top] for top in record.predictions],
        "findings": [vars(one) for one in record.findings],
        "pairs": [vars(one) for one in record.pairs],
        "stages": record.stages,
        "foreign": record.foreign,
        "never": record.never,
        "notes": record.notes,
        "provenance": record.provenance,
        "classes": record.classes,
        "shown": [
            {"number": one.number, "name": one.name, "label": one.label, "width": one.width, "height": one.height}
            | {"data": put(f"shown.{at}", one.data)}
            for at, one in enumerate(record.shown)
        ],
        "similarity": likeness(record.similarity) if record.similarity else None,
    }


def load(path: str | os.PathLike[str]) -> Record:
    """Read a record. Maps are read from the file when they are first looked at.

    Raises RecordError for a file that is missing, broken, of a newer schema, or no record at all.
    """
    name = os.fspath(path)
    try:
        if not Path(name).is_file():
            raise RecordError(f"{printable(name)}: no such record; make one with --record FILE")
        arrays = Arrays(name)
        body = json.loads(arrays.text)
        if isinstance(body, dict) and body.get("schema", 0) > SCHEMA:
            raise RecordError(
                f"{printable(name)}: written by a newer layerscope (schema {body['schema']}); update layerscope"
            )
        claims.check(body, "it")
        return _unpack(body, arrays)
    except (SafetensorError, OSError) as error:
        raise RecordError(
            f"{printable(name)}: is not a record, or is cut off ({_said(error)}); make it again with --record"
        ) from error
    except (KeyError, TypeError, ValueError, RecursionError, LayerscopeError) as error:
        if isinstance(error, RecordError) and printable(name) in str(error):
            raise
        raise RecordError(
            f"{printable(name)}: a safetensors file, but not a whole record ({_said(error)}); make it again"
        ) from error


def _said(error: BaseException) -> str:
    return printable(" ".join(str(error).split()))[:300]


def _unpack(body: dict[str, Any], arrays: Arrays) -> Record:
    def columns(name: str | None) -> Columns | None:
        if name is None:
            return None
        (mean, m2, low, high), (count, zeros, nan, inf) = arrays.statistics(name)
        return Columns(count=count, mean=mean, m2=m2, min=low, max=high, zeros=zeros, nan=nan, inf=inf)

    totals = columns(_TOTALS) if any(type(one["total"]) is int for one in body["entries"]) else None

    def total(at: int | str | None) -> Columns | None:
        if at is None or isinstance(at, str):  # schema 1: arrays of its own
            return columns(at)
        if totals is None or at >= len(totals.count):
            raise ValueError(f"{_TOTALS} has no column {at}")
        return totals.take(np.s_[at : at + 1])

    def maps(packed: dict[str, Any]) -> Maps:
        shape, codes = arrays.later(packed["codes"])
        ends = arrays.read(packed["range"], "F32", 2)
        if ends.shape != (2, shape[0]) or 0 in shape:
            raise ValueError(f"{packed['codes']}: maps of {shape} with ranges of {ends.shape}")
        return Maps(ends[0], ends[1], shape, codes, packed["reduced"])

    def histogram(number: int) -> Histogram:
        edges, counts = arrays.read(f"{number}.edges", "F64", 1), arrays.read(f"{number}.bins", "I64", 1)
        if len(edges) != len(counts) + 1 or not len(counts) or (counts < 0).any():
            raise ValueError(f"{number}: a histogram of {len(edges)} edges and {len(counts)} counts")
        return Histogram(edges, counts)

    def entry(number: int, packed: dict[str, Any]) -> Entry:
        made = Entry(
            site=Site(packed["path"], packed["call"], packed["layout"]),
            type=packed["type"],
            shape=tuple(packed["shape"]),
            dtype=packed["dtype"],
            columns=columns(packed["columns"]),
            whole=total(packed["total"]),
            histogram=histogram(number) if packed["histogram"] else None,
            maps=[maps(one) for one in packed["maps"]],
            side=packed["side"],
            note=packed["note"],
            profile=unpack(str(number), packed["profile"], arrays.any) if packed.get("profile") else None,
        )
        _fits(made)
        return made

    record = Record(body["kind"], body["subject"], subject_b=body["subject_b"])
    for number, packed in enumerate(body["entries"]):
        record.add(entry(number, packed))
    record.pictures = [_picture(one["name"], arrays.read(one["pixels"], "U8", 3)) for one in body["pictures"]]
    record.predictions = [[Prediction(**one) for one in top] for top in body["predictions"]]
    record.findings = [Finding(**one) for one in body["findings"]]
    record.pairs = [_pair(one) for one in body["pairs"]]
    record.stages = [(a, b) for a, b in body["stages"]]
    record.foreign, record.never, record.notes = body["foreign"], body["never"], body["notes"]
    record.provenance = body["provenance"]
    # Records that were written before there were surveys have none of these.
    record.classes = list(body.get("classes", []))
    record.shown = [Shown(**{**one, "data": arrays.read(one["data"], "U8", 1)}) for one in body.get("shown", [])]
    alike = body.get("similarity")
    if alike:
        value = arrays.read("similarity", "F32", 2)
        if value.shape != (len(alike["keys"]),) * 2:
            raise ValueError("similarity: the layers and their figures disagree")
        record.similarity = Similarity(alike["keys"], value, alike["minibatches"])
    return record


def _fits(entry: Entry) -> None:
    """Raise ValueError where the parts of an entry contradict each other in what the views rely on."""
    wrong, profile = "", entry.profile
    if entry.whole is not None and len(entry.whole.count) != 1:
        wrong = f"{len(entry.whole.count)} statistics of the whole"
    elif entry.maps and not entry.shape:
        wrong = "maps of a tensor without axes"
    elif entry.histogram and entry.total is None:
        wrong = "a histogram without statistics"
    elif profile and (entry.columns is None or len(entry.columns.count) != len(profile.silent)):
        wrong = f"a profile of {len(profile.silent)} channels, and statistics of others"
    elif profile and profile.examples:
        channels, places = profile.examples.image.shape
        if places > len(entry.maps) or any(one.shape[0] != channels for one in entry.maps):
            wrong = f"{places} examples of {channels} channels, and other maps"
    if wrong:
        raise ValueError(f"{entry.key}: {wrong}")


def _picture(name: str, pixels: NDArray) -> Picture:
    if pixels.shape[2] != 3 or not pixels.size:
        raise ValueError(f"{name}: a picture of {pixels.shape}")
    return Picture(name, pixels)


def _pair(packed: dict[str, Any]) -> Pair:
    pair = Pair(**packed)
    shapes = [shape and tuple(shape) for shape in (pair.shape_a, pair.shape_b)]
    return replace(pair, shape_a=shapes[0], shape_b=shapes[1])
