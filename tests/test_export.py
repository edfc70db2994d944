"""`layerscope export`: a saved record in other forms."""

from __future__ import annotations

import csv

import pytest
import torch

import layerscope


def rows(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def test_features_as_csv(run, small, tmp_path):
    record = layerscope.features(small, torch.randn(2, 3, 16, 16))
    record.save(tmp_path / "a.layerscope")
    ran = run("export", "a.layerscope", "--csv", "tables")
    assert ran.code == 0
    assert ran.out.split() == ["tables/layers.csv", "tables/channels.csv"]
    layers, channels = rows(tmp_path / "tables" / "layers.csv"), rows(tmp_path / "tables" / "channels.csv")
    assert [row["path"] for row in layers] == [entry.site.path for entry in record.values()]
    assert len(channels) == sum(len(entry.columns.count) for entry in record.values())
    assert float(channels[3]["mean"]) == record["stem"].columns.mean[3]
    assert float(layers[0]["max"]) == record["stem"].total.max[0]
    assert layers[0]["shape"] == "2x6x8x8"


def test_checkpoints_and_comparisons_as_csv(run, checkpoint, tmp_path):
    layerscope.weights(checkpoint).save(tmp_path / "w")
    layerscope.compare(checkpoint, checkpoint).save(tmp_path / "c")
    assert run("export", "w", "--csv", "t").code == run("export", "c", "--csv", "t").code == 0
    names = list(torch.load(checkpoint, weights_only=True))
    assert [row["name"] for row in rows(tmp_path / "t" / "tensors.csv")] == names
    assert {row["status"] for row in rows(tmp_path / "t" / "pairs.csv")} == {"same"}


def test_as_a_tensorboard_log(run, checkpoint, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    record = layerscope.weights(checkpoint)
    record.save(tmp_path / "w")
    assert run("export", "w", "--tensorboard", "log").code == 0
    log = EventAccumulator(str(tmp_path / "log"), size_guidance={"histograms": 0, "images": 0})
    log.Reload()
    (event,) = log.Histograms("weights/0.weight")
    assert event.histogram_value.num == 600
    assert event.histogram_value.max == record["0.weight"].total.max[0]
    assert sum(event.histogram_value.bucket) == 600


def test_nothing_asked_and_nothing_there(run, checkpoint, tmp_path):
    layerscope.weights(checkpoint).save(tmp_path / "w")
    assert run("export", "w").code == 2
    ran = run("export", "none", "--csv", "t")
    assert ran.code == 1
    assert "none: no such record" in ran.line
