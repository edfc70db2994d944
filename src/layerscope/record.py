"""The record: what every view is drawn from, and nothing else.

A record holds no torch and no module objects. It is saved as one safetensors file: the arrays as tensors, everything
else as JSON in the metadata under the key `layerscope`. `docs/record.md` describes the file well enough to read it
without this package.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from layerscope import claims, files
from layerscope.arrays import Arrays
from layerscope.errors import LayerscopeError, RecordError, nearest
from layerscope.maps import Maps
from layerscope.profiles import Profile, Shown, Similarity, pack, unpack
from layerscope.sites import Site
from layerscope.stats import Columns, total
from layerscope.text import printable

__all__ = [
    "SCHEMA",
    "Entry",
    "Finding",
    "Histogram",
    "Layer",
    "Pair",
    "Picture",
    "Prediction",
    "Record",
    "last_of_size",
    "load",
]

#: raised when a file of an older layerscope could be misread
SCHEMA = 1

Kind = Literal["features", "weights", "compare", "survey"]


@dataclass(frozen=True)
class Histogram:
    """edges (n+1,) in the values' unit and counts (n,); over the finite values"""

    edges: NDArray[np.float64]
    counts: NDArray[np.int64]


@dataclass
class Entry:
    """One output of a layer, or one tensor of a checkpoint.

    `shape` is that of the whole tensor, batch first for outputs. `columns` has one element a channel, over all images;
    None where there are no channels (a vector) or there is no distribution (a counter, a quantised block). `whole` is
    given where it is known without the columns. `maps` has one element an image; a kernel tensor has at most one.
    `side` is "a" or "b" in a comparison. `profile` is what a survey of a data set adds.
    """

    site: Site
    type: str
    shape: tuple[int, ...]
    dtype: str
    columns: Columns | None = None
    whole: Columns | None = None
    histogram: Histogram | None = None
    maps: list[Maps] = field(default_factory=list)
    side: str = ""
    note: str = ""
    profile: Profile | None = None

    @property
    def key(self) -> str:
        """The site's key; in a comparison with the side in front: `a:layer1.0.conv1`."""
        return f"{self.side}:{self.site.key}" if self.side else self.site.key

    @property
    def total(self) -> Columns | None:
        """Statistics of the whole tensor, of one element; None where there is no distribution."""
        if self.whole is None and self.columns is not None:
            # Only now: most layers of a network are never looked at as a whole.
            self.whole = total(self.columns.take(None), axis=1)
        return self.whole

    @property
    def dead(self) -> list[int]:
        """Channels that are zero everywhere; for a kernel tensor, kernels of zeros."""
        if self.columns is None:
            return []
        size = self.columns.count + self.columns.nan + self.columns.inf
        return np.flatnonzero((self.columns.zeros == size) & (size > 0)).tolist()


@dataclass(frozen=True)
class Finding:
    """Something wrong with a tensor: kind, the channels it concerns, and in half a sentence why it matters."""

    name: str
    kind: str
    channels: list[int]
    detail: str


@dataclass(frozen=True)
class Prediction:
    """One class of a top list."""

    index: int
    label: str
    probability: float


@dataclass(frozen=True)
class Picture:
    """An input image as the network saw it: uint8 (h, w, 3)."""

    name: str
    pixels: NDArray[np.uint8]


@dataclass(frozen=True)
class Pair:
    """One tensor or layer of A against B. The three figures are None where there is nothing to subtract."""

    name: str
    shape_a: tuple[int, ...] | None
    shape_b: tuple[int, ...] | None
    status: Literal["same", "changed", "only-a", "only-b", "shape"]
    max_abs: float | None = None
    mean_abs: float | None = None
    cosine: float | None = None


@dataclass
class Layer:
    """One module. `shape` is that of its first output, None if it never ran; `parameters` count those below it too."""

    path: str
    type: str
    leaf: bool
    parameters: int
    trainable: int
    calls: int = 0
    shape: tuple[int, ...] | None = None


