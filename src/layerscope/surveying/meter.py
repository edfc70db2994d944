"""A network measured batch by batch: images are reduced inside the hooks and added to a state that merges exactly."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import zip_longest
from typing import Any
from weakref import ref

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from layerscope.errors import UsageError
from layerscope.hooks import looking, noting, tap
from layerscope.layouts import Layouts, Plan
from layerscope.networks.feeding import run
from layerscope.networks.open import Network
from layerscope.planes import planes
from layerscope.selection import select
from layerscope.sites import Site
from layerscope.stats import Columns, calls, total
from layerscope.stats.signatures import BINS
from layerscope.surveying.minibatches import Minibatches
from layerscope.surveying.pooled import Scale, calibrate
from layerscope.surveying.state import State
from layerscope.surveying.working import Seen, Working

__all__ = ["Measures", "Meter", "calibration"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Measures:
    """What is measured beyond statistics and silent images.

    top: best images of each channel, 0 to 255. histograms: globs over paths or types of the layers that get one.
    classes: number of classes of the labels. scale: see `calibration`; without it nothing that needs pooled means.
    gram: globs over the layers whose channels are compared with each other, of at most `widest` channels: 8 bytes a
    pair. alike: whether layers are compared with each other.
    """

    top: int = 9
    histograms: tuple[str, ...] = ("*Conv*",)
    classes: int = 0
    scale: Scale | None = None
    gram: tuple[str, ...] = ("*Conv*",)
    widest: int = 2048
    alike: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.top <= 255:
            raise UsageError(f"top {self.top}: is not a number of images; give 0 to 255")


def _meant(patterns: Sequence[str], path: str, kind: str) -> bool:
    return any(fnmatchcase(path, pattern) or fnmatchcase(kind, pattern) for pattern in patterns)


class _Eye:
    """Sees the outputs of one network during a pass."""

    def __init__(self, network: Network | nn.Module, layers: Sequence[str], prefix: str = "") -> None:
        self.network = network if isinstance(network, Network) else Network(network, type(network).__name__)
        self.paths = select(self.network.model, layers).paths
        self.prefix = prefix
        self.layouts = Layouts()

    def reading(self, module: nn.Module, tensor: Tensor, images: int) -> tuple[Tensor, Plan]:
        """An output with the batch first, and how it is to be read."""
        shape = tuple(tensor.shape)
        plan = self.layouts.plan(module, shape)
        if plan.layout == "LNC":
            skip, grid = self.layouts.grid_of(shape[0])
            return tensor.transpose(0, 1), Plan("NLC", skip, grid)
        if not plan.layout:  # more axes than have a name: images all the same
            rows = images if shape[0] == images else 1
            return tensor.reshape(rows, -1), Plan("N", 0, (1, tensor.numel() // rows))
        return tensor, plan


class Meter:
    """Measures a network on batches of images.

    layers: globs over paths or types, every leaf if there are none; NoMatch for one that selects nothing. against: a
    second network that sees the same images; its layers are keyed "b:" and the path.

    The states of one meter belong together: an image that cannot be among the best of all that the meter has seen is
    left out of later states. Whoever throws a state away has to make a new meter.
    """

    #: rows beyond the numbers do not count: an image alone can be given twice
    pads = True

    def __init__(
        self,
        network: Network | nn.Module,
        layers: Sequence[str] = (),
        measures: Measures | None = None,
        against: Network | nn.Module | None = None,
    ) -> None:
        self.measures = measures or Measures()
        self.eyes = [_Eye(network, layers)]
        if against is not None:
            self.eyes.append(_Eye(against, layers, "b:"))
        self._layers: dict[str, Working] = {}
        self._best: dict[str, Array] = {}
        self._room = Working.room()
        self._delta = np.zeros(0, np.uint32)
        self._table = _Table()
        self._numbers = np.zeros(0, np.int64)
        self._rows = 0
        self._rank = 0
        self._failed = False
        self._last: tuple[ref[Tensor], int, Working] | None = None
        self._reset()

    def _reset(self) -> None:
        self._layers = {}
        self._images = 0
        self._counts = np.zeros(self.measures.classes, np.int64)
        self._minibatches = Minibatches(self.measures.scale or {}, self.measures.alike)

    def batch(
        self, tensor: Tensor, numbers: Sequence[int], labels: Sequence[int] | None = None, other: Tensor | None = None
    ) -> None:
        """One pass of preprocessed images (B, C, H, W) in evaluation mode; the network is left as it was.

        numbers: of the images in the data set, below 2**32; rows of the tensor beyond them do not count. labels: their
        classes, -1 for none. other: what the second network is given, if its preprocessing differs. Raises
        ForwardError, after which this meter is of no use.
        """
        self._whole()
        self._numbers = np.array(numbers, np.int64)
        images = len(self._numbers)
        classes = np.full(images, -1, np.int64) if labels is None else np.array(labels, np.int64)
        if len(tensor) < images or len(classes) != images:
            raise UsageError(f"{len(tensor)} images, {images} numbers, {len(classes)} labels: give one each")
        if images and not (0 <= self._numbers.min() <= self._numbers.max() < 1 << 32):
            raise UsageError("image numbers are whole numbers from 0 to 2**32 - 1")
        if images and not (-1 <= classes.min() <= classes.max() < self.measures.classes):
            raise UsageError(f"label {classes.max()}: there are {self.measures.classes} classes, counted from 0")
        if not images:
            return
        self._rank, self._failed = 0, True  # until all of the pass is over
        self._minibatches.begin(self._numbers, classes)
        self._rows = len(tensor)
        for eye, given in zip(self.eyes, (tensor, tensor if other is None else other), strict=False):
            eye.layouts.images = self._rows
            with ExitStack() as stack:
                stack.enter_context(looking(eye.network.model))
                stack.enter_context(noting(eye.network.model, eye.layouts.plan, eye.paths))
                stack.enter_context(tap(eye.network.model, self._emit(eye), eye.paths))
                run(eye.network, given)
        self._last = None
        self._images += images
        self._counts += np.bincount(classes[classes >= 0], minlength=self.measures.classes)
        self._minibatches.end()
        self._failed = False

    def _whole(self) -> None:
        if self._failed:
            raise UsageError("the pass before has failed, and some layers have seen its images; make a new Meter")

    def _emit(self, eye: _Eye) -> Any:
        def emit(site: Site, module: nn.Module, tensor: Tensor) -> None:
            if not tensor.is_nested and tensor.dim() and tensor.numel():
                self._see(eye, site, module, tensor)

        return emit

    def _see(self, eye: _Eye, site: Site, module: nn.Module, tensor: Tensor) -> None:
        images = len(self._numbers)
        given, plan = eye.reading(module, tensor, self._rows)
        if self._rows > images and len(given) % self._rows == 0:
            given = given[: len(given) // self._rows * images]
        key, shape = eye.prefix + site.key, tuple(given.shape[1:])
        self._rank += 1
        layer = self._layers.get(key)
        if layer is not None:
            layer.rank = max(layer.rank, self._rank)
            layer.mixed |= layer.shape != shape or len(given) % images > 0
            if layer.mixed:
                layer.images += images
                return
        seen = _reduced(*planes(given, plan.layout), plan, images, self._table)
        if layer is None:
            layer = self._layers[key] = self._begin(eye, site, module, given, plan, seen)
            layer.rank = self._rank
            layer.mixed = len(given) % images > 0
        layer.images += images
        if layer.mixed:
            return
        layer.add(seen, self._numbers)
        self._minibatches.see(key, seen.table, layer.gram)
        if layer.counters is None:
            return
        layer.make_room(seen.values.size // seen.channels)
        if not self._derived(layer, module, tensor, seen):
            layer.count(seen, self._room, self._spread(layer.channels))
        self._last = ref(tensor), _version(tensor), layer

    def _spread(self, channels: int) -> Array:
        """Room for the histograms of one batch of one layer."""
        if len(self._delta) < channels * 2 * BINS:
            self._delta = np.zeros(channels * 2 * BINS, np.uint32)
        return self._delta

    def _begin(self, eye: _Eye, site: Site, module: nn.Module, given: Tensor, plan: Plan, seen: Seen) -> Working:
        kind, measures = type(module).__name__, self.measures
        shape, dtype = tuple(given.shape[1:]), str(given.dtype).removeprefix("torch.")
        place = Site(eye.prefix + site.path, site.call, plan.layout)
        layer = Working(place, kind, shape, dtype, plan.note, seen, measures.top)
        if _meant(measures.histograms, site.path, kind):
            layer.begin_counting()
        layer.gram = _meant(measures.gram, site.path, kind) and layer.channels <= measures.widest
        best = self._best.get(place.key)
        if best is not None and len(best) == layer.channels:
            layer.floor = np.maximum(best[:, 0], layer.floor)
        return layer

    def _derived(self, layer: Working, module: nn.Module, tensor: Tensor, seen: Seen) -> bool:
        """Whether the counters followed from those of the tensor that a ReLU has just overwritten in place."""
        if self._last is None or type(module) is not nn.ReLU or not module.inplace:
            return False
        before, version, source = self._last
        if before() is not tensor or _version(tensor) != version + 1 or tensor.is_inference():
            return False
        return layer.rectify(source, seen)

    def take(self) -> State:
        """What was measured since the last time."""
        self._whole()
        pooled, alike = self._minibatches.close()
        state = State(self._images, self.measures.classes, {}, self._counts, alike)
        # One after the other: counters are larger than the state that is made of them.
        found = {key: self._layers.pop(key).state(pooled.get(key)) for key in list(self._layers)}
        state.merge(State(layers=found))
        for key, one in found.items():
            if one.examples is not None:
                keys = one.examples.key
                before = self._best.get(key)
                if before is not None and before.shape == keys.shape:
                    keys = np.concatenate([before, keys], 1)
                self._best[key] = np.sort(keys, axis=1)[:, -self.measures.top :]
        self._reset()
        return state


class _Table:
    """Room for statistics, used again and again: new memory has to be cleared by the system each time."""

    def __init__(self) -> None:
        self._room = np.empty(0)

    def of(self, columns: int) -> Array:
        """float64 (8, columns) of anything."""
        if self._room.size < 8 * columns:
            self._room = np.empty(8 * columns)
        return self._room[: 8 * columns].reshape(8, columns)


def _reduced(values: NDArray[np.float32], last: bool, plan: Plan, images: int, room: _Table) -> Seen:
    """The statistics of every image and channel, in a table (8, B*C)."""
    rows, size, channels = values.shape if last else (len(values), values.shape[2], values.shape[1])
    table = room.of(rows * channels)
    if last:
        calls.channels_last(values, table)
    else:
        calls.rows(values.reshape(-1), size, table)
    if rows % images:  # boxes, say: they belong to no image, and nothing will be made of them
        return Seen(values, table, last, 1, channels, plan.skip, plan.grid, 1)
    each = rows // images
    if size * each >= 1 << 31:  # the products of the exact sums would not fit
        raise UsageError(
            f"{size * each} values of one channel in one image; give smaller images, or leave the layer out"
        )
    if each > 1:
        fields = (field.reshape(images, each, channels) for field in calls.columns(table, rows, channels))
        table = _table(total(Columns(*fields), axis=1))  # type: ignore[arg-type]
    across = plan.windows[1] if each == plan.windows[0] * plan.windows[1] else 1
    return Seen(values, table, last, each, channels, plan.skip, plan.grid, across)


def _version(tensor: Tensor) -> int:
    """How often the tensor was changed in place; those of inference mode do not tell."""
    return -1 if tensor.is_inference() else tensor._version


def _table(columns: Columns) -> Array:
    """Columns (B, C) as the kernels take them."""
    floats = np.stack([columns.mean, columns.m2, columns.min, columns.max]).reshape(4, -1)
    ints = np.stack([columns.count, columns.zeros, columns.nan, columns.inf]).reshape(4, -1)
    return np.concatenate([floats, ints.astype(np.int64).view(np.float64)])


def calibration(
    network: Network | nn.Module,
    tensors: Iterable[Tensor],
    layers: Sequence[str] = (),
    against: Network | nn.Module | None = None,
    others: Iterable[Tensor] = (),
) -> dict[str, NDArray[np.float64]]:
    """`Measures.scale`: in which steps the channels' means are rounded, from a few images of a data set.

    All workers of a survey have to be given the same: make it once, from the same images in the same batches.
    others: the same images as the second network takes them, if its preprocessing differs.
    """
    meter = Meter(network, layers, Measures(top=0, histograms=(), scale=None), against)
    means: dict[str, list[Array]] = {}

    def keep(key: str, found: Array) -> None:
        means.setdefault(key, []).append(found.copy())

    meter._minibatches = Minibatches({}, False, keep)
    for tensor, other in zip_longest(tensors, others):
        meter.batch(tensor, range(len(tensor)), None, other)
    return {
        key: calibrate(np.concatenate(parts)) for key, parts in means.items() if len({p.shape[1] for p in parts}) == 1
    }
