"""Sums of the channels' means over images, as whole numbers: what tells redundant channels, ranks and classes.

The mean of a channel over an image is rounded to 16 bits, in steps that a calibration has set once for all images
(`calibrate`). Products and sums of such numbers are exact, so that no order of images can be told from them.
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from layerscope.surveying.accumulators.part import Array, Get, Part

__all__ = [
    "ALIKE",
    "ChannelMeans",
    "Followed",
    "Scale",
    "calibrate",
    "classes",
    "effective_rank",
    "product",
    "redundant_channels",
    "rounded",
]  # fmt: skip

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

#: site -> float64 (2, C): the step of each channel, and its centre in steps, a whole number
Scale = dict[str, Floats]

#: channels whose correlation over the images is above this carry the same signal
ALIKE = 0.99
#: the largest rounded mean
_MOST = 32767
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


def _narrow(sums: Ints) -> NDArray[np.int32] | Ints:
    """The one form that equal sums have: int32 as long as all fit, for of a thousand classes they are the most."""
    return sums.astype(np.int32) if np.abs(sums).max(initial=0) < 1 << 31 else sums


class Followed(NamedTuple):
    """How channels follow classes: preferred_class int32 (C,), selectivity and eta_squared float32 (C,)."""

    preferred_class: NDArray[np.int32]
    selectivity: NDArray[np.float32]
    eta_squared: NDArray[np.float32]


class ChannelMeans(Part):
    """Means of C channels over `images` images, in steps from the centre.

    scale float64 (2, C). sums int64 (3, C): of the means, of their squares, and how many were out of range. gram int64
    (C, C): sums of products of channels, None if they are not compared. labels (K,): classes that were met, rising, and
    what belongs to them by_label (K, C).
    """

    ARRAYS = {  # noqa: RUF012 - typed in Part
        "images": ((np.int64,), ()),
        "scale": ((np.float64,), (2, "C")),
        "sums": ((np.int64,), (3, "C")),
        "labels": ((np.int64,), (None,)),
        "by_label": ((np.int32, np.int64), (None, "C")),
        "gram": ((np.int64,), (None,)),
    }

    def __init__(
        self, images: Any, scale: Floats, sums: Ints, labels: Ints, by_label: Array, gram: Ints | None = None
    ) -> None:
        self.images, self.scale, self.sums = int(images), scale, sums
        self.labels, self.by_label, self.gram = labels, by_label, gram

    @classmethod
    def empty(cls, scale: Floats, gram: bool) -> ChannelMeans:
        """Of no image. gram: whether the channels are compared."""
        channels = scale.shape[1]
        products = np.zeros((channels, channels), np.int64) if gram else None
        none = np.zeros(0, np.int64), np.zeros((0, channels), np.int32)
        return cls(0, scale, np.zeros((3, channels), np.int64), *none, products)

    def rounded(self, means: Floats) -> NDArray[np.int16]:
        """Means (B, C) in steps, for `update`; those that are out of range are counted here."""
        values, cut = rounded(means, self.scale)
        self.sums[2] += cut
        return values

    def update(self, values: NDArray[np.int16], labels: Ints) -> None:
        """Add means in steps (B, C) of at most 2**16 images and their labels (B,), -1 for none."""
        exact = values.astype(np.float64)  # 16 bits: products of 2**16 images stay below 2**53
        self.images += len(values)
        self.sums[:2] += np.stack([exact.sum(0), (exact * exact).sum(0)]).astype(np.int64)
        if self.gram is not None:
            self.gram += product(exact.T, exact).astype(np.int64)
        met = np.unique(labels[labels >= 0])
        belongs = (met[:, None] == labels).astype(np.float64)  # (K, B)
        self._add(met, product(belongs, exact).astype(np.int64))

    def _add(self, labels: Ints, sums: Array) -> None:
        if np.array_equal(self.labels, labels):
            self.by_label = _narrow(self.by_label.astype(np.int64) + sums)
            return
        both = np.union1d(self.labels, labels)
        whole = np.zeros((len(both), sums.shape[1]), np.int64)
        whole[np.searchsorted(both, self.labels)] = self.by_label
        whole[np.searchsorted(both, labels)] += sums
        self.labels, self.by_label = both, _narrow(whole)

    @property
    def form(self) -> tuple[bytes, bool]:
        return self.scale.tobytes(), self.gram is None

    def merge(self, other: ChannelMeans) -> ChannelMeans:
        gram = self.gram + other.gram if self.gram is not None and other.gram is not None else None
        images, sums = self.images + other.images, self.sums + other.sums
        both = ChannelMeans(images, self.scale, sums, self.labels, self.by_label, gram)
        both._add(other.labels, other.by_label)
        return both

    @property
    def cut(self) -> int:
        """How many means were out of range."""
        return int(self.sums[2].sum())

    def from_zero(self) -> tuple[Ints, Ints]:
        """Sums of means and of squares (C,) as if the centre were 0."""
        (sums, squares, _), centre = self.sums, self.scale[1].astype(np.int64)
        return sums + self.images * centre, squares + (2 * sums + self.images * centre) * centre

    def by_class(self, counts: Ints) -> Ints:
        """Sums by class (K, C) as if the centre were 0. counts (K,): images of each class."""
        whole = np.zeros((len(counts), self.scale.shape[1]), np.int64)
        whole[self.labels] = self.by_label
        return whole + counts[:, None] * self.scale[1].astype(np.int64)

    def compute(self, counts: Ints) -> dict[str, Any]:
        """Fields of a profile: redundant channels and rank where channels are compared, what they follow where every
        image has a label. counts (K,): images of each class."""
        fields: dict[str, Any] = {}
        if self.gram is not None:
            sums = self.gram, self.sums[0], self.images
            fields |= {"redundant_channels": redundant_channels(*sums), "rank": effective_rank(*sums, self.scale[0])}
        if len(counts) and self.images == counts.sum():
            fields |= classes(self.by_class(counts), self.from_zero()[1], counts)._asdict()
        return fields

    def arrays(self) -> dict[str, Array]:
        # Of the symmetric matrix one half.
        gram = np.zeros(0, np.int64) if self.gram is None else self.gram[np.triu_indices(len(self.gram))]
        return super().arrays() | {"gram": gram}

    @classmethod
    def restore(cls, get: Get, channels: int) -> ChannelMeans:
        means = super().restore(get, channels)
        half, means.gram = means.gram, None
        if half is not None and len(half):
            half = half.reshape(channels * (channels + 1) // 2)
            means.gram, upper = np.zeros((channels, channels), np.int64), np.triu_indices(channels)
            means.gram[upper] = means.gram.T[upper] = half
        return means

    def check(self) -> None:
        labels = self.labels
        if len(labels) != len(self.by_label) or (np.diff(labels) <= 0).any() or (len(labels) and labels[0] < 0):
            raise ValueError(f"labels {labels.tolist()} are not those of {len(self.by_label)} classes")


def classes(sums: Ints, squares: Ints, counts: Ints) -> Followed:
    """How each channel's pooled mean differs between classes.

    sums (K, C) over the images of each class, squares (C,) over all images, counts (K,) images.
    preferred_class: the one with the highest mean. selectivity: (m - r) / (m + r) with m its mean and r the mean of
    the other classes' means (A. Morcos et al., "On the importance of single directions for generalization",
    ICLR 2018); NaN where a class mean is negative, for which it is not defined, or all are 0. eta_squared: the share of
    the variance over images that lies between the classes (the correlation ratio, eta squared; R. A. Fisher 1925).
    With fewer than two classes that have images: -1 and NaN.
    """
    channels = sums.shape[1]
    there = np.flatnonzero(counts)
    nothing = np.full(channels, np.nan, np.float32)
    if len(there) < 2:
        return Followed(np.full(channels, -1, np.int32), nothing, nothing.copy())
    number = counts[there].astype(np.float64)[:, None]  # (K, 1)
    total = sums[there].astype(np.float64)
    means = total / number  # (K, C)
    best = means.argmax(0)  # (C,)
    highest = means[best, np.arange(channels)]
    rest = (means.sum(0) - highest) / (len(there) - 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        index = (highest - rest) / (highest + rest)
        index[(means < 0).any(0)] = np.nan
        images = number.sum()
        grand = total.sum(0) / images
        between = (number * (means - grand) ** 2).sum(0)
        whole = squares.astype(np.float64) - images * grand**2
        share = np.where(whole > 0, np.minimum(between / whole, 1), np.nan)
    return Followed(there[best].astype(np.int32), index.astype(np.float32), share.astype(np.float32))


def _covariance(gram: Ints, sums: Ints, images: int) -> Floats:
    """(C, C), of the pooled means, times the number of images."""
    total = sums.astype(np.float64)
    return gram.astype(np.float64) - np.outer(total, total) / max(images, 1)


def redundant_channels(gram: Ints, sums: Ints, images: int, most: int = 1000) -> list[tuple[int, int, float]]:
    """Pairs of channels (a < b) with a correlation above `ALIKE` over the images, closest first, at most `most`.

    gram (C, C): sums of products of the pooled means; sums (C,). Channels that never vary are copies of none.
    """
    covariance = _covariance(gram, sums, images)
    spread = np.sqrt(np.clip(np.diag(covariance), 0, None))
    varies = spread > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = covariance / np.outer(spread, spread)
    correlation[~varies] = correlation[:, ~varies] = 0
    first, second = np.nonzero(np.triu(correlation > ALIKE, 1))
    found = [(int(a), int(b), min(1.0, float(correlation[a, b]))) for a, b in zip(first, second, strict=True)]
    return sorted(found, key=lambda pair: (-pair[2], pair[0], pair[1]))[:most]


def effective_rank(gram: Ints, sums: Ints, images: int, steps: Floats) -> float | None:
    """How many directions the pooled means of a layer use: exp of the entropy of their shares of the variance.

    O. Roy and M. Vetterli, "The effective rank", EUSIPCO 2007, of the covariance matrix. None if nothing
    varies. steps (C,): what a whole number stands for in each channel.
    """
    covariance = _covariance(gram, sums, images) * np.outer(steps, steps)
    values = np.clip(np.linalg.eigvalsh(covariance), 0, None)
    if not values.sum() > 0:
        return None
    shares = values / values.sum()
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()))
