"""A survey's tables: for the terminal, as JSON and as CSV."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from layerscope.profiles import Examples, Profile, edges_of
from layerscope.record import Entry, Record

__all__ = [
    "QUANTILES",
    "channel",
    "copies",
    "example_rows",
    "histogram_rows",
    "names_of",
    "quantiles_of",
    "survey_fields",
]

#: what is told of the values of a channel, by name, beside least and greatest
QUANTILES = {"q01": 0.01, "q05": 0.05, "median": 0.5, "q95": 0.95, "q99": 0.99}


def names_of(record: Record) -> dict[int, str]:
    """Names of the images that are an example of some channel, by their numbers."""
    return {one.number: one.name for one in record.shown}


def survey_fields(record: Record) -> dict[str, Any]:
    """What the JSON of a survey has beside its layers."""
    provenance = record.provenance
    alike = record.similarity
    return {
        "images": provenance.get("images", 0),
        "of": provenance.get("of", 0),
        "broken": provenance.get("broken", []),
        "classes": record.classes,
        "similarity": {"layers": alike.keys, "cka": alike.value.tolist(), "minibatches": alike.minibatches}
        if alike
        else None,
    }


def quantiles_of(entry: Entry) -> list[dict[str, float]]:
    """`q01` to `q99` of each channel of a layer that has histograms; else nothing."""
    spread = entry.profile and entry.profile.histograms
    if not spread or entry.columns is None:
        return []
    columns = entry.columns
    found = spread.quantiles(list(QUANTILES.values()), columns.count, columns.min, columns.max)  # (n, C)
    return [dict(zip(QUANTILES, map(float, one), strict=True)) for one in found.T]


def channel(profile: Profile, index: int, names: dict[int, str], classes: Sequence[str]) -> dict[str, Any]:
    """One channel over the data set, to be added to its statistics."""
    row: dict[str, Any] = {"silent": int(profile.inactive[index])}
    if profile.preferred_class is not None and profile.selectivity is not None and profile.eta_squared is not None:
        best = int(profile.preferred_class[index])
        row |= {
            "class": classes[best] if 0 <= best < len(classes) else None,
            "selectivity": float(profile.selectivity[index]),
            "explained": float(profile.eta_squared[index]),
        }
    return row | {"top": list(_top(profile.examples, index, names)) if profile.examples else []}


def _top(examples: Examples, index: int, names: dict[int, str]) -> Iterator[dict[str, Any]]:
    found = examples.image[index], examples.value[index], examples.position[index]
    for image, value, position in zip(*found, strict=True):
        if image >= 0:
            name = names.get(int(image), f"image {int(image)}")
            yield {"image": name, "number": int(image), "value": float(value), "position": position.tolist()}


def copies(profile: Profile) -> list[dict[str, Any]]:
    """Pairs of channels that carry one signal."""
    return [{"a": a, "b": b, "correlation": r} for a, b, r in profile.redundant_channels]


def example_rows(record: Record) -> list[dict[str, Any]]:
    """The best examples as a table: one row an example, best first within a channel."""
    names, rows = names_of(record), []
    for entry, profile in _profiled(record):
        if profile.examples is None:
            continue
        for index in range(len(profile.inactive)):
            for place, one in enumerate(_top(profile.examples, index, names)):
                y, x = one["position"]
                head = {"layer": entry.key, "channel": index, "place": place + 1}
                rows.append(
                    head | {"image": one["image"], "number": one["number"], "value": one["value"], "y": y, "x": x}
                )
    return rows


def histogram_rows(record: Record) -> list[dict[str, Any]]:
    """The histograms as a table: one row a bin that holds something, in the order of the values."""
    rows = []
    for entry, profile in _profiled(record):
        if profile.histograms is None:
            continue
        counts = profile.histograms.counts
        low, high = edges_of(profile.histograms.bins)
        for index, at in zip(*np.nonzero(counts), strict=True):
            head = {"layer": entry.key, "channel": int(index)}
            rows.append(head | {"from": low[at], "to": high[at], "count": int(counts[index, at])})
    return rows


def _profiled(record: Record) -> Iterator[tuple[Entry, Profile]]:
    for entry in record.values():
        if entry.profile is not None:
            yield entry, entry.profile
