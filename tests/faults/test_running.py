"""No memory, NaN, a file that changes, an interrupt, a closed output: one line, the right exit code, nothing left."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from layerscope.checkpoints import open_checkpoint
from layerscope.errors import CheckpointError
from layerscope.inspection import weights
from layerscope.records.file import load
from tests.browsing import Tab, served
from tests.faults.conftest import files_below

CODE = """
import time
import torch
from torch import nn


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4, 4)

    def forward(self, x):
        x = self.conv(x)
        self.meet()
        return self.head(x.mean((2, 3)))


class Hungry(Base):
    def meet(self):
        torch.empty(10**14)  # torch says RuntimeError: not enough memory


class Full(Base):
    def meet(self):
        raise MemoryError


class Stopped(Base):
    def meet(self):
        raise KeyboardInterrupt


class Slow(Base):
    def meet(self):
        open("started", "w").close()
        while True:
            time.sleep(0.01)


class Nothing(Base):
    def forward(self, x):
        return self.head(self.conv(x).mean((2, 3))) * float("nan")
"""
IN_THE_NETWORK = {
    "features": "features faulty.py:{} photo.png --size 32 --out new --record new.layerscope",
    "layers": "layers faulty.py:{} --input 3x32x32",
    "compare": "compare faulty.py:{0} faulty.py:{0} --image photo.png --out new --record new.layerscope",
    "unit": "unit faulty.py:{} photo.png head 1 --size 32 --out new.png",
    "train": "train flowers --network faulty.py:{} --size 16 --save new.pth --logdir new",
}


@pytest.fixture
def faulty(place) -> Path:
    (place / "faulty.py").write_text(CODE)
    return place


@pytest.mark.parametrize("command", ["features", "layers", *(pytest.param(c, marks=pytest.mark.slow) for c in
                                                             ("compare", "unit", "train"))])  # fmt: skip
@pytest.mark.parametrize("kind, said", [("Hungry", "memory"), ("Full", "MemoryError")])
def test_no_memory_in_the_network(run, faulty, command, kind, said):
    before = files_below(faulty)
    ran = run(*IN_THE_NETWORK[command].format(kind).split())
    assert ran.code == 1
    assert said in ran.line
    assert "check the input" in ran.line
    new = {path for path in files_below(faulty) if path not in before}
    assert not {path for path in new if "tfevents" not in path}


@pytest.mark.parametrize("command", ["features", "layers", *(pytest.param(c, marks=pytest.mark.slow) for c in
                                                             ("compare", "unit", "train"))])  # fmt: skip
def test_an_interrupt_in_the_network(run, faulty, command):
    before = files_below(faulty)
    ran = run(*IN_THE_NETWORK[command].format("Stopped").split())
    assert ran.code == 130
    assert ran.line.startswith("layerscope: interrupted") or command == "train"
    assert not {path for path in files_below(faulty) if path not in before and "tfevents" not in path}


@pytest.mark.slow
@pytest.mark.parametrize("command", IN_THE_NETWORK)
def test_ctrl_c(faulty, command):
    before = files_below(faulty)
    arguments = [sys.executable, "-m", "layerscope", *IN_THE_NETWORK[command].format("Slow").split()]
    process = subprocess.Popen(arguments, cwd=faulty, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (faulty / "started").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err and "interrupted" in err
    new = {path for path in files_below(faulty) if path not in before and path != "started"}
    assert not {path for path in new if "tfevents" not in path}


@pytest.mark.slow
@pytest.mark.parametrize("delay_s", [0.0, 0.2, 0.5, 1.0])
def test_ctrl_c_at_any_time_leaves_whole_files(faulty, delay_s):
    torch.save({str(at): torch.zeros(400, 400) for at in range(80)}, faulty / "many.pth")
    arguments = ["weights", "many.pth", "--out", "new", "--record", "new.layerscope", "--csv", "new.csv"]
    process = subprocess.Popen([sys.executable, "-m", "layerscope", *arguments], cwd=faulty,
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)  # fmt: skip
    deadline = time.monotonic() + 60
    while not (faulty / "new").exists() and time.monotonic() < deadline:  # from the first file that is written on
        time.sleep(0.01)
    time.sleep(delay_s)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode in (130, 0, -signal.SIGINT), err  # the last: it was over, and Python on its way out
    assert "Traceback" not in err
    for path in [*faulty.glob("new*"), *faulty.glob("new/*")]:
        assert path.suffix != ".part" and (path.is_dir() or path.stat().st_size > 100), path


def test_a_network_of_nan_is_shown_as_what_it_is(run, faulty):
    """round(NaN) raised in the terminal's table and in the overview."""
    ran = run("features", "faulty.py:Nothing", "photo.png", "--size", "32", "--out", "new", "--record", "a.layerscope")
    assert ran.code == 0, ran.err
    assert "nan" in ran.out
    assert len(list((faulty / "new").iterdir())) == 3
    ran = run("export", "a.layerscope", "--csv", "tables")
    assert ran.code == 0, ran.err


