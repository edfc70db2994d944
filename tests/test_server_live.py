"""The viewer's server over a live network: it runs images, explains units, and lives on whatever a network does."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

import layerscope
from layerscope import server
from layerscope.server import app as application
from layerscope.server.live import safe_name
from layerscope.server.worker import Busy, Worker
from layerscope.text import json_text
from layerscope.views import format as viewer_format
from tests.browsing import Tab, served, small_record
from tests.conftest import picture


@pytest.fixture
def live(code, photo) -> Iterator[Tab]:
    said: list[str] = []
    with served(f"{code}:small", [photo], warn=said.append) as viewer:
        tab = Tab(viewer)
        assert tab.until("ready", "failed")["state"] == "ready"
        tab.said = said
        yield tab


def test_a_live_network_is_run_and_tells_how_it_goes(code, photo, monkeypatch):
    monkeypatch.setattr(server, "HEAD_START_S", 60)
    with served(f"{code}:small", [photo]) as viewer:
        tab = Tab(viewer)
        index = tab.get("/api/index")
        assert index.status == 202
        assert json.loads(index.body)["state"] == "starting"
        assert tab.get("/api/block/0/0").status == 503
        with tab.events() as events:
            seen = []
            for event in events:
                seen.append(event["state"])
                if event["state"] == "ready":
                    break
        assert seen[0] == "starting"
        index = tab.json("/api/index")
        assert index["live"] == {"image": True, "units": True}
        assert index["pictures"][0]["name"] == "photo.png"
        want = layerscope.features(f"{code}:small", photo)
        assert tab.get("/api/block/0/0").body == viewer_format.block(want["stem"], 0)


def test_it_starts_without_anyone_looking(code, monkeypatch):
    monkeypatch.setattr(server, "HEAD_START_S", 0.05)
    with served(f"{code}:small") as viewer:
        tab = Tab(viewer)
        deadline = time.monotonic() + 20
        while tab.get("/api/index").status != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        index = tab.json("/api/index")
        assert index["layers"] == []
        assert any("drop one" in note for note in index["notes"])


def test_a_new_image_takes_the_place_of_the_old(live, photo, tmp_path):
    data = picture(tmp_path / "other.png", 30, 60, seed=5).read_bytes()
    before = live.get("/api/block/0/0").body
    assert live.ask("POST", "/api/image?name=..%2F..%2Fa%20b%3C.png", data).body == b'{"ok":true}'
    wait(live, 2)
    assert live.json("/api/index")["pictures"][0]["name"] == "a b_.png"
    assert live.get("/api/block/0/0").body != before
    assert live.json("/api/unit/stem/0/0")["image"] == "a b_.png"
    assert not (tmp_path / "a b_.png").exists()


def test_of_uploads_only_the_one_that_is_looked_at_stays_on_disk(code, photo, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with served(f"{code}:small", [photo]) as viewer:
        tab = Tab(viewer)
        tab.until("ready")
        for version, name in enumerate(("first", "second"), 2):
            tab.ask("POST", f"/api/image?name={name}.png", photo.read_bytes())
            wait(tab, version)
        tab.ask("POST", "/api/image?name=none.png", b"no image")
        tab.until("failed")
        deadline = time.monotonic() + 20  # it is told before the rest is tidied
        while (kept := [path.name for path in tmp_path.glob("layerscope-*/*/*")]) != ["second.png"]:
            assert time.monotonic() < deadline, kept
            time.sleep(0.02)
        assert tab.get("/api/unit/stem/0/0").status == 200
    assert photo.exists()
    assert not list(tmp_path.glob("layerscope-*"))


def wait(tab: Tab, version: int, state: str = "ready") -> dict:
    with tab.events() as events:
        return next(event for event in events if (event["version"], event["state"]) == (version, state))


@pytest.mark.parametrize("given, name", [("../../etc/passwd", "passwd"), ("C:\\a\\b.png", "b.png"), ("", "image"),
                                         ("..", "image"), ("a\x00\nb", "a__b"), ("x" * 300, "x" * 100)])  # fmt: skip
def test_a_name_from_a_browser_is_a_name_and_no_path(given, name):
    assert safe_name(given) == name


def test_an_image_that_is_none_fails_in_one_line_and_the_old_one_stays(live):
    before = live.json("/api/index")
    assert live.ask("POST", "/api/image?name=x.png", b"no image").status == 200
    event = live.until("failed")
    assert "is not an image" in event["what"]
    assert "\n" not in event["what"]
    assert live.said == [event["what"]]
    assert live.json("/api/index") == before
    assert live.get("/api/unit/stem/0/0?y=3&x=4").status == 200


def test_a_network_that_raises_fails_in_one_line_and_the_server_goes_on(code, photo):
    said: list[str] = []
    with served(f"{code}:Broken", [photo], warn=said.append) as viewer:
        tab = Tab(viewer)
        event = tab.until("failed")
        assert "forward raised ValueError" in event["what"]
        assert "\n" not in event["what"]
        assert len(said) == 1
        assert tab.get("/").status == 200
        assert tab.get("/api/index").status == 202
        assert tab.ask("POST", "/api/image", photo.read_bytes()).status == 200
        assert tab.get("/api/unit/stem/0/0").status == 400


def test_a_network_that_is_none_fails_in_one_line(photo):
    with served("torchvision:resnet43", [photo]) as viewer:
        tab = Tab(viewer)
        assert "no such network" in tab.until("failed")["what"]
        assert tab.ask("POST", "/api/image", photo.read_bytes()).status == 200
        time.sleep(0.1)
        assert "could not be loaded" in tab.until("failed")["what"]


def test_a_unit_is_its_arithmetic(live, code, photo):
    from layerscope import units

    found = live.json("/api/unit/stem/2/0?y=3&x=4")
    assert found == json.loads(json_text(units.unit(f"{code}:small", photo, "stem", 2, (3, 4)).to_json()))
    assert abs(found["arithmetic"]["sum"] - found["value"]) < 1e-4
    assert found["receptive_field"]["box"] == [[5, 8], [7, 10]]
    assert live.json("/api/unit/block.relu%3A1/0/0?y=1&x=1")["layer"] == "block.relu:1"
    assert live.json("/api/unit/head/1/0?y=0&x=0")["position"] == []
    assert len(live.json("/api/unit/block.conv/1/0")["position"]) == 2


WRONG = {"nothing/0/0": 404, "stem/6/0": 400, "stem/0/1": 404, "stem/0/0?y=112&x=0": 400, "stem/0/0?y=-1": 400,
         "stem/0/0?y=1e3": 400, "stem/x/0": 404, "../stem/0/0": 404}  # fmt: skip


@pytest.mark.parametrize("path, status", WRONG.items())
def test_a_unit_that_is_not_there_is_said(live, path, status):
    answer = live.get(f"/api/unit/{path}")
    assert answer.status == status
    assert json.loads(answer.body)["error"]


def test_an_upload_that_is_too_large_is_refused_before_it_is_sent(live, monkeypatch):
    monkeypatch.setattr(application, "LINGER_S", 0.1)
    answer = live.ask("POST", "/api/image", Content_Length=str(application.MOST_UPLOAD_BYTES + 1))
    assert answer.status == 413
    assert "64 MB" in json.loads(answer.body)["error"]
    assert answer.headers["connection"] == "close"


def test_an_upload_that_does_not_say_its_size_is_stopped(live, monkeypatch):
    monkeypatch.setattr(application, "MOST_UPLOAD_BYTES", 1 << 20)
    answer = live.ask("POST", "/api/image", iter([bytes(65536)] * 64))
    assert answer.status == 413
    assert live.ask("POST", "/api/image", b"").status == 400
    assert live.ask("POST", "/api/image", b"x", Origin="http://evil.example").status == 403
    assert live.json("/api/index")["version"] == 1


def test_an_upload_that_trickles_is_stopped(live, monkeypatch):
    monkeypatch.setattr(application, "UPLOAD_S", 0.3)
    head = f"POST /api/image HTTP/1.1\r\nHost: {live.host}\r\nCookie: {live.cookie}\r\nContent-Length: 99\r\n\r\n"
    with socket.create_connection(("127.0.0.1", live.viewer.port), timeout=5) as line:
        line.sendall(head.encode())
        for _ in range(20):
            with contextlib.suppress(OSError):
                line.sendall(b"x")
            time.sleep(0.05)
        answer = line.recv(4096).lower()
        assert b" 408 " in answer[:20]
        assert b"connection: close" in answer


def test_too_many_jobs_are_told_to_come_back(live):
    gate = threading.Event()
    begun, worker = threading.Event(), live.viewer.worker
    worker.submit(lambda: begun.set() or gate.wait(20))
    assert begun.wait(5)
    with contextlib.suppress(Busy):
        while True:
            worker.submit(lambda: None)
    assert live.get("/api/unit/stem/0/0").status == 503
    assert live.ask("POST", "/api/image", b"x").status == 503
    assert live.get("/api/index").status == 200  # not in the way of what is there already
    gate.set()


def test_a_job_that_nobody_waits_for_is_not_done(live, monkeypatch):
    gate, looked = threading.Event(), []
    monkeypatch.setattr(application, "GONE_S", 0.05)
    monkeypatch.setattr(live.viewer.live._kept, "made", lambda asked, _make: looked.append(asked) or b"{}")
    live.viewer.worker.submit(lambda: gate.wait(20))
    with socket.create_connection(("127.0.0.1", live.viewer.port)) as line:
        line.sendall(f"GET /api/unit/stem/0/0 HTTP/1.1\r\nHost: {live.host}\r\nCookie: {live.cookie}\r\n\r\n".encode())
        time.sleep(0.3)
    time.sleep(0.5)
    gate.set()
    assert live.json("/api/unit/stem/1/0") == {}
    assert [channel for _, channel, _, _ in looked] == [1]


def test_the_worker_ends_though_a_job_hangs():
    worker, gate = Worker(), threading.Event()
    worker.submit(lambda: gate.wait(20))
    worker.close(patience_s=0.05)
    with pytest.raises(Busy):
        worker.submit(lambda: None)
    gate.set()


def test_uploads_are_gone_afterwards(code, photo):
    with served(f"{code}:small", [photo]) as viewer:
        folder = Path(viewer.live._folder.name)
        assert folder.is_dir()
    assert not folder.exists()


SCRIPT = """
import sys
from layerscope.server import view
view(sys.argv[1], sys.argv[2:], browser=False, say=lambda line: print(line, flush=True))
"""


@contextlib.contextmanager
def process(*arguments: object) -> Iterator[tuple[subprocess.Popen, SimpleNamespace]]:
    command = [sys.executable, "-c", SCRIPT, *map(str, arguments)]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        url = running.stdout.readline().strip()
        port, token = url.removeprefix("http://127.0.0.1:").split("/?token=")
        yield running, SimpleNamespace(port=int(port), token=token)
    finally:
        running.kill()
        running.communicate()


@pytest.mark.parametrize("live", [False, True])
def test_ctrl_c_stops_it_with_streams_open(tmp_path, code, photo, live):
    given = [f"{code}:small", photo] if live else [small_record().save(tmp_path / "a.layerscope")]
    with process(*given) as (running, viewer):
        tab = Tab(viewer)
        with tab.events() as events:
            assert next(events)["state"] in ("starting", "ready")
            running.send_signal(signal.SIGINT)
            _, errors = running.communicate(timeout=60)  # on a busy machine; an open stream would keep it for ever
            assert list(events) is not None
        assert errors.strip().splitlines()[-1] == "KeyboardInterrupt"
        assert running.returncode in (1, -signal.SIGINT)


def test_serving_a_record_loads_neither_torch_nor_numba(tmp_path):
    path = small_record().save(tmp_path / "a.layerscope")
    script = (
        "import sys; from layerscope.server import Viewer\n"
        f"Viewer({str(path)!r}); Viewer('layerscope:alexnet')\n"
        "print([name for name in ('torch', 'numba', 'PIL', 'torchvision') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
