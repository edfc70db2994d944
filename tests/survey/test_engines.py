"""Every engine gives the same state to the last bit, and accounts for every image."""

from __future__ import annotations

import functools
import importlib.util
import math
import os
import signal
import threading
import time
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from layerscope.errors import ForwardError, ImageError, NetworkError, UsageError
from layerscope.surveying.accumulators.network import NetworkAccumulator
from layerscope.surveying.accumulators.update import Measures, Updater, calibration
from layerscope.surveying.report import notes_of
from layerscope.surveying.running import pool
from layerscope.surveying.running.job import Broken, Job, pack
from layerscope.surveying.running.partial import EngineError, Partial
from layerscope.surveying.running.run import ENGINES, run_survey
from layerscope.surveying.running.worker import Worker, sample_images, work
from layerscope.surveying.sources import open_source
from tests.survey import toy
from tests.survey.toy import ToyState, ToyUpdater, pictures

RAY = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed: pip install ray")
#: every engine as it is used; the slow ones start processes
RUNS = [
    pytest.param({"engine": "local"}, id="local"),
    pytest.param({"engine": "local", "workers": 2}, id="local-2", marks=pytest.mark.slow),
    pytest.param({"engine": "ray", "workers": 2}, id="ray-2", marks=[pytest.mark.slow, RAY]),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """150 images in two classes, the second and two more of them broken: two chunks and a bit."""
    root = pictures(tmp_path_factory.mktemp("engines") / "set", 150)
    for name in ("cats/image3.png", "dogs/image2.png"):
        (root / name).write_bytes(b"no image")
    whole = (root / "dogs/image100.png").read_bytes()
    (root / "dogs/image100.png").write_bytes(whole[:100])
    return root


#: what a survey uses
REAL = (Updater, NetworkAccumulator)


@pytest.fixture
def how(request):
    """One of RUNS; those on Ray share one."""
    if request.param["engine"] == "ray":
        request.getfixturevalue("running_ray")
    return request.param


@functools.cache
def _reference(folder) -> bytes:
    """One chunk after the other, merged backwards."""
    job = toy.job(folder)
    state = ToyState()
    for chunk in reversed(range(job.chunks)):
        state.merge(toy.measure(job, chunk).state)
    return state.pack()


def test_every_engine_is_tried_here():
    assert {run.values[0]["engine"] for run in RUNS} == set(ENGINES)


@pytest.mark.parametrize("how", RUNS, indirect=True)
def test_every_engine_gives_the_same_bits_and_counts_every_image(folder, how):
    seen = []
    result = run_survey(toy.job(folder), progress=lambda *at: seen.append(at), **how)
    assert result.state.pack() == _reference(folder)
    assert (result.images, result.of, result.pending) == (147, 150, [])
    assert len(result.processors) == 1
    assert [one.number for one in result.broken] == [1, 76, 125]
    assert [one.name for one in result.broken] == ["cats/image3.png", "dogs/image2.png", "dogs/image100.png"]
    assert "is not an image that Pillow knows" in result.broken[0].reason
    assert "broken or cut off" in result.broken[2].reason
    assert str(folder) not in result.broken[0].reason
    assert seen[-1] == (150, 150, "3 broken")
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)


@pytest.mark.parametrize("how", RUNS, indirect=True)
def test_every_engine_gives_what_one_pass_over_all_images_gives(folder, how):
    """With the accumulators themselves, of everything that can be measured."""
    job = toy.job(folder, layers=[], tools=REAL)
    batch = sample_images(job)
    scale = calibration(job.network, batch.images[0])
    job.measures = Measures(top=3, histograms=("*",), classes=2, scale=scale)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in other processes: a sum over several threads may have other last bits
    try:
        state = run_survey(job, **how).state
        chunks = [toy.measure(job, chunk).state for chunk in reversed(range(job.chunks))]
    finally:
        torch.set_num_threads(threads)
    whole = NetworkAccumulator()
    for chunk in chunks:
        whole.merge(chunk)
    assert state.pack() == whole.pack()
    assert state.images == 147 and state.similarity.minibatches == 3
    assert list(state.layers) == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("how", RUNS, indirect=True)