def test_checkpoints_with_nan_are_compared(run, tmp_path):
    for name, value in (("a", float("nan")), ("b", 1.0)):
        torch.save({"w": torch.tensor([[1.0, value], [2.0, 3.0]]), "v": torch.full((3, 3), ord(name))}, f"{name}.pth")
    ran = run("compare", "a.pth", "b.pth", "--out", "new", "--record", "a.layerscope")
    assert ran.code == 0, ran.err
    assert (tmp_path / "new" / "changes.png").exists()
    assert run("export", "a.layerscope", "--html", "a.html").code == 0


@pytest.mark.parametrize("how", ["shortened", "written anew"])
@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_a_checkpoint_that_is_written_over_while_it_is_read(tmp_path, how, kind):
    """It is mapped: to look behind its new end would be SIGBUS, the end of the process without a word."""
    tensors = {str(at): torch.full((300, 300), float(at)) for at in range(30)}
    path = tmp_path / f"a.{kind}"
    if kind == "pth":
        torch.save(tensors, path)
    else:
        from safetensors.torch import save_file

        save_file(tensors, path)

    def progress(done: int, of: int, what: str) -> None:
        if what and int(what) == 3:
            if how == "shortened":
                os.truncate(path, 5000)
            else:
                with path.open("r+b") as file:
                    file.seek(9000)
                    file.write(b"\xff" * 9000)
                os.utime(path, (5, 5))

    with pytest.raises(CheckpointError, match="has been written over while it was read; wait until it is complete"):
        weights(path, progress=progress)


