"""Where a network runs: names of devices, and a network on another one for a while."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import layerscope
from layerscope.activations.collector import Collector
from layerscope.activations.hooks import observing
from layerscope.errors import DeviceError, UsageError
from layerscope.networks import devices
from layerscope.networks.devices import described, device_named, placed
from layerscope.networks.open import open_network, opened


class Small(nn.Module):
    """A convolution, a batch norm, tied layers, an LSTM, which keeps a second list of its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.rnn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.LSTM(4, 5)
        self.a, self.b = nn.Linear(5, 5), nn.Linear(5, 5)
        self.b.weight = self.a.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.conv(x)).mean((2, 3))
        return self.b(self.a(self.rnn(x)[0]))


def tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    return dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))


def test_none_leaves_a_network_where_it_is_and_names_are_read():
    assert device_named(None) is None
    assert device_named("cpu") == device_named(torch.device("cpu")) == torch.device("cpu")
    assert described(torch.device("cpu")) == "cpu"


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "", "meta"])
def test_what_names_no_device_is_wrong_usage(name):
    with pytest.raises(UsageError, match="give cpu, cuda, cuda:1, mps or auto"):
        device_named(name)


def test_a_device_that_is_not_there_is_one_line(run, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(DeviceError, match=r"device cuda: torch .* finds no CUDA device on this machine; give cpu"):
        device_named("cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(DeviceError, match="finds cuda:0, cuda:1 on this machine"):
        device_named("cuda:7")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    ran = run("layers", "layerscope:alexnet", "--device", "cuda:1")
    assert ran.code == 1
    assert ran.err.startswith("layerscope: device cuda:1: torch ") and len(ran.err.splitlines()) == 1


def test_a_device_that_is_there_and_does_not_compute_is_one_line():
    with pytest.raises(DeviceError, match="device hpu: does not compute with torch"):
        device_named("hpu")


def test_auto_takes_what_computes_and_else_the_cpu(monkeypatch):
    monkeypatch.setattr(devices, "_fault", lambda device: "" if device.type == "mps" else "no")
    assert device_named("auto") == torch.device("mps")
    monkeypatch.setattr(devices, "_fault", lambda device: "no")
    assert device_named("auto") == torch.device("cpu")


def test_a_network_on_another_device_has_its_own_tensors_again_afterwards():
    model = Small()
    before = tensors(model)
    flat = list(model.rnn._flat_weights)
    with placed(model, torch.device("meta")):  # meta stands for a device that every machine has
        assert {tensor.device.type for tensor in tensors(model).values()} == {"meta"}
        assert model.a.weight is model.b.weight
        assert all(weight.is_meta for weight in model.rnn._flat_weights)
        assert [type(value) for value in tensors(model).values()] == [type(value) for value in before.values()]
    after = tensors(model)
    assert list(after) == list(before)
    assert all(after[name] is tensor for name, tensor in before.items())
    assert all(now is then for now, then in zip(model.rnn._flat_weights, flat, strict=True))
    assert model(torch.zeros(2, 3, 8, 8)).shape == (2, 5)


def test_an_exception_inside_gives_them_back_too():
    model = Small()
    before = tensors(model)
    with pytest.raises(KeyboardInterrupt), placed(model, torch.device("meta")):
        raise KeyboardInterrupt
    assert all(tensors(model)[name] is tensor for name, tensor in before.items())


def test_where_a_network_is_already_nothing_is_copied():
    model = Small()
    with opened(model, "cpu") as network:
        assert all(network.model.get_parameter(name) is one for name, one in Small.named_parameters(model))


def test_a_network_that_is_opened_on_a_device_is_there(monkeypatch):
    monkeypatch.setattr("layerscope.networks.open.device_named", lambda device: torch.device("meta"))
    network = open_network("layerscope:alexnet", "meta")
    assert {tensor.device.type for tensor in network.model.parameters()} == {"meta"}


class Tokens(nn.Module):
    """A convolution, windows of its map on the batch axis, tokens, NaN where a value is masked."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act, self.mix = nn.Conv2d(3, 8, 4, 4), nn.ReLU(), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.conv(x))
        return self.mix(x.flatten(2).transpose(1, 2))


def test_statistics_on_a_device_never_ask_for_a_value_while_the_network_runs():
    """The meta device has no values: whoever asks for one there raises. On CUDA it would wait for the device."""
    model, collector = Tokens().to("meta").eval(), Collector(on_device=True)
    collector.begin(2)
    with torch.no_grad(), observing(model, ["conv", "act", "mix"], collector.keep):
        model(torch.zeros(2, 3, 32, 32, device="meta"))
    with pytest.raises((NotImplementedError, RuntimeError)):  # only now are they fetched
        list(collector.entries())
    with pytest.raises((NotImplementedError, RuntimeError)), torch.no_grad():
        host = Collector(on_device=False)
        with observing(model, ["conv"], host.keep):
            model(torch.zeros(2, 3, 32, 32, device="meta"))


@pytest.mark.parametrize("of", ["features", "layers", "unit", "evidence", "compare", "survey"])
def test_every_function_that_runs_a_network_takes_a_device_and_leaves_the_network(of, monkeypatch, tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).eval()
    x = torch.randn(1, 3, 16, 16)
    before = tensors(model)
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(tmp_path / "a.png")
    calls = {
        "features": lambda device: layerscope.features(model, x, device=device),
        "layers": lambda device: layerscope.layers(model, image=x, device=device),
        "unit": lambda device: layerscope.unit(model, x, "0", 1, device=device),
        "evidence": lambda device: layerscope.evidence(model, x, window=8, stride=8, device=device),
        "compare": lambda device: layerscope.compare(model, model, x, device=device),
        "survey": lambda device: layerscope.survey(model, [tmp_path / "a.png"], device=device),
    }
    calls[of]("cpu")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(DeviceError, match="device cuda: "):
        calls[of]("cuda")
    assert all(tensors(model)[name] is tensor for name, tensor in before.items())


def test_a_record_says_where_it_was_made_and_a_batch_has_a_size():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
    sizes: list[int] = []
    model[0].register_forward_pre_hook(lambda _module, args: sizes.append(len(args[0])))
    record = layerscope.features(model, torch.randn(5, 3, 8, 8), batch_size=2)
    assert sizes == [2, 2, 1]
    assert record.provenance["device"] == "cpu"
    with pytest.raises(UsageError, match="batch_size: 0 is not a number of images"):
        layerscope.features(model, torch.randn(5, 3, 8, 8), batch_size=0)