def test_a_network_that_fails_ends_every_engine_with_its_one_line(folder, how):
    with pytest.raises(ForwardError, match="forward raised") as caught:
        run_survey(toy.job(folder, nn.Sequential(nn.Conv2d(5, 4, 3))), **how)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("how", RUNS, indirect=True)
def test_every_engine_is_stopped_between_two_images(folder, how):
    job, asked = toy.job(folder), []

    def passed(chunk, images):
        asked.append(chunk)
        return True

    stream = ENGINES[how["engine"]](job, range(job.chunks), pool.Setup(passed, how.get("workers", 0)))
    assert list(stream) == []
    assert len(asked) == 1


def test_labels_go_with_their_images(folder):
    labels = run_survey(toy.job(folder)).state.labels
    assert labels == {number: int(number >= 75) for number in range(150) if number not in (1, 76, 125)}


def test_one_image_alone_in_its_batch_is_there_twice_and_counts_once(tmp_path):
    given = []

    class Watched(ToyUpdater):
        def update(self, images, numbers, labels):
            given.append((len(images), list(numbers)))
            assert len(numbers) > 1 or torch.equal(images[0], images[1])
            super().update(images, numbers, labels)

    result = run_survey(toy.job(pictures(tmp_path / "set", 5), batch=2, tools=(Watched, ToyState)))
    assert given == [(2, [0, 1]), (2, [2, 3]), (2, [4])]
    assert (result.state.images, result.done, result.of) == (5, 5, 5)


def test_a_broken_image_changes_no_other_batch(tmp_path):
    root = pictures(tmp_path / "set", 64)
    shapes = []

    class Watched(ToyUpdater):
        def update(self, images, numbers, labels):
            shapes.append((len(images), list(numbers)))
            super().update(images, numbers, labels)

    job = toy.job(root, tools=(Watched, ToyState))
    run_survey(job)
    before = shapes.copy()
    shapes.clear()
    (root / "cats" / "image1.png").write_bytes(b"")
    run_survey(toy.job(root, tools=(Watched, ToyState)))
    assert shapes[1:] == before[1:]
    assert shapes[0] == (15, list(range(1, 16)))


def test_options_of_any_size_are_told_apart(tmp_path):
    root = pictures(tmp_path / "set", 2)

    def options(**scale):
        return toy.job(root, measures=Scaled(scale=scale)).identity()["options"]

    many = np.zeros(5000)
    other = many.copy()
    other[2500] = 1e-300
    assert options(a=many) == options(a=many.copy())
    assert len({options(a=many), options(a=other), options(b=many), options(), options(a=many, b=many)}) == 5


@dataclass
class Scaled:
    scale: dict


def test_chunks_cover_every_image_once():
    class Many:
        classes, subject, threads = [], "", 1

        def __len__(self):
            return 1000

    job = Job(None, Many(), [], chunk=128, batch=24)  # type: ignore[arg-type]
    batches = [batch for chunk in range(job.chunks) for batch in job.batches(chunk)]
    assert np.concatenate(batches).tolist() == list(range(1000))
    assert max(map(len, batches)) <= 24
    with pytest.raises(UsageError, match="chunk: 100 is not a multiple of 64"):
        Job(None, Many(), [], chunk=100)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="batch_size: 0"):
        Job(None, Many(), [], batch=0)  # type: ignore[arg-type]


def test_images_of_two_sizes_are_refused_by_name(tmp_path):
    root = pictures(tmp_path / "set", 3)
    pictures(tmp_path / "other", 3, size=20)
    (tmp_path / "other/dogs/image2.png").replace(root / "dogs/image2.png")
    for batch in (16, 1):
        job = toy.job(root, batch=batch)
        job.network.preprocessing = job.network.preprocessing.changed("none", None, None, None, None)
        with pytest.raises(ImageError, match=r"dogs/image2.png: is \(3, 20, 20\) after preprocessing and others"):
            run_survey(job)


def test_a_data_set_without_one_readable_image_is_an_error(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "b.png").write_bytes(b"")
    with pytest.raises(ImageError, match=r"none of the 2 images can be read; the first is a\.png: is empty"):
        run_survey(toy.job(tmp_path))