def test_a_shard_that_is_written_over(tmp_path):
    import json

    from safetensors.torch import save_file

    save_file({"w": torch.ones(2000)}, tmp_path / "a.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"w": "a.safetensors"}}))
    with open_checkpoint(index) as checkpoint:
        os.truncate(tmp_path / "a.safetensors", 300)
        with pytest.raises(CheckpointError, match=r"a\.safetensors: has been written over"):
            checkpoint.read(checkpoint.specs[0])


def test_a_checkpoint_that_another_takes_the_place_of(tmp_path):
    """As an atomic save does: the one that was opened is read to its end."""
    path = tmp_path / "a.pth"
    torch.save({"w": torch.ones(500)}, path)
    with open_checkpoint(path) as checkpoint:
        torch.save({"w": torch.zeros(5)}, tmp_path / "b.pth")
        (tmp_path / "b.pth").replace(path)
        assert (checkpoint.read(checkpoint.specs[0]) == 1).all()
        path.unlink()
        assert (checkpoint.read(checkpoint.specs[0]) == 1).all()


@pytest.mark.slow
def test_a_file_that_shrinks_within_one_tensor_leaves_nothing_half_written(tmp_path):
    """The one case left: SIGBUS while a tensor is looked at. The process ends; no file of it is half there."""
    torch.save({"w": torch.zeros(4000, 4000)}, tmp_path / "a.pth")
    script = (
        "import os, sys, layerscope.inspection as i\n"
        "real = i._tensor\n"
        "def late(*a):\n"
        "    os.truncate('a.pth', 5000)\n"
        "    return real(*a)\n"
        "i._tensor = late\n"
        "sys.argv = ['layerscope', 'weights', 'a.pth', '--record', 'r', '--csv', 'c', '--out', 'o']\n"
        "from layerscope.cli import main\nmain()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode in (-signal.SIGBUS, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]


def test_a_clock_that_jumps_back(run, place, monkeypatch):
    now = iter(np.linspace(2e9, -1e9, 10_000))
    monkeypatch.setattr(time, "time", lambda: float(next(now)))
    for to in ("tb", "tb"):
        assert run("export", "r.layerscope", "--tensorboard", to).code == 0
    assert len(list((place / "tb").iterdir())) == 2
    assert run("features", "nets.py:small", "photo.png", "--size", "32", "--record", "x.layerscope").code == 0


def start(arguments: str, folder: Path, **options) -> subprocess.CompletedProcess:
    return subprocess.run(f"{sys.executable} -m layerscope {arguments}", shell=True, cwd=folder, text=True,
                          capture_output=True, timeout=120, **options)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("to", ["| head -c 1", "> /dev/full", ">&-", "2>&-", "<&-"])
def test_an_output_that_is_closed_or_full(place, to):
    for arguments in ("weights net.pth --record a.layerscope", "weights net.pth --json", "--help"):
        ran = start(f"{arguments} {to}", place)
        assert ran.returncode in (0, 1)
        assert "Traceback" not in ran.stderr
        assert len(ran.stderr.splitlines()) <= 2
    assert (place / "a.layerscope").stat().st_size > 1000


@pytest.mark.slow
def test_no_home_and_no_cache(place):
    nowhere = {"HOME": "/proc/none", "XDG_CACHE_HOME": "/proc/none", "TORCH_HOME": "/proc/none"}
    for arguments in ("weights net.pth", "features nets.py:small photo.png --size 32"):
        ran = start(arguments, place, env=os.environ | nowhere)
        assert ran.returncode == 0, ran.stderr
        assert "Traceback" not in ran.stderr


@pytest.mark.slow
@pytest.mark.parametrize("kind, said", [("Hungry", "memory"), ("Full", "memory|MemoryError"), ("Stopped", "Interrupt")])
def test_a_live_network_without_memory_leaves_the_server_at_work(faulty, kind, said):
    """The page is told why in one line, and the server answers on."""
    lines: list[str] = []
    with served(f"{faulty}/faulty.py:{kind}", [faulty / "photo.png"], warn=lines.append) as viewer:
        tab = Tab(viewer)
        event = tab.until("failed")
        assert re.search(said, event["what"]), event
        assert event["what"].isprintable()
        assert len(lines) == 1 and lines[0].isprintable()
        assert tab.get("/").status == 200
        assert tab.ask("POST", "/api/image?name=x.png", (faulty / "photo.png").read_bytes()).status == 200
        assert tab.get("/api/index").status in (200, 202)


def test_a_checkpoint_written_over_under_a_live_network_is_said(faulty):
    """What a network holds is mapped from its file: it is looked at again before more of it is read."""
    torch.save({"a": torch.ones(3000), "b": torch.ones(3000)}, faulty / "a.pth")
    with open_checkpoint(faulty / "a.pth") as checkpoint:
        first, second = checkpoint.specs
        kept = checkpoint.read(first).copy()
        torch.save({"a": torch.zeros(3000), "b": torch.zeros(3000)}, faulty / "a.pth")  # truncates it first
        os.utime(faulty / "a.pth", (7, 7))
        with pytest.raises(CheckpointError, match="written over"):
            checkpoint.read(second)
        assert (kept == 1).all()


@pytest.mark.slow
def test_two_commands_that_write_the_same_place(place):
    """Each writes its files whole; which of them is there in the end is chance."""
    arguments = ["weights", "{}", "--record", "same.layerscope", "--csv", "same.csv", "--out", "same"]
    processes = [
        subprocess.Popen([sys.executable, "-m", "layerscope", *(one.format(name) for one in arguments)], cwd=place,
                         stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for name in ("net.pth", "other.pth", "net.pth")
    ]  # fmt: skip
    for process in processes:
        assert process.communicate(timeout=120)[1].count("layerscope:") == 0
        assert process.returncode == 0
    assert load(place / "same.layerscope").subject in ("net.pth", "other.pth")
    assert not [path for path in place.rglob("*") if path.suffix == ".part"]
    pictures = list((place / "same").iterdir())
    assert pictures and all(b"IEND" in path.read_bytes()[-12:] for path in pictures)
