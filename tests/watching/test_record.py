"""What is kept of a chosen step."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

import layerscope
from layerscope.records.maps import NONFINITE, Maps
from layerscope.records.record import Entry
from layerscope.records.sites import Site
from layerscope.stats import distribution
from layerscope.watching import open_run
from layerscope.watching.outputs import fitted
from layerscope.watching.tensors import described

from .conftest import batch, learn


def test_weights_gradients_and_updates_of_the_step(net, quiet, tmp_path):
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    with quiet(net):
        learn(net, optimizer)
        before = {name: one.detach().clone() for name, one in net.named_parameters()}
        learn(net, optimizer)
    record = open_run(tmp_path / "run").record(2)
    for name, parameter in net.named_parameters():
        weight, gradient, update = record[name], record[f"{name}/grad"], record[f"{name}/update"]
        for entry, values in ((weight, parameter), (gradient, parameter.grad)):
            values = values.detach().numpy()
            counts, edges = np.histogram(values, 50)
            assert entry.histogram.counts.tolist() == counts.tolist()
            assert entry.histogram.edges.tolist() == edges.tolist()
            assert entry.total.mean[0] == pytest.approx(values.mean(dtype=float), rel=1e-6, abs=1e-12)
        change = (parameter.detach() - before[name]).double()
        assert update.total.std[0] == pytest.approx(change.std().item(), rel=1e-5)
        assert update.total.max[0] == pytest.approx(change.max().item(), rel=1e-5)
    scalars = open_run(tmp_path / "run").scalars
    ratio = (net.conv.weight.detach() - before["conv.weight"]).std() / net.conv.weight.std()
    assert scalars["update to weight/conv.weight"][1] == (2, pytest.approx(ratio.item(), rel=1e-4))
    size = net.fc.weight.grad.double().square().mean().sqrt()
    assert scalars["gradient/fc.weight"][1] == (2, pytest.approx(size.item(), rel=1e-5))


def test_the_training_batch_and_the_probe(net, quiet, tmp_path):
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    probe, seen = torch.randn(3, 3, 10, 10), []
    net.conv.register_forward_hook(lambda _m, _i, output: seen.append(output.detach().clone()))
    with quiet(net, probe=probe):
        learn(net, optimizer)
    trained = seen[0]
    record = open_run(tmp_path / "run").record(1)
    expected = trained.double().mean((0, 2, 3))
    assert record["conv/batch"].columns.mean.tolist() == pytest.approx(expected.tolist(), rel=1e-5, abs=1e-8)
    now = layerscope.features(net, probe)
    for key in ("conv", "relu", "fc"):
        assert np.array_equal(record[key].columns.mean, now[key].columns.mean)
        for mine, theirs in zip(record[key].maps, now[key].maps, strict=True):
            assert np.array_equal(mine.codes, theirs.codes)
    assert [picture.pixels.shape for picture in record.pictures] == [(10, 10, 3)] * 3


def test_many_small_tensors_have_the_figures_of_distribution():
    torch.manual_seed(1)
    tensors = {f"a{number}": torch.randn(64) * 10.0 ** (number - 3) for number in range(7)}
    tensors |= {
        "same": torch.ones(64),
        "again": torch.ones(64),
        "zero": torch.zeros(64),
        "signed": -torch.zeros(64),
        "near": torch.tensor([1.0, 1.0000001] * 32),
        "long": torch.randn(5000),
    }
    tensors |= {"nan": torch.randn(64).index_fill(0, torch.tensor([3]), torch.nan), "wide": torch.randn(64) * 3e38}
    tensors |= {"one": torch.ones(1), "none": torch.zeros(0), "half": torch.randn(64).half()}
    for entry, (name, tensor) in zip(described(tensors.items()), tensors.items(), strict=True):
        found = distribution(tensor.numpy(), str(tensor.dtype)[6:], 50)
        assert entry.key == name
        for ours, theirs in zip(entry.total, found.whole, strict=True):
            assert np.allclose(ours, theirs, rtol=1e-12, equal_nan=True), name
        if found.counts is None:
            assert entry.histogram is None
        else:
            assert entry.histogram.counts.tolist() == found.counts.tolist(), name
            assert entry.histogram.edges.tolist() == found.edges.tolist(), name


def test_only_the_layers_that_are_asked_for(net, quiet, tmp_path):
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with quiet(net, layers="conv", probe=torch.randn(1, 3, 10, 10)):
        learn(net, optimizer)
    record = open_run(tmp_path / "run").record(1)
    assert [entry.key for entry in record.values() if entry.columns is not None] == ["conv", "conv/batch"]


def test_what_is_not_wanted_is_not_there(net, quiet, tmp_path):
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with quiet(net, activations=False, gradients=False, updates=False):
        learn(net, optimizer)
    names = [name for name in net.state_dict() if not name.endswith("num_batches_tracked")]
    assert [entry.key for entry in open_run(tmp_path / "run").record(1).values()] == names


def test_the_probes_maps_stay_within_their_budget(net):
    record = layerscope.features(net, torch.randn(4, 3, 40, 40))
    whole = sum(maps.codes.size for entry in record.values() for maps in entry.maps)
    for budget in (whole, whole // 3, whole // 50, 10, 0):
        entries = fitted(list(record.values()), budget)
        assert sum(maps.codes.size for entry in entries for maps in entry.maps) <= budget
        assert [entry.key for entry in entries] == [entry.key for entry in record.values()]
    (small,) = (entry for entry in fitted(list(record.values()), whole // 3) if entry.key == "conv")
    maps, full = small.maps[0], record["conv"].maps[0]
    assert maps.reduced > 1
    assert maps.values().mean() == pytest.approx(full.values().mean(), abs=float((full.hi - full.lo).max()) / 100)


def test_reduced_codes_are_means_and_what_is_no_number_stays(net):
    codes = np.random.default_rng(0).integers(0, 255, (3, 7, 8)).astype(np.uint8)
    codes[1, 2, 2] = NONFINITE
    ends = np.zeros(3, np.float32), np.ones(3, np.float32)
    entry = Entry(Site("a", 0, "NCHW"), "Conv2d", (1, 3, 7, 8), "float32", maps=[Maps(*ends, codes.shape, codes)])
    (small,) = fitted([entry], 3 * 3 * 3)[0].maps
    assert (small.shape, small.reduced) == ((3, 3, 3), 3)
    padded = np.pad(codes, ((0, 0), (0, 2), (0, 1)), mode="edge").reshape(3, 3, 3, 3, 3).astype(float)
    expected = np.floor(padded.mean((2, 4)) + 0.5)
    expected[1, 0, 0] = NONFINITE
    assert np.abs(small.codes - expected).max() <= 1
    assert small.codes[1, 0, 0] == NONFINITE
    assert (small.codes == NONFINITE).sum() == 1


class Args(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(4, 2)

    def forward(self, a, *, b):
        return self.fc(a) + b


def test_a_probe_of_named_arguments(quiet, tmp_path):
    model = Args()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with quiet(model, probe={"a": torch.ones(3, 4), "b": torch.zeros(2)}):
        cross_entropy(model(torch.randn(5, 4), b=torch.ones(2)), torch.zeros(5, dtype=torch.long)).backward()
        optimizer.step()
    record = open_run(tmp_path / "run").record(1)
    assert record["fc"].shape == (3, 2)
    assert record["fc/batch"].shape == (5, 2)


def test_figures_are_handed_to_sinks(net, quiet):
    optimizer, seen = torch.optim.SGD(net.parameters(), 0.1), []
    with quiet(net, every=2, to=[lambda *given: seen.append(given)]) as watch:
        for _ in range(2):
            learn(net, optimizer)
            watch.step(loss=0.5)
    assert [(step, record is not None) for step, _, _, record in seen] == [(1, True), (1, False), (2, True), (2, False)]
    assert seen[3][1] == {"loss": 0.5}
    assert "gradient norm" in seen[2][1]


@pytest.mark.parametrize("fused", [False, True])
def test_gradients_are_unscaled(net, quiet, tmp_path, fused):
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    optimizer = torch.optim.Adam(net.parameters(), 0.01, fused=fused)
    with quiet(net, scaler=scaler):
        images, targets = batch()
        net.zero_grad()
        scaler.scale(cross_entropy(net(images), targets)).backward()
        scaled = net.fc.weight.grad.double().clone()
        scaler.step(optimizer)
        scaler.update()
    found = open_run(tmp_path / "run").record(1)["fc.weight/grad"].total
    assert found.max[0] == pytest.approx(scaled.max().item() / 1024, rel=1e-5)


@pytest.mark.parametrize("fused", [False, True])
def test_steps_that_a_scaler_skips_are_said(net, quiet, tmp_path, fused):
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    optimizer = torch.optim.Adam(net.parameters(), 0.01, fused=fused)
    with quiet(net, scaler=scaler) as watch:
        for number in range(4):
            images, targets = batch()
            net.zero_grad()
            scaler.scale(cross_entropy(net(images), targets) * (float("inf") if number == 1 else 1)).backward()
            scaler.step(optimizer)
            scaler.update()
    skipped = [event for event in open_run(tmp_path / "run").events if event.kind == "skipped"]
    assert len(skipped) == 1
    assert "1024" in skipped[0].text
    assert not [line for line in watch.said if "non-finite" in line]
