"""What is known of a network over some images: a partial result that merges exactly, in any order. numpy only.

Every image is reduced first, by itself; after that nothing is done that is not associative and commutative to the bit:
whole numbers are added, minima and maxima taken, the best entries of two lists kept. So any split of a data set into
chunks, any order and any number of workers give the same state, and equal states are equal bytes.

Bytes a channel: 336 for the sums, 56 for counts and ends, at most 90 an example, 2 or 4 a bin between the least and
the greatest that was met (at most 1022; 300 to 600 are usual), 8 a channel of the same layer for products, 4 or 8 a
class.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layerscope.errors import RecordError
from layerscope.sites import Site
from layerscope.stats import Columns
from layerscope.surveying.bins import Bins
from layerscope.surveying.exact import LIMBS, moments, settled
from layerscope.surveying.examples import Examples
from layerscope.surveying.pooled import Alike, Pooled

__all__ = ["LayerState", "State"]

Array = NDArray[Any]
Ints = NDArray[np.int64]


#: note of a layer without statistics
UNLIKE = "no statistics: its output has another shape on other images"


@dataclass(frozen=True)
class LayerState:
    """One call of a layer over the images on which it ran; its arrays are never changed.

    shape: of the output for one image, without the batch. rank: place in the order of the pass. ints int64 (5, C):
    count of finite values, zeros, nan, inf, and images on which the channel is zero everywhere. ends float64 (2, C):
    min and max, NaN without a finite value. sums int64 (C, 42): see `exact.moments`. mixed: it gives outputs of
    different shapes, or a number of rows that is no multiple of that of the images, as for boxes: there are no
    statistics then, and no channels.
    """

    site: Site
    type: str
    shape: tuple[int, ...]
    dtype: str
    note: str
    rank: int
    images: int
    ints: Ints
    ends: NDArray[np.float64]
    sums: Ints
    mixed: bool = False
    examples: Examples | None = None
    bins: Bins | None = None
    pooled: Pooled | None = None

    @property
    def channels(self) -> int:
        """C"""
        return self.ints.shape[1]

    @property
    def silent(self) -> Ints:
        """Images on which the channel is zero everywhere, (C,). A channel is dead if that is all of `images`."""
        return np.asarray(self.ints[4])

    @property
    def columns(self) -> Columns:
        """Statistics over all values of all images, (C,)."""
        count, zeros, nan, inf, _ = self.ints
        mean, m2 = moments(count, self.sums)
        return Columns(count, mean, m2, self.ends[0], self.ends[1], zeros, nan, inf)

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        return sum(array.nbytes for array in self.arrays().values())

    def fits(self, other: LayerState) -> None:
        """Raises RecordError where it was measured differently."""
        a, b = self, other
        if (a.type, a.site.key) != (b.type, b.site.key):
            raise RecordError(f"{a.site.key}: a {a.type} does not merge with {b.site.key}, a {b.type}; use one network")
        if a._unlike(b):
            return  # it will be emptied
        for name in ("examples", "bins", "pooled"):
            mine, theirs = getattr(a, name), getattr(b, name)
            if (mine is None) != (theirs is None):
                raise RecordError(
                    f"{a.site.key}: measured in two ways, which do not merge; give all chunks the same options"
                )
            try:
                if mine is not None:
                    mine.fits(theirs)
            except RecordError as error:
                raise RecordError(f"{a.site.key}: {error}") from None

    def _unlike(self, other: LayerState) -> bool:
        return self.mixed or other.mixed or self.shape != other.shape or self.site != other.site

    def merge(self, other: LayerState) -> LayerState:
        """What is known from both. Raises RecordError where it was measured differently."""
        self.fits(other)
        a, b = (self.emptied(), other.emptied()) if self._unlike(other) else (self, other)
        ends = np.stack([np.fmin(a.ends[0], b.ends[0]), np.fmax(a.ends[1], b.ends[1])])
        return LayerState(
            a.site,
            a.type,
            a.shape,
            max(a.dtype, b.dtype),
            max(a.note, b.note),
            max(a.rank, b.rank),
            a.images + b.images,
            a.ints + b.ints,
            ends,
            settled(a.sums + b.sums),
            a.mixed,
            a.examples.merge(b.examples) if a.examples and b.examples else None,
            a.bins.merge(b.bins) if a.bins and b.bins else None,
            a.pooled.merge(b.pooled) if a.pooled and b.pooled else None,
        )

    def emptied(self) -> LayerState:
        """The same without statistics: a layer whose output has another shape on other images."""
        if self.mixed:
            return self
        nothing = np.zeros((5, 0), np.int64), np.zeros((2, 0)), np.zeros((0, LIMBS), np.int64)
        site = Site(self.site.path, self.site.call)
        return LayerState(site, self.type, (), self.dtype, UNLIKE, self.rank, self.images, *nothing, mixed=True)

    def arrays(self) -> dict[str, Array]:
        """What is written."""
        found = {"ints": self.ints, "ends": self.ends, "sums": self.sums}
        for part in (self.examples, self.bins, self.pooled):
            found |= part.arrays() if part else {}
        return found


@dataclass
class State:
    """A partial result over `images` images.

    classes: number of classes, 0 without labels; counts int64 (classes,): images of each. layers: by the key of the
    site, in the order of the pass. alike: similarity of layers.
    """

    images: int = 0
    classes: int = 0
    layers: dict[str, LayerState] = field(default_factory=dict)
    counts: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    alike: Alike | None = None

    @staticmethod
    def zero() -> State:
        """Nothing seen: merging it changes nothing."""
        return State()

    def __iter__(self) -> Iterator[LayerState]:
        return iter(self.layers.values())

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        whole = self.alike.limbs.nbytes if self.alike else 0
        return self.counts.nbytes + whole + sum(layer.nbytes for layer in self)

    def merge(self, other: State) -> None:
        """Add what another state knows of other images. Raises RecordError and changes nothing if it does not fit."""
        if self.images and other.images and self.classes != other.classes:
            raise RecordError(f"{self.classes} and {other.classes} classes do not merge; use one list of labels")
        for key, layer in other.layers.items():
            if key in self.layers:
                self.layers[key].fits(layer)
        if self.alike and other.alike:
            self.alike.fits(other.alike)
        # It fits. One layer after the other, so that no second copy of all is held.
        for key, layer in other.layers.items():
            self.layers[key] = self.layers[key].merge(layer) if key in self.layers else layer
        self.layers = dict(sorted(self.layers.items(), key=lambda pair: (pair[1].rank, pair[0])))
        self.alike = self.alike.merge(other.alike) if self.alike and other.alike else self.alike or other.alike
        self.counts = (
            self.counts + other.counts
            if len(self.counts) == len(other.counts)
            else max(self.counts, other.counts, key=len)
        )
        self.classes = max(self.classes, other.classes)
        self.images += other.images

    def pack(self) -> bytes:
        """The state as bytes; equal states give equal bytes."""
        from layerscope.surveying.packing import pack

        return pack(self)

    @staticmethod
    def unpack(data: bytes) -> State:
        """The state of these bytes. Raises RecordError for bytes that are damaged or none of a state."""
        from layerscope.surveying.packing import unpack

        return unpack(data)
