"""A training's run behind the viewer: steps that come, are thinned out, are damaged or replaced; and as one file."""

from __future__ import annotations

import base64
import gzip
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from layerscope.errors import RecordError, UsageError
from layerscope.records.file import load
from layerscope.records.record import Entry, Histogram, Picture, Record
from layerscope.records.sites import Site
from layerscope.server import Viewer, runs
from layerscope.stats import distribution
from layerscope.text import json_text
from layerscope.views import format as viewer_format
from layerscope.views import html
from layerscope.watching.run import open_run
from layerscope.watching.store import Store, name_of
from tests.browsing import Tab, served
from tests.web.making import entry_of


def record_of(step: int, size: int = 8) -> Record:
    """What a watch keeps of a step, by hand: a layer of the probe, of the batch, a tensor; no training is needed."""
    values = np.random.default_rng(step).normal(size=(2, 6, size, size)).astype(np.float32)
    made = Record(
        "features", "Net", pictures=[Picture(f"probe {at}", np.full((4, 5, 3), 9, np.uint8)) for at in range(2)]
    )
    made.add(entry_of("conv", list(values)))
    batch = entry_of("conv/batch", list(values * 2))
    batch.maps = []
    made.add(batch)
    found = distribution(values[0].ravel(), "float32", 10)
    tensor = Entry(Site("conv.weight", 0, "OIHW"), "kernel", (6, 1, size, size), "float32")
    tensor.whole, tensor.histogram = found.whole, Histogram(np.asarray(found.edges, np.float64), found.counts)
    made.add(tensor)
    made.provenance = {"step": step}
    return made


_opened: list[Store] = []


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    while _opened:
        _opened.pop().close()


class Trainer:
    """Writes a run as a watch does."""

    def __init__(self, logdir: Path, **options: int) -> None:
        given = {"start": 0, "keep": 200, "budget_bytes": 1 << 30} | options
        self.store = Store(logdir, **given, about={"network": "Net"}, say=lambda line: None)
        _opened.append(self.store)

    def step(self, step: int, *events: dict, **scalars: float) -> None:
        self.store.save(step, record_of(step))
        line = {"step": step, "time": 1.7e9 + step, "scalars": {"loss": 1 / step, "dead/conv": 0.0} | scalars}
        self.store.line(line | ({"events": list(events)} if events else {}))


@pytest.fixture
def trainer(tmp_path) -> Trainer:
    made = Trainer(tmp_path / "run")
    for step in (1, 10, 20):
        made.step(step)
    return made


@pytest.fixture
def fast(monkeypatch) -> None:
    monkeypatch.setattr(runs, "POLL_S", 0.02)


def soon(ask: Callable[[], object], patience_s: float = 10.0) -> object:
    """The first answer that is not empty."""
    end = time.monotonic() + patience_s
    while not (found := ask()):
        assert time.monotonic() < end, "nothing came"
        time.sleep(0.02)
    return found


def test_a_run_is_described_and_its_steps_are_given(trainer, tmp_path):
    with served(tmp_path / "run") as viewer:
        tab = Tab(viewer)
        run = tab.json("/api/run")
        assert run["steps"] == [1, 10, 20]
        assert run["times"] == [1.7e9 + 1, 1.7e9 + 10, 1.7e9 + 20]
        assert run["scalars"] == {"loss": [[1, 1.0], [10, 0.1], [20, 0.05]]}, "figures of single layers are not told"
        assert (run["live"], run["notes"]) == (True, [])
        newest, first = tab.json("/api/index"), tab.json("/api/index?step=1")
        assert (newest["step"], first["step"]) == (20, 1)
        assert first["layers"] == json.loads(json_text(viewer_format.index(record_of(1))))["layers"]
        assert tab.get("/api/block/10/0/1").body == viewer_format.block(record_of(10)["conv"], 1)
        assert tab.get("/api/picture/1.png").body[:4] == b"\x89PNG"
        for path in ("/api/index?step=5", "/api/block/5/0/0", "/api/block/10/9/0", "/api/block/10/0/9"):
            assert tab.get(path).status == 404, path
        assert tab.get("/api/index?step=one").status == 400
        assert tab.get("/api/picture/2.png").status == 404


