"""Full disks, killed processes, several processes, faults of our own: the training goes on, the run is readable."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import layerscope
from layerscope import files
from layerscope.errors import RecordError, UsageError
from layerscope.records.record import Record
from layerscope.stats import activations
from layerscope.watching import open_run
from layerscope.watching.store import Store, name_of

from .conftest import learn


def test_a_full_disk_is_said_once_and_the_training_goes_on(net, quiet, tmp_path, monkeypatch):
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    real, full = Path.write_bytes, []

    def write(path, data):
        if full:
            raise OSError(28, "No space left on device")
        return real(path, data)

    monkeypatch.setattr(files.Path, "write_bytes", write)
    with quiet(net, fine=False) as watch:
        learn(net, optimizer)
        full.append(True)
        learn(net, optimizer)
        learn(net, optimizer)
        full.clear()
        learn(net, optimizer)
        said = [line for line in watch.said if "No space left" in line]
        assert len(said) == 1
        assert "The training goes on" in said[0]
        assert "\n" not in said[0]
    run = open_run(tmp_path / "run")
    assert run.steps == [1, 4]
    assert run.last == 4


def test_an_index_that_cannot_be_written(net, quiet, tmp_path, monkeypatch):
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with quiet(net, fine=False) as watch:
        learn(net, optimizer)
        real = watch._store._index

        class Full:
            def __getattr__(self, name):
                return getattr(real, name)

            def write(self, data):
                real.write(data[: len(data) // 2])
                return len(data) // 2

        watch._store._index = Full()
        learn(net, optimizer)
        watch._store._index = real
        learn(net, optimizer)
    lines = (tmp_path / "run" / "layerscope" / "index.jsonl").read_bytes().splitlines()
    assert [json.loads(line).get("step") for line in lines] == [None, 1, 3]


def test_a_torn_last_line_is_no_line(net, quiet, tmp_path):
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with quiet(net):
        for _ in range(3):
            learn(net, optimizer)
    index = tmp_path / "run" / "layerscope" / "index.jsonl"
    whole = index.read_bytes()
    end = whole.rindex(b"\n", 0, -1) + 1
    for cut in range(end, len(whole), 7):
        index.write_bytes(whole[:cut])
        run = open_run(tmp_path / "run")
        assert run.last == 2
        with index.open("ab") as file:  # and the rest of it comes
            file.write(whole[cut:])
        assert run.refresh()
        assert run.last == 3
    index.write_bytes(whole[:-5])
    with quiet(net, start=2):
        learn(net, optimizer)
    assert open_run(tmp_path / "run").last == 3


def test_a_run_is_followed(net, quiet, tmp_path):
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with quiet(net) as watch:
        learn(net, optimizer)
        run = open_run(tmp_path / "run")
        assert not run.refresh()
        learn(net, optimizer)
        watch.log(loss=1.5)
        assert run.refresh()
        assert (run.steps, run.scalars["loss"]) == ([1, 2], [(2, 1.5)])
    with quiet(net):  # another run takes its place
        learn(net, optimizer)
    assert run.refresh()
    assert run.steps == [1]
    assert "loss" not in run.scalars


def test_what_is_no_run(tmp_path):
    with pytest.raises(RecordError, match="no run in this folder"):
        open_run(tmp_path)
    (tmp_path / "index.jsonl").write_text('{"run": {"schema": 99, "start": 0}}\n')
    with pytest.raises(RecordError, match="newer layerscope"):
        open_run(tmp_path)


def test_a_step_that_was_not_kept(net, quiet, tmp_path):
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with quiet(net):
        learn(net, optimizer)
    with pytest.raises(RecordError, match="step 7 has no record"):
        open_run(tmp_path / "run").record(7)


def test_older_steps_become_rarer(tmp_path):
    store = Store(tmp_path, 0, 10, 10**9, {}, print)
    for step in range(1, 101):
        store.save(step, Record("features", "x"))
        assert len(list(store.folder.glob("*.layerscope"))) <= 10
    store.line({"step": 100, "time": 0.0})
    store.close()
    steps = open_run(tmp_path).steps
    assert steps[0] == 1
    assert steps[-5:] == [96, 97, 98, 99, 100]
    apart = np.diff(steps)
    assert (np.diff(apart) <= 0).sum() >= len(apart) - 3  # the older, the farther apart


def test_the_bytes_are_bounded(tmp_path):
    size = Record("features", "x").save(tmp_path / "one").stat().st_size
    store = Store(tmp_path, 0, 1000, 12 * size, {}, print)
    for step in range(1, 60):
        store.save(step, Record("features", "x"))
        assert sum(path.stat().st_size for path in store.folder.glob("*.layerscope")) <= 12 * size
    store.close()


class Stumbles(nn.Module):
    def forward(self, x):
        if not self.training:
            raise ValueError("not in this mode")
        return x


def test_a_fault_in_looking_does_not_end_the_training(net, quiet, tmp_path):
    net.drop = Stumbles()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)

    def sink(*_):
        raise RuntimeError("no network")

    with quiet(net, fine=False, probe=torch.ones(1, 3, 10, 10), to=[sink]) as watch:
        for _ in range(3):
            learn(net, optimizer)
        assert len(watch.said) == 2
        assert "the probe cannot be looked at" in watch.said[0]
        assert "not in this mode" in watch.said[0]
        assert "no network" in watch.said[1]
    run = open_run(tmp_path / "run")
    assert run.steps == [1, 2, 3]
    assert "conv/batch" in run.record(3).entries


TRAINING = """
import sys, torch, layerscope
from tests.watching.conftest import Net, learn
torch.set_num_threads(1)
model = Net()
optimizer = torch.optim.SGD(model.parameters(), 0.01)
with layerscope.watch(model, sys.argv[1], every=1, probe=torch.ones(2, 3, 10, 10), graph=False, keep=8) as watch:
    print("begun", flush=True)
    while True:
        learn(model, optimizer)
        watch.step(loss=watch.count)
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_that_is_killed_opens_every_time(tmp_path):
    rng = random.Random(0)
    for number in range(20):
        folder = tmp_path / str(number)
        process = subprocess.Popen(
            [sys.executable, "-c", TRAINING, str(folder)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
        )
        assert process.stdout
        assert process.stdout.readline() == b"begun\n"
        time.sleep(rng.uniform(0.05, 1.0))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        run = open_run(folder)
        for step in run.steps:
            record = run.record(step)
            assert len(record) > 10
            for entry in record.values():
                for maps in entry.maps:
                    assert maps.codes.shape == maps.shape
        if run.steps:  # the index may be a line behind the newest record, and never in front of it
            assert run.steps[-1] - run.last in (0, 1)
        for points in run.scalars.values():
            assert all(step <= run.last for step, _ in points)


PROCESSES = """
import sys, torch, layerscope
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.nn.functional import cross_entropy
from tests.watching.conftest import Net
rank, store, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
torch.manual_seed(0)
model = DistributedDataParallel(Net())
optimizer = torch.optim.SGD(model.parameters(), 0.1)
torch.manual_seed(rank)
with layerscope.watch(model, folder, every=2, all_ranks=True, graph=False, probe=torch.ones(2, 3, 10, 10)) as watch:
    seen = []
    def keep(_m, _i, y):
        if y.requires_grad:
            seen.append(y.detach().clone())
    model.module.relu.register_forward_hook(keep)
    for _ in range(4):
        optimizer.zero_grad()
        loss = cross_entropy(model(torch.randn(3 + rank, 3, 10, 10)), torch.zeros(3 + rank, dtype=torch.long))
        loss.backward()
        optimizer.step()
torch.save(seen[3], f"{folder}.{rank}")
dist.barrier()
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_the_statistics_of_all_processes(tmp_path):
    folder = tmp_path / "run"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESSES, str(rank), str(tmp_path / "store"), str(folder)],
            stderr=subprocess.PIPE, cwd=Path(__file__).parents[2], text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    for process in processes:
        _, err = process.communicate(timeout=250)
        assert process.returncode == 0, err
        assert "goes on" not in err
    run = open_run(folder)
    assert run.steps == [1, 2, 4]
    entry = run.record(4)["relu/batch"]
    both = torch.cat([torch.load(f"{folder}.{rank}") for rank in range(2)])  # (7, 6, 8, 8)
    assert entry.shape == (7, 6, 8, 8)
    found = activations(both.flatten(2).numpy())
    for name in ("count", "zeros", "min", "max"):
        merged = getattr(entry.columns, name)
        one = getattr(found, name)
        expected = one.sum(0) if name in ("count", "zeros") else one.min(0) if name == "min" else one.max(0)
        assert merged.tolist() == expected.tolist()
    assert entry.columns.mean.tolist() == pytest.approx(both.double().mean((0, 2, 3)).tolist(), rel=1e-6)
    deviations = both.double().transpose(0, 1).flatten(1).std(1)
    assert entry.columns.std.tolist() == pytest.approx(deviations.tolist(), rel=1e-5)


def test_names_sort_as_the_steps_do():
    assert name_of(9) < name_of(10) < name_of(123456789)


def test_outside_of_its_block(net, tmp_path):
    said = []
    watch = layerscope.watch(net, tmp_path / "run", graph=False, say=said.append)
    for call in (watch.step, lambda: watch.log(loss=1.0), lambda: watch.note("begun")):
        with pytest.raises(UsageError, match="use it as `with"):
            call()
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    with watch:
        learn(net, optimizer)
    watch.step(loss=1.0)  # a training may go on after it: nothing raises, and it is said once
    watch.log(loss=1.0)
    watch.note("over")
    assert len([line for line in said if "use it as" in line]) == 1


def test_what_chooses_the_steps_may_fail(net, quiet, tmp_path):
    def every(step):
        return 1 / (step - 2) < 2

    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    with quiet(net, every=every, fine=False) as watch:
        for _ in range(4):
            learn(net, optimizer)
        assert [line for line in watch.said if "ZeroDivisionError" in line]
    assert open_run(tmp_path / "run").steps == [1, 3, 4]
