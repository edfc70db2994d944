"""The channels' means of the images of each minibatch, until all of it was seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from layerscope.surveying.exact import add, carry
from layerscope.surveying.pooled import FINEST, LEAST, MINIBATCH, Alike, Pooled, Scale, hsic, rounded

__all__ = ["MOST_ALIKE", "Minibatches"]

Array = NDArray[Any]
Ints = NDArray[np.int64]

#: layers that are compared with each other; of more, every n-th is
MOST_ALIKE = 256


class _Part(NamedTuple):
    """Some images of a minibatch: numbers and labels (n,); by layer, means in steps int16 (n, C)."""

    numbers: Ints
    labels: Ints
    means: dict[str, Array]

    def take(self, index: Array) -> _Part:
        means = {key: values[index] for key, values in self.means.items()}
        return _Part(self.numbers[index], self.labels[index], means)


class Minibatches:
    """Collects means by minibatch, and adds them up when one is complete.

    scale: the layers whose means are collected, and the steps they are rounded in. alike: whether layers are compared.
    keep: who else is told of the means, float64 (B, C).
    """

    def __init__(self, scale: Scale, alike: bool, keep: Callable[[str, Array], None] | None = None) -> None:
        self._scale, self._keep = scale, keep
        step = -(-len(scale) // MOST_ALIKE) or 1
        self._compared = tuple(scale)[::step] if alike else ()
        self._open: dict[int, list[_Part]] = {}
        self._now = _Part(np.zeros(0, np.int64), np.zeros(0, np.int64), {})
        self._pooled: dict[str, Pooled] = {}
        self._multiplied: set[str] = set()
        self._cut: dict[str, Ints] = {}
        self._limbs = np.zeros((len(self._compared) ** 2, 8), np.int64)
        self._done = 0

    def begin(self, numbers: Ints, labels: Ints) -> None:
        """A batch of images with these numbers and labels, -1 for none, begins."""
        self._now = _Part(numbers, labels, {})

    def see(self, key: str, table: Array, gram: bool) -> None:
        """Statistics float64 (8, B*C) of the batch in one layer. gram: whether its channels are compared."""
        means = table[0].reshape(len(self._now.numbers), -1)
        if self._keep:
            self._keep(key, means)
        scale = self._scale.get(key)
        if scale is None or scale.shape[1] != means.shape[1]:
            return
        self._now.means[key], cut = rounded(means, scale)
        self._cut[key] = self._cut.get(key, 0) + cut
        if gram:
            self._multiplied.add(key)

    def end(self) -> None:
        """The batch is over."""
        if not self._now.means:
            return
        groups = self._now.numbers // MINIBATCH
        for group in np.unique(groups):
            part = self._now if (groups == group).all() else self._now.take(np.flatnonzero(groups == group))
            parts = self._open.setdefault(int(group), [])
            parts.append(part)
            if sum(len(one.numbers) for one in parts) == MINIBATCH:
                self._add(self._open.pop(int(group)))

    def close(self) -> tuple[dict[str, Pooled], Alike | None]:
        """The sums over everything since the beginning; minibatches that lack images are taken as they are."""
        for group in sorted(self._open):
            self._add(self._open.pop(group))
        side = len(self._compared)
        limbs = carry(self._limbs).reshape(side, side, 8)
        alike = Alike(self._compared, limbs, self._done) if side else None
        return self._pooled, alike

    def _add(self, parts: list[_Part]) -> None:
        together: dict[str, Array] = {}
        for key, scale in self._scale.items():
            there = [part for part in parts if key in part.means]
            if not there:
                continue
            values = np.concatenate([part.means[key] for part in there])
            labels = np.concatenate([part.labels for part in there])
            if len(there) == len(parts):
                together[key] = values
            cut = self._cut.pop(key, np.zeros(values.shape[1], np.int64))
            found = Pooled.of(values, cut, labels, scale, key in self._multiplied)
            self._pooled[key] = self._pooled[key].merge(found) if key in self._pooled else found
        if self._compared and sum(len(part.numbers) for part in parts) >= LEAST:
            self._compare(together, np.concatenate([part.numbers for part in parts]))

    def _compare(self, together: dict[str, Array], numbers: Ints) -> None:
        """Add the HSIC of every two layers; a layer that did not see all images is as if it were constant."""
        order = np.argsort(numbers)
        features = []
        for key in self._compared:
            if key not in together:
                features.append(np.zeros((len(order), 1)))
                continue
            steps = self._scale[key][0]
            # In one common step, that of the widest channel: the products of channels are added up.
            features.append(np.rint(together[key][order] * (steps / steps.max())))
        add(self._limbs, hsic(features).reshape(-1), FINEST)
        self._limbs = carry(self._limbs)
        self._done += 1
