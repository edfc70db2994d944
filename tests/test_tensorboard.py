"""What TensorBoard would show, read back with TensorBoard's own reader."""

from __future__ import annotations

import contextlib
import io
import math
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import layerscope
from layerscope.errors import OutputError
from layerscope.networks.open import open_network
from layerscope.training import Diverged
from layerscope.views.eventfile import crc32c, scalar
from layerscope.views.png import feature_mosaic, kernel_mosaic
from layerscope.views.tensorboard import EventFile, export, histogram, write_graph
from layerscope.watching import open_run
from layerscope.watching.tensors import described

from .test_training import NETS, paint, quick, state

pytest.importorskip("tensorboard")

LAST = """

class Untraceable(Tiny):
    def forward(self, x):
        if torch.jit.is_tracing():
            raise RuntimeError("depends on\\nthe data")
        return super().forward(x)
"""


@pytest.fixture
def nets(tmp_path) -> str:
    path = tmp_path / "nets.py"
    path.write_text(NETS + LAST)
    return f"{path}:"


@pytest.fixture
def colors(tmp_path) -> Path:
    return paint(tmp_path / "colors", ["blue", "green", "red"])


def read(logdir: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(logdir), size_guidance={"histograms": 0, "images": 0, "scalars": 0})
    return events.Reload()


def points(events, tag: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in events.Scalars(tag)]


def pixels(events, tag: str) -> np.ndarray:
    image = events.Images(tag)[-1]
    picture = Image.open(io.BytesIO(image.encoded_image_string)).convert("RGB")
    assert (image.width, image.height) == picture.size
    return np.asarray(picture)


def test_a_training_in_numbers(colors, nets, tmp_path):
    result, _ = quick(colors, nets + "Tiny", tmp_path / "a.pth", epochs=3, logdir=tmp_path / "log", batch_size=2)
    events = read(tmp_path / "log")
    for tag, value in {
        "epoch": lambda epoch: epoch.number,
        "train/accuracy": lambda epoch: epoch.train.accuracy,
        "val/loss": lambda epoch: epoch.val.loss,
        "val/accuracy": lambda epoch: epoch.val.accuracy,
        "learning_rate": lambda epoch: 0.03,
    }.items():  # 24 images in twos: 12 steps an epoch
        assert points(events, tag) == [(12 * e.number, pytest.approx(value(e), rel=1e-6)) for e in result.epochs]
    steps = points(events, "train/loss")
    assert [step for step, _ in steps] == [10, 12, 20, 24, 30, 36]
    (_, ten), (_, two) = steps[:2]
    assert (10 * ten + 2 * two) / 12 == pytest.approx(result.epochs[0].train.loss, rel=1e-6)
    assert events.Graph().node
    assert [step for step, _ in points(events, "gradient norm")] == [1, 12, 24, 36]


