"""The server's doors against what a hostile page, program or network sends, over real sockets."""

from __future__ import annotations

import contextlib
import json
import re
import socket
from collections.abc import Iterator

import pytest

from layerscope.server import Viewer
from tests.browsing import Tab, served, small_record

SECRETS = [b"import ", b"root:", b"PRIVATE", b"Traceback"]


@pytest.fixture(scope="module")
def shown() -> Iterator[Viewer]:
    with served(small_record()) as viewer:
        yield viewer


@pytest.fixture(scope="module")
def tab(shown) -> Tab:
    return Tab(shown)


def sent(tab: Tab, data: bytes, timeout_s: float = 0.3) -> bytes:
    """All that comes back on one connection; it ends with the connection, or with silence."""
    with socket.create_connection(("127.0.0.1", tab.viewer.port), timeout=timeout_s) as line:
        found = b""
        with contextlib.suppress(TimeoutError, ConnectionResetError, BrokenPipeError):
            line.sendall(data)
            while part := line.recv(65536):
                found += part
    return found


def statuses(answer: bytes) -> list[bytes]:
    return re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)


def head(
    tab: Tab, first: str = "GET /api/index HTTP/1.1", *more: str, host: str = "", cookie: bool = True, last: bool = True
) -> bytes:
    lines = [first, f"Host: {host or tab.host}", *([f"Cookie: {tab.cookie}"] if cookie else []), *more]
    lines += ["Connection: close"] if last else []
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def test_an_honest_request_is_answered(tab):
    assert statuses(sent(tab, head(tab))) == [b"200"]


REBOUND = [
    "evil.example:{port}", "127.0.0.1.nip.io:{port}", "127.0.0.1.evil.example:{port}", "127.0.0.1.:{port}",
    "127.1:{port}", "localhost.:{port}", "localhost.evil.example:{port}", "2130706433:{port}", "0x7f.0.0.1:{port}",
    "0177.0.0.1:{port}", "[::ffff:127.0.0.1]:{port}", "[::1]:{port}", "0:{port}", "127.0.0.2:{port}",
    "evil@127.0.0.1:{port}", "127.0.0.1:{port}@evil.example", "127.0.0.1:{port}#.evil.example", "127.0.0.1:0{port}",
    "127.0.0.1: {port}",
    "127.0.0.1", "127.0.0.1:80", "\u0131localhost:{port}", "127.0.0.1:{port}, evil.example", "127.0.0.1:{port}\t", "*",
]  # fmt: skip


@pytest.mark.parametrize("host", REBOUND, ids=ascii)
def test_a_name_that_was_made_to_point_here(tab, host):
    """DNS rebinding: the page's own origin is evil.example, its address is ours, and the browser sends its name."""
    given = host.format(port=tab.viewer.port).encode("utf-8").decode("latin-1")
    for first in ("GET /api/index HTTP/1.1", f"GET /?token={tab.viewer.token} HTTP/1.1", "GET / HTTP/1.1"):
        answer = sent(tab, head(tab, first, host=given))
        found = statuses(answer)
        assert len(found) == 1
        assert found[0] in (b"403", b"400") or given.strip() == tab.host, answer[:200]
        assert b"set-cookie" not in answer.lower() or given.strip() == tab.host


def test_an_absolute_address_does_not_stand_for_the_host(tab):
    for first in ("GET http://evil.example/api/index HTTP/1.1", f"GET http://{tab.host}/api/index HTTP/1.1"):
        assert statuses(sent(tab, head(tab, first, host="evil.example"))) == [b"403"]


@pytest.mark.parametrize("more", [
    ["Origin: null"], ["Origin: http://evil.example"], ["Origin: file://"], ["Origin: "],
    ["Sec-Fetch-Site: cross-site"], ["Sec-Fetch-Site: same-site"], ["Sec-Fetch-Site: none, cross-site"],
    ["Origin: http://{host}", "Origin: null"],
    ["Origin: http://{host}.evil.example"], ["Origin: http://{host}", "Sec-Fetch-Site: cross-site"],
    ["Origin: https://{host}"], ["Origin: http://localhost.evil:{port}"], ["origin: NULL"],
], ids=str)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_request_of_another_page(tab, more, method):
    """A form, an image or a script of another page sends the cookie of a browser that is not strict."""
    lines = [line.format(host=tab.host, port=tab.viewer.port) for line in more]
    body = ["Content-Type: text/plain", "Content-Length: 0"] if method == "POST" else []
    assert statuses(sent(tab, head(tab, f"{method} /api/index HTTP/1.1", *lines, *body))) == [b"403"]


def encodings() -> list[str]:
    """Ways to write ../ and / in an address."""
    up = [
        "..",
        "%2e%2e",
        "%2E.",
        "..%00",
        "%252e%252e",
        "..;",
        "%c0%ae%c0%ae",
        "%uff0e%uff0e",
        "%e2%80%a4.",
        "....",
        "%e0%80%ae.",
    ]
    slash = ["/", "%2f", "%5c", "\\", "%252f", "%c0%af", "//", "/./", "%u2215", ";/"]
    return [f"{step}{bar}" * 4 + f"{end}" for step in up for bar in slash for end in ("etc/passwd", "record.py")]


