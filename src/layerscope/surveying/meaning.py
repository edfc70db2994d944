"""What sums over a data set tell of channels and layers: classes they follow, copies, effective rank, similarity.

Everything is computed from whole numbers (pooled means rounded to 16 bits, their products and class sums), so that
it does not depend on the order in which images came.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["ALIKE", "Followed", "classes", "copies", "effective_rank", "similarity"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

#: channels whose correlation over the images is above this carry the same signal
ALIKE = 0.99


class Followed(NamedTuple):
    """How channels follow classes: preferred_class int32 (C,), selectivity and eta_squared float32 (C,)."""

    preferred_class: NDArray[np.int32]
    selectivity: NDArray[np.float32]
    eta_squared: NDArray[np.float32]


def classes(sums: Ints, squares: Ints, counts: Ints) -> Followed:
    """How each channel's pooled mean differs between classes.

    sums (K, C) over the images of each class, squares (C,) over all images, counts (K,) images.
    preferred_class: the class with the highest mean. selectivity: (m - r) / (m + r) with m the mean of that class and r
    the mean of the other classes' means (A. Morcos et al., "On the importance of single directions for generalization",
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


def copies(gram: Ints, sums: Ints, images: int, most: int = 1000) -> list[tuple[int, int, float]]:
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


def similarity(hsic: Floats) -> NDArray[np.float32]:
    """CKA (L, L) from sums of unbiased HSIC over minibatches (L, L); NaN for a layer that does not vary.

    S. Kornblith et al., "Similarity of neural network representations revisited", ICML 2019; by minibatches with the
    unbiased estimator of Song et al. 2012: T. Nguyen et al., "Do wide and deep networks learn the same things?", 2021.
    """
    own = np.diag(hsic)
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = np.sqrt(np.where(own > 0, own, np.nan))
        return (hsic / np.outer(scale, scale)).astype(np.float32)
