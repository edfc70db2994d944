"""`layerscope features`: what is shown is what the layer produced, and the network is left as it was."""

from __future__ import annotations

import copy
import io

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

import layerscope
from layerscope.errors import ForwardError, NoMatch
from layerscope.networks.alexnet import AlexNet
from layerscope.views import terminal


def outputs(model: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    with torch.no_grad(), layerscope.capture(model.eval()) as seen:
        model(x)
    return seen


def out_of_place(model: nn.Module) -> nn.Module:
    """A copy that overwrites nothing."""
    twin = copy.deepcopy(model)
    for module in twin.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
    return twin


def test_in_place_operations_change_nothing_of_alexnet():
    torch.manual_seed(0)
    model = AlexNet(5)
    x = torch.randn(1, 3, 224, 224)
    seen, want = outputs(model, x), outputs(out_of_place(model), x)
    assert list(seen) == list(want)
    assert len(seen) == 20
    for name in want:
        assert torch.equal(seen[name], want[name]), name
    # The tutorial's own way is caught by it: the tensor that the convolution returned has been overwritten.
    assert seen["features.0"].min() < 0
    kept = []
    handle = model.features[0].register_forward_hook(lambda module, inputs, output: kept.append(output))
    model(x)
    handle.remove()
    assert kept[0].min() == 0


def test_statistics_of_every_layer_equal_those_of_the_tensors(small):
    x = torch.randn(3, 3, 20, 24)
    record = layerscope.features(small, x)
    want = outputs(out_of_place(small), x)
    assert list(record.entries) == list(want)
    for key, tensor in want.items():
        values = tensor.movedim(1, 0).flatten(1).double()  # (C, B*H*W)
        columns = record[key].columns
        np.testing.assert_allclose(columns.mean, values.mean(1), rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(columns.std, values.std(1), rtol=1e-5)
        np.testing.assert_array_equal(columns.min, values.amin(1))
        np.testing.assert_array_equal(columns.max, values.amax(1))
        np.testing.assert_array_equal(columns.zeros, (values == 0).sum(1))
        assert record[key].shape == tuple(tensor.shape)


def test_a_module_that_runs_twice_has_two_entries(small):
    record = layerscope.features(small, torch.randn(1, 3, 16, 16))
    assert "block.relu" in record.entries
    assert record["block.relu:1"].site.call == 1
    assert not np.array_equal(record["block.relu"].columns.mean, record["block.relu:1"].columns.mean)


def test_a_module_that_never_runs_is_said(small):
    assert layerscope.features(small, torch.randn(1, 3, 16, 16)).never == ["spare"]


def test_layers_by_glob_type_and_container(small):
    x = torch.randn(1, 3, 16, 16)
    keys = lambda layers: list(layerscope.features(small, x, layers=layers).entries)  # noqa: E731
    assert keys("block*") == ["block.conv", "block.relu", "block.relu:1"]
    assert keys("Conv2d") == ["stem", "block.conv"]
    assert keys(["head", "stem"]) == ["stem", "head"]
    assert keys("block") == ["block"]
    with pytest.raises(NoMatch, match=r"no layer matches 'blck'; nearest: block"):
        keys("blck")
    with pytest.raises(NoMatch, match=r"no layer matches 'stem,head'; give each on its own$"):
        keys("stem,head")


def test_maps_recover_the_values(small):
    x = torch.randn(2, 3, 20, 20)
    record, want = layerscope.features(small, x), outputs(out_of_place(small), x)
    for key in ("stem", "block.relu:1"):
        for image in range(2):
            maps = record[key].maps[image]
            step = (maps.hi - maps.lo)[:, None, None] / 254
            assert np.all(np.abs(maps.values() - want[key][image].numpy()) <= step / 2 * 1.001)


def test_dead_channels_are_found(small):
    with torch.no_grad():
        small.bn.weight[2] = 0
        small.bn.bias[2] = -1
    record = layerscope.features(small, torch.randn(2, 3, 16, 16))
    assert record["act"].dead == [2]
    assert record["bn"].dead == []


def test_many_images_are_run_in_batches_with_one_result(small):
    x = torch.randn(37, 3, 8, 8)
    record = layerscope.features(small, x)
    assert record["stem"].shape == (37, 6, 4, 4)
    assert len(record["stem"].maps) == 37
    values = outputs(small, x)["stem"].movedim(1, 0).flatten(1).double()
    np.testing.assert_allclose(record["stem"].columns.std, values.std(1), rtol=1e-6)
    assert record["stem"].columns.count.tolist() == [37 * 16] * 6
    assert len(record.predictions) == 37


def flags(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()]


@pytest.mark.parametrize("fails", [False, True])
def test_the_network_is_left_as_it_was(small, fails):
    small.train()
    small.bn.eval()
    before, state = flags(small), copy.deepcopy(small.state_dict())
    random_state = torch.get_rng_state()
    if fails:
        with pytest.raises(ForwardError):
            layerscope.features(small, torch.randn(1, 5, 8, 8, generator=torch.Generator().manual_seed(0)))
    else:
        layerscope.features(small, torch.ones(2, 3, 8, 8))
    assert flags(small) == before
    assert not any(module._forward_hooks for module in small.modules())
    assert all(torch.equal(small.state_dict()[key], state[key]) for key in state)
    assert all(parameter.grad is None for parameter in small.parameters())
    assert torch.equal(torch.get_rng_state(), random_state)


def test_capture_ends_well_and_in_an_exception(small):
    with layerscope.capture(small, "stem") as seen:
        small(torch.randn(2, 3, 8, 8))
    assert list(seen) == ["stem"]
    with pytest.raises(RuntimeError), layerscope.capture(small):
        raise RuntimeError
    assert not any(module._forward_hooks for module in small.modules())


def test_channels_last_memory_and_half_precision_give_the_same_channels(small):
    x = torch.randn(2, 3, 16, 16)
    want = layerscope.features(small, x)
    other = layerscope.features(copy.deepcopy(small).to(memory_format=torch.channels_last), x)
    np.testing.assert_allclose(other["stem"].columns.mean, want["stem"].columns.mean, rtol=1e-4, atol=1e-6)
    half = layerscope.features(copy.deepcopy(small).bfloat16(), x.bfloat16())
    assert half["stem"].dtype == "bfloat16"
    np.testing.assert_allclose(half["stem"].columns.max, want["stem"].columns.max, rtol=0.05)


class Tokens(nn.Module):
    """Layers whose channels are the last axis."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 4, stride=4)
        self.norm = nn.LayerNorm(8)
        self.act = nn.GELU()
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)  # (B, L, C)
        return self.head(self.act(self.norm(x)).mean(1))


def test_tokens_have_their_channels_last():
    record = layerscope.features(Tokens(), torch.randn(1, 3, 16, 16))
    layouts = {entry.key: entry.site.layout for entry in record.values()}
    assert layouts == {"patch": "NCHW", "norm": "NLC", "act": "NLC", "head": "NC"}
    assert len(record["act"].columns.count) == 8
    assert record["act"].maps[0].shape == (8, 4, 4)


def test_nan_does_not_spread_into_the_statistics(small):
    x = torch.randn(1, 3, 8, 8)
    x[0, 0, 0, 0] = float("nan")
    columns = layerscope.features(small, x)["stem"].columns
    assert (columns.nan > 0).all()
    assert np.isfinite(columns.mean).all() and np.isfinite(columns.max).all()


def test_json_has_the_fixed_fields(run, code, photo):
    document = run("features", f"{code}:small", photo, "--size", 32, "--json").json
    assert document["images"] == ["photo.png"]
    assert set(document["predictions"][0][0]) == {"index", "label", "probability"}
    layer = document["layers"][0]
    assert (layer["path"], layer["call"], layer["type"]) == ("stem", 0, "Conv2d")
    assert (layer["shape"], layer["layout"]) == ([1, 6, 16, 16], "NCHW")
    assert set(layer["channels"][0]) == {"index", "mean", "std", "min", "max", "zeros", "nan", "inf"}
    assert document["never"] == ["spare"]
    assert sum(one["probability"] for one in document["predictions"][0]) == pytest.approx(1)


def test_table_and_notes(run, code, photo):
    ran = run("features", f"{code}:small", photo, "--size", 32)
    assert ran.code == 0
    assert "block.relu:1" in ran.out
    assert "never ran: spare" in ran.out
    assert "preprocessing: resize 32 x 32" in ran.err


@pytest.mark.parametrize("width", [80, 60, 40])
def test_a_narrow_terminal_cuts_neither_a_number_nor_a_path(width):
    path, figures = "features.17.conv.0.2.some.longer.way", ["-0.00385", "0.0113", "1.87e-09", "149/1960"]
    grid = terminal._table("layer", "type", "mean", "std", "max", "dead")
    grid.add_row(path, "BatchNorm2d", *figures)
    console = Console(width=width, file=io.StringIO())
    console.print(grid)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert "".join(line[: lines[0].index("type")].strip() for line in lines[1:]) == path
    whole = "".join("".join(lines[1:]).split())
    if width >= 60:
        assert all(figure in whole for figure in figures)
    assert sorted(whole) == sorted("".join([path, "BatchNorm2d", *figures]))