@pytest.mark.parametrize("inside", ["", "layerscope"])
def test_either_folder_is_the_run(trainer, tmp_path, inside):
    with served(tmp_path / "run" / inside) as viewer:
        assert Tab(viewer).json("/api/run")["steps"] == [1, 10, 20]


def test_new_steps_are_told_as_they_come(trainer, tmp_path, fast):
    with served(tmp_path / "run") as viewer:
        tab = Tab(viewer)
        with tab.events() as events:
            assert next(events)["state"] == "ready"
            event = {"kind": "dead", "layer": "conv", "text": "conv lost 1 of 6 channels", "channels": [3]}
            trainer.step(30, event)
            while tab.json("/api/run")["steps"][-1] < 30:
                next(events)
        assert tab.json("/api/run")["events"] == [{"step": 30, **event}]
        assert tab.json("/api/index")["step"] == 30


@pytest.mark.parametrize("there", [False, True])
def test_a_run_that_is_still_to_come_is_waited_for(tmp_path, fast, there):
    folder = tmp_path / "runs" / "a"
    if there:
        folder.mkdir(parents=True)
    with served(folder) as viewer:
        tab = Tab(viewer)
        answer = tab.get("/api/index")
        assert answer.status == 202
        assert json.loads(answer.body)["what"] == f"for the first step of {folder}"
        assert json.loads(answer.body)["state"] == "waiting"
        assert tab.get("/api/run").status == 400
        made = Trainer(folder)
        assert tab.get("/api/index").status == 202, "an index alone is no step"
        made.step(1)
        assert soon(lambda: tab.get("/api/index").status == 200)


def test_half_a_line_is_not_read_until_it_is_whole(trainer, tmp_path, fast):
    index = tmp_path / "run" / "layerscope" / "index.jsonl"
    line = b'{"step":20,"time":1.0,"scalars":{"accuracy":0.5}}\n'
    with served(tmp_path / "run") as viewer:
        tab = Tab(viewer)
        with index.open("ab") as file:
            file.write(line[:20])
        time.sleep(0.1)
        assert "accuracy" not in tab.json("/api/run")["scalars"]
        with index.open("ab") as file:
            file.write(line[20:])
        assert soon(lambda: tab.json("/api/run")["scalars"].get("accuracy")) == [[20, 0.5]]


@pytest.mark.parametrize("at", [1, 20])
def test_a_damaged_step_is_named_and_skipped(trainer, tmp_path, at):
    path = tmp_path / "run" / "layerscope" / name_of(at)
    path.write_bytes(path.read_bytes()[:300])
    said: list[str] = []
    with served(tmp_path / "run", warn=said.append) as viewer:
        tab = Tab(viewer)
        answer = tab.get(f"/api/index?step={at}")
        assert answer.status == 422
        assert name_of(at) in json.loads(answer.body)["error"]
        assert tab.json("/api/index")["step"] == (10 if at == 20 else 20)
        run = tab.json("/api/run")
        assert at not in run["steps"]
        assert [note.startswith(f"step {at} is skipped: ") for note in run["notes"]] == [True]
    assert said == run["notes"], "once"


def test_a_damaged_newest_step_does_not_keep_the_page_from_opening(trainer, tmp_path):
    for step in (10, 20):
        (tmp_path / "run" / "layerscope" / name_of(step)).write_bytes(b"no record")
    with served(tmp_path / "run") as viewer:
        assert Tab(viewer).json("/api/index")["step"] == 1


def test_a_step_that_is_thinned_out_while_it_is_asked_for_is_not_there(trainer, tmp_path):
    with served(tmp_path / "run") as viewer:
        tab = Tab(viewer)
        (tmp_path / "run" / "layerscope" / name_of(10)).unlink()  # the list of steps is a second old
        answer = tab.get("/api/block/10/0/0")
        assert answer.status == 404
        assert "step 10 is no longer in this run" in json.loads(answer.body)["error"]
        assert tab.json("/api/run")["notes"] == [], "it is not damaged"


def test_steps_are_thinned_while_they_are_watched(tmp_path, fast):
    made = Trainer(tmp_path / "run", keep=4)
    made.step(1)
    with served(tmp_path / "run") as viewer:
        tab = Tab(viewer)
        for step in range(2, 30):
            made.step(step)
            assert tab.get("/api/index").status == 200
        soon(lambda: tab.json("/api/run")["steps"] == open_run(tmp_path / "run").steps)
        assert len(tab.json("/api/run")["steps"]) <= 4


