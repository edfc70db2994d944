"""Records as JSON documents and CSV tables, with the fields that `docs/commands.md` fixes."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from layerscope.fused import Columns
from layerscope.record import Entry, Layer, Record

__all__ = ["document", "dumps", "structure_document", "table"]

_FIGURES = ("mean", "std", "min", "max")


def dumps(document: Any) -> str:
    """JSON text; NaN and infinities, which JSON has no word for, become null."""
    return json.dumps(_finite(document), allow_nan=False, ensure_ascii=False, indent=1)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return value


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


def _compared(record: Record) -> dict[str, Any]:
    what = "layers" if record.entries else "tensors"
    document: dict[str, Any] = {"a": record.subject, "b": record.subject_b, what: [vars(pair) for pair in record.pairs]}
    if record.entries:
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
            "tensors": [_tensor(entry) for entry in record],
            "findings": [vars(one) for one in record.findings],
            "foreign": record.foreign,
            "notes": record.notes,
        }
    if record.kind == "compare":
        return _compared(record) | {"notes": record.notes}
    return {
        "network": record.subject,
        "images": [picture.name for picture in record.pictures],
        "preprocessing": record.provenance.get("preprocessing"),
        "predictions": _predictions(record),
        "layers": [_layer(entry) for entry in record],
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


def table(record: Record) -> str:
    """CSV: one row a tensor for a checkpoint, one row a channel for features, one row a pair for a comparison."""
    data = document(record)
    if record.kind == "weights":
        rows = [{key: value for key, value in row.items() if key != "histogram"} for row in data["tensors"]]
    elif record.kind == "compare":
        rows = data.get("layers", data.get("tensors", []))
    else:
        keys = ("path", "call", "type")
        rows = [{key: layer[key] for key in keys} | row for layer in data["layers"] for row in layer["channels"]]
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            shapes = {key: "x".join(map(str, value)) for key, value in row.items() if isinstance(value, tuple)}
            writer.writerow(row | shapes)
    return text.getvalue()
