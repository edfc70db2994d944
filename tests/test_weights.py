"""`layerscope weights`: every number equals numpy's."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch

import layerscope


def expected(tensor: torch.Tensor, bins: int = 50) -> dict:
    values = tensor.float().numpy()
    counts, edges = np.histogram(values, bins)
    wide = values.astype(np.float64)
    std = wide.std(ddof=1) if values.size > 1 else float("nan")
    return {"mean": wide.mean(), "std": std, "min": values.min(), "max": values.max(), "counts": counts, "edges": edges}


def test_every_number_equals_numpys(run, checkpoint):
    document = run("weights", checkpoint, "--json").json
    state = torch.load(checkpoint, weights_only=True)
    assert [tensor["name"] for tensor in document["tensors"]] == list(state)
    for tensor in document["tensors"]:
        values = state[tensor["name"]]
        assert tensor["shape"] == list(values.shape)
        assert tensor["count"] == values.numel()
        if tensor["name"].endswith("num_batches_tracked"):
            assert tensor["histogram"] is None
            continue
        want = expected(values)
        assert tensor["mean"] == pytest.approx(want["mean"], rel=1e-6, abs=1e-12)
        assert tensor["std"] == pytest.approx(want["std"], rel=1e-6)
        assert (tensor["min"], tensor["max"]) == (want["min"], want["max"])
        assert tensor["histogram"]["counts"] == want["counts"].tolist()
        assert tensor["histogram"]["edges"] == [float(edge) for edge in want["edges"]]
        assert (tensor["nan"], tensor["inf"]) == (0, 0)
        assert tensor["zeros"] == int((values == 0).sum())


def test_min_and_max_are_where_they_belong(run, tmp_path):
    torch.save({"a": torch.tensor([-3.0, 1.0, 7.0])}, tmp_path / "a.pth")
    (tensor,) = run("weights", "a.pth", "--json").json["tensors"]
    assert (tensor["min"], tensor["max"]) == (-3.0, 7.0)
    table = run("weights", "a.pth").out
    header, row = table.splitlines()[:2]
    assert header.split()[:7] == ["name", "shape", "dtype", "mean", "std", "min", "max"]
    assert row.split()[:7] == ["a", "3", "float32", "1.67", "5.03", "-3", "7"]


def test_statistics_are_over_the_finite_values(run, tmp_path):
    values = torch.tensor([1.0, float("nan"), 3.0, float("inf"), 0.0])
    torch.save({"conv.weight": values}, tmp_path / "a.pth")
    document = run("weights", "a.pth", "--json", "--bins", 4).json
    (tensor,) = document["tensors"]
    assert (tensor["nan"], tensor["inf"], tensor["zeros"]) == (1, 1, 1)
    assert (tensor["min"], tensor["max"]) == (0.0, 3.0)
    assert tensor["mean"] == pytest.approx(4 / 3)
    assert tensor["histogram"]["counts"] == np.histogram([1.0, 3.0, 0.0], 4)[0].tolist()
    (finding,) = document["findings"]
    assert (finding["name"], finding["kind"], finding["channels"]) == ("conv.weight", "non-finite", [1, 3])


def test_match_selects_and_says_what_is_near(run, checkpoint):
    names = [tensor["name"] for tensor in run("weights", checkpoint, "--match", "0.*", "--json").json["tensors"]]
    assert names == ["0.weight", "0.bias"]
    ran = run("weights", checkpoint, "--match", "0.wieght")
    assert ran.code == 1
    assert "no tensor matches '0.wieght'; nearest: 0.weight" in ran.line


def test_csv_has_a_row_a_tensor(run, checkpoint, tmp_path):
    assert run("weights", checkpoint, "--csv", "table.csv").code == 0
    rows = list(csv.DictReader((tmp_path / "table.csv").read_text().splitlines()))
    state = torch.load(checkpoint, weights_only=True)
    assert [row["name"] for row in rows] == list(state)
    assert float(rows[0]["max"]) == float(state["0.weight"].max())
    assert rows[0]["shape"] == "8x3x5x5"


def test_findings_of_seeded_faults(run, tmp_path):
    torch.manual_seed(0)
    state = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8)).state_dict()
    state["0.weight"][2] = 0
    torch.save(state, tmp_path / "a.pth")
    kinds = {(one["kind"], one["name"]): one["channels"] for one in run("weights", "a.pth", "--json").json["findings"]}
    assert kinds == {("zero-kernel", "0.weight"): [2], ("untouched-batchnorm", "1"): []}
    state["1.running_mean"] += 0.5
    state["1.running_var"][5] = 1e-12
    torch.save(state, tmp_path / "a.pth")
    kinds = {(one["kind"], one["name"]): one["channels"] for one in run("weights", "a.pth", "--json").json["findings"]}
    assert kinds == {("zero-kernel", "0.weight"): [2], ("collapsed-variance", "1.running_var"): [5]}


def test_a_healthy_checkpoint_has_no_finding(run, checkpoint):
    assert run("weights", checkpoint, "--json").json["findings"] == []


def test_from_python(checkpoint):
    record = layerscope.weights(checkpoint, match="0.*", bins=7)
    assert [entry.key for entry in record.values()] == ["0.weight", "0.bias"]
    assert record["0.weight"].histogram.counts.sum() == 8 * 3 * 25
    per_kernel = torch.load(checkpoint, weights_only=True)["0.weight"].flatten(1).double()
    np.testing.assert_allclose(record["0.weight"].columns.mean, per_kernel.mean(1), rtol=1e-6)
    with pytest.raises(layerscope.LayerscopeError, match="bins: 0"):
        layerscope.weights(checkpoint, bins=0)


@pytest.mark.parametrize("bins", [1, 2, 50, 333])
def test_bins(checkpoint, bins):
    record = layerscope.weights(checkpoint, bins=bins)
    for name, tensor in torch.load(checkpoint, weights_only=True).items():
        if record[name].histogram:
            assert record[name].histogram.counts.tolist() == np.histogram(tensor.float().numpy(), bins)[0].tolist()


def test_what_a_checkpoint_says_beside_its_tensors_stays_apart(tmp_path):
    said = {"format": 2, "images": "flowers", "layerscope": "mine", "seed": 2**60}
    torch.save({"state_dict": {"w": torch.ones(2, 2)}, **said}, tmp_path / "a.pth")
    layerscope.weights(tmp_path / "a.pth").save(tmp_path / "a.layerscope")
    found = layerscope.load(tmp_path / "a.layerscope").provenance
    assert found["format"] == "PyTorch" and "images" not in found
    assert found["layerscope"] == layerscope.__version__
    assert found["extra"] == {**said, "seed": str(2**60)}  # more than a page's numbers hold


def test_counters_of_stacked_networks_are_a_tensor(tmp_path):
    torch.save({"bn.num_batches_tracked": torch.tensor([3, 4, 5])}, tmp_path / "a.pth")
    assert layerscope.weights(tmp_path / "a.pth")["bn.num_batches_tracked"].total.mean == 4