def test_another_run_in_the_same_folder_takes_its_place(trainer, tmp_path, fast):
    with served(tmp_path / "run") as viewer:
        tab = Tab(viewer)
        before = tab.json("/api/run")["started"]
        old = tab.get("/api/block/10/0/0").body
        again = Trainer(tmp_path / "run")
        again.store.save(10, record_of(11))
        again.store.line({"step": 10, "time": 5.0})
        soon(lambda: tab.json("/api/run")["started"] != before and tab.json("/api/run")["steps"] == [10])
        assert tab.get("/api/block/10/0/0").body == viewer_format.block(record_of(11)["conv"], 0) != old


def test_few_records_are_kept_in_memory(tmp_path):
    made = Trainer(tmp_path / "run")
    for step in range(1, 21):
        made.step(step)
    with served(tmp_path / "run") as viewer:
        tab = Tab(viewer)
        for step in range(1, 21):
            assert tab.get(f"/api/block/{step}/0/0").status == 200
        assert viewer.following
        assert len(viewer.following._records) == runs.MOST_RECORDS


def test_a_run_that_vanishes_is_said_once_and_can_come_back(trainer, tmp_path, fast):
    said: list[str] = []
    with served(tmp_path / "run", warn=said.append) as viewer:
        tab = Tab(viewer)
        (tmp_path / "run").rename(tmp_path / "away")
        soon(lambda: said)
        time.sleep(0.1)
        assert len(said) == 1
        assert tab.json("/api/run")["steps"] == [1, 10, 20]
        (tmp_path / "away").rename(tmp_path / "run")
        trainer.step(30)
        soon(lambda: tab.json("/api/run")["steps"][-1] == 30)


def test_what_is_told_of_a_run_is_bounded(tmp_path):
    made = Trainer(tmp_path / "run")
    event = {"kind": "note", "layer": "", "text": "so", "channels": []}
    for step in range(1, 1500):
        made.store.line({"step": step, "time": 1.0, "scalars": {"loss": float(step)}, "events": [event]})
    made.store.line(
        {"step": 1500, "time": 1.0, "scalars": {f"figure {n}": 1.0 for n in range(50)} | {"loss": float("nan")}}
    )
    told = runs.described(open_run(tmp_path / "run"), {})
    assert len(told["scalars"]) == 16
    assert len(told["scalars"]["loss"]) == 400
    assert told["scalars"]["loss"][0] == (1, 1.0)
    assert told["scalars"]["loss"][-1][0] == 1500
    assert json.loads(json_text(told))["scalars"]["loss"][-1] == [1500, None]
    assert [told["events"][0]["step"], told["events"][-1]["step"], len(told["events"])] == [1, 1499, 500]


def test_what_is_no_run_is_refused_in_one_line(trainer, tmp_path, run):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("nothing")
    ran = run("view", tmp_path / "other", "--no-browser")
    assert ran.code == 1
    assert "other: no run in this folder" in ran.line
    ran = run("view", tmp_path, "--no-browser")
    assert ran.code == 1
    assert re.search(r"a folder of runs; give one of them: \S+/run$", ran.line)
    assert run("view", tmp_path / "run", "photo.png", "--no-browser").code == 2
    assert run("view", tmp_path / "run", "--mean", "0,0,0", "--no-browser").code == 2
    assert run("view", "resnet18", "--no-browser").code == 2, "a name is no run to come"
    index = tmp_path / "run" / "layerscope" / "index.jsonl"
    index.write_bytes(b'{"run":{"schema":99,"start":0}}\n')
    ran = run("view", tmp_path / "run", "--no-browser")
    assert ran.code == 1
    assert "update layerscope" in ran.line


def test_a_folder_with_a_checkpoint_is_still_a_network(tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {}}')
    assert runs.run_path(tmp_path) is None
    assert runs.run_path("layerscope:alexnet") is None
    assert runs.run_path("gone/AlexNet.pth") is None
    with pytest.raises(UsageError, match="no such record or checkpoint"):
        Viewer("gone/AlexNet.pth")