def test_tensors_and_live_data_sets_are_measured_as_they_are():
    batch = torch.randn(20, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    result = run_survey(toy.job(batch))
    with torch.no_grad():
        bits = toy.net().eval()(batch).numpy().view(np.int32).astype(np.int64).sum(0)
    assert result.state.bits.tolist() == bits.tolist()


def test_an_unknown_engine_is_a_usage_error(folder):
    with pytest.raises(UsageError, match="engine 'rya' is not known; nearest: ray; choose local or ray"):
        run_survey(toy.job(folder), engine="rya")


def test_ctrl_c_ends_it_with_what_is_done_and_the_second_at_once(folder, monkeypatch):
    before = signal.getsignal(signal.SIGINT)

    def progress(done, of, what):
        if done >= 100:
            os.kill(os.getpid(), signal.SIGINT)

    result = run_survey(toy.job(folder), progress=progress)
    assert (result.pending, result.of) == ([1, 2], 150)
    assert (result.done, result.images) == (64, 63)
    assert signal.getsignal(signal.SIGINT) is before

    monkeypatch.setitem(ENGINES, "deaf", deaf)
    with pytest.raises(KeyboardInterrupt):
        run_survey(toy.job(folder), engine="deaf")
    assert signal.getsignal(signal.SIGINT) is before


def deaf(job, chunks, setup):
    """Does not ask whether to stop."""
    yield toy.measure(job, chunks[0])
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)
    yield toy.measure(job, chunks[1])


def test_ctrl_c_before_anything_is_measured_gives_no_result(folder):
    with pytest.raises(KeyboardInterrupt):
        run_survey(toy.job(folder), progress=lambda *at: os.kill(os.getpid(), signal.SIGINT))


def test_nothing_is_claimed_of_ctrl_c_elsewhere_than_in_the_main_thread(folder):
    found = []
    thread = threading.Thread(target=lambda: found.append(run_survey(toy.job(folder)).images))
    thread.start()
    thread.join()
    assert found == [147]


@pytest.mark.parametrize(
    ("chunk", "images", "broken", "said"),
    [
        (0, 64, 0, "arrived twice"),
        (9, 64, 0, "chunk 9 of 3 was never asked for"),
        (1, 63, 0, "63 measured and 0 broken arrived of 64"),
        (1, 64, 1, "64 measured and 1 broken arrived of 64"),
    ],
)
def test_a_hole_is_never_silent(folder, chunk, images, broken, said):
    job = toy.job(folder)
    whole = Partial(job)
    whole.merge(toy.measure(job, 0))
    state = ToyState()
    state.images = images
    with pytest.raises(EngineError, match=said):
        whole.merge(Partial(job, {chunk}, state, [Broken(64, "x", "y")] * broken))
    assert (whole.chunks, whole.done) == ({0}, 64)


def test_an_engine_that_leaves_chunks_out_is_found_out(folder, monkeypatch):
    monkeypatch.setitem(ENGINES, "lazy", lazy)
    with pytest.raises(EngineError, match="2 of 3 chunks never arrived"):
        run_survey(toy.job(folder), engine="lazy")


def lazy(job, chunks, setup):
    yield toy.measure(job, chunks[0])


def test_unlike_processors_are_noted(folder, monkeypatch):
    monkeypatch.setitem(ENGINES, "mixed", mixed)
    note = notes_of(run_survey(toy.job(folder), engine="mixed"))[-1]
    assert note.startswith("measured on unlike processors (cpu 0; cpu 1; cpu 2)")


def mixed(job, chunks, setup):
    for chunk in chunks:
        partial = toy.measure(job, chunk)
        partial.processors = {f"cpu {chunk}"}
        yield partial


def test_a_worker_can_begin_again_after_it_was_stopped(folder):
    worker = Worker(toy.job(folder))
    assert list(worker.measure([0], lambda chunk, images: True)) == []
    asked = iter([False, True])
    assert list(worker.measure([0], lambda chunk, images: next(asked))) == []
    (again,) = worker.measure([0])
    assert again.state.pack() == toy.measure(toy.job(folder), 0).state.pack()


