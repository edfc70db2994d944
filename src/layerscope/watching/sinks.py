"""Weights & Biases and MLflow: our figures, histograms and tables through their public functions.

A sink is any function of (step, scalars, events, record): `watch(..., to=[wandb_sink()])`. `record` is None for figures
that were logged by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from layerscope.records.record import Record
from layerscope.stats.table import figures
from layerscope.watching.events import Event

__all__ = ["Sink", "mlflow_sink", "table", "wandb_sink"]

Sink = Callable[[int, Mapping[str, float], Sequence[Event], Record | None], None]


def table(record: Record) -> dict[str, list[Any]]:
    """Statistics of every tensor and layer as columns of equal length."""
    columns: dict[str, list[Any]] = {}
    for entry in record.values():
        if entry.total is not None:
            for name, values in {"tensor": [entry.key], **figures(entry.total)}.items():
                columns.setdefault(name, []).append(values[0])
    return columns


def wandb_sink(run: Any = None) -> Sink:
    """Scalars, a histogram of every tensor and a table, to a run of Weights & Biases; the current one if None."""
    import wandb

    def sink(step: int, scalars: Mapping[str, float], events: Sequence[Event], record: Record | None) -> None:
        body: dict[str, Any] = {**scalars}
        if record is not None:
            for entry in record.values():
                if entry.histogram:
                    pair = entry.histogram.counts.tolist(), entry.histogram.edges.tolist()
                    body[f"histograms/{entry.key}"] = wandb.Histogram(np_histogram=pair)
            columns = table(record)
            rows = [list(row) for row in zip(*columns.values(), strict=True)]
            body["tensors"] = wandb.Table(columns=list(columns), data=rows)
        if events:
            body["events"] = wandb.Table(columns=["step", "event"], data=[[event.step, event.text] for event in events])
        current: Any = run or wandb.run
        current.log({"watched step": step, **body})

    return sink


def mlflow_sink() -> Sink:
    """Metrics to the active MLflow run, and the table of every chosen step as the artifact `layerscope/STEP.json`."""
    import mlflow

    def sink(step: int, scalars: Mapping[str, float], events: Sequence[Event], record: Record | None) -> None:
        mlflow.log_metrics({name.replace(":", "."): value for name, value in scalars.items()}, step=step)
        if record is not None:
            mlflow.log_dict(table(record), f"layerscope/{step:09}.json")
        if events:
            mlflow.log_text("\n".join(map(str, events)), f"layerscope/{step:09}.events.txt")

    return sink