def parts(path: Path) -> dict[str, str]:
    return dict(re.findall(r'<script type="[^"]+" id="([^"]+)">([^<]*)</script>', path.read_text()))


def unpacked(text: str) -> bytes:
    return gzip.decompress(base64.b64decode(text))


def test_a_run_as_one_file_holds_every_step(trainer, tmp_path, run):
    ran = run("export", tmp_path / "run", "--html", "run.html")
    assert (ran.code, ran.out.strip()) == (0, "run.html")
    found = parts(tmp_path / "run.html")
    index = json.loads(found["layerscope-index"])
    assert index["step"] == 20
    assert [one["src"][:14] for one in index["pictures"]] == ["data:image/png"] * 2
    told = json.loads(found["layerscope-run"])
    assert (told["steps"], told["notes"], told.get("live")) == ([1, 10, 20], [], None)
    for step in (1, 10):
        index = json.loads(unpacked(found[f"index-{step}"]))
        assert index["step"] == step
        layers = json.loads(json_text(viewer_format.index(record_of(step))))["layers"]
        assert index["layers"] == [layer | {"id": f"{step}/{layer['id']}"} for layer in layers]
        block = unpacked(found[f"block-{step}/0-1"])
        want = viewer_format.block(record_of(step)["conv"], 1)
        assert block in (want, viewer_format.predicted(want))
    assert not [key for key in found if re.match(r"block-\d+/[12]-", key)], "no block where there are no maps"


def test_steps_and_maps_that_do_not_fit_are_said(tmp_path):
    made = Trainer(tmp_path / "run")
    for step in range(1, 61):
        made.step(step)
    said: list[str] = []
    path = runs.export_run(tmp_path / "run", tmp_path / "run.html", 260_000, said.append)
    assert path.stat().st_size <= 260_000
    told = json.loads(parts(path)["layerscope-run"])
    assert 2 <= len(told["steps"]) < 60
    assert (told["steps"][0], told["steps"][-1]) == (1, 60)
    assert len(told["times"]) == len(told["steps"])
    assert said[0].startswith(f"{len(told['steps'])} of 60 steps are in this file")
    assert told["notes"][0] in said[0]
    gaps = np.diff(told["steps"])
    assert gaps.max() - gaps.min() <= 1, "evenly"


def test_steps_are_chosen_evenly_with_both_ends():
    assert html.evenly(range(10), 20) == list(range(10))
    assert html.evenly(range(101), 5) == [0, 25, 50, 75, 100]
    assert html.evenly([3, 4, 9], 1) == [3, 9]
    assert html.evenly([3], 1) == [3]


def test_a_damaged_step_is_left_out_of_the_file(trainer, tmp_path):
    (tmp_path / "run" / "layerscope" / name_of(20)).write_bytes(b"no record")
    said: list[str] = []
    path = runs.export_run(tmp_path / "run", tmp_path / "run.html", 10_000_000, said.append)
    assert json.loads(parts(path)["layerscope-run"])["steps"] == [1, 10]
    assert said[0].startswith("step 20 is skipped: ")
    for step in (1, 10):
        (tmp_path / "run" / "layerscope" / name_of(step)).write_bytes(b"no record")
    with pytest.raises(RecordError, match="skipped"):
        runs.export_run(tmp_path / "run", tmp_path / "b.html", 10_000_000, said.append)
    assert not (tmp_path / "b.html").exists()


def test_what_cannot_be_exported_is_said(trainer, tmp_path, run):
    assert run("export", tmp_path / "run", "--csv", "tables").code == 2
    shutil.rmtree(tmp_path / "run")
    (tmp_path / "run").mkdir()
    assert run("export", tmp_path / "run", "--html", "a.html").code == 1
    Trainer(tmp_path / "run")
    ran = run("export", tmp_path / "run", "--html", "a.html")
    assert (ran.code, "no record yet" in ran.line) == (1, True)


def test_one_record_of_a_run_is_written_as_any_other(trainer, tmp_path):
    record = load(tmp_path / "run" / "layerscope" / name_of(10))
    text = record.to_html(tmp_path / "a.html").read_text()
    assert 'id="block-0-0"' in text
    assert record._repr_html_().startswith("<iframe")
    assert repr(record) == "<features of Net: 3 layers, 2 images>"
