"""Non-finite values: named at their step, chosen or not."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss, one_hot

from layerscope.watching import open_run
from layerscope.watching.sentinel import finite, sample

from .conftest import Net, batch, learn


class Breaks(Net):
    """Returns a non-finite value in one layer, at one step of learning."""

    def __init__(self, at: int, how: str) -> None:
        super().__init__()
        self.at, self.how, self.steps = at, how, 0
        self.middle = nn.Sequential(nn.Conv2d(6, 6, 1), Spoiled(self))

    def spoils(self, how: str) -> bool:
        return self.training and self.how == how and self.steps == self.at

    def forward(self, x):
        # Run again for its name, it must break again: counted by what learns, not by the passes.
        x = self.relu(self.bn(self.conv(x)))
        x = self.fc(self.middle(x).mean((2, 3)))
        return Wrong.apply(x) if self.spoils("backward") else x


class Spoiled(nn.Module):
    def __init__(self, owner) -> None:
        super().__init__()
        self.owner = [owner]

    def forward(self, x):
        return x * float("inf") if self.owner[0].spoils("forward") else x


class Wrong(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * float("nan")


def broken(quiet, how: str, every=lambda step: False, steps: int = 8, **options):
    model = Breaks(5, how)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with quiet(model, every=every, **options) as watch:
        for number in range(1, steps + 1):
            model.steps = number
            learn(model, optimizer)
        return watch.said


def test_the_first_layer_is_named_at_its_step(quiet, tmp_path):
    said = broken(quiet, "forward")
    (event,) = [event for event in open_run(tmp_path / "run").events if event.kind == "non-finite"]
    assert (event.step, event.layer) == (5, "middle.1")
    assert "middle.1 is the first layer" in event.text
    assert said[0].startswith("step 5: middle.1")


def test_the_next_step_is_looked_at(quiet, tmp_path):
    broken(quiet, "forward")
    run = open_run(tmp_path / "run")
    assert run.steps == [6]
    assert run.record(6)["conv.weight"].total.nan[0] > 0


def test_in_a_chosen_step_it_is_said_once(quiet, tmp_path):
    broken(quiet, "forward", every=1)
    events = [event for event in open_run(tmp_path / "run").events if event.kind == "non-finite"]
    assert [(event.step, event.layer) for event in events] == [(5, "middle.1")]


def test_the_backward_pass_is_told_apart(quiet, tmp_path):
    broken(quiet, "backward")
    (event,) = [event for event in open_run(tmp_path / "run").events if event.kind == "non-finite"]
    assert (event.step, event.layer.rpartition(".")[0]) == (5, "fc")
    assert "every output is finite" in event.text


def test_a_batch_that_is_broken_itself(net, quiet, tmp_path):
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with quiet(net, every=100):
        learn(net, optimizer)
        images, targets = batch()
        images[3, 1, 2, 2] = torch.nan
        net.zero_grad()
        cross_entropy(net(images), targets).backward()
        optimizer.step()
    (event,) = [event for event in open_run(tmp_path / "run").events if event.kind == "non-finite"]
    assert event.step == 2
    assert "the batch itself" in event.text


def test_a_run_that_diverges(quiet, tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(288, 4))
    optimizer = torch.optim.SGD(model.parameters(), 10.0)
    first, layers = None, {}
    with quiet(model, every=1000):
        for step in range(1, 40):
            images, targets = batch()
            optimizer.zero_grad()
            logits = model(images)
            if first is None and not logits.isfinite().all():
                first, x = step, images
                for name, layer in model.named_children():
                    x = layer(x)
                    layers[name] = bool(x.isfinite().all())
            mse_loss(logits, one_hot(targets, 4).float()).backward()
            optimizer.step()
            if first:
                break
    assert first
    (event,) = [event for event in open_run(tmp_path / "run").events if event.kind == "non-finite"]
    assert event.step == first
    assert event.layer == next(name for name, fine in layers.items() if not fine)


def test_looking_for_it_changes_nothing(quiet):
    model = Breaks(2, "forward")
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    with quiet(model, every=lambda step: False):
        learn(model, optimizer)
        model.steps = 2
        images, targets = batch()
        cross_entropy(model(images), targets).backward()
        buffers = [buffer.clone() for buffer in model.buffers()]
        before = torch.get_rng_state()
        optimizer.step()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(buffers, model.buffers(), strict=True))
    assert model.training


def test_every_few_steps_or_never(quiet, tmp_path):
    assert broken(quiet, "backward", nan_every=3)[0].startswith("step 6:")
    assert broken(quiet, "backward", nan_every=0)[1:] == []


@pytest.mark.parametrize(
    ("values", "fine"),
    [([1.0, 2.0], True), ([1.0, float("nan")], False), ([-float("inf"), 1.0], False), ([3e38, 3e38, -3e38], True)],
)
def test_finite(values, fine):
    assert finite([torch.ones(3), None, torch.tensor(values)]) is fine
    assert finite([torch.ones(3).half(), torch.tensor(values).double()]) is fine


@pytest.mark.parametrize("by_hand", [False, True])
def test_where_the_gradients_are_seen_after_the_update(net, quiet, tmp_path, by_hand):
    optimizer = torch.optim.SGD(net.parameters(), 0.1)

    def closure():
        images, targets = batch()
        optimizer.zero_grad()
        loss = cross_entropy(net(images), targets) * (float("nan") if watch.count == 2 else 1)
        loss.backward()
        return loss

    with quiet(net, every=100) as watch:
        for _ in range(4):
            if by_hand:
                closure()
                with torch.no_grad():
                    for parameter in net.parameters():
                        parameter -= 0.1 * parameter.grad
                watch.step()
            else:
                optimizer.step(closure)
    events = [event for event in open_run(tmp_path / "run").events if event.kind == "non-finite"]
    assert events[0].step == 3
    assert events[0].text.startswith("6 of 6 gradients hold non-finite values")


def test_the_small_gradients_are_tested_and_now_and_then_all():
    small, large = torch.ones(64), torch.ones(100, 100)
    assert [one.numel() for one in sample([large, None, small], whole=False)] == [64]
    assert [one.numel() for one in sample([large, None, small], whole=True)] == [10000, 64]
    assert [one.numel() for one in sample([large, None], whole=False)] == [10000]
