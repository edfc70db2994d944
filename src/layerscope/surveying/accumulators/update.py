"""A network run batch by batch: every output is reduced where it arises and updates the accumulators of its layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Any
from weakref import ref

import numpy as np
from torch import Tensor, nn

from layerscope.activations.hooks import looking, observing
from layerscope.activations.layouts import Layouts, Plan
from layerscope.activations.modules import select
from layerscope.activations.planes import planes
from layerscope.errors import UsageError
from layerscope.networks.feeding import run
from layerscope.networks.open import Network
from layerscope.records.sites import Site
from layerscope.surveying.accumulators.exact import Moments
from layerscope.surveying.accumulators.examples import BestExamples
from layerscope.surveying.accumulators.histogram import BitHistogram
from layerscope.surveying.accumulators.layer import LayerAccumulator
from layerscope.surveying.accumulators.means import Scale, calibrate
from layerscope.surveying.accumulators.network import NetworkAccumulator
from layerscope.surveying.accumulators.part import Array, Output, Scratch
from layerscope.surveying.accumulators.similarity import Minibatches

__all__ = ["Measures", "Updater", "calibration"]


#: channels of a layer that are compared with each other, at most: 8 bytes a pair
_WIDEST = 2048


@dataclass(frozen=True)
class Measures:
    """What is measured beyond statistics and silent images.

    top: best images of each channel, 0 to 255. histograms: globs over paths or types of the layers that get one.
    classes: number of classes of the labels. scale: see `calibration`; without it nothing that needs channel means.
    gram: globs over the layers whose channels are compared with each other.
    """

    top: int = 9
    histograms: tuple[str, ...] = ("*Conv*",)
    classes: int = 0
    scale: Scale | None = None
    gram: tuple[str, ...] = ("*Conv*",)

    def __post_init__(self) -> None:
        if not 0 <= self.top <= 255:
            raise UsageError(f"top {self.top}: is not a number of images; give 0 to 255")


def _matches(patterns: Sequence[str], path: str, kind: str) -> bool:
    return any(fnmatchcase(path, pattern) or fnmatchcase(kind, pattern) for pattern in patterns)


class _Side:
    """One of the networks: which of its layers are measured, and how their outputs are read."""

    def __init__(self, network: Network | nn.Module, layers: Sequence[str], prefix: str = "") -> None:
        self.network = network if isinstance(network, Network) else Network(network, type(network).__name__)
        self.paths = select(self.network.model, layers).paths
        self.prefix, self.layouts = prefix, Layouts()

    @contextmanager
    def observed(self, emit: Any) -> Iterator[None]:
        """Every output is handed to emit(site, module, tensor) while this lasts; the network is left as it was."""
        model = self.network.model
        with looking(model), observing(model, self.paths, emit, on_shape=self.layouts.plan):
            yield

    def read(self, module: nn.Module, tensor: Tensor, images: int) -> tuple[Tensor, Plan]:
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


class Updater:
    """Runs a network on batches of images and updates what is kept of it.

    layers: globs over paths or types, every leaf if there are none; NoMatch for one that selects nothing. against: a
    second network that sees the same images; its layers are keyed "b:" and the path.

    What one updater hands out belongs together: an image that cannot be among the best of all that it has seen is left
    out of later results. If a result is thrown away, make a new updater.
    """

    def __init__(
        self,
        network: Network | nn.Module,
        layers: Sequence[str] = (),
        measures: Measures | None = None,
        against: Network | nn.Module | None = None,
    ) -> None:
        self.measures = measures or Measures()
        self._sides = [_Side(network, layers)]
        if against is not None:
            self._sides.append(_Side(against, layers, "b:"))
        self._scratch, self._best, self._compared = Scratch(), dict[str, Array](), set[str]()
        self._numbers = np.zeros(0, np.int64)
        self._rows = self._rank = 0
        self._failed = False
        #: the tensor whose values were counted last, its version, and where they were counted
        self._counted: tuple[ref[Tensor], int, BitHistogram] | None = None
        self._begin()

    def _begin(self) -> None:
        classes = self.measures.classes
        self._layers: dict[str, LayerAccumulator] = {}
        self._whole = NetworkAccumulator(0, classes, {}, np.zeros(classes, np.int64))
        self._minibatches = Minibatches(self.measures.scale or {})

    def update(
        self, tensor: Tensor, numbers: Sequence[int], labels: Sequence[int] | None = None, other: Tensor | None = None
    ) -> None:
        """One pass of preprocessed images (B, C, H, W) in evaluation mode; the network is left as it was.

        numbers: of the images in the data set, below 2**32; rows of the tensor beyond them do not count, so that an
        image alone can be there twice. labels: their classes, -1 for none. other: the images as the second network
        takes them, if its preprocessing differs. Raises ForwardError, after which this updater is of no use.
        """
        self._check()
        self._numbers = np.array(numbers, np.int64)
        images, most = len(self._numbers), self.measures.classes
        classes = np.full(images, -1, np.int64) if labels is None else np.array(labels, np.int64)
        if len(tensor) < images or len(classes) != images:
            raise UsageError(f"{len(tensor)} images, {images} numbers, {len(classes)} labels: give one each")
        if images and not (0 <= self._numbers.min() <= self._numbers.max() < 1 << 32):
            raise UsageError("image numbers are whole numbers from 0 to 2**32 - 1")
        if images and not (-1 <= classes.min() <= classes.max() < most):
            raise UsageError(f"label {classes.max()}: there are {most} classes, counted from 0")
        if not images:
            return
        self._rank, self._failed = 0, True  # until all of the pass is over
        self._minibatches.begin(self._numbers, classes)
        self._rows = len(tensor)
        for side, batch in zip(self._sides, (tensor, tensor if other is None else other), strict=False):
            side.layouts.images = self._rows
            with side.observed(partial(self._see, side)):
                run(side.network, batch)
        self._counted = None
        self._whole.images += images
        self._whole.counts += np.bincount(classes[classes >= 0], minlength=most)
        self._minibatches.end()
        self._failed = False

    def _check(self) -> None:
        if self._failed:
            raise UsageError("the pass before has failed, and some layers have seen its images; make a new Updater")

    def _see(self, side: _Side, site: Site, module: nn.Module, tensor: Tensor) -> None:
        if tensor.is_nested or not tensor.dim() or not tensor.numel():
            return
        images = len(self._numbers)
        values, plan = side.read(module, tensor, self._rows)
        if self._rows > images and len(values) % self._rows == 0:
            values = values[: len(values) // self._rows * images]
        key = side.prefix + site.key
        layer = self._layers.get(key) or self._begun(side, site, module, values, plan)
        self._rank += 1
        layer.rank = max(layer.rank, self._rank)
        layer.images += images
        layer.mixed |= layer.shape != tuple(values.shape[1:]) or len(values) % images > 0
        if layer.mixed:
            return
        output = Output.reduced(*planes(values, plan.layout), plan, images, self._scratch)
        layer.update(output, self._numbers, self._scratch, self._overwritten(module, tensor))
        self._minibatches.see(key, output.table, key in self._compared)
        if layer.histogram is not None:
            self._counted = ref(tensor), _version(tensor), layer.histogram

    def _begun(self, side: _Side, site: Site, module: nn.Module, values: Tensor, plan: Plan) -> LayerAccumulator:
        kind, place = type(module).__name__, Site(side.prefix + site.path, site.call, plan.layout)
        channels = values.shape[plan.layout.index("C")] if "C" in plan.layout else 1
        shape, dtype = tuple(values.shape[1:]), str(values.dtype).removeprefix("torch.")
        layer = LayerAccumulator(place, kind, shape, dtype, plan.note, Moments.empty(channels))
        if self.measures.top:
            layer.examples = BestExamples.empty(channels, self.measures.top, plan.grid)
            best = self._best.get(place.key)
            if best is not None and len(best) == channels:
                layer.examples.floor = np.maximum(best[:, 0], layer.examples.floor)
        if _matches(self.measures.histograms, site.path, kind):
            layer.histogram = BitHistogram.empty(channels)
        if channels <= _WIDEST and _matches(self.measures.gram, site.path, kind):
            self._compared.add(place.key)
        self._layers[place.key] = layer
        return layer

    def _overwritten(self, module: nn.Module, tensor: Tensor) -> BitHistogram | None:
        """Where the values were counted that a ReLU has just overwritten in place."""
        if self._counted is None or type(module) is not nn.ReLU or not module.inplace or tensor.is_inference():
            return None
        before, version, histogram = self._counted
        return histogram if before() is tensor and _version(tensor) == version + 1 else None

    def take(self) -> NetworkAccumulator:
        """What was measured since the last time."""
        self._check()
        self._minibatches.close()
        whole = self._whole
        whole.similarity = self._minibatches.similarity
        # One after the other: counters are larger than what is made of them.
        for key in sorted(self._layers, key=lambda key: (self._layers[key].rank, key)):
            layer = self._layers.pop(key)
            layer.means = self._minibatches.means.get(key)
            layer = whole.layers[key] = layer.settle()
            if layer.examples is not None:
                keys = layer.examples.key
                before = self._best.get(key, keys[:, :0])
                if len(before) == len(keys):
                    keys = np.concatenate([before, keys], 1)
                self._best[key] = np.sort(keys, axis=1)[:, -self.measures.top :]
        self._begin()
        return whole


def _version(tensor: Tensor) -> int:
    """How often the tensor was changed in place; those of inference mode do not tell."""
    return -1 if tensor.is_inference() else tensor._version


class _Scale(Minibatches):
    """Makes the scale from the means of a batch instead of adding them up."""

    def see(self, key: str, table: Array, gram: bool) -> None:
        self.scale[key] = calibrate(table[0].reshape(len(self.labels), -1))


def calibration(
    network: Network | nn.Module,
    tensor: Tensor,
    layers: Sequence[str] = (),
    against: Network | nn.Module | None = None,
    other: Tensor | None = None,
) -> Scale:
    """`Measures.scale`: in which steps the channels' means are rounded, from a few images (B, C, H, W) of a data set.

    All workers of a survey need the same: make it once. other: the images as the second network takes them, if its
    preprocessing differs.
    """
    updater = Updater(network, layers, Measures(top=0, histograms=()), against)
    updater._minibatches = _Scale({})
    updater.update(tensor, range(len(tensor)), None, other)
    return updater._minibatches.scale
