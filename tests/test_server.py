"""The viewer's server over a record: what it gives, and whom it refuses.

A real server on a loopback port, asked with plain HTTP; no browser here.
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from layerscope.errors import ImageError, RecordError, UsageError
from layerscope.records.record import Record
from layerscope.server import Viewer, is_record
from layerscope.server import app as application
from layerscope.server.run import Patience
from layerscope.text import json_text
from layerscope.views import format as viewer_format
from tests.browsing import Tab, closed, raw, served, small_record


@pytest.fixture(scope="module")
def record() -> Record:
    return small_record()


@pytest.fixture(scope="module")
def shown(record) -> Iterator[Viewer]:
    with served(record) as viewer:
        yield viewer


@pytest.fixture
def tab(shown) -> Tab:
    return Tab(shown)


def test_a_record_is_given_as_it_is(tab, record):
    assert tab.until("ready")["version"] == 1
    index = tab.json("/api/index")
    assert index.pop("version") == 1
    assert index == json.loads(json_text(viewer_format.index(record)))
    assert index["live"] is None
    block = tab.get("/api/block/0/0")
    assert block.headers["content-type"] == "application/octet-stream"
    assert block.body == viewer_format.block(record["layer"], 0)
    assert tab.get("/api/picture/0.png").body == viewer_format.picture_of(record, 0)


@pytest.mark.parametrize("path", ["/api/block/1/0", "/api/block/0/1", "/api/block/x/0", "/api/block/-1/0",
                                  "/api/block/99999999999999999999/0", "/api/picture/1.png", "/api", "/nothing",
                                  "/api/unit/layer/0/0"])  # fmt: skip
def test_what_is_not_there_is_404_and_one_line(tab, path):
    answer = tab.get(path)
    assert answer.status == 404
    assert "\n" not in json.loads(answer.body)["error"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
def test_a_record_takes_nothing(tab, method):
    assert tab.ask(method, "/api/index", b"{}").status == 405
    assert tab.ask("POST", "/api/image", b"x").status == 404


def test_the_page_and_its_files(tab, monkeypatch):
    page = tab.get("/")
    assert page.status == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    for name in application.web_files():
        file = tab.get(f"/web/{name}")
        assert file.status == 200
        assert file.body.decode() == application.web_files()[name]


@pytest.mark.parametrize("path", ["/web/../record.py", "/web/%2e%2e/record.py", "/web/..%2frecord.py", "/../record.py",
                                  "/web/%2e%2e%5crecord.py", "/web//etc/passwd", "/web/%2fetc%2fpasswd", "/web/",
                                  "/web/index.html%00.js", "//127.0.0.1/web/index.html"])  # fmt: skip
def test_no_path_leads_out_of_the_table(tab, path):
    answer = tab.get(path)
    assert answer.status == 404
    assert b"import" not in answer.body


def test_every_answer_has_the_headers(tab, shown):
    stranger = Tab(shown, enter=False)
    for answer in (tab.get("/"), tab.get("/nothing"), tab.get("/api/block/0/0"), stranger.get("/")):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert "server" not in answer.headers
        assert "access-control-allow-origin" not in answer.headers


EVERYTHING = ["/", "/web/index.html", "/api/index", "/api/block/0/0", "/api/picture/0.png", "/api/events", "/x"]


@pytest.mark.parametrize("path", EVERYTHING)
def test_no_token_no_answer(shown, path):
    assert Tab(shown, enter=False).get(path).status == 403


@pytest.mark.parametrize("path", EVERYTHING)
@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1:1", "127.0.0.1", "[::1]:{port}",
                                  "127.0.0.1.nip.io:{port}", "0.0.0.0:{port}"])  # fmt: skip
def test_a_foreign_host_is_refused_whatever_it_knows(tab, path, host):
    tab.host = host.format(port=tab.viewer.port)
    assert tab.get(path).status == 403
    assert tab.get(f"/?token={tab.viewer.token}").status == 403


def test_localhost_is_this_machine_too(tab):
    tab.host = f"localhost:{tab.viewer.port}"
    assert tab.get("/api/index").status == 200


def test_two_hosts_or_none_are_refused(tab):
    for hosts in (b"", f"Host: {tab.host}\r\nHost: {tab.host}\r\n".encode()):
        answer = raw(tab.viewer, b"GET /api/index HTTP/1.1\r\n" + hosts + f"Cookie: {tab.cookie}\r\n\r\n".encode())
        assert answer.split(b"\r\n")[0].split()[1] in (b"400", b"403")


def test_the_guard_itself_lets_nobody_in_by_default(shown):
    good, guard = (b"host", f"127.0.0.1:{shown.port}".encode()), shown.guard
    for headers in ([], [good, good], [(b"host", b"")]):
        answer = guard._answer({"headers": headers, "path": "/", "query_string": f"token={shown.token}".encode()})
        assert answer.status_code == 403
    guard.once = ""
    assert guard._let_in("").status_code == 403


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1", "http://127.0.0.1:1",
                                    "https://127.0.0.1:{port}", "http://localhost:{port}"])  # fmt: skip
def test_a_foreign_origin_is_refused(tab, origin):
    assert tab.get("/api/index", Origin=origin.format(port=tab.viewer.port)).status == 403
    assert tab.get("/api/index", Origin=f"http://{tab.host}").status == 200


@pytest.mark.parametrize("site, status", [("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)])
def test_a_request_from_another_page_is_refused(tab, site, status):
    assert tab.get("/api/index", Sec_Fetch_Site=site).status == status


@pytest.mark.parametrize("token", ["", "x", "{token}x", "{short}", "%00", "\u00e9".encode().hex()])
def test_a_wrong_token_is_refused(shown, token):
    stranger = Tab(shown, enter=False)
    answer = stranger.enter(token.format(token=shown.token, short=shown.token[:-1]))
    assert answer.status == 403
    assert "set-cookie" not in answer.headers
    assert stranger.get("/api/index", Cookie=f"layerscope-{shown.port}={token}").status == 403
    assert stranger.get("/api/index", Cookie=f"session={shown.token}").status == 403


def test_the_token_becomes_a_cookie_and_a_clean_address(shown):
    answer = Tab(shown, enter=False).enter(shown.token)
    assert answer.status == 303
    assert answer.headers["location"] == "/"
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"layerscope-{shown.port}=")
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert len(shown.token) >= 43  # 32 bytes
    assert Tab(shown).get(f"//evil.example/?token={shown.token}").status == 404


def test_the_browser_is_given_a_token_for_one_use(shown):
    launched = shown.guard.launch()
    assert Tab(shown, enter=False).enter(launched).status == 303
    assert Tab(shown, enter=False).enter(launched).status == 403
    assert Tab(shown, enter=False).enter("").status == 403
    assert Tab(shown).get("/api/index").status == 200


def test_it_listens_on_loopback_alone(shown):
    assert shown._socket.getsockname()[0] == "127.0.0.1"
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.2", shown.port), 1).close()


def test_several_tabs_hear_the_news_and_more_than_four_streams_take_turns(record):
    with served(record) as viewer, contextlib.ExitStack() as open_streams:
        tabs = [Tab(viewer) for _ in range(6)]
        streams = [open_streams.enter_context(tab.events()) for tab in tabs]
        assert [next(stream)["state"] for stream in streams] == ["ready"] * 6
        assert [list(stream) for stream in streams[:2]] == [[], []]  # ended by the last two
        viewer.session.tell("running", 1, 2, "net")
        assert [next(stream)["done"] for stream in streams[2:]] == [1] * 4
        assert all(tab.get("/api/index").status == 200 for tab in tabs)


def test_streams_end_when_the_server_stops(record):
    with served(record) as viewer, Tab(viewer).events() as events:
        viewer.server.config.timeout_graceful_shutdown = 60  # more than `served` waits for
        assert next(events)["state"] == "ready"
        viewer.server.should_exit = True
        assert list(events) == []


CRAFTED = {
    "more statistics than maps": (
        "entries.0.columns.floats",
        (4, 7),
        np.float64,
        "entries.0.columns.counts",
        (4, 7),
        np.int64,
    ),
}


@pytest.mark.parametrize("lie", CRAFTED)
def test_a_crafted_record_is_refused_when_it_is_looked_at(record, tmp_path, lie):
    path = record.save(tmp_path / "a.layerscope")
    arrays, given = load_file(path), CRAFTED[lie]
    for name, shape, kind in zip(given[::3], given[1::3], given[2::3], strict=True):
        arrays[name] = np.zeros(shape, kind)
    save_file(arrays, path, metadata=_metadata(path))
    with served(path) as viewer:
        answer = Tab(viewer).get("/api/block/0/0")
        assert answer.status == 422
        assert "contradicts itself" in json.loads(answer.body)["error"]
        assert Tab(viewer).get("/").status == 200


def _metadata(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return file.metadata()


def test_a_record_that_cannot_be_read_is_said_at_once(record, tmp_path):
    path = record.save(tmp_path / "a.layerscope")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(RecordError, match="cut off"):
        Viewer(path)
    with pytest.raises(RecordError, match="no such record"):
        Viewer(tmp_path / "b.layerscope")
    with pytest.raises(UsageError, match=r"gone.pth: no such record or checkpoint"):
        Viewer("gone.pth")
    with pytest.raises(UsageError, match="takes no image"):
        Viewer(record, ["photo.png"])
    with pytest.raises(ImageError, match=r"gone.png: no such image"):
        Viewer("layerscope:alexnet", ["gone.png"])


def test_a_record_is_told_from_a_checkpoint(record, tmp_path, checkpoint):
    assert is_record(record.save(tmp_path / "any.name"))
    assert is_record("gone.layerscope")
    save_file({"x": np.zeros(3)}, tmp_path / "x.safetensors", metadata={"format": "pt"})
    for other in (checkpoint, tmp_path / "x.safetensors", "torchvision:resnet34", tmp_path, 3):
        assert not is_record(other), other


def test_a_port_that_is_taken_is_said(shown, record):
    with pytest.raises(UsageError, match=f"port {shown.port}: cannot be used"):
        Viewer(record, port=shown.port)
    with pytest.raises(UsageError, match="port 70000"):
        Viewer(record, port=70000)


def test_headers_without_end_are_refused(shown):
    assert b" 400 " in raw(shown, b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000)[:30]


def test_who_sends_or_says_nothing_is_cut_off(shown, monkeypatch):
    monkeypatch.setattr(Patience, "head_s", 0.3)
    monkeypatch.setattr(Patience, "stall_s", 0.3)
    tab = Tab(shown)
    head = f"POST /api/index HTTP/1.1\r\nHost: {tab.host}\r\nCookie: {tab.cookie}\r\nContent-Length: 9\r\n\r\n12"
    for begun in (b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: "):
        with socket.create_connection(("127.0.0.1", shown.port), timeout=5) as line:
            line.sendall(begun)
            assert closed(line), begun
    with socket.create_connection(("127.0.0.1", shown.port), timeout=5) as line:
        line.sendall(head.encode())
        assert closed(line)


def test_who_reads_nothing_is_cut_off(record, monkeypatch):
    monkeypatch.setattr(Patience, "stall_s", 0.3)
    monkeypatch.setattr(viewer_format, "block_of", lambda record, number, image: bytes(30_000_000))
    with served(record) as viewer:
        tab = Tab(viewer)
        with socket.create_connection(("127.0.0.1", viewer.port), timeout=5) as line:
            line.sendall(f"GET /api/block/0/0 HTTP/1.1\r\nHost: {tab.host}\r\nCookie: {tab.cookie}\r\n\r\n".encode())
            time.sleep(1.0)
            came = 0
            with contextlib.suppress(ConnectionResetError):
                while part := line.recv(1 << 20):
                    came += len(part)
            assert 0 < came < 30_000_000
