"""A survey that is killed, interrupted or begun otherwise."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from layerscope.errors import OutputError, RecordError, UsageError
from layerscope.files import save
from layerscope.surveying.running import partial
from layerscope.surveying.running.partial import Partial, opened, resuming
from layerscope.surveying.running.run import run_survey
from tests.survey import toy
from tests.survey.toy import ToyState, ToyUpdater, pictures


@pytest.fixture
def folder(tmp_path):
    """200 images, one of them broken: four chunks, the last of eight."""
    root = pictures(tmp_path / "set", 200)
    (root / "cats/image5.png").write_bytes(b"no image")
    return root


class Stopping(ToyUpdater):
    """Presses Ctrl-C when it meets image 130, in the third chunk."""

    def update(self, images, numbers, labels):
        super().update(images, numbers, labels)
        if 130 in numbers:
            os.kill(os.getpid(), signal.SIGINT)


def begun(folder, record, **options):
    """The first two chunks, then Ctrl-C."""
    job = toy.job(folder, tools=(Stopping, ToyState), **options)
    with resuming(record, job) as resumable:
        result = run_survey(job, resumable=resumable)
    assert result.pending
    return result


def finished(folder, record, **options):
    measured = []

    class Counting(ToyUpdater):
        def update(self, images, numbers, labels):
            measured.extend(numbers)
            super().update(images, numbers, labels)

    job = toy.job(folder, tools=(Counting, ToyState), **options)
    with resuming(record, job) as resumable:
        result = run_survey(job, resumable=resumable)
        resumable.done()
    return result, measured


def test_it_goes_on_where_it_was_and_ends_with_the_same_bytes(folder, tmp_path):
    record = tmp_path / "out" / "a.layerscope"
    half = begun(folder, record)
    assert half.done == 128
    assert (tmp_path / "out" / "a.layerscope.partial" / "state").exists()
    result, measured = finished(folder, record)
    assert min(measured) == 128, "what is done is not done again"
    assert result.state.pack() == run_survey(toy.job(folder)).state.pack()
    assert [one.name for one in result.broken] == ["cats/image5.png"]
    assert list((tmp_path / "out").iterdir()) == []


def test_progress_goes_on_too(folder, tmp_path):
    begun(folder, tmp_path / "a")
    seen = []
    job = toy.job(folder)
    with resuming(tmp_path / "a", job) as resumable:
        run_survey(job, resumable=resumable, progress=lambda *at: seen.append(at))
    assert seen[0][:2] == (128, 200)
    assert seen[-1][:2] == (200, 200)


def test_a_whole_survey_that_was_killed_before_its_record_was_written_is_not_measured_again(folder, tmp_path):
    job = toy.job(folder)
    with resuming(tmp_path / "a", job) as resumable:
        first = run_survey(job, resumable=resumable)
    result, measured = finished(folder, tmp_path / "a")
    assert measured == []
    assert result.state.pack() == first.state.pack()


SCRIPT = """
import os, signal, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from layerscope.surveying.running.partial import Partial, opened
from layerscope.surveying.running.partial import resuming
from layerscope.surveying.running.run import run_survey
from tests.survey import toy

class Slow(toy.ToyUpdater):
    def update(self, images, numbers, labels):
        time.sleep(0.02)
        super().update(images, numbers, labels)

job = toy.job(sys.argv[1], tools=(Slow, toy.ToyState))
with resuming(Path(sys.argv[2]), job, every_s=0) as resumable:
    print("begun", flush=True)
    run_survey(job, resumable=resumable)
