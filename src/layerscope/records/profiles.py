"""What a survey knows of a layer's channels beyond their statistics, as plain data: examples, histograms, meaning.

The types of the fields say how they are stored: `schema.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from layerscope.records.schema import Signed

__all__ = [
    "BIN_BITS",
    "ChannelHistograms",
    "Crop",
    "Examples",
    "Line",
    "Profile",
    "Shown",
    "Similarity",
    "crop_of",
    "edges_of",
    "wanted",
]

#: bits of a float32 that name a bin: sign, exponent and the first three of the mantissa
BIN_BITS = 12


def edges_of(bins: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Least and greatest absolute bound of each bin of float bits, signed; bin numbers are in the order of the values.

    Bins 0 to 2047 are negative, from -inf up to 0; 2048 to 4095 positive. A bin spans at most 1/8 of its values.
    """
    magnitude = np.where(bins < 2048, 2047 - bins, bins - 2048).astype(np.uint32)
    inner = (magnitude << 20).view(np.float32).astype(np.float64)
    with np.errstate(invalid="ignore"):
        outer = ((magnitude + 1) << 20).view(np.float32).astype(np.float64)
    return np.where(bins < 2048, -outer, inner), np.where(bins < 2048, -inner, outer)


Ends = tuple[int, int]


@dataclass(frozen=True)
class Line:
    """Which pixels the units along one axis see: unit y sees low + step*y up to high + step*y, cut off at the image."""

    low: Signed
    high: Signed
    step: Signed
    whole: Signed

    def ends(self, unit: int) -> Ends:
        """First pixel, and last + 1."""
        shift = self.step * unit
        return min(max(self.low + shift, 0), self.whole), min(max(self.high + shift, 0), self.whole)


@dataclass(frozen=True)
class Examples:
    """The images that excite each channel most, best first; k a channel, image -1 where there are fewer.

    image int64 (C, k): number in the data set. value float32 (C, k): the channel's maximum there. position int32
    (C, k, 2): row and column of it. origin int32 (C, k, 2): where the window begins in the map that is kept as map k of
    the entry: the channel's surroundings of its maximum.
    """

    image: Annotated[NDArray[np.int64], "C k"]
    value: Annotated[NDArray[np.float32], "C k"]
    position: Annotated[NDArray[np.int32], "C k 2"]
    origin: Annotated[NDArray[np.int32], "C k 2"]