def test_tags_are_in_the_order_of_the_network(colors, nets, tmp_path):
    quick(colors, nets + "Tiny", tmp_path / "a.pth", logdir=tmp_path / "log")
    events = read(tmp_path / "log")
    names = ["stem.weight", "stem.bias", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"]
    names = [f"{place} {name}" for place, name in enumerate([*names, "fc.weight", "fc.bias"], 1)]
    weights = [f"weights/{name}" for name in names]
    gradients = [f"gradients/{name}" for name in names if "running" not in name]
    assert sorted(events.Tags()["histograms"]) == sorted(weights + gradients)
    assert {"gradient/1 stem.weight", "update to weight/7 fc.weight"} <= set(events.Tags()["scalars"])
    assert events.Tags()["images"] == ["maps/1 stem", "probe/02.png"]


def test_the_histograms_are_numpys(colors, nets, tmp_path):
    quick(colors, nets + "Tiny", tmp_path / "a.pth", logdir=tmp_path / "log")
    events = read(tmp_path / "log")
    saved = state(tmp_path / "a.pth")
    names = [name for name in saved if not name.endswith("num_batches_tracked")]
    for place, name in enumerate(names, 1):
        point = events.Histograms(f"weights/{place} {name}")[-1]
        values = saved[name].numpy()
        counts, edges = np.histogram(values, 50)
        found = point.histogram_value
        assert point.step == 3
        assert list(found.bucket) == counts.tolist()
        assert list(found.bucket_limit) == edges[1:].tolist()
        assert (found.min, found.max, found.num) == (values.min(), values.max(), values.size)
        assert found.sum == pytest.approx(values.sum(dtype=float), rel=1e-6, abs=1e-9)
        assert found.sum_squares == pytest.approx((values.astype(float) ** 2).sum(), rel=1e-6)


def test_the_maps_are_those_of_the_probe(colors, nets, tmp_path):
    probe = colors / "red" / "03.png"
    result, _ = quick(colors, nets + "Tiny", tmp_path / "a.pth", logdir=tmp_path / "log", probe=probe)
    network = open_network(nets + "Tiny")
    network.model.load_state_dict(state(tmp_path / "a.pth"))
    record = layerscope.features(replace(network, preprocessing=result.preprocessing), probe, "stem")
    kept = open_run(tmp_path / "log").record(3)  # its statistics are of more images
    (ours,), (theirs,) = record["stem"].maps, kept["stem"].maps
    assert np.array_equal(ours.codes, theirs.codes)
    assert np.array_equal(ours.lo, theirs.lo)
    expected = feature_mosaic(kept, kept["stem"], channels=None)
    events = read(tmp_path / "log")
    assert [image.step for image in events.Images("maps/1 stem")] == [1, 3]
    drawn = pixels(events, "maps/1 stem")
    assert np.array_equal(drawn, np.asarray(Image.open(io.BytesIO(expected)).convert("RGB")))


def test_the_run_is_kept_beside_it(colors, nets, tmp_path):
    result, _ = quick(colors, nets + "Tiny", tmp_path / "a.pth", epochs=2, logdir=tmp_path / "log")
    run = open_run(tmp_path / "log")
    assert run.steps == [1, 3, 6]
    assert run.scalars["val/accuracy"] == [(3 * e.number, e.val.accuracy) for e in result.epochs]
    record = run.record(6)
    assert record.pictures[0].name == "02.png"
    assert record["stem"].shape[0] == 6  # the probe and the other held-out images


def test_a_training_that_diverges_says_where(colors, nets, tmp_path):
    lines: list[str] = []
    with pytest.raises(Diverged):
        quick(colors, nets + "Brittle", tmp_path / "a.pth", logdir=tmp_path / "log", say=lines.append)
    (line,) = [line for line in lines if line.startswith("step 3: ")]
    assert "every output is finite" in line  # the factor is outside of any layer


def test_a_network_that_cannot_be_traced_is_trained_all_the_same(colors, nets, tmp_path, capfd):
    result, lines = quick(colors, nets + "Untraceable", tmp_path / "a.pth", logdir=tmp_path / "log")
    (line,) = [line for line in lines if line.startswith("no graph")]
    assert "depends on the data" in line
    assert len(points(read(tmp_path / "log"), "val/loss")) == len(result.epochs)
    assert capfd.readouterr() == ("", "")


def test_drawing_the_graph_changes_nothing(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout())
    model[1].eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with contextlib.closing(EventFile(tmp_path)) as writer:
        assert write_graph(writer, model, torch.randn(1, 3, 8, 8)) == ""
    assert [module.training for module in model.modules()] == [True, True, False, True]
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert any("BatchNorm" in node.name for node in read(tmp_path).Graph().node)


HARD = {
    "nan": torch.tensor([1.0, math.nan, 3.0]),
    "infinite": torch.tensor([-math.inf, 1.0, 2.0, math.inf]),
    "none_finite": torch.tensor([math.nan, math.inf]),
    "empty": torch.zeros(0),
    "huge": torch.tensor([-1e30, 0.0, 1e30]),
    "whole_range": torch.tensor([-3.4e38, 3.4e38]),
    "constant": torch.full((5,), 0.25),
    "brain": torch.tensor([1.0, 2.0, 4.0]).bfloat16(),
    "float8": torch.tensor([1.0, 2.0, 4.0]).to(torch.float8_e4m3fn),
    "scalar": torch.tensor(2.0),
    "whole_numbers": torch.arange(4),
    "truth": torch.tensor([True, False, True]),
}


def test_no_tensor_is_too_hard_for_a_histogram(tmp_path):
    model = nn.Module()
    for name, tensor in HARD.items():
        model.register_buffer(name, tensor)
    with contextlib.closing(EventFile(tmp_path)) as writer:
        found = [histogram(f"weights/{entry.key}", entry) for entry in described(model.state_dict().items())]
        writer.add(3, [one for one in found if one])
    events = read(tmp_path)
    assert events.Tags()["histograms"] == [f"weights/{name}" for name in HARD]
    for name, tensor in HARD.items():
        (point,) = events.Histograms(f"weights/{name}")
        found, values = point.histogram_value, tensor.double()
        finite = values[torch.isfinite(values)]
        assert point.step == 3
        assert (found.num, sum(found.bucket)) == (len(finite.flatten()), len(finite.flatten()))
        if found.num:
            assert (found.min, found.max) == (finite.min(), finite.max())
            assert found.sum == pytest.approx(finite.sum().item(), rel=1e-6)
        else:
            assert (found.min, found.max, found.bucket) == (0, 0, [0])


def test_a_record_of_weights(tmp_path):
    torch.manual_seed(3)
    torch.save(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).state_dict(), tmp_path / "net.pth")
    record = layerscope.weights(tmp_path / "net.pth", bins=7)
    assert export(record, tmp_path / "log") == tmp_path / "log"
    events = read(tmp_path / "log")
    assert events.Tags()["histograms"] == [f"weights/{entry.key}" for entry in record.values() if entry.total]
    for entry in record.values():
        if entry.histogram:
            (point,) = events.Histograms(f"weights/{entry.key}")
            assert point.histogram_value.bucket == entry.histogram.counts.tolist()
            assert point.histogram_value.bucket_limit == entry.histogram.edges[1:].tolist()
    drawn = np.asarray(Image.open(io.BytesIO(kernel_mosaic(record, record["0.weight"]))).convert("RGB"))
    assert np.array_equal(pixels(events, "kernels/0.weight"), drawn)


