"""The public functions: typed, documented, with an example that runs."""

from __future__ import annotations

import doctest
import inspect
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import layerscope

PUBLIC = [name for name in layerscope.__all__ if isinstance(getattr(layerscope, name), FunctionType)]
WITH_EXAMPLE = [*PUBLIC, "watch"]


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> dict[str, Any]:
    """What the examples stand on: a ResNet-18 as module and file, a photo, a folder of two classes, a training."""
    from layerscope.networks.build import build

    folder = tmp_path_factory.mktemp("world")
    torch.manual_seed(0)
    model = build("torchvision:resnet18").eval()
    torch.save(model.state_dict(), folder / "net.pth")
    for number, name in enumerate(
        ["tulip.jpg", *(f"flowers/{c}/{n}.png" for c in ("daisy", "tulip") for n in range(6))]
    ):
        pixels = np.random.default_rng(number).integers(0, 256, (64, 64, 3), np.uint8)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / name)

    def train(model: nn.Module) -> None:
        optimizer = torch.optim.SGD(model.parameters(), 1e-3)
        for _ in range(2):
            optimizer.zero_grad()
            model.train()(torch.randn(2, 3, 32, 32)).sum().backward()
            optimizer.step()
        model.eval()

    return {
        "folder": folder, "layerscope": layerscope, "model": model, "nn": nn, "Path": Path, "train": train,
        "x": torch.randn(2, 3, 64, 64),
    }  # fmt: skip


@pytest.mark.parametrize("name", WITH_EXAMPLE)
def test_the_example_in_the_docstring_runs(name, world, monkeypatch):
    monkeypatch.chdir(world["folder"])
    text = inspect.getdoc(getattr(layerscope, name)) or ""
    test = doctest.DocTestParser().get_doctest(text, dict(world), name, None, None)
    assert test.examples, "no example"
    heard: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    assert runner.run(test, out=heard.append).failed == 0, "".join(heard)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_argument_has_a_type_and_the_docstring_names_the_errors(name):
    function = getattr(layerscope, name)
    signature = inspect.signature(function)
    for parameter in signature.parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty, parameter
    assert signature.return_annotation is not inspect.Signature.empty
    assert "aises" in (inspect.getdoc(function) or ""), "Raises ..."


@pytest.mark.parametrize("name", ["features", "survey"])
def test_where_images_come_in_batches_the_size_and_the_device_can_be_set(name):
    parameters = inspect.signature(getattr(layerscope, name)).parameters
    assert parameters["batch_size"].default == 16
    assert parameters["device"].default is None
    assert parameters["device"].kind is inspect.Parameter.KEYWORD_ONLY


@pytest.mark.parametrize("name", ["unit", "evidence", "layers", "compare", "train", "view"])
def test_what_runs_a_network_takes_a_device(name):
    assert inspect.signature(getattr(layerscope, name)).parameters["device"].default is None