# ---- processes of this machine


class Deadly(ToyUpdater):
    """Kills its own process: at the image with this number, once if a file can be made, always if there is no path."""

    def update(self, images, numbers, labels):
        at, path = self.measures
        if at in numbers:
            try:
                os.close(os.open(path, os.O_CREAT | os.O_EXCL)) if path else None
                os.kill(os.getpid(), signal.SIGKILL)
            except FileExistsError:
                pass
        super().update(images, numbers, labels)

    def __init__(self, network, layers, measures):
        super().__init__(network, layers, measures)
        self.measures = measures


class Hanging(ToyUpdater):
    def update(self, images, numbers, labels):
        time.sleep(60)


class Told:
    """A worker that says what is written for it, a chunk's number for its result; in the end it dies."""

    def __init__(self, job, script, log):
        self.job, self.script, self.log = job, list(script), log

    def send(self, chunk):
        self.log.append(f"give {chunk}")

    def receive(self):
        if not self.script:
            raise EOFError
        said = self.script.pop(0)
        return said if isinstance(said, tuple) else ("partial", toy.measure(self.job, said).pack())

    def end(self):
        self.log.append("end")


class Scripted(pool.Pool):
    """Workers in the order of their scripts; one without any has nothing to say and lives."""

    def __init__(self, job, *scripts, **setup):
        super().__init__(job, range(job.chunks), pool.Setup(**setup))
        self.job, self.scripts, self.log = job, list(scripts), []

    def start(self):
        self.log.append("start")
        return Told(self.job, self.scripts.pop(0), self.log)

    def heard(self, workers, timeout_s):
        return [worker for worker in workers if worker.script != [None]]

    def not_started(self, worker):
        return EngineError("none starts")


READY = ("ready", None)


def test_the_chunk_of_a_worker_that_dies_goes_to_a_new_one(tmp_path):
    job = toy.job(pictures(tmp_path, 100))
    pool_ = Scripted(job, [READY], [READY, 0, 1, None])
    assert [partial.chunks for partial in pool_.run(1)] == [{0}, {1}]
    assert pool_.log == ["start", "give 0", "end", "start", "give 0", "give 1", "end"]


def test_a_chunk_that_three_workers_died_of_is_given_up_and_the_others_are_ended(tmp_path):
    job = toy.job(pictures(tmp_path, 100))
    pool_ = Scripted(job, [READY], [READY, None], [READY], [READY])
    with pytest.raises(EngineError, match="images 0 to 63: the process that measured them died 3 times"):
        list(pool_.run(2))
    assert pool_.log.count("start") == pool_.log.count("end") == 4


def test_workers_that_die_before_they_are_ready_and_those_that_hang_end_a_survey(tmp_path):
    job = toy.job(pictures(tmp_path, 2))
    with pytest.raises(EngineError, match="none starts"):
        list(Scripted(job, []).run(1))
    patient = Scripted(job, [], [READY, 0, None])
    patient.tries = 2
    assert len(list(patient.run(1))) == 1
    with pytest.raises(EngineError, match=r"no image was measured for 0 s: the processes hang"):
        list(Scripted(job, [None], patience_s=0).run(1))


@pytest.mark.parametrize("sent", [b"", b"layerscope partial survey 2\n", None])
def test_a_chunk_that_arrives_damaged_is_an_error(tmp_path, sent):
    job = toy.job(pictures(tmp_path, 2))
    whole = bytearray(toy.measure(job, 0).pack())
    whole[-1] ^= 1
    with pytest.raises(EngineError, match="a chunk arrived damaged"):
        list(Scripted(job, [READY, ("partial", bytes(whole) if sent is None else sent)]).run(1))


@pytest.fixture
def few_threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_a_worker_says_what_it_has_done_and_what_went_wrong(tmp_path, few_threads):
    job, sent = toy.job(pictures(tmp_path, 70)), []
    work(pack(job), [1, 0], sent.append)
    assert [kind for kind, _ in sent] == ["ready", "passed", "partial", *["passed"] * 4, "partial"]
    assert sent[1] == ("passed", (1, 6))
    assert sent[-1] == ("partial", toy.measure(job, 0).pack())
    sent.clear()
    work(pack(toy.job(job.source, tools=(Gone, ToyState))), [0], sent.append)
    (ready, _), (kind, error) = sent
    assert (ready, kind, type(error)) == ("ready", "error", EngineError)
    assert str(error) == "measuring failed: OSError: the disk is gone; try --engine local with one process"


