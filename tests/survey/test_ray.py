"""The engine on Ray: killed actors, nothing heard from outside, silence on the terminal, no hang."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from layerscope.errors import UsageError
from layerscope.surveying.running.partial import EngineError
from layerscope.surveying.running.run import run_survey
from tests.survey import toy
from tests.survey.test_engines import RAY, Deadly, Hanging
from tests.survey.toy import ToyState, ToyUpdater, pictures

pytestmark = [pytest.mark.slow, RAY]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """200 images, one of them broken: four chunks."""
    root = pictures(tmp_path_factory.mktemp("ray") / "set", 200)
    (root / "cats/image5.png").write_bytes(b"no image")
    return root


@pytest.fixture(scope="module")
def expected(folder) -> bytes:
    return run_survey(toy.job(folder)).state.pack()


def children() -> set[int]:
    """Every process that this one has started, and theirs."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found = {os.getpid()}
    while True:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        if not more:
            return found - {os.getpid()}
        found |= more


def listening(pids: set[int]) -> dict[str, str]:
    """Addresses, in hexadecimal, that these processes listen at, and who does."""
    owned = {}
    for pid in pids:
        try:
            for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                target = os.readlink(descriptor)  # noqa: PTH115 - the target is no path
                if target.startswith("socket:["):
                    owned[target[8:-1]] = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")[:80].decode()
        except OSError:
            continue
    found = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            parts = line.split()
            if parts[3] == "0A" and parts[9] in owned:  # 0A: listening
                found[parts[1]] = owned[parts[9]]
    return found


LOOPBACK = ("0100007F:", "00000000000000000000000001000000:", "0000000000000000FFFF00000100007F:")


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")
def test_nothing_that_it_starts_listens_beyond_this_machine_or_stays(folder, expected, capfd):
    import ray._private.ray_constants  # noqa: F401 - it reads its switches when it is imported

    heard, mine, others = {}, set(), children()  # others: helpers of tests before, such as a resource tracker

    def progress(done, of, what):
        mine.update(children() - others)
        heard.update(listening(children() - others))

    before = set(Path("/tmp").glob("layerscope-ray-*"))
    handler = signal.getsignal(signal.SIGTERM)
    result = run_survey(toy.job(folder), "ray", progress, workers=2)
    assert result.state.pack() == expected
    assert signal.getsignal(signal.SIGTERM) is handler
    assert len(heard) > 3, "Ray's processes listen somewhere, or this test sees nothing"
    assert {at: who for at, who in heard.items() if not at.startswith(LOOPBACK)} == {}
    deadline = time.monotonic() + 20
    while mine & children() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not mine & children()
    assert set(Path("/tmp").glob("layerscope-ray-*")) == before
    assert capfd.readouterr().err == ""


def test_a_ray_that_would_listen_elsewhere_is_not_used(folder, monkeypatch):
    import ray

    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "10.0.0.7")
    with pytest.raises(EngineError, match="Ray would listen to other machines"):
        run_survey(toy.job(folder), "ray", workers=1)
    assert not ray.is_initialized()


def test_a_cluster_that_is_not_there_is_said_in_one_line(folder):
    with pytest.raises(EngineError, match=r"the cluster at 127\.0\.0\.1:1 does not answer") as caught:
        run_survey(toy.job(folder), "ray", address="127.0.0.1:1")
    assert "\n" not in str(caught.value)


SCRIPT = """
import os, signal, sys
import torch
torch.set_num_threads(1)
from layerscope.surveying.running.run import run_survey
from tests.survey import toy

def progress(done, of, what):
    if done > 128 and sys.argv[2] == "interrupt":  # more than two chunks: one at least is in
        os.killpg(os.getpid(), signal.SIGINT)  # as a terminal does: the whole group

result = run_survey(toy.job(sys.argv[1]), sys.argv[3], progress, workers=2)
print(result.done, bool(result.pending))
"""


@pytest.mark.parametrize(("engine", "how"), [("ray", "whole"), ("ray", "interrupt"), ("local", "interrupt")])
def test_the_terminal_stays_clean_and_ctrl_c_gives_what_is_done(folder, engine, how):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, folder, how, engine],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=200, start_new_session=True,
    )  # fmt: skip
    assert done.stderr == ""
    images, partial = done.stdout.split()
    assert (images, partial) == ("200", "False") if how == "whole" else 0 < int(images) < 200 and partial == "True"


def test_without_ray_it_is_said_how_to_get_it(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"Ray is not installed; pip install 'layerscope\[ray\]'"):
        run_survey(toy.job(folder), "ray")


# ---- from here on the tests share one Ray


def test_a_ray_that_runs_already_is_used_and_left_running(folder, expected, running_ray):
    assert run_survey(toy.job(folder), "ray").state.pack() == expected
    assert running_ray.is_initialized()
    with pytest.raises(
        UsageError, match=r"this process uses the Ray at 127\.0\.0\.1:\d+; leave address 10\.0\.0\.1:1 out"
    ):
        run_survey(toy.job(folder), "ray", address="10.0.0.1:1")


def test_an_actor_that_is_killed_from_outside_costs_only_time(folder, expected, running_ray):
    killed = []

    def progress(done, of, what):
        if done and not killed:
            actors = [pid for pid in children() if b"ray::" in Path(f"/proc/{pid}/cmdline").read_bytes()]
            busy = [pid for pid in actors if b"_Actor" in Path(f"/proc/{pid}/cmdline").read_bytes()]
            os.kill(busy[0], signal.SIGKILL)
            killed.append(busy[0])

    result = run_survey(toy.job(folder), "ray", progress, workers=2)
    assert killed
    assert result.state.pack() == expected


def test_an_actor_that_dies_at_its_work_is_replaced(folder, expected, tmp_path, running_ray):
    job = toy.job(folder, tools=(Deadly, ToyState), measures=(70, str(tmp_path / "once")))
    assert run_survey(job, "ray", workers=2).state.pack() == expected
    assert (tmp_path / "once").exists()


def test_a_chunk_that_kills_every_actor_is_given_up(folder, running_ray):
    job = toy.job(folder, tools=(Deadly, ToyState), measures=(70, ""))
    with pytest.raises(EngineError, match="images 64 to 127: the process that measured them died 3 times"):
        run_survey(job, "ray", workers=2)


def test_actors_that_hang_are_ended(folder, running_ray):
    with pytest.raises(EngineError, match=r"no image was measured for \d+ s: the processes hang"):
        run_survey(toy.job(folder, tools=(Hanging, ToyState)), "ray", workers=1, patience_s=25)


class Fragile(ToyUpdater):
    """Cannot even be made."""

    def __init__(self, network, layers, measures):
        os.kill(os.getpid(), signal.SIGKILL)


def test_actors_that_die_before_their_work_are_not_hired_for_ever(folder, running_ray):
    with pytest.raises(EngineError, match="Ray's actors die before they measure anything"):
        run_survey(toy.job(folder, tools=(Fragile, ToyState)), "ray", workers=1)


class Slow(ToyUpdater):
    def update(self, images, numbers, labels):
        time.sleep(2)
        super().update(images, numbers, labels)


def test_progress_is_heard_of_within_a_chunk(folder, running_ray):
    seen = []
    job = toy.job(folder, tools=(Slow, ToyState), chunk=256)  # one chunk, 26 s
    result = run_survey(job, "ray", lambda done, of, what: seen.append(done), workers=1, patience_s=20)
    assert result.state.pack() == run_survey(toy.job(folder, chunk=256)).state.pack()
    assert len(set(seen) - {0, 200}) > 3
    assert seen == sorted(seen)
