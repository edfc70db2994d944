"""How alike layers are: sums of HSIC over minibatches of 64 images, from the channels' means of each."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from layerscope.records.profiles import Similarity
from layerscope.surveying.accumulators.exact import add, carry, numbers
from layerscope.surveying.accumulators.means import ChannelMeans, Scale, product
from layerscope.surveying.accumulators.part import Array, Get

__all__ = ["MINIBATCH", "LayerSimilarity", "Minibatches", "hsic", "similarity"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

#: images with the numbers 64*i to 64*i + 63 are compared with each other
MINIBATCH = 64
#: the estimator divides by n - 3
_LEAST = 4
#: layers that are compared with each other; of more, every n-th is
_MOST_LAYERS = 256
#: bits of a number in the matrices that are compared: 64 * 64 products of 20 bits each are exact in float64
_BITS = 20
#: sums of HSIC are kept in units of 2**-_FINEST, in limbs
_FINEST, _LIMBS = 64, 8


class LayerSimilarity:
    """Sums of the unbiased HSIC of every two layers over minibatches: keys (L,), limbs int64 (L, L, 8), minibatches.

    A limb counts 2**-64 of a layer's own unit: only ratios, as in CKA, mean something.
    """

    def __init__(self, keys: tuple[str, ...], limbs: Ints | None = None, minibatches: int = 0) -> None:
        self.keys, self.minibatches = keys, minibatches
        self.limbs = np.zeros((len(keys), len(keys), _LIMBS), np.int64) if limbs is None else limbs

    def update(self, features: list[Floats]) -> None:
        """Add one minibatch: for each layer whole numbers of 16 bits (n, C)."""
        flat = self.limbs.reshape(-1, _LIMBS)
        add(flat, hsic(features).reshape(-1), _FINEST)
        self.limbs = carry(flat).reshape(self.limbs.shape)
        self.minibatches += 1

    def merge(self, other: LayerSimilarity) -> LayerSimilarity:
        """The sums of both, which are about the same layers."""
        limbs = carry((self.limbs + other.limbs).reshape(-1, _LIMBS)).reshape(self.limbs.shape)
        return LayerSimilarity(self.keys, limbs, self.minibatches + other.minibatches)

    @property
    def value(self) -> Floats:
        """The sums as floats (L, L)."""
        flat = [int(number) / (1 << _FINEST) for number in numbers(self.limbs.reshape(-1, _LIMBS))]
        return np.array(flat, np.float64).reshape(self.limbs.shape[:2])

    def compute(self) -> Similarity | None:
        """CKA of the layers; None over less than one minibatch."""
        return Similarity(list(self.keys), similarity(self.value), self.minibatches) if self.minibatches else None

    def arrays(self) -> dict[str, Array]:
        """What is written, beside the keys."""
        return {"similarity": self.limbs, "minibatches": np.asarray(self.minibatches)}

    @classmethod
    def restore(cls, get: Get, keys: tuple[str, ...]) -> LayerSimilarity:
        """The way back. Raises what `get` raises."""
        limbs = get("similarity", (np.int64,), (len(keys), len(keys), _LIMBS))
        return cls(keys, limbs, int(get("minibatches", (np.int64,), ())))


class _Minibatch:
    """Images that were met of one: numbers; by layer, parts of means in steps int16 (n, C) and of labels (n,)."""

    def __init__(self) -> None:
        self.numbers = np.zeros(0, np.int64)
        self.layers: dict[str, list[tuple[Array, Ints]]] = {}


class Minibatches:
    """Collects the channels' means by minibatch, and updates the accumulators when all of one was there.

    scale: the layers whose means are collected, and the steps they are rounded in.
    """

    def __init__(self, scale: Scale) -> None:
        self.scale, self.labels = scale, np.zeros(0, np.int64)
        step = -(-len(scale) // _MOST_LAYERS) or 1
        self.means: dict[str, ChannelMeans] = {}
        self.similarity = LayerSimilarity(tuple(scale)[::step]) if scale else None
        self._open: dict[int, _Minibatch] = {}
        self._now: dict[int, Any] = {}  # of the batch, the rows that belong to each minibatch

    def begin(self, numbers: Ints, labels: Ints) -> None:
        """A batch of images with these numbers and labels, -1 for none, begins."""
        self.labels = labels
        groups = numbers // MINIBATCH
        self._now = {group: np.flatnonzero(groups == group) for group in np.unique(groups).tolist()}
        for group, rows in self._now.items():
            minibatch = self._open.setdefault(group, _Minibatch())
            minibatch.numbers = np.concatenate([minibatch.numbers, numbers[rows]])

    def see(self, key: str, table: Array, gram: bool) -> None:
        """Statistics float64 (8, B*C) of the batch in one layer. gram: whether its channels are compared."""
        means = table[0].reshape(len(self.labels), -1)
        scale = self.scale.get(key)
        if scale is None or scale.shape[1] != means.shape[1]:
            return
        if key not in self.means:
            self.means[key] = ChannelMeans.empty(scale, gram)
        steps = self.means[key].rounded(means)
        for group, rows in self._now.items():
            self._open[group].layers.setdefault(key, []).append((steps[rows], self.labels[rows]))

    def end(self) -> None:
        """The batch is over."""
        for group in self._now:
            if len(self._open[group].numbers) == MINIBATCH:
                self._update(self._open.pop(group))

    def close(self) -> None:
        """Take minibatches that lack images as they are."""
        for group in sorted(self._open):
            self._update(self._open.pop(group))

    def _update(self, minibatch: _Minibatch) -> None:
        order = np.argsort(minibatch.numbers)
        features = {}
        for key, parts in minibatch.layers.items():
            means, labels = map(np.concatenate, zip(*parts, strict=True))
            self.means[key].update(means, labels)
            if len(means) == len(order):  # in one common step, that of the widest channel: products are added up
                steps = self.scale[key][0]
                features[key] = np.rint(means[order] * (steps / steps.max()))
        if self.similarity is not None and len(order) >= _LEAST:
            constant = np.zeros((len(order), 1))  # a layer that did not see all images
            self.similarity.update([features.get(key, constant) for key in self.similarity.keys])


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


def similarity(hsic: Floats) -> NDArray[np.float32]:
    """CKA (L, L) from sums of unbiased HSIC over minibatches (L, L); NaN for a layer that does not vary.

    S. Kornblith et al., "Similarity of neural network representations revisited", ICML 2019; by minibatches with the
    unbiased estimator of Song et al. 2012: T. Nguyen et al., "Do wide and deep networks learn the same things?", 2021.
    """
    own = np.diag(hsic)
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = np.sqrt(np.where(own > 0, own, np.nan))
        return (hsic / np.outer(scale, scale)).astype(np.float32)