class Gone(ToyUpdater):
    def update(self, images, numbers, labels):
        raise OSError("the disk is gone")


def test_progress_does_not_go_back_when_a_chunk_is_measured_again(folder, monkeypatch):
    monkeypatch.setitem(ENGINES, "again", again)
    seen = []
    run_survey(toy.job(folder), "again", lambda done, of, what: seen.append(done))
    assert seen == sorted(seen)
    assert 50 in seen


def again(job, chunks, setup):
    for images in (50, 10):
        setup.passed(0, images)
    for chunk in chunks:
        yield toy.measure(job, chunk)


@pytest.mark.slow
def test_a_killed_process_is_replaced_and_its_chunk_measured_again(folder, tmp_path):
    job = toy.job(folder, tools=(Deadly, ToyState), measures=(70, str(tmp_path / "once")))
    result = run_survey(job, workers=2)
    assert (tmp_path / "once").exists()
    assert result.state.pack() == _reference(folder)


@pytest.mark.slow
def test_a_chunk_that_kills_every_process_is_given_up(folder):
    job = toy.job(folder, tools=(Deadly, ToyState), measures=(70, ""))
    with pytest.raises(EngineError, match=r"images 64 to 127: the process that measured them died 3 times"):
        run_survey(job, workers=2)


@pytest.mark.slow
def test_processes_that_hang_are_ended(folder):
    job = toy.job(folder, tools=(Hanging, ToyState))
    with pytest.raises(EngineError, match=r"no image was measured for 6 s: the processes hang and were ended"):
        run_survey(job, workers=2, patience_s=6)


@pytest.mark.slow
def test_random_weights_go_along_with_a_spec(folder, code):
    from layerscope.networks.open import open_network

    results = []
    for workers_ in (1, 2):
        torch.manual_seed(workers_ * 0 + 5)
        network = open_network(f"{code}:Small")  # draws its weights when it is built
        network.preprocessing = toy.PLAIN
        job = Job(network, open_source(folder), [], tools=toy.TOOLS)
        results.append(run_survey(job, workers=workers_).state.pack())
    assert results[0] == results[1]


def test_what_cannot_be_sent_is_said(folder):
    model = toy.net()
    model.register_forward_hook(lambda *_: None)
    with pytest.raises(NetworkError, match="cannot be sent to other processes"):
        run_survey(toy.job(folder, model), workers=2)


def test_watchdog_lines_name_the_next_step(folder):
    assert str(pool.given_up(toy.job(folder), 2)).startswith("images 128 to 149: the process")


def test_the_few_images_first_come_from_all_over_the_data_set(tmp_path):
    root = pictures(tmp_path, 60)
    job = toy.job(root)
    count = len(job.source)
    numbers = range(0, count, math.ceil(count / job.batch))
    assert {job.source.label(number) for number in numbers} == {0, 1}
    want = torch.stack([job.network.preprocessing(job.source.item(number)[0]) for number in numbers])
    assert torch.equal(sample_images(job).images[0], want)
    for number in numbers:
        (root / job.source.name(number)).write_bytes(b"no image")
    second = torch.stack([job.network.preprocessing(job.source.item(number)[0]) for number in range(1, 4)])
    assert torch.equal(sample_images(job).images[0][:3], second)  # where none of them can be read, the first that can


def test_a_chunk_at_a_time_needs_no_new_updater(tmp_path):
    """Ray asks so; a new one costs a pass until its thresholds are up again."""
    job = toy.job(pictures(tmp_path, 150))
    made = []
    whole = job.updater
    object.__setattr__(job, "updater", lambda: made.append(1) or whole())
    worker = Worker(job)
    for chunk in range(job.chunks):
        next(worker.measure([chunk]))
    assert len(made) == 1
