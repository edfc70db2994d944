"""Histograms that equal numpy's to the last count: edges, and the bins of values between them."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import calls
from .plain import places

__all__ = ["count", "edges", "slack", "weighted"]

Array = NDArray[Any]


def edges(low: float, high: float, kind: np.dtype[Any], bins: int) -> Array:
    """numpy's edges (bins + 1,) of type `kind`, or else as float64, or else the nearest thing to them.

    From numpy 2 on `numpy.histogram` raises where two edges would be equal; float32 ranges may also overflow.
    """
    for number in (kind, np.dtype("f8")):
        ends = np.array([low, high], number)
        if _span(ends) < np.inf:
            # numpy takes a step too many on its way to the greatest float, and then sets the last edge right.
            with suppress(ValueError), np.errstate(over="ignore"):  # too many bins for the range
                return np.histogram_bin_edges(ends, bins)
    most = np.finfo(np.float64).max
    # There is no next number after the greatest: the distance to the one before.
    pad = bins * np.spacing(min(max(abs(low), abs(high)), np.nextafter(most, 0)))
    # A quarter of everything: the length of the whole range may not be a number.
    with np.errstate(over="ignore"):
        return np.clip(4 * np.linspace(low / 4 - pad / 4, high / 4 + pad / 4, bins + 1), -most, most)


def _span(edges: Array) -> Any:
    with np.errstate(over="ignore"):
        return edges[-1] - edges[0]


def slack(edges: Array) -> float | None:
    """How near to an edge, in bins, the bin of a value must be looked up; None if no bin can be computed.

    It covers where the edges lie, beside evenly spaced ones, and ten roundings of a position among them.
    """
    if not _span(edges) < np.inf:
        return None
    bins = len(edges) - 1
    kind = np.finfo(edges.dtype)
    with np.errstate(over="ignore"):  # denormals
        each = bins / np.float64(_span(edges))
    if not kind.tiny < each < kind.max:
        return np.inf
    exact = edges.astype(np.float64)
    places = (exact - exact[0]) / (exact[-1] - exact[0]) * bins
    return float(np.abs(places - np.arange(bins + 1)).max() + 5 * bins * kind.eps)


def count(values: Array, edges: Array, slack: float | None, finite: bool, counts: NDArray[np.int64]) -> None:
    """Add the finite values, of the edges' type, to the counts. `finite` tells that all are."""
    bins = len(counts)
    if slack is None:
        place = np.searchsorted(edges, values[np.isfinite(values)], "right") - 1
        counts += np.bincount(np.minimum(place, bins - 1), minlength=bins)
    elif finite and slack < 0.25 and bins < 256 and len(values) > bins * bins:
        calls.bin_pairs(values, edges, slack, counts)
    else:
        calls.bin_values(values, edges, counts)


def weighted(values: Array, times: NDArray[np.int64], edges: Array) -> NDArray[np.int64]:
    """Counts of values, each of which occurs several times, to the letter as numpy.histogram makes them."""
    keep = np.isfinite(values) & (times > 0)
    values, times = values[keep].astype(edges.dtype), times[keep]
    counts = np.zeros(len(edges) - 1, np.int64)
    np.add.at(counts, places(values, edges), times)
    return counts
