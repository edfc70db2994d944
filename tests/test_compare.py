"""`layerscope compare`: two checkpoints, or two networks on one photo."""

from __future__ import annotations

import copy
import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

import layerscope
from layerscope.comparison import difference, stages_of
from layerscope.errors import UsageError
from layerscope.records.record import Pair, by_change
from layerscope.views import figure, terminal


def test_two_checkpoints(run, checkpoint, tmp_path):
    state = torch.load(checkpoint, weights_only=True)
    other = {key: value.clone() for key, value in state.items()}
    other["0.weight"][1, 0, 2, 3] += 0.5
    other["4.weight"] = torch.zeros(7, 3)
    other["new"] = torch.ones(2)
    del other["4.bias"]
    torch.save(other, tmp_path / "b.pth")
    pairs = {pair["name"]: pair for pair in run("compare", checkpoint, "b.pth", "--json").json["tensors"]}
    assert pairs["0.weight"]["status"] == "changed"
    assert pairs["0.weight"]["max_abs"] == pytest.approx(0.5)
    assert pairs["0.weight"]["mean_abs"] == pytest.approx(0.5 / 600, rel=1e-5)
    a, b = state["0.weight"].flatten().double(), other["0.weight"].flatten().double()
    assert pairs["0.weight"]["cosine"] == pytest.approx(float(a @ b / a.norm() / b.norm()), rel=1e-9)
    assert pairs["0.bias"]["status"] == "same" and pairs["0.bias"]["cosine"] == 1
    assert (pairs["4.weight"]["status"], pairs["4.weight"]["shape_b"]) == ("shape", [7, 3])
    assert (pairs["4.bias"]["status"], pairs["4.bias"]["shape_b"]) == ("only-a", None)
    assert (pairs["new"]["status"], pairs["new"]["max_abs"]) == ("only-b", None)


def test_the_table_is_sorted_by_change(run, checkpoint, tmp_path):
    state = torch.load(checkpoint, weights_only=True) | {"1.num_batches_tracked": torch.tensor(5)}
    torch.save(state, tmp_path / "a.pth")
    state["4.bias"] = state["4.bias"] + 3
    state["2.bias"] = state["2.bias"] + 1
    state["1.num_batches_tracked"] = torch.tensor(500)  # no kernel changes by as much
    torch.save(state, tmp_path / "b.pth")
    ran = run("compare", "a.pth", "b.pth", "--out", "out")
    assert ran.code == 0
    names = [line.split()[0] for line in ran.out.splitlines() if " changed " in line]
    assert names == ["4.bias", "2.bias", "1.num_batches_tracked"]
    assert "same" in ran.out.splitlines()[-1]
    assert (tmp_path / "out" / "changes.png").exists()


def test_the_stages_of_both_are_side_by_side_in_the_terminal(run, code, photo):
    ran = run("compare", f"{code}:small", f"{code}:small", "--image", photo)
    assert ran.code == 0
    lines = ran.out.splitlines()
    start = next(at for at, line in enumerate(lines) if "the same stage" in line)
    assert lines[start + 1].split() == ["A", "shape", "dead", "B", "shape", "dead"]
    name, shape, dead, *other = lines[start + 2].split()
    assert [name, shape, dead] == other, "both have one name: neither may take the place of the other"


def test_nan_is_the_greatest_change_and_single_numbers_are_behind():
    def pair(name, mean, *shape):
        return Pair(name, shape, shape, "changed", mean, mean, 0.0)

    left = Pair("left", (2,), None, "only-a")
    pairs = [pair("small", 1.0, 3), pair("counter", 900.0), left, pair("great", 2.0, 3), pair("nan", math.nan, 3)]
    assert [one.name for one in by_change(pairs)] == ["nan", "great", "small", "counter"]


def test_one_is_said_as_one(run, tmp_path):
    torch.save({"only": torch.ones(1)}, tmp_path / "one.pth")
    assert "\n1 tensor, 1 value (" in run("weights", "one.pth").out


def test_two_networks_of_the_same_names(small, code, photo, run, tmp_path):
    other = copy.deepcopy(small)
    with torch.no_grad():
        other.head.weight += 1
    torch.save(small.state_dict(), tmp_path / "a.pth")
    torch.save(other.state_dict(), tmp_path / "b.pth")
    a, b = (f"{code}:small={tmp_path / name}" for name in ("a.pth", "b.pth"))
    document = run("compare", a, b, "--image", photo, "--json").json
    status = {pair["name"]: pair["status"] for pair in document["layers"]}
    assert status["stem"] == status["block.relu:1"] == "same"
    assert status["head"] == "changed"
    assert document["stages"][0]["a"]["name"] == document["stages"][0]["b"]["name"]


def test_two_architectures_side_by_side(run, photo, tmp_path):
    ran = run(
        "compare", "layerscope:alexnet", "torchvision:squeezenet1_1", "--image", photo, "--out", "out", "--record", "r"
    )
    assert ran.code == 0
    assert "the same stage of both" in ran.out
    record = layerscope.load(tmp_path / "r")
    sizes = [(record[f"a:{a}"].maps[0].shape[1], record[f"b:{b}"].maps[0].shape[1]) for a, b in record.stages]
    assert len(sizes) >= 3
    assert all(0.5 < a / b < 2 for a, b in sizes)
    data = figure.side_by_side(record)
    drawn = Image.open(io.BytesIO(data))
    assert (tmp_path / "out" / "stages.png").read_bytes() == data
    assert drawn.height > 200 * len(sizes)


