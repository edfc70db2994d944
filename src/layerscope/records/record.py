"""The record: what every view is drawn from, and nothing else.

A record holds no torch and no module objects. `recordfile` saves and reads it.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from layerscope.errors import NoEntry, RecordError, UsageError
from layerscope.records.maps import COLORMAPS, Maps, Range
from layerscope.records.profiles import Profile, Shown, Similarity
from layerscope.records.schema import OPTIONAL, Share, Signed, Stored, Total, facts, one_of
from layerscope.records.sites import Site
from layerscope.stats import Columns, total
from layerscope.text import nearest

__all__ = [
    "Entry",
    "Finding",
    "Histogram",
    "Layer",
    "Pair",
    "Picture",
    "Prediction",
    "Record",
    "by_change",
    "last_of_size",
]

PathLike = str | os.PathLike[str]
Kind = Literal["features", "weights", "compare", "survey"]
#: what views take from it
PROVENANCE = facts(format=str | None, architecture=str | None, images=int, of=int)


@dataclass(frozen=True)
class Histogram:
    """edges (n+1,) in the values' unit and counts (n,); over the finite values"""

    edges: Annotated[NDArray[np.float64], "edges"]
    counts: Annotated[NDArray[np.int64], "n"]

    def _contradiction(self) -> str:
        right = len(self.edges) == len(self.counts) + 1 > 1 and (self.counts >= 0).all()
        return "" if right else f"a histogram of {len(self.edges)} edges and {len(self.counts)} counts"


@dataclass
class Entry:
    """One output of a layer, or one tensor of a checkpoint.

    `shape` is that of the whole tensor, batch first for outputs. `columns` has one element a channel, over all images;
    None where there are no channels (a vector) or there is no distribution (a counter, a quantised block). `whole` is
    given where it is known without the columns. `maps` has one element an image; a kernel tensor has at most one.
    `side` is "a" or "b" in a comparison. `profile` is what a survey of a data set adds.
    """

    site: Annotated[Site, Stored("")]
    type: str
    shape: tuple[int, ...]
    dtype: str
    columns: Columns | None = None
    whole: Annotated[Total | None, Stored("total")] = None
    histogram: Histogram | None = None
    maps: list[Maps] = field(default_factory=list)
    side: Annotated[str, one_of("", "a", "b")] = ""
    note: str = ""
    profile: Annotated[Profile | None, OPTIONAL] = None

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

    def _contradiction(self) -> str:
        examples = self.profile.examples if self.profile else None
        if self.maps and not self.shape:
            return "maps of a tensor without axes"
        if self.histogram and self.total is None:
            return "a histogram without statistics"
        if self.profile and self.columns is None:
            return "a profile without statistics"
        if examples:
            channels, places = examples.image.shape
            if places > len(self.maps) or any(maps.shape[0] != channels for maps in self.maps):
                return f"{places} examples of {channels} channels, and other maps"
        return ""


@dataclass(frozen=True)
class Finding:
    """Something wrong with a tensor: kind, the channels it concerns, and in half a sentence why it matters."""

    name: str
    kind: str
    channels: list[Signed]
    detail: str


@dataclass(frozen=True)
class Prediction:
    """One class of a top list."""

    index: Signed
    label: str
    probability: Share


