"""Records as JSON documents and CSV tables, with the fields that `docs/commands.md` fixes."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from layerscope import files
from layerscope.records.kinds import KINDS
from layerscope.records.profiles import Examples, Profile, edges_of
from layerscope.records.record import Entry, Layer, Record
from layerscope.stats.table import figures, shown
from layerscope.text import encodable, json_text
from layerscope.views.summary import channels_of

__all__ = ["QUANTILES", "document", "dumps", "quantiles_of", "structure_document", "tables", "write_csv", "write_json"]

Row = dict[str, Any]

#: quantiles of the values of a surveyed channel, by name
QUANTILES = {"q01": 0.01, "q05": 0.05, "median": 0.5, "q95": 0.95, "q99": 0.99}
#: how a cell begins that a spreadsheet takes for a formula (OWASP, "CSV Injection")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def dumps(document: Any) -> str:
    """JSON for people to read; NaN and infinities, which JSON has no word for, become null."""
    return json_text(document, indent=1)


def write_json(record: Record, path: Path | str | None = None) -> Path | None:
    """Write the JSON document, or print it where there is no path. Raises OutputError."""
    text = dumps(document(record))
    if path is None:
        print(text, flush=True)
        return None
    return files.save(f"{text}\n".encode(), Path(path))


def write_csv(record: Record, folder: Path | str) -> list[Path]:
    """Write the tables into a folder, a file a table. Raises OutputError."""
    return [files.save(text.encode(), Path(folder) / f"{name}.csv") for name, text in tables(record).items()]


def document(record: Record) -> Row:
    """The JSON document of a record, as plain data."""
    subjects = zip(KINDS[record.kind].subjects, (record.subject, record.subject_b), strict=False)
    return dict(subjects) | _BODIES[record.kind](record) | {"notes": record.notes}


def _weights(record: Record) -> Row:
    return {
        "format": record.provenance.get("format"),
        "architecture": record.provenance.get("architecture"),
        "tensors": [_tensor(entry) for entry in record.values()],
        "findings": [vars(finding) for finding in record.findings],
        "foreign": record.foreign,
    }


def _features(record: Record) -> Row:
    return {
        "images": [picture.name for picture in record.pictures],
        "preprocessing": record.provenance.get("preprocessing"),
        "predictions": _predictions(record),
        "layers": [_layer(entry) for entry in record.values()],
        "never": record.never,
    }


def _compare(record: Record) -> Row:
    pairs = [vars(pair) for pair in record.pairs]
    if record.of_tensors:
        return {"tensors": pairs}
    stages = [
        {side: _stage(record[f"{side}:{key}"]) for side, key in zip("ab", pair, strict=True)} for pair in record.stages
    ]
    return {"layers": pairs, "stages": stages, "predictions": _predictions(record)}


def _survey(record: Record) -> Row:
    known, alike = record.provenance, record.similarity
    similarity = alike and {"layers": alike.keys, "cka": alike.value.tolist(), "minibatches": alike.minibatches}
    return {
        "images": known.get("images", 0),
        "of": known.get("of", 0),
        "broken": known.get("broken", []),
        "classes": record.classes,
        "similarity": similarity,
        "preprocessing": known.get("preprocessing"),
        "layers": [_surveyed(record, entry) for entry in record.values()],
        "never": record.never,
    }


_BODIES: dict[str, Callable[[Record], Row]] = {
    "weights": _weights,
    "features": _features,
    "compare": _compare,
    "survey": _survey,
}


def _tensor(entry: Entry) -> Row:
    histogram = entry.histogram
    return {
        "name": entry.key,
        "shape": entry.shape,
        "dtype": entry.dtype,
        "count": math.prod(entry.shape),
        **(_total(entry) if entry.total else dict.fromkeys(statistic.name for statistic in shown())),
        "histogram": histogram and {"edges": histogram.edges.tolist(), "counts": histogram.counts.tolist()},
    }


def _total(entry: Entry) -> Row:
    """The figures of a whole layer or tensor by name; none where there is no distribution."""
    return {name: values[0] for name, values in figures(entry.total).items()} if entry.total else {}


def _layer(entry: Entry, **more: Sequence[Any]) -> Row:
    """`more`: what else is known of the channels, by name."""
    values = {"index": range(channels_of(entry)), **figures(entry.columns), **more} if entry.columns else {}
    return {
        "path": entry.site.path,
        "call": entry.site.call,
        "type": entry.type,
        "shape": entry.shape,
        "layout": entry.site.layout,
        "dead": entry.dead,
        "channels": [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)],
    }


def _stage(entry: Entry) -> Row:
    channels = channels_of(entry)
    return {"name": entry.site.key, "type": entry.type, "shape": entry.shape, "channels": channels, "dead": entry.dead}


def _predictions(record: Record) -> list[list[Row]]:
    return [[vars(prediction) for prediction in top] for top in record.predictions]


def _surveyed(record: Record, entry: Entry) -> Row:
    profile = entry.profile
    if profile is None:
        return _layer(entry)
    names = {image.number: image.name for image in record.shown}
    top = [
        list(_top(profile.examples, index, names)) if profile.examples else [] for index in range(channels_of(entry))
    ]
    copies = [{"a": a, "b": b, "correlation": r} for a, b, r in profile.redundant_channels]
    row = _layer(entry, **quantiles_of(entry), **_meaning(profile, record.classes), top=top)
    return row | {"effective_rank": profile.rank, "copies": copies}


def quantiles_of(entry: Entry) -> dict[str, list[float]]:
    """`q01` to `q99` of the channels of a layer that has histograms; else nothing."""
    spread, columns = entry.profile and entry.profile.histograms, entry.columns
    if not spread or columns is None:
        return {}
    values = spread.quantiles(list(QUANTILES.values()), columns.count, columns.min, columns.max)  # (n, C)
    return dict(zip(QUANTILES, values.tolist(), strict=True))


def _meaning(profile: Profile, classes: Sequence[str]) -> dict[str, Sequence[Any]]:
    """What the channels follow over the data set."""
    silent = {"silent": profile.inactive.tolist()}
    if profile.preferred_class is None or profile.selectivity is None or profile.eta_squared is None:
        return silent
    names = [classes[best] if 0 <= best < len(classes) else None for best in profile.preferred_class.tolist()]
    return silent | {
        "class": names,
        "selectivity": profile.selectivity.tolist(),
        "explained": profile.eta_squared.tolist(),
    }


def _top(examples: Examples, index: int, names: dict[int, str]) -> Iterator[Row]:
    parts = examples.image[index], examples.value[index], examples.position[index]
    for image, value, position in zip(*parts, strict=True):
        if image >= 0:
            name = names.get(int(image), f"image {int(image)}")
            yield {"image": name, "number": int(image), "value": float(value), "position": position.tolist()}


def structure_document(name: str, shape: Sequence[int], layers: Sequence[Layer]) -> Row:
    """The JSON document of `layerscope layers`."""
    fields = ("path", "type", "leaf", "shape", "parameters", "trainable", "calls")
    return {
        "network": name,
        "input": list(shape),
        "layers": [{name: getattr(layer, name) for name in fields} for layer in layers],
    }


def tables(record: Record) -> dict[str, str]:
    """CSV texts by name: `tensors` of a checkpoint, `pairs` of a comparison, `layers` and `channels` of features.

    A survey has `examples` and `histograms` too.
    """
    return _TABLES[record.kind](record, document(record))


def _layer_tables(record: Record, data: Row) -> dict[str, str]:
    layers, channels = [], []
    for layer, entry in zip(data["layers"], record.values(), strict=True):
        head = {name: layer[name] for name in ("path", "call", "type")}
        row = head | {"shape": layer["shape"], "channels": len(layer["channels"]), "dead": len(layer["dead"])}
        row |= _total(entry)
        if entry.profile:
            row |= {"effective_rank": layer["effective_rank"], "copies": len(layer["copies"])}
        layers.append(row)
        channels += [head | channel for channel in layer["channels"]]
    return {"layers": _csv(layers, first=4), "channels": _csv(channels, leave="top", first=5)}


def _survey_tables(record: Record, data: Row) -> dict[str, str]:
    examples = [
        {"layer": key, "channel": channel["index"], "place": place, **_flat(example)}
        for key, layer in zip(record.entries, data["layers"], strict=True)
        for channel in layer["channels"]
        for place, example in enumerate(channel.get("top", ()), 1)
    ]
    return _layer_tables(record, data) | {"examples": _csv(examples), "histograms": _csv(list(_bins(record)))}


def _flat(example: Row) -> Row:
    y, x = example["position"]
    return {name: example[name] for name in ("image", "number", "value")} | {"y": y, "x": x}


def _bins(record: Record) -> Iterator[Row]:
    """The bins of all histograms that hold something, in the order of the values."""
    for entry in record.values():
        if entry.profile and entry.profile.histograms:
            counts = entry.profile.histograms.counts
            low, high = edges_of(entry.profile.histograms.bins)
            for index, at in zip(*np.nonzero(counts), strict=True):
                head = {"layer": entry.key, "channel": int(index), "from": low[at], "to": high[at]}
                yield head | {"count": int(counts[index, at])}


_TABLES: dict[str, Callable[[Record, Row], dict[str, str]]] = {
    "weights": lambda _, data: {"tensors": _csv(data["tensors"], leave="histogram")},
    "features": _layer_tables,
    "compare": lambda record, data: {"pairs": _csv(data["tensors" if record.of_tensors else "layers"])},
    "survey": _survey_tables,
}


def _csv(rows: list[Row], leave: str = "", first: int = 7) -> str:
    """`first`: how many statistics 0.1.0 had in this table. Later ones stand behind all else, so that columns stay."""
    text = io.StringIO()
    if rows:
        behind = [statistic.name for statistic in shown()][first:]
        names = dict.fromkeys(name for row in rows for name in row if name != leave)  # some layers have no figures
        writer = csv.DictWriter(text, sorted(names, key=behind.__contains__), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({key: _cell(value) for key, value in row.items() if key != leave})
    return encodable(text.getvalue())


def _cell(value: Any) -> Any:
    """A value as a cell. A text that a spreadsheet would run as a formula gets an apostrophe in front, its own mark."""
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
