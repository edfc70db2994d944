"""What a survey knows of a layer's channels beyond their statistics, as plain data: examples, spread, meaning.

Arrays go into a record's file and come back through `pack` and `unpack`, which check every size: a record may come
from anyone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layerscope.errors import RecordError

__all__ = [
    "BIN_BITS",
    "Crop",
    "Examples",
    "Line",
    "Profile",
    "Shown",
    "Similarity",
    "Spread",
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

    low: int
    high: int
    step: int
    whole: int

    def ends(self, unit: int) -> Ends:
        """First pixel, and last + 1."""
        shift = self.step * unit
        return min(max(self.low + shift, 0), self.whole), min(max(self.high + shift, 0), self.whole)


@dataclass(frozen=True)
class Examples:
    """The images that excite each channel most, best first; k a channel, image -1 where there are fewer.

    image int64 (C, k): number in the data set. value float32 (C, k): the channel's maximum there. position int32
    (C, k, 2): row and column of it. at int32 (C, k, 2): where the window begins in the map that is kept as map k of
    the entry: the channel's surroundings of its maximum.
    """

    image: NDArray[np.int64]
    value: NDArray[np.float32]
    position: NDArray[np.int32]
    at: NDArray[np.int32]


@dataclass(frozen=True)
class Spread:
    """Histograms of all channels on bins of float bits: bins int64 (n,), rising, and counts int64 (C, n).

    Zeros, and what is as good as zero, are in none of them.
    """

    bins: NDArray[np.int64]
    counts: NDArray[np.int64]

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

    silent int64 (C,): images on which the channel is zero everywhere. With classes: favourite int32 (C,), the class of
    the highest mean; selectivity float32 (C,), NaN where it is not defined; explained float32 (C,). copies: pairs of
    channels and their correlation. rank: effective rank, of `C` at most. grid: rows and columns of the whole map.
    lines: the receptive fields of its units.
    """

    images: int
    silent: NDArray[np.int64]
    examples: Examples | None = None
    spread: Spread | None = None
    favourite: NDArray[np.int32] | None = None
    selectivity: NDArray[np.float32] | None = None
    explained: NDArray[np.float32] | None = None
    copies: Sequence[tuple[int, int, float]] = ()
    rank: float | None = None
    grid: tuple[int, int] = (1, 1)
    lines: tuple[Line, Line] | None = None


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
    begin, best = profile.examples.at[channel, place], profile.examples.position[channel, place]
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
    data: NDArray[np.uint8] = field(repr=False)


@dataclass(frozen=True)
class Similarity:
    """CKA of every layer with every other: value float32 (L, L), keys of the entries in that order."""

    keys: list[str]
    value: NDArray[np.float32]
    minibatches: int


def wanted(examples: Iterable[Examples]) -> list[int]:
    """Numbers of all images in the lists: first those that are some channel's best, then its second best, and so on.

    Within a place those that excite more channels come first, then those with a smaller number.
    """
    found: dict[int, tuple[int, int]] = {}
    for one in examples:
        for place in range(one.image.shape[1]):
            numbers, times = np.unique(one.image[:, place], return_counts=True)
            for number, count in zip(numbers.tolist(), times.tolist(), strict=True):
                if number >= 0:
                    best, many = found.get(number, (place, 0))
                    found[number] = (min(best, place), many + count)
    return sorted(found, key=lambda number: (found[number][0], -found[number][1], number))


Put = Callable[[str, NDArray], str]
Get = Callable[[str], NDArray]

_EXAMPLES: dict[str, tuple[Any, int]] = {
    "image": (np.int64, 2),
    "value": (np.float32, 2),
    "position": (np.int32, 3),
    "at": (np.int32, 3),
}
_OPTIONAL = ("favourite", "selectivity", "explained")


def pack(name: str, profile: Profile, put: Put) -> dict[str, Any]:
    """A profile as JSON; its arrays are handed to `put` under names that begin with `name`."""
    put(f"{name}.silent", profile.silent.astype(np.int64))
    for part in _EXAMPLES if profile.examples else ():
        put(f"{name}.top.{part}", getattr(profile.examples, part))
    if profile.spread:
        put(f"{name}.spread", profile.spread.counts.astype(np.int64))
        put(f"{name}.spread.bins", profile.spread.bins.astype(np.int64))
    given = [part for part in _OPTIONAL if getattr(profile, part) is not None]
    for part in given:
        put(f"{name}.{part}", getattr(profile, part))
    return {
        "images": profile.images,
        "examples": profile.examples is not None,
        "spread": profile.spread is not None,
        "classes": given,
        "copies": [list(one) for one in profile.copies],
        "rank": profile.rank,
        "grid": list(profile.grid),
        "lines": [[line.low, line.high, line.step, line.whole] for line in profile.lines] if profile.lines else None,
    }


def unpack(name: str, packed: dict[str, Any], get: Get) -> Profile:
    """The profile that `pack` took apart. Raises RecordError where the sizes contradict each other."""
    silent = _shaped(f"{name}.silent", get, np.int64, 1)
    channels = len(silent)
    examples = None
    if packed["examples"]:
        parts = {part: _shaped(f"{name}.top.{part}", get, *kind) for part, kind in _EXAMPLES.items()}
        if len({array.shape[:2] for array in parts.values()}) > 1 or len(parts["image"]) != channels:
            raise RecordError(f"{name}: the examples and the channels disagree; make the record again")
        examples = Examples(**parts)
    spread = None
    if packed["spread"]:
        counts, bins = _shaped(f"{name}.spread", get, np.int64, 2), _shaped(f"{name}.spread.bins", get, np.int64, 1)
        rising = (np.diff(bins) > 0).all() and (not len(bins) or 0 <= bins[0] <= bins[-1] < 1 << BIN_BITS)
        if counts.shape != (channels, len(bins)) or not rising:
            raise RecordError(f"{name}: the histograms and the channels disagree; make the record again")
        spread = Spread(bins, counts)
    kinds = {"favourite": np.int32, "selectivity": np.float32, "explained": np.float32}
    classes = {part: _shaped(f"{name}.{part}", get, kinds[part], 1) for part in packed["classes"]}
    if any(len(array) != channels for array in classes.values()):
        raise RecordError(f"{name}: the classes and the channels disagree; make the record again")
    copies = [(int(a), int(b), float(r)) for a, b, r in packed["copies"]]
    if any(not (0 <= a < channels and 0 <= b < channels) for a, b, _ in copies):
        raise RecordError(f"{name}: copies of channels that are not there; make the record again")
    lines = None
    if packed["lines"]:
        rows, columns = (Line(int(a), int(b), int(step), int(whole)) for a, b, step, whole in packed["lines"])
        lines = (rows, columns)
    rank = None if packed["rank"] is None else float(packed["rank"])
    height, width = map(int, packed["grid"])
    more: dict[str, Any] = {"copies": copies, "rank": rank, "grid": (height, width), "lines": lines, **classes}
    return Profile(int(packed["images"]), silent, examples, spread, **more)


def _shaped(name: str, get: Get, dtype: Any, axes: int) -> NDArray:
    array = get(name)
    if array.dtype != dtype or array.ndim != axes:
        raise RecordError(f"{name}: {array.dtype} of {array.ndim} axes, not {np.dtype(dtype)} of {axes}; make it again")
    return array
