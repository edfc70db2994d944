"""What is said of a network that ails: channels that die, layers that explode or vanish."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from layerscope.watching import open_run

from .conftest import learn

FASHION = Path("/usr/share/datasets/fashion-mnist")


def kill(layer: nn.Conv2d, channels: list[int]) -> None:
    with torch.no_grad():
        layer.weight[channels] = 0
        layer.bias[channels] = -1.0


def plain() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 12, 3), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Conv2d(12, 8, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(32, 4),
    )  # fmt: skip


def test_channels_that_die_are_named_once(quiet, tmp_path):
    model = plain()
    with torch.no_grad():
        model[0].bias.fill_(1.0)  # all alive
    optimizer = torch.optim.SGD(model.parameters(), 1e-4)
    with quiet(model) as watch:
        for step in range(1, 6):
            if step == 2:
                kill(model[0], [3, 5])
            if step == 4:
                kill(model[0], [3, 5, 7])
            learn(model, optimizer, 16)
    run = open_run(tmp_path / "run")
    dead = [event for event in run.events if event.kind == "dead" and event.layer == "1"]
    assert [(event.step, event.channels) for event in dead] == [(2, [3, 5]), (4, [7])]
    assert dead[0].text == "1 (after 0) lost 2 of 12 channels (2 dead now)"
    assert dead[1].text == "1 (after 0) lost 1 of 12 channels (3 dead now)"
    assert f"step 4: {dead[1].text}" in watch.said
    assert not [event for event in run.events if event.kind == "dead" and event.layer == "2"]  # handed on
    assert dict(run.scalars["dead/1"])[5] == 3 / 12
    assert run.record(5)["1/batch"].dead == [3, 5, 7]


def test_a_channel_that_the_probe_wakes_is_not_dead(quiet, tmp_path):
    model = plain()
    with torch.no_grad():
        model[0].bias.fill_(1.0)
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    with quiet(model, probe=torch.full((2, 3, 10, 10), 1000.0)):
        learn(model, optimizer, 16)
        with torch.no_grad():
            model[0].weight[4] = 0.1
            model[0].bias[4] = -30.0  # above zero for the probe alone
        learn(model, optimizer, 16)
    run = open_run(tmp_path / "run")
    assert run.record(2)["1/batch"].dead == [4]
    assert not [event for event in run.events if event.kind == "dead" and event.layer == "1"]


def test_a_gradient_that_explodes(quiet, tmp_path):
    model = plain()
    optimizer = torch.optim.SGD(model.parameters(), 1e-6)
    with quiet(model) as watch:
        for step in range(1, 9):
            optimizer.zero_grad()
            loss = cross_entropy(model(torch.randn(8, 3, 10, 10)), torch.zeros(8, dtype=torch.long))
            (loss * (1e4 if step == 6 else 1)).backward()
            optimizer.step()
        assert len([line for line in watch.said if line.startswith("step 6: ")]) > 1
    events = [event for event in open_run(tmp_path / "run").events if event.kind == "exploding"]
    assert {event.step for event in events} == {6}
    assert {"0.weight", "3.weight", "6.weight"} <= {event.layer for event in events}


def test_activations_that_explode_and_weights_that_jump(quiet, tmp_path):
    model = plain()
    optimizer = torch.optim.SGD(model.parameters(), 1e-6)
    with quiet(model):
        learn(model, optimizer)
        with torch.no_grad():
            model[3].weight *= 1000
        learn(model, optimizer)
        optimizer.param_groups[0]["lr"] = 1e3
        learn(model, optimizer)
    events = [event for event in open_run(tmp_path / "run").events if event.kind == "exploding"]
    assert ("3", 2) in [(event.layer, event.step) for event in events]
    assert ("0.weight/update", 3) in [(event.layer, event.step) for event in events]


class Vanishes(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.second = nn.Conv2d(4, 4, 3)
        self.third = nn.Conv2d(4, 4, 3)
        self.beside = nn.Conv2d(3, 4, 3)
        self.side = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        y = self.third(self.second(self.first(x) * 1e-6 + self.beside(x))).mean((2, 3))
        return y + self.side(x).mean((2, 3)) * 0


def test_a_gradient_that_vanishes_or_never_comes(quiet, tmp_path):
    model = Vanishes()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    with quiet(model):
        for _ in range(3):
            learn(model, optimizer)
    events = {event.layer: event for event in open_run(tmp_path / "run").events if event.kind == "vanishing"}
    assert set(events) == {"first.weight", "side.weight"}
    assert events["side.weight"].text == "no gradient reaches side.weight: all of it is zero"
    assert events["first.weight"].step == 1


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not FASHION.is_dir(), reason="dataset-fashion-mnist is not installed")
def test_alexnet_loses_channels_of_conv2_at_a_high_learning_rate(tmp_path):
    from layerscope.training import train

    lines: list[str] = []
    train(
        FASHION, "torchvision:alexnet", tmp_path / "a.pth", size=64, most=1600, val=0.1, batch_size=32, lr=1e-3,
        epochs=1, logdir=tmp_path / "run", say=lines.append,
    )  # fmt: skip
    run = open_run(tmp_path / "run")
    step = run.steps[-1]  # the last one of the epoch
    (lost,) = [event for event in run.events if event.kind == "dead" and event.layer == "features.4"]
    assert lost.step == step
    assert lost.text.startswith("features.4 (after features.3) lost ")  # features.3 is conv2
    assert lines.index(str(lost)) < next(at for at, line in enumerate(lines) if line.startswith("epoch 1/1"))
    record = run.record(step)
    assert set(lost.channels) <= set(record["features.4/batch"].dead) & set(record["features.4"].dead)
    assert (record["features.3"].columns.max[lost.channels] <= 0).all()