@dataclass
class Record:
    """Statistics and small pictures of every layer or tensor that was looked at, in order.

    `subject` names the network or checkpoint; in a comparison `subject_b` names the other one. `never` lists layers
    that were asked for and did not run. `provenance` says how the record was made: versions and preprocessing.
    A survey has `classes` where the data set names some, `shown` images and the `similarity` of its layers.
    """

    kind: Kind
    subject: str
    entries: dict[str, Entry] = field(default_factory=dict)
    subject_b: str = ""
    pictures: list[Picture] = field(default_factory=list)
    predictions: list[list[Prediction]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    stages: list[tuple[str, str]] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    never: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)
    shown: list[Shown] = field(default_factory=list)
    similarity: Similarity | None = None

    def add(self, entry: Entry) -> None:
        """Append an entry. Raises RecordError if its key is there already."""
        if entry.key in self.entries:
            raise RecordError(f"{entry.key}: twice in one record; this is a fault of layerscope, please report it")
        self.entries[entry.key] = entry

    @property
    def of_tensors(self) -> bool:
        """Whether it is about the tensors of checkpoints, not about layers at work."""
        return self.kind == "weights" or (self.kind == "compare" and not any("N" in one.site.layout for one in self))

    def only(self, *patterns: str) -> Record:
        """The same record with the entries whose path or type matches one of these globs."""
        kept = {
            key: entry
            for key, entry in self.entries.items()
            if any(fnmatchcase(entry.site.path, glob) or fnmatchcase(entry.type, glob) for glob in patterns)
        }
        return replace(self, entries=kept)

    def __getitem__(self, key: str) -> Entry:
        try:
            return self.entries[key]
        except KeyError:
            raise RecordError(f"{key!r} is not in this record{nearest(key, self.entries)}") from None

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries.values())

    def __len__(self) -> int:
        return len(self.entries)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the record as one safetensors file, whole or not at all. Raises OutputError."""
        # Not at the top: a record that is only looked at on the terminal needs no file format.
        from safetensors.numpy import save

        arrays: dict[str, NDArray] = {}
        body = json.dumps(_pack(self, arrays), allow_nan=True)
        return files.save(save(arrays, metadata={"layerscope": body}), Path(path))

    def to_html(self, path: str | os.PathLike[str], budget_bytes: int = 10_000_000) -> Path:
        """Write the viewer with this record inside as one HTML file.

        Beyond the budget the largest layers lose their maps, with a warning. Raises OutputError, RecordError.
        """
        return _view("html").write(self, path, budget_bytes, lambda note: warnings.warn(note, stacklevel=4))

    def _repr_html_(self) -> str:
        return _view("notebook").frame(self)

    def __repr__(self) -> str:
        return f"<{_view('notebook').line(self)}>"


def _view(name: str) -> Any:
    """A view by its name: views lie above records, and a record that is not drawn needs none."""
    return import_module(f"layerscope.views.{name}")


def last_of_size(entries: Iterable[Entry]) -> list[Entry]:
    """The stages of a network: the last layer with maps of each spatial size, from the largest on. Vectors are none."""
    found: dict[int, Entry] = {}
    for entry in entries:
        if entry.maps and entry.maps[0].shape[1] > 1 and entry.site.layout in ("NCHW", "NHWC", "NLC"):
            found[entry.maps[0].shape[1]] = entry
    return [found[size] for size in sorted(found, reverse=True)]


def _pack(record: Record, arrays: dict[str, NDArray]) -> dict[str, Any]:
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
            "total": columns(f"{name}.total", value.total),
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

    return {
        "schema": SCHEMA,
        "kind": record.kind,
        "subject": record.subject,
        "subject_b": record.subject_b,
        "entries": [entry(number, value) for number, value in enumerate(record)],
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
    from safetensors import SafetensorError

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
            whole=columns(packed["total"]),
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
