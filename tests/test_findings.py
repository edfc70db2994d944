"""Seeded faults are found, each with tensor and channels; a healthy network gives nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import layerscope
from layerscope.commands import demo
from layerscope.tensors.findings import KINDS, duplicates

State = dict[str, torch.Tensor]


@pytest.fixture
def state() -> State:
    """A trained network's state dict: convolutions, a depthwise one, batch norms, a linear layer."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 16, 3, groups=16), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3), nn.Flatten(), nn.Linear(32 * 100, 10),
    )  # fmt: skip
    net(torch.randn(8, 3, 16, 16))
    return net.state_dict()


def found(state: State, folder: Path) -> dict[tuple[str, str], list[int]]:
    torch.save(state, folder / "a.pth")
    record = layerscope.weights(folder / "a.pth")
    assert all(one.kind in KINDS and one.detail for one in record.findings)
    return {(one.kind, one.name): one.channels for one in record.findings}


def zero_filter(state: State) -> None:
    state["6.weight"][5] = 0


def same_filter(state: State) -> None:
    state["6.weight"][9] = state["6.weight"][2]


def scaled_filter(state: State) -> None:
    state["6.weight"][9] = state["6.weight"][2] * -3
    state["6.weight"][30] = state["6.weight"][2] * 1.5


def same_row(state: State) -> None:
    state["8.weight"][7] = state["8.weight"][1]


def collapsed(state: State) -> None:
    state["4.running_var"][3] = 1e-12


def one_nan(state: State) -> None:
    state["3.weight"][4, 0, 1, 2] = float("nan")


def one_infinity(state: State) -> None:
    state["8.bias"][6] = float("-inf")


def spike(state: State) -> None:
    state["6.weight"][11, 3, 0, 0] = 1e4


def spike_in_a_bias(state: State) -> None:
    state["6.bias"][11] = -1e4


def untouched(state: State) -> None:
    state["4.running_mean"].zero_()
    state["4.running_var"].fill_(1)
    state["4.num_batches_tracked"].zero_()


def constant(state: State) -> None:
    state["8.weight"].fill_(0.25)


@pytest.mark.parametrize(
    ("fault", "kind", "name", "channels"),
    [
        (zero_filter, "zero-kernel", "6.weight", [5]),
        (same_filter, "duplicate-kernel", "6.weight", [2, 9]),
        (scaled_filter, "duplicate-kernel", "6.weight", [2, 30]),
        (same_row, "duplicate-kernel", "8.weight", [1, 7]),
        (collapsed, "collapsed-variance", "4.running_var", [3]),
        (one_nan, "non-finite", "3.weight", [4]),
        (one_infinity, "non-finite", "8.bias", [6]),
        (spike, "exploding-scale", "6.weight", [11]),
        (spike_in_a_bias, "exploding-scale", "6.bias", [11]),
        (untouched, "untouched-batchnorm", "4", []),
        (constant, "constant", "8.weight", []),
    ],
)
def test_a_seeded_fault_is_found_and_nothing_else(
    state: State, tmp_path: Path, fault: Callable[[State], None], kind: str, name: str, channels: list[int]
) -> None:
    assert found(state, tmp_path) == {}
    fault(state)
    assert found(state, tmp_path) == {(kind, name): channels}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_faults_in_other_types(state: State, tmp_path: Path, dtype: torch.dtype) -> None:
    for fault in (zero_filter, same_filter, one_nan):
        fault(state)
    cast = {key: value.to(dtype) if value.is_floating_point() else value for key, value in state.items()}
    kinds = {kind for kind, _ in found(cast, tmp_path)}
    assert {"zero-kernel", "duplicate-kernel", "non-finite"} <= kinds


def test_where_a_nan_is(state: State, tmp_path: Path) -> None:
    one_nan(state)
    torch.save(state, tmp_path / "a.pth")
    (finding,) = layerscope.weights(tmp_path / "a.pth").findings
    assert finding.detail.startswith("1 NaN at [4, 0, 1, 2]:")


def test_depthwise_kernels_may_be_alike(state: State, tmp_path: Path) -> None:
    state["3.weight"][5] = state["3.weight"][2]
    assert found(state, tmp_path) == {}


def test_duplicates_are_the_pairs_of_a_brute_force_search() -> None:
    rng = np.random.default_rng(0)
    kernels = rng.normal(size=(700, 24)).astype(np.float32)
    for a, b, noise in ((3, 690, 0.0), (600, 601, 0.002), (10, 20, 0.2), (5, 50, 0.0135), (7, 70, 0.0145)):
        kernels[b] = kernels[a] + noise * rng.normal(size=24).astype(np.float32)
    kernels[99] = 0
    wide = kernels.astype(np.float64)
    norm = np.linalg.norm(wide, axis=1)
    norm[99] = np.inf
    cosine = wide @ wide.T / np.outer(norm, norm)
    want = [(a, b) for a, b in np.argwhere(np.triu(cosine, 1) > 0.9999).tolist()]
    assert (3, 690) in want and (600, 601) in want and (10, 20) not in want
    assert duplicates(kernels, "float32") == want


def test_every_kind_is_in_the_documentation() -> None:
    text = (Path(__file__).parents[1] / "docs" / "findings.md").read_text()
    assert all(f"`{kind}`" in text for kind in KINDS)


@pytest.mark.slow
def test_what_is_found_in_a_trained_mobilenet_is_true(tmp_path: Path) -> None:
    """Every channel that is named never varies on real photos; nothing else is found."""
    checkpoint, photo = demo.files()
    findings = layerscope.weights(checkpoint).findings
    assert {one.kind for one in findings} == {"collapsed-variance"}
    photos = [
        photo.with_name(name) for name in ("chelsea.png", "coffee.png", "astronaut.png", "rocket.jpg", "color.png")
    ]
    norms = [one.name.removesuffix(".running_var") for one in findings]
    inputs = [name[:-1] + "0" for name in norms]  # the convolution in front of each batch norm
    record = layerscope.features(str(checkpoint), photos, layers=inputs, maps=False)
    for name, finding in zip(inputs, findings, strict=True):
        columns = record[name].columns
        assert (columns.std[finding.channels] == 0).all(), name
        assert np.median(columns.std) > 0


def test_what_is_left_out_by_a_pattern_is_still_the_first_kernel(state, tmp_path):
    state["3.weight"][1] = state["3.weight"][0]  # depthwise: equal kernels see unlike inputs
    torch.save(state, tmp_path / "a.pth")
    for match in ((), "3.*"):
        found = layerscope.weights(tmp_path / "a.pth", match=match).findings
        assert not [one for one in found if one.kind == "duplicate-kernel"]