def test_no_address_leads_out_of_the_table(tab):
    paths = [f"{start}{path}" for start in ("/web/", "/", "/api/picture/", "/api/block/") for path in encodings()]
    for at in range(0, len(paths), 40):  # more at once would be more than the server takes in one piece
        given = paths[at : at + 40]
        requests = [head(tab, f"GET {path} HTTP/1.1", last=path is given[-1]) for path in given]
        answer = sent(tab, b"".join(requests))
        assert statuses(answer) == [b"404"] * len(given)
        assert not any(secret in answer for secret in SECRETS)


SMUGGLED = b"GET /api/picture/0.png HTTP/1.1\r\n"
AMBIGUOUS = {
    "two lengths": ["Content-Length: 0", "Content-Length: 5"],
    "a length and chunks": ["Content-Length: 5", "Transfer-Encoding: chunked"],
    "chunks of another kind": ["Transfer-Encoding: xchunked"],
    "chunks twice": ["Transfer-Encoding: chunked, chunked"],
    "a length below zero": ["Content-Length: -1"],
    "a length with a sign": ["Content-Length: +5"],
    "a length in hexadecimal": ["Content-Length: 0x5"],
    "a length without end": ["Content-Length: " + "9" * 5000],
    "a blank before the colon": ["Content-Length : 5"],
    "a folded line": ["X: a", " Content-Length: 5"],
    "a zero byte": ["X: a\0b"],
    "a bare line feed": ["X: a\nContent-Length: 5"],
}


@pytest.mark.parametrize("case", AMBIGUOUS)
def test_requests_that_can_be_read_in_two_ways(tab, case):
    """One answer at most before the connection ends: the bytes behind are never taken for another request."""
    answer = sent(tab, head(tab, "POST /api/index HTTP/1.1", *AMBIGUOUS[case]) + SMUGGLED + head(tab)[:0])
    assert len(statuses(answer)) == 1
    assert b"image/png" not in answer
    assert set(statuses(answer)) <= {b"400", b"403", b"405", b"413", b"501"}, answer[:300]


def test_every_request_of_a_connection_is_asked_for_its_cookie(tab):
    others = head(tab, cookie=False, last=False), head(tab, host="evil.example", last=False)
    answer = sent(tab, head(tab, last=False) + b"".join(others) + head(tab, "GET /nothing HTTP/1.1"))
    assert statuses(answer) == [b"200", b"403", b"403", b"404"]


OVERSIZED = {
    "an address": b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n\r\n",
    "a method": b"A" * 200_000,
    "a header": b"GET / HTTP/1.1\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
    "many headers": b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 30_000 + b"\r\n",
    "no request": bytes(range(256)) * 800,
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(300),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(100),
    "HTTP/0.9": b"GET /\r\n",
    "an old version": b"GET / HTTP/1.0\r\n\r\n",
    "nothing": b"",
    "a websocket": b"GET /api/events HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
}


@pytest.mark.parametrize("case", OVERSIZED)
def test_what_is_too_large_or_no_request_is_refused(tab, case):
    answer = sent(tab, OVERSIZED[case])
    assert set(statuses(answer)) <= {b"400", b"403", b"431"}
    assert len(answer) < 2000
    assert tab.get("/api/index").status == 200


CHUNKS = {
    "a size beyond all": b"FFFFFFFFFFFFFFFFFF\r\nx",
    "a size below zero": b"-1\r\nx\r\n",
    "no size": b"\r\nx\r\n",
    "an extension without end": b"1;" + b"a" * 100_000 + b"\r\nx\r\n0\r\n\r\n",
    "a trailer without end": b"0\r\n" + b"X: a\r\n" * 30_000 + b"\r\n",
    "bytes of one": b"1\r\nx\r\n" * 2000 + b"0\r\n\r\n",
    "cut off": b"5\r\nab",
}


@pytest.mark.parametrize("case", CHUNKS)
def test_a_body_in_odd_chunks(tab, case):
    answer = sent(tab, head(tab, "POST /api/index HTTP/1.1", "Transfer-Encoding: chunked") + CHUNKS[case])
    assert set(statuses(answer)) <= {b"400", b"405"}
    assert tab.get("/api/index").status == 200


def test_nothing_of_a_request_comes_back_as_a_header(tab):
    for path in (
        "/%0d%0aX-Evil:%201",
        f"/?token={tab.viewer.token}%0d%0aX-Evil: 1".replace(" ", "%20"),
        "/web/%0d%0aX-Evil:1",
    ):
        answer = sent(tab, head(tab, f"GET {path} HTTP/1.1"))
        assert b"\r\nx-evil" not in answer.lower()


def test_nothing_of_an_address_comes_back_as_markup(tab):
    answer = tab.get("/api/block/%3Cscript%3E/0")
    assert answer.headers["content-type"].startswith(("application/json", "text/plain"))
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "<script>" not in answer.body.decode()
    assert json.loads(answer.body)["error"].isprintable()


def test_the_token_is_nowhere_but_in_the_cookie(tab):
    for path in ("/", "/api/index", "/web/main.js", "/nothing"):
        answer = tab.get(path)
        assert tab.viewer.token.encode() not in answer.body
        assert tab.viewer.token not in str(answer.headers)
