"""Records as JSON documents and CSV tables, with the fields that `docs/commands.md` fixes."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from layerscope.record import Entry, Layer, Record
from layerscope.stats import Columns
from layerscope.text import finite
from layerscope.views import survey

__all__ = ["document", "dumps", "structure_document", "tables"]

_FIGURES = ("mean", "std", "min", "max")
#: how a cell begins that a spreadsheet takes for a formula (OWASP, "CSV Injection")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def dumps(document: Any) -> str:
    """JSON text; NaN and infinities, which JSON has no word for, become null."""
    return _encodable(json.dumps(finite(document), allow_nan=False, ensure_ascii=False, indent=1))


def _encodable(text: str) -> str:
    """The text with a question mark for what is no character, such as half of a file's name that is no UTF-8."""
    return text.encode("utf-8", "replace").decode()


def _figures(columns: Columns, index: int = 0) -> dict[str, float]:
    return {name: float(np.ravel(getattr(columns, name))[index]) for name in _FIGURES}


def _tensor(entry: Entry) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": entry.key,
        "shape": entry.shape,
        "dtype": entry.dtype,
        "count": math.prod(entry.shape),
    }
    one = entry.total
    row |= _figures(one) if one else dict.fromkeys(_FIGURES)
    row |= {name: int(getattr(one, name).item()) if one else None for name in ("zeros", "nan", "inf")}
    row["histogram"] = None
    if entry.histogram:
        row["histogram"] = {"edges": entry.histogram.edges.tolist(), "counts": entry.histogram.counts.tolist()}
    return row


def _channels(entry: Entry) -> list[dict[str, Any]]:
    if entry.columns is None:
        return []
    columns = [getattr(entry.columns, name).tolist() for name in (*_FIGURES, "zeros")]
    names = ("index", *_FIGURES, "zeros")
    return [dict(zip(names, row, strict=True)) for row in zip(range(len(columns[0])), *columns, strict=True)]


def _layer(entry: Entry) -> dict[str, Any]:
    return {
        "path": entry.site.path,
        "call": entry.site.call,
        "type": entry.type,
        "shape": entry.shape,
        "layout": entry.site.layout,
        "dead": entry.dead,
        "channels": _channels(entry),
    }


def _surveyed(record: Record) -> list[dict[str, Any]]:
    names, rows = survey.names_of(record), []
    for entry in record.values():
        row = _layer(entry)
        if entry.profile is not None:
            for one, found in zip(row["channels"], survey.quantiles_of(entry), strict=False):
                one |= found
            for index, one in enumerate(row["channels"]):
                one |= survey.channel(entry.profile, index, names, record.classes)
            row |= {"effective_rank": entry.profile.rank, "copies": survey.copies(entry.profile)}
        rows.append(row)
    return rows


def _compared(record: Record) -> dict[str, Any]:
    what = "tensors" if record.of_tensors else "layers"
    document: dict[str, Any] = {"a": record.subject, "b": record.subject_b, what: [vars(pair) for pair in record.pairs]}
    if not record.of_tensors:
        document["stages"] = [
            {side: _stage(record[f"{side}:{key}"]) for side, key in zip("ab", pair, strict=True)}
            for pair in record.stages
        ]
        document["predictions"] = _predictions(record)
    return document


def _stage(entry: Entry) -> dict[str, Any]:
    channels = len(entry.columns.count) if entry.columns else 0
    return {"name": entry.site.key, "type": entry.type, "shape": entry.shape, "channels": channels, "dead": entry.dead}


def _predictions(record: Record) -> list[list[dict[str, Any]]]:
    return [[vars(one) for one in top] for top in record.predictions]


def document(record: Record) -> dict[str, Any]:
    """The JSON document of a record, as plain data."""
    if record.kind == "weights":
        return {
            "checkpoint": record.subject,
            "format": record.provenance.get("format"),
            "architecture": record.provenance.get("architecture"),
            "tensors": [_tensor(entry) for entry in record.values()],
            "findings": [vars(one) for one in record.findings],
            "foreign": record.foreign,
            "notes": record.notes,
        }
    if record.kind == "compare":
        return _compared(record) | {"notes": record.notes}
    if record.kind == "survey":
        return {
            "network": record.subject,
            **survey.survey_fields(record),
            "preprocessing": record.provenance.get("preprocessing"),
            "layers": _surveyed(record),
            "never": record.never,
            "notes": record.notes,
        }
    return {
        "network": record.subject,
        "images": [picture.name for picture in record.pictures],
        "preprocessing": record.provenance.get("preprocessing"),
        "predictions": _predictions(record),
        "layers": [_layer(entry) for entry in record.values()],
        "never": record.never,
        "notes": record.notes,
    }


def structure_document(name: str, shape: Sequence[int], layers: Sequence[Layer]) -> dict[str, Any]:
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
    data = document(record)
    if record.kind == "weights":
        return {"tensors": _csv(data["tensors"], leave="histogram")}
    if record.kind == "compare":
        return {"pairs": _csv(data.get("layers", data.get("tensors", [])))}
    channels = [
        {"path": layer["path"], "call": layer["call"], "type": layer["type"]}
        | {name: value for name, value in channel.items() if name != "top"}
        for layer in data["layers"]
        for channel in layer["channels"]
    ]
    layers = [
        {"path": layer["path"], "call": layer["call"], "type": layer["type"], "shape": layer["shape"]}
        | ({"channels": len(layer["channels"]), "dead": len(layer["dead"])})
        | (_figures(entry.total) if entry.total else {})
        | ({"effective_rank": layer["effective_rank"], "copies": len(layer["copies"])} if entry.profile else {})
        for layer, entry in zip(data["layers"], record.values(), strict=True)
    ]
    found = {"layers": _csv(layers), "channels": _csv(channels)}
    if record.kind == "survey":
        found |= {"examples": _csv(survey.example_rows(record)), "histograms": _csv(survey.histogram_rows(record))}
    return found


def _csv(rows: list[dict[str, Any]], leave: str = "") -> str:
    text = io.StringIO()
    if rows:
        names = dict.fromkeys(name for row in rows for name in row if name != leave)  # some layers have no figures
        writer = csv.DictWriter(text, list(names), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({key: _cell(value) for key, value in row.items() if key != leave})
    return _encodable(text.getvalue())


def _cell(value: Any) -> Any:
    """A value as a cell. A text that a spreadsheet would run as a formula gets an apostrophe in front, its own mark."""
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
