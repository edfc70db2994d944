"""Which steps are counted and looked at, and that nothing is left behind."""

from __future__ import annotations

import random
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from layerscope.errors import NoMatch, OutputError, UsageError
from layerscope.watching import open_run

from .conftest import Net, batch, learn


def hooks(model: nn.Module) -> int:
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks) + len(module._backward_hooks)
        for module in model.modules()
    )


def global_hooks() -> int:
    from torch.optim import optimizer

    return len(optimizer._global_optimizer_pre_hooks) + len(optimizer._global_optimizer_post_hooks)


def test_steps_are_counted_by_the_optimizer(net, quiet, tmp_path):
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with quiet(net, every=4) as watch:
        for _ in range(10):
            learn(net, optimizer)
        assert watch.count == 10
    run = open_run(tmp_path / "run")
    assert run.steps == [1, 4, 8]
    assert run.record(4).provenance["step"] == 4


def test_between_chosen_steps_no_hook_is_on(net, quiet):
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    seen = []
    net.conv.register_forward_hook(lambda *_: seen.append(hooks(net)))
    with quiet(net, every=3, nan_every=0):
        for _ in range(7):
            learn(net, optimizer)
    many = [number > 1 for number in seen]
    assert many == [True, False, True, False, False, True, False]


def test_nothing_is_left_behind_however_it_ends(net, quiet):
    optimizer, before = torch.optim.SGD(net.parameters(), 0.1), global_hooks()
    with quiet(net):
        learn(net, optimizer)
        assert hooks(net) > 0
        assert global_hooks() == before + 2
    assert hooks(net) == 0
    assert global_hooks() == before
    with pytest.raises(KeyboardInterrupt), quiet(net):
        learn(net, optimizer)
        raise KeyboardInterrupt
    assert hooks(net) == 0
    assert global_hooks() == before


def test_a_training_that_raises_leaves_a_run_that_can_be_read(net, quiet, tmp_path):
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with pytest.raises(ZeroDivisionError), quiet(net):
        learn(net, optimizer)
        learn(net, optimizer)
        _ = 1 / 0
    assert open_run(tmp_path / "run").steps == [1, 2]


def test_the_weights_come_out_as_without_a_watch(quiet):
    states = []
    for watched in (False, True):
        torch.manual_seed(3)
        random.seed(3)
        np.random.seed(3)
        model = Net()
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        if watched:
            with quiet(model, probe=torch.ones(2, 3, 10, 10)):
                for _ in range(4):
                    learn(model, optimizer)
        else:
            for _ in range(4):
                learn(model, optimizer)
        states.append((model.state_dict(), torch.get_rng_state(), model.training))
    (plain, rng, mode), (seen, rng_2, mode_2) = states
    assert all(torch.equal(plain[name], seen[name]) for name in plain)
    assert torch.equal(rng, rng_2)
    assert mode == mode_2


def test_steps_by_hand(net, quiet, tmp_path):
    with quiet(net, every=2) as watch:
        for _ in range(4):
            images, targets = batch()
            loss = cross_entropy(net(images), targets)
            net.zero_grad()
            loss.backward()
            with torch.no_grad():
                for parameter in net.parameters():
                    parameter -= 0.1 * parameter.grad
            watch.step(loss=loss)
    run = open_run(tmp_path / "run")
    assert run.steps == [1, 2, 4]
    assert [step for step, _ in run.scalars["loss"]] == [1, 2, 4]
    assert run.record(4)["conv.weight/grad"].total.count[0] == 6 * 27
    assert "conv.weight/update" not in run.record(4).entries  # nobody told when it began


def test_a_step_is_not_counted_twice(net, quiet, tmp_path):
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    losses = []
    with quiet(net, every=2) as watch:
        for _ in range(4):
            losses.append(learn(net, optimizer))
            watch.step(loss=losses[-1])
        assert watch.count == 4
        watch.log(accuracy=0.5)
        watch.log({"val/loss": torch.tensor(2.0)})
    run = open_run(tmp_path / "run")
    assert run.scalars["loss"] == [(step, pytest.approx(losses[step - 1].item())) for step in (1, 2, 4)]
    assert run.scalars["accuracy"] == [(4, 0.5)]
    assert run.scalars["val/loss"] == [(4, 2.0)]


def test_accumulated_gradients_are_one_step(net, quiet, tmp_path):
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with quiet(net):
        for _ in range(2):
            optimizer.zero_grad()
            for _ in range(3):
                images, targets = batch(5)
                cross_entropy(net(images), targets).backward()
            optimizer.step()
    run = open_run(tmp_path / "run")
    assert run.steps == [1, 2]
    entry = run.record(2)["conv/batch"]
    assert entry.shape == (15, 6, 8, 8)
    assert entry.columns.count.tolist() == [15 * 64] * 6
    assert "conv/batch:1" not in run.record(2).entries


def test_evaluation_in_between_is_no_training_batch(net, quiet, tmp_path):
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with quiet(net):
        net.eval()
        net(batch(20)[0])  # without no_grad: people forget it
        with torch.no_grad():
            net.train()(batch(30)[0])
        learn(net, optimizer, 7)
    entry = open_run(tmp_path / "run").record(1)["conv/batch"]
    assert entry.shape[0] == 7


class Checkpointed(Net):
    reentrant = False

    def forward(self, x):
        def inner(x):
            return self.relu(self.bn(self.conv(x)))

        x = checkpoint(inner, x.requires_grad_(), use_reentrant=self.reentrant)
        return self.fc(x.mean((2, 3)))


