"""What is kept of one call of a layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layerscope.errors import RecordError
from layerscope.records.profiles import Line, Profile
from layerscope.records.record import Entry
from layerscope.records.sites import Site
from layerscope.surveying.accumulators.exact import Moments
from layerscope.surveying.accumulators.examples import BestExamples
from layerscope.surveying.accumulators.histogram import BitHistogram
from layerscope.surveying.accumulators.means import ChannelMeans
from layerscope.surveying.accumulators.part import Array, Get, Output, Part, Scratch

__all__ = ["PARTS", "UNLIKE", "LayerAccumulator", "Lines"]

#: receptive fields of the units of a layer, by its key
Lines = Mapping[str, tuple[Line, Line]]

#: note of a layer without statistics
UNLIKE = "no statistics: its output has another shape on other images"
#: what a layer may have beside its moments
PARTS: dict[str, type[Part]] = {"examples": BestExamples, "histogram": BitHistogram, "means": ChannelMeans}
_PLAIN = {"type": str, "dtype": str, "note": str, "rank": int, "images": int, "mixed": bool}


@dataclass
class LayerAccumulator:
    """One call of a layer over the images on which it ran.

    shape: of the output for one image, without the batch. rank: place in the order of the pass. mixed: it gives outputs
    of different shapes, or a number of rows that is no multiple of that of the images, as for boxes: there are no
    statistics then, and no channels.
    """

    site: Site
    type: str
    shape: tuple[int, ...]
    dtype: str
    note: str
    moments: Moments
    examples: BestExamples | None = None
    histogram: BitHistogram | None = None
    means: ChannelMeans | None = None
    rank: int = 0
    images: int = 0
    mixed: bool = False

    @property
    def channels(self) -> int:
        """C"""
        return self.moments.ints.shape[1]

    def update(
        self, output: Output, numbers: NDArray[np.int64], scratch: Scratch, source: BitHistogram | None = None
    ) -> None:
        """Add the images of one batch, which have these numbers. source: of the values that this output, a ReLU of
        them, has just overwritten."""
        self.moments.update(output)
        if self.examples is not None:
            self.examples.update(output, numbers)
        if self.histogram is not None and not (source and self.histogram.follow(source, output)):
            self.histogram.update(output, scratch)

    @property
    def parts(self) -> dict[str, Part]:
        """What is kept of it, by name."""
        parts = {name: getattr(self, name) for name in ("moments", *PARTS)}
        return {name: part for name, part in parts.items() if part is not None}

    def settle(self) -> LayerAccumulator:
        """The one form that equal ones have; no more updates after this."""
        if self.mixed:
            return self.emptied()
        for part in self.parts.values():
            part.settle()
        return self

    def emptied(self) -> LayerAccumulator:
        """The same without statistics: a layer whose output has another shape on other images."""
        parts: dict[str, Any] = {"moments": Moments.empty(0)} | dict.fromkeys(PARTS)
        return replace(self, site=Site(self.site.path, self.site.call), shape=(), note=UNLIKE, mixed=True, **parts)

    def fits(self, other: LayerAccumulator) -> None:
        """Raises RecordError where it was measured differently."""
        key, its = self.site.key, other.site.key
        if (self.type, key) != (other.type, its):
            raise RecordError(f"{key}: a {self.type} does not merge with {its}, a {other.type}; use one network")
        ours, theirs = ({name: part.form for name, part in layer.parts.items()} for layer in (self, other))
        unlike = [name for name in PARTS if ours.get(name, "none") != theirs.get(name, "none")]
        if unlike and not self._mixes_with(other):
            raise RecordError(
                f"{key}: its {' and '.join(unlike)} do not merge, as they were measured in two ways; survey all images "
                "with the same options and one calibration"
            )

    def _mixes_with(self, other: LayerAccumulator) -> bool:
        return self.mixed or other.mixed or self.shape != other.shape or self.site != other.site

    def merge(self, other: LayerAccumulator) -> LayerAccumulator:
        """Of the images of both. Raises RecordError where it was measured differently."""
        self.fits(other)
        a, b = (self.emptied(), other.emptied()) if self._mixes_with(other) else (self, other)
        parts: dict[str, Any] = {name: part.merge(b.parts[name]) for name, part in a.parts.items()}
        most = {name: max(getattr(a, name), getattr(b, name)) for name in ("dtype", "note", "rank")}
        return replace(a, images=a.images + b.images, **most, **parts)

    def compute(self, counts: NDArray[np.int64], lines: Lines) -> Entry:
        """The entry of a record. counts (K,): images of each class. lines: receptive fields by key."""
        maps, examples = self.examples.compute() if self.examples else ([], None)
        meaning = self.means.compute(counts) if self.means else {}
        spread = self.histogram.compute() if self.histogram else None
        where: dict[str, Any] = {"grid": self._grid(), "lines": lines.get(self.site.key)}
        profile = Profile(self.images, self.moments.silent, examples, spread, **where, **meaning)
        note = self.note
        if self.means and self.means.cut:
            means = f"{self.means.cut:,} of {self.images * self.channels:,} means of images"
            note = "; ".join(filter(None, [note, f"copies, rank, classes: {means} cut off"]))
        side, path = ("b", self.site.path[2:]) if self.site.path.startswith("b:") else ("", self.site.path)
        site, shape = Site(path, self.site.call, self.site.layout), (self.images, *self.shape)
        return Entry(
            site, self.type, shape, self.dtype, self.moments.compute(), maps=maps, side=side, note=note, profile=profile
        )

    def _grid(self) -> tuple[int, int]:
        if self.site.layout in ("NCHW", "NHWC"):
            height, width = (self.shape[self.site.layout.index(axis) - 1] for axis in "HW")
            return height, width
        return self.examples.grid if self.examples else (1, 1)

    def arrays(self) -> dict[str, Array]:
        """What is written."""
        arrays = {name: part.arrays() for name, part in self.parts.items()}
        return {f"{name}.{key}": array for name, inside in arrays.items() for key, array in inside.items()}

    def header(self) -> dict[str, Any]:
        """What `restore` has to know beside the arrays."""
        site = self.site.path, self.site.call, self.site.layout
        plain = {name: getattr(self, name) for name in _PLAIN}
        return {"site": site, "shape": self.shape, "channels": self.channels, "parts": list(self.parts), **plain}

    @classmethod
    def restore(cls, header: dict[str, Any], get: Get, classes: int) -> LayerAccumulator:
        """The way back. Raises ValueError, KeyError, TypeError where header and arrays contradict each other."""
        (path, call, layout), plain = header["site"], {name: header[name] for name in _PLAIN}
        if [type(value) for value in (path, layout, *plain.values())] != [str, str, *_PLAIN.values()]:
            raise ValueError(f"{path!r}: {plain} is not what a layer is described by")
        numbers = [call, header["channels"], plain["rank"], plain["images"], *header["shape"]]
        if any(type(number) is not int or number < 0 for number in numbers):
            raise ValueError(f"{path}: {numbers} are not whole numbers")

        def of(name: str) -> Get:
            return lambda key, types, shape: get(f"{name}.{key}", types, shape)

        kinds = {"moments": Moments} | PARTS
        parts: dict[str, Any] = {name: kinds[name].restore(of(name), header["channels"]) for name in header["parts"]}
        for part in parts.values():
            part.check()
        layer = cls(site=Site(path, call, layout), shape=tuple(header["shape"]), **parts, **plain)
        if layer.means and len(layer.means.labels) and layer.means.labels[-1] >= classes:
            raise ValueError(f"labels {layer.means.labels.tolist()} are not those of {classes} classes")
        return layer