"""


@pytest.mark.slow
@pytest.mark.parametrize("wait_s", [0.0, 0.1, 0.2, 0.3])
def test_killed_at_any_moment_it_goes_on(folder, tmp_path, wait_s):
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, folder, tmp_path / "a"], cwd=Path(__file__).parents[2], stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout and process.stdout.readline() == b"begun\n"
        with pytest.raises(UsageError, match=rf"another survey \(process {process.pid}\) is at it; wait for it"):
            finished(folder, tmp_path / "a")
        time.sleep(wait_s)
        process.kill()
    result, _ = finished(folder, tmp_path / "a")  # its lock went with it
    assert result.state.pack() == run_survey(toy.job(folder)).state.pack()
    assert not (tmp_path / "a.partial").exists()


def test_half_a_file_of_a_killed_process_is_swept_away(folder, tmp_path, monkeypatch):
    begun(folder, tmp_path / "a")

    def killed(*_: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(Path, "replace", killed)  # between the writing and the renaming, and nothing runs after it
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        save(b"half", tmp_path / "a.partial" / "state")
    (half,) = (tmp_path / "a.partial").glob(".*")
    with resuming(tmp_path / "a", toy.job(folder)):
        assert not half.exists()


def other_weights():
    model = toy.net()
    with torch.no_grad():
        model[0].weight[0, 0, 0, 0] += 1e-6
    return model


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": other_weights()}, "weights;"),
        ({"measures": ("top", 5)}, "options;"),
        ({"batch": 8}, "options;"),
    ],
)
def test_what_was_begun_otherwise_is_refused_by_name(folder, tmp_path, options, said):
    begun(folder, tmp_path / "a")
    before = (tmp_path / "a.partial/state").read_bytes()
    with pytest.raises(
        UsageError, match=f"differs from this survey in its {said} give what it was begun with, or .* --restart"
    ):
        finished(folder, tmp_path / "a", **options)
    assert (tmp_path / "a.partial/state").read_bytes() == before, "it is left as it was"


def test_other_images_layers_preprocessing_and_versions_are_refused(folder, tmp_path, monkeypatch):
    begun(folder, tmp_path / "a")
    job = toy.job(folder)
    job.layers = ["1"]
    job.network.preprocessing = job.network.preprocessing.changed(16, None, None, None, None)
    with pytest.raises(UsageError, match="in its preprocessing and layers;"), resuming(tmp_path / "a", job):
        pass
    with monkeypatch.context() as patch:
        patch.setattr("layerscope.surveying.running.job.__version__", "9.9")
        patch.setattr("layerscope.surveying.running.job.processor", lambda: "an abacus")
        with (
            pytest.raises(UsageError, match=r"layerscope \(.* there, 9.9 here\) and processor \(.*, an abacus here\)"),
            resuming(tmp_path / "a", toy.job(folder)),
        ):
            pass
    (folder / "cats/image1.png").write_bytes(b"changed")
    with pytest.raises(UsageError, match="in its data set;"), resuming(tmp_path / "a", toy.job(folder)):
        pass


def test_restart_begins_again(folder, tmp_path):
    begun(folder, tmp_path / "a")
    job = toy.job(folder, batch=8)
    with resuming(tmp_path / "a", job, restart=True) as resumable:
        assert resumable.partial.done == 0
        assert run_survey(job, resumable=resumable).images == 199


@pytest.mark.parametrize("harm", ["cut", "flip", "foreign", "holes"])
def test_a_damaged_file_is_refused(folder, tmp_path, harm):
    begun(folder, tmp_path / "a")
    path = tmp_path / "a.partial/state"
    content = path.read_bytes()
    if harm == "holes":
        header, packed = opened(content)
        rest = json.dumps(header | {"chunks": [0, 1, 2]}).encode() + b"\n" + packed
        content = content.partition(b"\n")[0] + b"\n" + hashlib.sha256(rest).digest() + rest
    path.write_bytes(
        {"cut": content[:-9], "flip": content[:-1] + bytes([content[-1] ^ 1]), "foreign": b"{}"}.get(harm, content)
    )
    with pytest.raises(RecordError, match=r"state: is damaged \(.*\); begin again with --restart"):
        finished(folder, tmp_path / "a")
    with resuming(tmp_path / "a", toy.job(folder), restart=True) as resumable:
        assert resumable.partial.done == 0


@settings(deadline=None, max_examples=80)
@given(st.data())
def test_damaged_bytes_are_an_error(data):
    job = toy.job(torch.zeros(4, 3, 8, 8))
    whole = toy.measure(job, 0).pack(identity={"a": "b"})
    assert Partial.restore(job, *opened(whole)).pack(identity={"a": "b"}) == whole
    at = data.draw(st.integers(0, len(whole) - 1))
    changed = bytearray(whole)
    changed[at] ^= data.draw(st.integers(1, 255))
    for damaged in (bytes(changed), whole[:at], whole + b"x"):
        with pytest.raises(ValueError, match=r"digest|no partial survey"):
            opened(damaged)


def test_an_error_in_the_middle_keeps_what_is_done(folder, tmp_path):
    class Failing(ToyUpdater):
        def update(self, images, numbers, labels):
            if 130 in numbers:
                raise OSError("gone")
            super().update(images, numbers, labels)

    job = toy.job(folder, tools=(Failing, ToyState))
    with pytest.raises(OSError, match="gone"), resuming(tmp_path / "a", job) as resumable:
        run_survey(job, resumable=resumable)
    _, measured = finished(folder, tmp_path / "a")
    assert min(measured) == 128


def test_nothing_is_left_of_a_survey_that_measured_nothing(folder, tmp_path):
    with resuming(tmp_path / "a", toy.job(folder)):
        pass
    assert not (tmp_path / "a.partial").exists()


def test_it_is_written_at_intervals(folder, tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(partial.files, "save", lambda data, path: written.append(len(data)))
    for every_s, times in ((0.0, 5), (3600.0, 1)):  # four chunks and the end; the end alone
        job = toy.job(folder)
        with resuming(tmp_path / "a", job, every_s=every_s) as resumable:
            run_survey(job, resumable=resumable)
        assert len(written) == times
        written.clear()


def test_a_place_that_cannot_be_written_is_said(folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"), resuming(tmp_path / "file" / "a", toy.job(folder)):
        pass
