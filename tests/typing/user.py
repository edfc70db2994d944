"""A program as a user would write it; mypy --strict checks it against the public interface. Never run."""

from __future__ import annotations

from pathlib import Path
from typing import assert_type

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import layerscope
from layerscope import LayerscopeError, Record
from layerscope.activations.capturing import Captured
from layerscope.checkpoints import open_checkpoint
from layerscope.records.record import Entry, Finding, Histogram, Pair, Prediction
from layerscope.stats import Columns


def look(model: nn.Module, photo: Path) -> Record:
    record = layerscope.features(model, photo, layers=["layer1*", "Conv2d"], ops=True)
    assert_type(record, Record)
    entry = record["layer1.0.conv1"]
    assert_type(entry, Entry)
    assert_type(entry.shape, tuple[int, ...])
    assert_type(entry.dead, list[int])
    assert_type(entry.total, Columns | None)
    if entry.columns is not None:
        assert_type(entry.columns.mean, NDArray[np.float64])
        assert_type(entry.columns.std, NDArray[np.float64])
    for maps in entry.maps:
        assert_type(maps.values(), NDArray[np.float32])
    for name, other in record.items():
        assert_type(name, str)
        assert_type(other, Entry)
    assert_type(record.get("layer1"), Entry | None)
    assert_type(dict(record), dict[str, Entry])
    assert_type(record.predictions, list[list[Prediction]])
    assert_type(record.only("Conv2d"), Record)
    assert_type(len(record), int)
    return record


def keep(record: Record) -> Record:
    assert_type(record.save("tulip.layerscope"), Path)
    assert_type(record.to_html(Path("tulip.html"), budget_bytes=2_000_000), Path)
    assert_type(record.to_csv("tables"), list[Path])
    assert_type(record.to_json("tulip.json"), Path)
    assert_type(record.to_png(Path("pictures"), channels=None, cmap="gray", range="layer"), list[Path])
    assert_type(record.to_tensorboard("runs/tulip"), Path)
    record.show()
    return layerscope.load(Path("tulip.layerscope"))


def healthy(checkpoint: str) -> bool:
    record = layerscope.weights(checkpoint, match="*.weight", bins=20, maps=False)
    assert_type(record.findings, list[Finding])
    histograms = [entry.histogram for entry in record.values()]
    assert_type(histograms, list[Histogram | None])
    return not record.findings


def moved(a: str, b: str) -> float:
    pairs = layerscope.compare(a, b).pairs
    assert_type(pairs, list[Pair])
    return max((pair.max_abs for pair in pairs if pair.max_abs is not None), default=0.0)


def outputs(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    with layerscope.capture(model, layers="*") as seen:
        model(x)
    assert_type(seen, Captured)
    assert_type(layerscope.capture(model, x, layers=[nn.Conv2d, "head"])["head"], Tensor)
    return seen


def names(checkpoint: Path) -> list[str]:
    with open_checkpoint(checkpoint) as opened:
        return [spec.name for spec in opened.specs]


def main() -> None:
    assert_type(layerscope.__version__, str)
    try:
        keep(look(nn.Identity(), Path("tulip.jpg")))
        outputs(nn.Identity(), torch.zeros(1))
        print(healthy("AlexNet.pth"), moved("a.pth", "b.pth"), names(Path("a.pth")))
    except LayerscopeError as error:
        print(error)