def test_a_record_of_features_that_was_saved(colors, nets, tmp_path):
    images = [colors / name / "00.png" for name in ("blue", "red")] + [colors / "red" / "01.png"]
    layerscope.features(nets + "Tiny", images, "Conv2d").save(tmp_path / "r.layerscope")
    record = layerscope.load(tmp_path / "r.layerscope")
    export(record, tmp_path / "log")
    events = read(tmp_path / "log")
    names = ["00.png", "00.png (2)", "01.png"]
    assert events.Tags()["images"] == [f"images/{name}" for name in names] + [f"maps of {name}/stem" for name in names]
    assert events.Tags()["histograms"] == []
    for image, name in enumerate(names):
        assert np.array_equal(pixels(events, f"images/{name}"), record.pictures[image].pixels)
        drawn = feature_mosaic(record, record["stem"], image, channels=None)
        expected = np.asarray(Image.open(io.BytesIO(drawn)).convert("RGB"))
        assert np.array_equal(pixels(events, f"maps of {name}/stem"), expected)


def test_without_tensorboard_all_but_the_graph_is_written(colors, nets, tmp_path):
    script = (
        "import sys; sys.modules['tensorboard'] = None; from pathlib import Path;"
        "from layerscope.training import train;"
        f"train(Path({str(colors)!r}), {nets + 'Tiny'!r}, Path({str(tmp_path / 'a.pth')!r}), size=16, batch_size=8, "
        f"logdir=Path({str(tmp_path / 'log')!r}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "no graph for TensorBoard: tensorboard is not installed; pip install" in done.stdout
    events = read(tmp_path / "log")
    assert points(events, "val/loss")
    assert not events.Tags()["graph"]


@pytest.mark.parametrize("size", [0, 1, 4, 255, 256, 257, 5000])
def test_the_checksums_are_tensorboards(size):
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import crc32c as theirs

    data = np.random.default_rng(size).bytes(size)
    assert crc32c(data) == theirs(data)


def test_a_disk_that_is_full_for_a_moment(tmp_path, monkeypatch):
    with contextlib.closing(EventFile(tmp_path)) as file:
        file.add(1, [scalar("a", 1.0)])
        real = file._file

        class Full:
            def __getattr__(self, name):
                return getattr(real, name)

            def write(self, data):
                real.write(data[:7])
                raise OSError(28, "No space left on device")

        monkeypatch.setattr(file, "_file", Full())
        with pytest.raises(OutputError, match="No space left on device"):
            file.add(2, [scalar("a", 2.0)])
        monkeypatch.setattr(file, "_file", real)
        file.add(3, [scalar("a", 3.0)])
    assert points(read(tmp_path), "a") == [(1, 1.0), (3, 3.0)]


def test_a_log_that_cannot_be_written(colors, nets, tmp_path):
    with pytest.raises(OutputError, match=r"nets.py.* cannot be written"):
        quick(colors, nets + "Tiny", tmp_path / "a.pth", logdir=tmp_path / "nets.py")


def test_what_was_written_is_there_however_it_ends(colors, nets, tmp_path):
    def interrupt(_done, _of, text):
        if "validation" in text:
            raise KeyboardInterrupt

    before = set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt):
        quick(colors, nets + "Tiny", tmp_path / "a.pth", logdir=tmp_path / "log", progress=interrupt)
    assert set(threading.enumerate()) <= before
    assert points(read(tmp_path / "log"), "train/loss")
