"""Sums of the channels' means over images, as whole numbers: what tells copies, ranks, classes and similar layers.

The mean of a channel over an image is rounded to 16 bits, in steps that a calibration has set once for all images
(`calibrate`). Products and sums of such numbers are exact, so that no order of images can be told from them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layerscope.errors import RecordError
from layerscope.surveying.exact import carry, numbers

__all__ = [
    "FINEST",
    "LEAST",
    "MINIBATCH",
    "Alike",
    "Classes",
    "Pooled",
    "Scale",
    "calibrate",
    "hsic",
    "product",
    "rounded",
]

Array = NDArray[Any]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

#: site -> float64 (2, C): the step of each channel, and its centre in steps, a whole number
Scale = Mapping[str, Floats]

#: images with the numbers 64*i to 64*i + 63 are compared with each other for the similarity of layers
MINIBATCH = 64
#: the estimator divides by n - 3
LEAST = 4
#: the largest rounded mean
_MOST = 32767
#: bits of a number in the matrices that are compared: 64 * 64 products of 20 bits each are exact in float64
_BITS = 20
#: sums of HSIC are kept in units of 2**-FINEST
FINEST = 64
#: room for deviations, as a multiple of the greatest of the calibration
_ROOM = 8


def product(a: Floats, b: Floats) -> Floats:
    """a @ b of whole numbers whose sums stay below 2**53: exact, whoever computes it.

    With torch where it is loaded: it keeps to its number of threads. numpy's library takes every core for matrices as
    small as these, and its threads wait for each other busily: on cores that others use, fifty times the work.
    """
    torch: Any = sys.modules.get("torch")
    if torch is None:
        return np.asarray(a @ b)
    return np.asarray((torch.from_numpy(a) @ torch.from_numpy(b)).numpy())


def calibrate(means: Floats) -> Floats:
    """Step and centre (2, C) from the means (B, C) of a few images of a data set.

    The centre is the middle of what was met, the step a power of two so small that eight times the deviations from it
    fit into 16 bits, and the greatest deviation of the layer: a channel that is silent on these images may not be so on
    others. In steps the centre is less than 2**20.
    """
    means = np.where(np.isfinite(means), means, 0)
    low, high = means.min(0), means.max(0)
    centre = low / 2 + high / 2
    deviation = high - centre
    reach = np.maximum(deviation * _ROOM, deviation.max(initial=0)) / _MOST
    reach = np.maximum(reach, np.abs(centre) / (1 << 20))
    step = np.ldexp(1.0, np.frexp(np.where(reach > 0, reach, 2.0**-32))[1])
    return np.stack([step, np.rint(centre / step)])


def rounded(means: Floats, scale: Floats) -> tuple[NDArray[np.int16], Ints]:
    """Means (B, C) as whole steps from the centre, int16, and how many did not fit and were cut (C,)."""
    steps = np.rint(means / scale[0]) - scale[1]
    return np.clip(steps, -_MOST, _MOST).astype(np.int16), (np.abs(steps) > _MOST).sum(0)


@dataclass(frozen=True)
class Classes:
    """Sums by class: labels (K,) of those that were met, rising, and what belongs to them (K, C).

    sums are int32 as long as all fit, then int64: of a thousand classes they are the most of a state.
    """

    labels: Ints
    sums: NDArray[np.int32] | Ints

    @classmethod
    def of(cls, labels: Ints, values: Floats) -> Classes:
        """From values (B, C), whole numbers of 16 bits, and the label of each image; -1 for none."""
        met = np.unique(labels[labels >= 0])
        belongs = (met[:, None] == labels).astype(np.float64)  # (K, B)
        return cls(met, _narrow(product(belongs, values).astype(np.int64)))

    def merge(self, other: Classes) -> Classes:
        """The sums of both."""
        if np.array_equal(self.labels, other.labels):
            return Classes(self.labels, _narrow(self.sums.astype(np.int64) + other.sums))
        labels = np.union1d(self.labels, other.labels)
        sums = np.zeros((len(labels), self.sums.shape[1]), np.int64)
        for one in (self, other):
            sums[np.searchsorted(labels, one.labels)] += one.sums
        return Classes(labels, _narrow(sums))


def _narrow(sums: Ints) -> NDArray[np.int32] | Ints:
    """The one form that equal sums have."""
    return sums.astype(np.int32) if np.abs(sums).max(initial=0) < 1 << 31 else sums


@dataclass(frozen=True)
class Pooled:
    """Means of C channels over `images` images, in steps from the centre.

    scale float64 (2, C). cut int64 (C,): means that were out of range. sums, squares int64 (C,). gram int64 (C, C):
    sums of products of channels. classes: sums by class.
    """

    images: int
    scale: Floats
    cut: Ints
    sums: Ints
    squares: Ints
    gram: Ints | None
    classes: Classes

    @classmethod
    def of(cls, values: NDArray[np.int16], cut: Ints, labels: Ints, scale: Floats, gram: bool) -> Pooled:
        """From means in steps (B, C) of at most 2**16 images and their labels (B,), -1 for none."""
        exact = values.astype(np.float64)  # 16 bits: products of 2**16 images stay below 2**53
        products = product(exact.T, exact).astype(np.int64) if gram else None
        sums, squares = exact.sum(0).astype(np.int64), (exact * exact).sum(0).astype(np.int64)
        return cls(len(values), scale, cut, sums, squares, products, Classes.of(labels, exact))

    def fits(self, other: Pooled) -> None:
        """Raises RecordError where they were rounded differently."""
        if not np.array_equal(self.scale, other.scale) or (self.gram is None) != (other.gram is None):
            raise RecordError("channel means in different steps do not merge; survey all images with one calibration")

    def merge(self, other: Pooled) -> Pooled:
        """The sums of both. Raises RecordError where they were rounded differently."""
        self.fits(other)
        gram = self.gram + other.gram if self.gram is not None and other.gram is not None else None
        sums, squares = self.sums + other.sums, self.squares + other.squares
        joined = self.classes.merge(other.classes)
        return Pooled(self.images + other.images, self.scale, self.cut + other.cut, sums, squares, gram, joined)

    def from_zero(self) -> tuple[Ints, Ints]:
        """sums and squares (C,) as if the centre were 0."""
        centre = self.scale[1].astype(np.int64)
        return self.sums + self.images * centre, self.squares + (2 * self.sums + self.images * centre) * centre

    def by_class(self, counts: Ints) -> Ints:
        """Sums by class (K, C) as if the centre were 0. counts (K,): images of each class."""
        whole = np.zeros((len(counts), self.scale.shape[1]), np.int64)
        whole[self.classes.labels] = self.classes.sums
        return whole + counts[:, None] * self.scale[1].astype(np.int64)

    def arrays(self) -> dict[str, Array]:
        """What is written: of the symmetric matrix one half."""
        found = {"scale": self.scale, "cut": self.cut, "pooled": np.stack([self.sums, self.squares])}
        if self.gram is not None:
            found["gram"] = self.gram[np.triu_indices(len(self.gram))]
        return found | {"labels": self.classes.labels, "classes": self.classes.sums}

    @classmethod
    def restore(cls, get: Callable[..., Array], channels: int, images: int, gram: bool, classes: int) -> Pooled:
        """The way back; `get(name, dtype, shape)` checks what it hands out. Raises RecordError."""
        scale, cut = get("scale", np.float64, (2, channels)), get("cut", np.int64, (channels,))
        sums, squares = get("pooled", np.int64, (2, channels))
        labels = get("labels", np.int64, (None,))
        if (np.diff(labels) <= 0).any() or (len(labels) and not 0 <= labels[0] <= labels[-1] < classes):
            raise ValueError(f"labels are not those of {classes} classes")
        whole = None
        if gram:
            whole = np.zeros((channels, channels), np.int64)
            rows = np.triu_indices(channels)
            whole[rows] = get("gram", np.int64, (channels * (channels + 1) // 2,))
            whole.T[rows] = whole[rows]
        sums_by_class = get("classes", (np.int32, np.int64), (len(labels), channels))
        return cls(images, scale, cut, sums, squares, whole, Classes(labels, sums_by_class))


def _carried(limbs: Ints) -> Ints:
    return carry(limbs.reshape(-1, limbs.shape[-1])).reshape(limbs.shape)


@dataclass(frozen=True)
class Alike:
    """Sums of the unbiased HSIC of every two layers over minibatches: keys (L,), limbs int64 (L, L, 8), minibatches.

    A limb counts 2**-FINEST of a layer's own unit: only ratios, as in CKA, mean something.
    """

    keys: tuple[str, ...]
    limbs: Ints
    minibatches: int

    @property
    def value(self) -> Floats:
        """The sums as floats (L, L)."""
        flat = [int(one) / (1 << FINEST) for one in numbers(self.limbs.reshape(-1, self.limbs.shape[2]))]
        return np.array(flat, np.float64).reshape(self.limbs.shape[:2])

    def fits(self, other: Alike) -> None:
        """Raises RecordError where they are about other layers."""
        if self.keys != other.keys:
            raise RecordError("similarities of different layers do not merge; survey the same layers")

    def merge(self, other: Alike) -> Alike:
        """The sums of both. Raises RecordError where they are about other layers."""
        self.fits(other)
        return replace(self, limbs=_carried(self.limbs + other.limbs), minibatches=self.minibatches + other.minibatches)


def hsic(features: list[Floats]) -> Floats:
    """Unbiased HSIC of every two layers over one minibatch, (L, L), up to a factor for each layer.

    features: whole numbers of 16 bits (n, C) for each layer, n from 4 to 64. L. Song et al., "Feature selection via
    dependence maximization", JMLR 2012, with linear kernels:
    (tr(K L) + 1'K1 1'L1 / ((n-1) (n-2)) - 2/(n-2) 1'K L 1) / (n (n-3)), K and L without their diagonals.
    Kernels are rounded to 20 bits, so that every sum is exact and does not depend on the order in which it was made.
    """
    n = len(features[0])
    kernels = np.empty((len(features), n, n))
    factors = np.empty(len(features))
    for at, values in enumerate(features):
        kernel = product(values, values.T)  # exact: whole numbers below 2**53
        np.fill_diagonal(kernel, 0)
        factors[at] = max(int(np.frexp(np.abs(kernel).max())[1]) - _BITS, 0)
        kernels[at] = np.rint(np.ldexp(kernel, -int(factors[at])))
    flat = kernels.reshape(len(features), n * n)
    rows = kernels.sum(2)  # (L, n), below 2**26
    traces, cross, whole = product(flat, flat.T), product(rows, rows.T), rows.sum(1)
    found = (traces + np.outer(whole, whole) / ((n - 1) * (n - 2)) - cross * (2 / (n - 2))) / (n * (n - 3))
    return np.asarray(np.ldexp(found, (factors[:, None] + factors).astype(np.int64)))