@pytest.mark.filterwarnings("ignore:`torch.cpu.amp.autocast:FutureWarning")  # torch 2.4 itself calls it
@pytest.mark.parametrize("reentrant", [False, True])
def test_what_is_checkpointed_counts_once(quiet, tmp_path, reentrant):
    model = Checkpointed()
    model.reentrant = reentrant
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    runs = []
    model.conv.register_forward_hook(lambda *_: runs.append(1))
    with quiet(model):
        learn(model, optimizer, 6)
    assert len(runs) == 2
    record = open_run(tmp_path / "run").record(1)
    assert record["conv/batch"].shape[0] == 6
    assert "conv/batch:1" not in record.entries


@pytest.mark.filterwarnings("ignore:Guards may run slower")  # of Python 3.13.0
def test_a_compiled_network_runs_eagerly_in_chosen_steps(net, quiet, tmp_path):
    compiled = torch.compile(net, backend="eager")
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    eager = []
    net.conv.register_forward_hook(lambda *_: eager.append(not torch.compiler.is_compiling()))
    with quiet(compiled, every=3):
        for _ in range(6):
            learn(compiled, optimizer)
    run = open_run(tmp_path / "run")
    for step in (1, 3, 6):
        assert run.record(step)["conv/batch"].shape[0] == 8


class Steps:
    """Counts what is compiled."""

    def __init__(self) -> None:
        self.compiled = 0

    def __call__(self, graph, _inputs):
        self.compiled += 1
        return graph.forward


def test_other_steps_stay_compiled(net, quiet):
    backend = Steps()
    compiled = torch.compile(net, backend=backend)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with warnings.catch_warnings(), quiet(compiled, every=4):
        warnings.simplefilter("ignore")
        for _ in range(3):
            learn(compiled, optimizer)
        once = backend.compiled
        for _ in range(9):
            learn(compiled, optimizer)
    assert once > 0
    assert backend.compiled == once


def test_an_optimizer_of_something_else_is_none(net, quiet):
    other = nn.Linear(2, 2)
    foreign, own = torch.optim.SGD(other.parameters(), 0.1), torch.optim.SGD(net.parameters(), 0.1)
    with quiet(net) as watch:
        foreign.step()
        assert watch.count == 0
        learn(net, own)
        foreign.step()
        assert watch.count == 1


def test_two_optimizers(net, quiet):
    first, second = torch.optim.SGD(net.conv.parameters(), 0.1), torch.optim.SGD(net.fc.parameters(), 0.1)
    with quiet(net) as watch:
        for _ in range(3):
            learn(net, first)
            second.step()
        assert watch.count == 3
        assert len([line for line in watch.said if "two optimizers" in line]) == 1


def test_two_optimizers_that_make_one_step(net, quiet, tmp_path):
    first, second = torch.optim.SGD(net.conv.parameters(), 0.1), torch.optim.SGD(net.fc.parameters(), 0.1)
    with quiet(net, optimizer=[first, second]) as watch:
        for _ in range(3):
            learn(net, first)
            second.step()
        assert watch.count == 3
        assert watch.said == []
    record = open_run(tmp_path / "run").record(2)
    assert record["conv.weight/update"].total.std[0] > 0
    assert record["fc.weight/update"].total.std[0] > 0


def test_a_step_with_a_closure(net, quiet, tmp_path):
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    images, targets = batch()

    def closure():
        optimizer.zero_grad()
        loss = cross_entropy(net(images), targets)
        loss.backward()
        return loss

    with quiet(net):
        optimizer.step(closure)
    record = open_run(tmp_path / "run").record(1)
    expected = net.conv.weight.grad.double()
    assert record["conv.weight/grad"].total.mean[0] == pytest.approx(expected.mean().item(), abs=1e-9)


def test_a_run_goes_on(net, quiet, tmp_path):
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with quiet(net, every=2) as watch:
        for _ in range(6):
            learn(net, optimizer)
            watch.step(loss=1.0)
    with quiet(net, every=2, start=4) as watch:
        for _ in range(4):
            learn(net, optimizer)
            watch.step(loss=2.0)
        assert watch.count == 8
    run = open_run(tmp_path / "run")
    assert run.steps == [1, 2, 4, 5, 6, 8]
    assert run.scalars["loss"] == [(1, 1.0), (2, 1.0), (4, 1.0), (5, 2.0), (6, 2.0), (8, 2.0)]


def test_a_new_run_moves_the_old_one_aside(net, quiet, tmp_path):
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for _ in range(2):
        with quiet(net, every=2) as watch:
            learn(net, optimizer)
            said = list(watch.said)
    assert any("layerscope.1" in line for line in said)
    assert open_run(tmp_path / "run" / "layerscope.1").steps == [1]
    assert open_run(tmp_path / "run").steps == [1]


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"every": 0}, UsageError),
        ({"nan_every": -1}, UsageError),
        ({"start": -1}, UsageError),
        ({"keep": 1}, UsageError),
        ({"layers": "nothing*"}, NoMatch),
    ],
)
def test_wrong_wishes(net, quiet, options, kind):
    with pytest.raises(kind), quiet(net, **options):
        pass
    assert hooks(net) == 0


def test_nowhere_to_write_is_said_at_once(net, quiet, tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(OutputError), quiet(net):
        pass
    assert hooks(net) == 0