@dataclass(frozen=True)
class ChannelHistograms:
    """Histograms of all channels on bins of float bits: bins int64 (n,), rising, and counts int64 (C, n).

    Zeros, and what is as good as zero, are in none of them.
    """

    bins: Annotated[NDArray[np.int64], "n"]
    counts: Annotated[NDArray[np.int64], "C n"]

    def _contradiction(self) -> str:
        ends = np.array([-1, *self.bins, 1 << BIN_BITS])
        return "" if (ends[1:] > ends[:-1]).all() else "bins that do not rise"

    def quantiles(
        self,
        shares: Sequence[float],
        count: NDArray[np.int64],
        least: NDArray[np.float64],
        greatest: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """The values below or at which these shares of a channel's finite values lie, (n, C); NaN where there is none.

        Each is the middle of the bin of the value that `numpy.quantile(..., method="inverted_cdf")` returns: at most
        6.3 % of it away, for sizes from 2**-32 to 2**31; what is smaller is said to be 0. count, least and
        greatest (C,): of the channels' finite values.
        """
        low, high = edges_of(self.bins)
        negative = self.bins < 2048
        tiny = count - self.counts.sum(1)
        middle = np.concatenate([(low + high)[negative] / 2, [0.0], (low + high)[~negative] / 2, [np.nan]])
        whole = np.concatenate([self.counts[:, negative], tiny[:, None], self.counts[:, ~negative]], 1)
        below = whole.cumsum(1)  # (C, bins)
        ranks = np.maximum(np.ceil(np.multiply.outer(shares, count)), 1)  # (n, C)
        places = np.stack([(below < rank[:, None]).sum(1) for rank in ranks])
        return np.clip(middle[places], least, greatest)


@dataclass(frozen=True)
class Profile:
    """One layer over a data set of `images` images.

    inactive int64 (C,): images on which the channel is zero everywhere. With classes: preferred_class int32 (C,), that
    of the highest mean; selectivity float32 (C,), NaN where it is not defined; eta_squared float32 (C,), the share of
    the variance that the classes explain. redundant_channels: pairs and their correlation. rank: effective rank, of `C`
    at most. grid: rows and columns of the whole map. lines: the receptive fields of its units.
    """

    images: int
    inactive: Annotated[NDArray[np.int64], "C"]
    examples: Examples | None = None
    histograms: ChannelHistograms | None = None
    preferred_class: Annotated[NDArray[np.int32], "C"] | None = None
    selectivity: Annotated[NDArray[np.float32], "C"] | None = None
    eta_squared: Annotated[NDArray[np.float32], "C"] | None = None
    redundant_channels: Sequence[tuple[int, int, float]] = ()
    rank: float | None = None
    grid: tuple[int, int] = (1, 1)
    lines: tuple[Line, Line] | None = None

    def _contradiction(self) -> str:
        there = all(max(a, b) < len(self.inactive) for a, b, _ in self.redundant_channels)
        return "" if there else "redundant channels that are not there"


@dataclass(frozen=True)
class Crop:
    """Parts of an image, each as rows and columns from first to last + 1, in pixels.

    field: what the best unit sees. heat: where the cells of the window lie. shown: both together.
    """

    shown: tuple[Ends, Ends]
    field: tuple[Ends, Ends]
    heat: tuple[tuple[float, float], tuple[float, float]]


def crop_of(profile: Profile, channel: int, place: int, window: tuple[int, int], size: tuple[int, int]) -> Crop:
    """The part of an image of size (height, width) that an example is about; window: rows and columns of its map."""
    assert profile.examples is not None
    begin, best = profile.examples.origin[channel, place], profile.examples.position[channel, place]
    shown, field, heat = [], [], []
    for axis in range(2):
        first, count, whole = int(begin[axis]), window[axis], size[axis]
        line = profile.lines[axis] if profile.lines else Line(-whole, whole, 0, whole)
        line = Line(line.low, line.high, line.step, min(line.whole, whole))
        field.append(line.ends(int(best[axis])))
        if line.step:  # a cell lies in the middle of what its unit sees
            middle = (line.low + line.high) / 2 + line.step * (first - 0.5)
            heat.append((middle, middle + line.step * count))
        else:
            cell = whole / max(profile.grid[axis], 1)
            heat.append((first * cell, (first + count) * cell))
        (low, high), (begins, ends) = field[axis], heat[axis]
        shown.append((max(0, min(low, math.floor(begins))), max(high, min(math.ceil(ends), whole))))
    return Crop((shown[0], shown[1]), (field[0], field[1]), (heat[0], heat[1]))


@dataclass(frozen=True)
class Shown:
    """An image of the data set, as the network saw it, WebP: it is one of the best examples of some channel."""

    number: int
    name: str
    label: str
    width: int
    height: int
    data: Annotated[NDArray[np.uint8], "bytes"] = field(repr=False)


@dataclass(frozen=True)
class Similarity:
    """CKA of every layer with every other: value float32 (L, L), keys of the entries in that order."""

    keys: list[str]
    value: Annotated[NDArray[np.float32], "L L"]
    minibatches: int

    def _contradiction(self) -> str:
        return "" if len(self.keys) == len(self.value) else f"{len(self.keys)} keys for {len(self.value)} layers"


def wanted(examples: Iterable[Examples]) -> list[int]:
    """Numbers of all images in the lists: first those that are some channel's best, then its second best, and so on.

    Within a place those that excite more channels come first, then those with a smaller number.
    """
    best: dict[int, tuple[int, int]] = {}  # of each image its best place, and less how many channels it excites
    for lists in examples:
        for place, column in enumerate(lists.image.T):
            for number, count in zip(*np.unique(column[column >= 0], return_counts=True), strict=True):
                first, less = best.get(int(number), (place, 0))
                best[int(number)] = min(first, place), less - int(count)
    return sorted(best, key=lambda number: (best[number], number))