@dataclass(frozen=True)
class Picture:
    """An input image as the network saw it: uint8 (h, w, 3)."""

    name: str
    pixels: Annotated[NDArray[np.uint8], "h w 3"]

    def _contradiction(self) -> str:
        return "" if self.pixels.size else "a picture without pixels"


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

    def _contradiction(self) -> str:
        missing = {figure is None for figure in (self.max_abs, self.mean_abs, self.cosine)}
        return "" if len(missing) == 1 else "some of the three figures alone"


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
class Record(Mapping[str, Entry]):
    """Statistics and small pictures of every layer or tensor that was looked at, in order.

    It is a mapping from the keys of entries to the entries; true even if there are none. A key that is not there raises
    NoEntry, which is a RecordError and a KeyError.

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
    provenance: Annotated[dict[str, Any], PROVENANCE] = field(default_factory=dict)
    classes: Annotated[list[str], OPTIONAL] = field(default_factory=list)
    shown: Annotated[list[Shown], OPTIONAL] = field(default_factory=list)
    similarity: Annotated[Similarity | None, OPTIONAL] = None

    def add(self, entry: Entry) -> None:
        """Append an entry. Raises RecordError if its key is there already."""
        if entry.key in self.entries:
            raise RecordError(f"{entry.key}: twice in one record; this is a fault of layerscope, please report it")
        self.entries[entry.key] = entry

    @property
    def of_tensors(self) -> bool:
        """Whether it is about the tensors of checkpoints, not about layers at work."""
        return self.kind == "weights" or (
            self.kind == "compare" and not any("N" in entry.site.layout for entry in self.values())
        )

    def only(self, *patterns: str) -> Record:
        """The same record with the entries whose path or type matches one of these globs."""
        entries = {
            key: entry
            for key, entry in self.entries.items()
            if any(fnmatchcase(entry.site.path, glob) or fnmatchcase(entry.type, glob) for glob in patterns)
        }
        return replace(self, entries=entries)

    def __getitem__(self, key: str) -> Entry:
        try:
            return self.entries[key]
        except KeyError:
            raise NoEntry(f"{key!r} is not in this record{nearest(key, self.entries)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __contains__(self, key: object) -> bool:
        return key in self.entries  # a missing key need not be compared with every name

    def __len__(self) -> int:
        return len(self.entries)

    def __bool__(self) -> bool:
        return True

    def save(self, path: PathLike) -> Path:
        """Write the record as one safetensors file, whole or not at all, and return its path. Raises OutputError.

        Example:

            >>> record.save("tulip.layerscope").name
            'tulip.layerscope'
        """
        return Path(_above("records.file").save(self, path))

    def to_csv(self, folder: PathLike) -> list[Path]:
        """Write tables: layers and channels; tensors of a checkpoint; pairs of a comparison. Raises OutputError.

        Example:

            >>> [path.name for path in record.to_csv("tables")]
            ['layers.csv', 'channels.csv']
        """
        return self._write("csv", folder)

    def to_json(self, path: PathLike) -> Path:
        """Write the JSON document that the command line prints with --json. Raises OutputError.

        Example:

            >>> json.loads(record.to_json("tulip.json").read_text())["layers"][0]["path"]
            'stem'
        """
        return self._write("json", path)[0]

    def to_png(
        self, folder: PathLike, *, channels: int | None = 12, cmap: str = "viridis", range: Range = "channel"
    ) -> list[Path]:
        """Write pictures: a mosaic a layer, kernels and histograms a tensor, the best examples a layer of a survey.

        channels: how many of each layer, None for all. cmap: "viridis" or "gray", of feature maps. range: of what the
        colours span the values. Raises OutputError, UsageError for a colour map or range that does not exist.

            >>> [path.name for path in record.to_png("pictures", cmap="gray")]
            ['overview.png', 'stem.features.png', 'block.conv.features.png']
        """
        for option, value, known in (("cmap", cmap, COLORMAPS), ("range", range, get_args(Range))):
            if value not in known:
                raise UsageError(f"{option}={value!r}: does not exist; give one of {', '.join(known)}")
        return self._write("png", folder, channels=channels, cmap=cmap, mode=range)

    def to_tensorboard(self, logdir: PathLike) -> Path:
        """Write a log for TensorBoard into a folder, which is returned: histograms and pictures. Raises OutputError.

        Example:

            >>> record.to_tensorboard("runs/tulip").name
            'tulip'
        """
        return self._write("tensorboard", logdir)[0]

    def to_html(self, path: PathLike, budget_bytes: int = 10_000_000) -> Path:
        """Write the viewer with this record inside as one HTML file.

        Beyond the budget the largest layers lose their maps, with a warning. Raises OutputError, RecordError.

            >>> record.to_html("tulip.html").name
            'tulip.html'
        """
        return _above("views.html").write(self, path, budget_bytes, lambda note: warnings.warn(note, stacklevel=4))

    def show(self) -> None:
        """Print what the command line prints: tables that fit the terminal.

        Example:

            >>> record.show()
            photo.png
            ...
        """
        self._write("terminal")

    def _write(self, view: str, target: PathLike | None = None, **options: Any) -> list[Path]:
        """Through one of `layerscope.views.VIEWS`."""
        paths: list[Path] = _above("views").VIEWS[view].write(self, target, **options)
        return paths

    def _repr_html_(self) -> str:
        return _above("views.notebook").frame(self)

    def __repr__(self) -> str:
        return f"<{_above('views.notebook').line(self)}>"


def _above(name: str) -> Any:
    """A module by its name: what writes and draws records lies above them, and is loaded only where it is used."""
    return import_module(f"layerscope.{name}")


def by_change(pairs: Iterable[Pair]) -> list[Pair]:
    """What can be subtracted, the most changed first, NaN before all else.

    Single numbers stand behind the tensors: they count batches or scale a layer, and change by other measures.
    """

    def rank(pair: Pair) -> tuple[bool, bool, float]:
        mean = pair.mean_abs or 0.0
        return pair.shape_a == (), not math.isnan(mean), -mean

    return sorted((pair for pair in pairs if pair.mean_abs is not None), key=rank)


def last_of_size(entries: Iterable[Entry]) -> list[Entry]:
    """The stages of a network: the last layer with maps of each spatial size, from the largest on. Vectors are none."""
    stages: dict[int, Entry] = {}
    for entry in entries:
        if entry.maps and entry.maps[0].shape[1] > 1 and entry.site.layout in ("NCHW", "NHWC", "NLC"):
            stages[entry.maps[0].shape[1]] = entry
    return [stages[size] for size in sorted(stages, reverse=True)]