def test_differences_at_the_edges():
    one, zero = np.ones(3, np.float32), np.zeros(3, np.float32)
    assert difference(zero, zero) == (0, 0, 1)
    assert difference(one, zero) == (1, 1, 0)
    assert difference(one, -one) == (2, 2, -1)
    assert difference(zero[:0], zero[:0]) == (0, 0, 1)
    assert all(np.isnan(value) for value in difference(np.array([1, np.nan]), np.array([1, 1])))


def test_differences_of_more_than_one_block():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 1_500_000)).astype(np.float32)
    high, mean, cosine = difference(a, b)
    assert high == pytest.approx(np.abs(a.astype(float) - b).max())
    assert mean == pytest.approx(np.abs(a.astype(float) - b).mean())
    assert cosine == pytest.approx(
        a.astype(float) @ b / np.linalg.norm(a.astype(float)) / np.linalg.norm(b.astype(float))
    )


def test_stages_of_other_sizes_have_no_partner(small):
    first, second = (list(layerscope.features(small, torch.randn(1, 3, side, side)).values()) for side in (16, 48))
    assert stages_of(first, first) == [("block.relu:1", "block.relu:1")]
    assert stages_of(first, second) == stages_of(second, first) == []


def test_networks_need_an_image(small):
    with pytest.raises(UsageError, match="image="):
        layerscope.compare(small, small)
    assert stages_of([], []) == []


def test_a_saved_comparison_of_checkpoints_holds_the_kernels_of_both(run, checkpoint, tmp_path):
    state = torch.load(checkpoint, weights_only=True)
    state["0.weight"] = state["0.weight"] + 0.5
    state["4.weight"] = torch.zeros(7, 3)
    state["new"] = torch.ones(2)
    torch.save(state, tmp_path / "b.pth")
    ran = run("compare", checkpoint, "b.pth", "--record", "r", "--json")
    assert {pair["name"] for pair in ran.json["tensors"]} >= {"0.weight", "new"}, "what is saved changes no document"
    record = layerscope.load(tmp_path / "r")
    for side, path in (("a", checkpoint), ("b", tmp_path / "b.pth")):
        for entry in layerscope.weights(path).values():
            mine = record[f"{side}:{entry.key}"]
            assert (mine.shape, mine.type, len(mine.maps)) == (entry.shape, entry.type, len(entry.maps))
            for ours, theirs in zip(mine.maps, entry.maps, strict=True):
                np.testing.assert_array_equal(ours.codes, theirs.codes)
    assert [note for note in record.notes if "new" in note] == ["1 tensor in B alone: new"]
    assert any(note.startswith("1 tensor of other shapes") and "4.weight" in note for note in record.notes)
    assert not layerscope.comparison.compare_checkpoints(checkpoint, tmp_path / "b.pth", maps=False).entries


def test_complex_numbers_and_infinities():
    a, b = np.array([1 + 1j, 2 + 2j]), np.array([1 - 5j, 2 + 2j])
    high, mean, cosine = difference(a, b)
    assert (high, mean) == (6, 1.5)
    assert cosine == pytest.approx((1 - 5 + 8) / math.sqrt(10 * 34))
    assert difference(np.array([np.inf, -np.inf, 2]), np.array([np.inf, -np.inf, 2])) == (0, 0, 1)
    assert difference(np.array([np.inf, 1]), np.array([-np.inf, 1]))[0] == np.inf


class Odd(torch.nn.Module):
    """Gives quantised, sparse and complex values on its way."""

    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(4, 4)
        self.quantised, self.sparse, self.complex = (torch.nn.Identity() for _ in range(3))

    def forward(self, x):
        x = self.quantised(torch.quantize_per_tensor(self.fc(x), 0.1, 0, torch.quint8)).dequantize()
        x = self.sparse(x.to_sparse()).to_dense()
        return self.complex(torch.fft.fft(x)).abs()


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
def test_values_of_every_kind_are_compared():
    torch.manual_seed(0)
    first, x = Odd(), torch.rand(1, 4)
    second = copy.deepcopy(first)
    assert {pair.status for pair in layerscope.compare(first, second, x).pairs} == {"same"}
    second.fc.bias.data += 3
    assert {pair.status for pair in layerscope.compare(first, second, x).pairs} == {"changed"}


def test_each_side_has_its_own_classes(photo, capsys):
    parts = torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 3)
    record = layerscope.compare(torch.nn.Conv2d(3, 4, 3), torch.nn.Sequential(*parts), photo)
    assert [len(top) for top in record.predictions] == [0, 3]
    terminal.show(record)
    said = capsys.readouterr().out
    assert "B sees  class" in said and "A sees" not in said
    with pytest.raises(UsageError, match="2 images; give one"):
        layerscope.compare(parts[0], parts[0], [photo, photo])
