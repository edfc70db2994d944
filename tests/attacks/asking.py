"""Requests of every kind to the server's application in process, without sockets, and what has to hold of each answer.

A script of a `Choice` says which requests, in what order, and what happens to the session between them.
"""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any
from urllib.parse import quote

from layerscope.records.file import load
from layerscope.server.app import application
from layerscope.server.guard import HEADERS, Guard
from layerscope.server.live import Live
from layerscope.server.session import Session
from layerscope.server.worker import Worker
from tests.attacks import crafting
from tests.attacks.crafting import Choice
from tests.attacks.pictures import samples

PORT, TOKEN = 4321, "t" * 43
HOST = f"127.0.0.1:{PORT}"
COOKIE = f"layerscope-{PORT}={TOKEN}"
#: what may be answered; 500 where a network cannot do what it was asked for, and then in one line
STATUSES = {200, 202, 303, 400, 403, 404, 405, 408, 413, 422, 500, 503}
#: the largest answer to a request about records of 100 KB
MOST_BYTES = 4 << 20

METHODS = ["GET", "GET", "GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE", "get", "G\u00c4T", ""]
NUMBERS = [
    *["0"] * 8,
    "1",
    "1",
    "1",
    "2",
    "3",
    "7",
    "-1",
    "00",
    "1e3",
    "0x1",
    " 1",
    "99999999999999999999",
    "9" * 5000,
    "\u0661",
    "",
    "1.5",
]
KEYS = ["stem", "act", "block.relu", "block.relu:1", "block.conv", "head", "pool",
        "nothing", "", "..", "a/b", "\u202e", "\x1b[2J", "k" * 9000, "%",
        "a:conv1", "conv", "block.conv/0", "\udcff"]  # fmt: skip
PATHS = [
    "/", "/web/index.html", "/web/main.js", "/web/{k}", "/web/../{k}", "/web/%2e%2e/%2e%2e/etc/passwd", "/api/index",
    "/api/events", "/api/block/{n}/{n}", "/api/image",
    "/api/unit/{k}/{n}/{n}", "/api/unit/{k}/{n}/{n}", "/api/picture/{n}.png", "/api/image", "/api/kernels",
    "/api/block/kernels/{n}/0", "/api/tokens/{k}/{n}", "/api/attention/{k}/{n}", "/api/profile/{n}", "/api/shown/{n}",
    "//", "/{k}", "/api/{k}/{n}", "/api/block/{n}/{n}/", "*", "http://evil.example/api/index",
]  # fmt: skip
QUERIES = ["", "", "", f"token={TOKEN}", "token=", "token=x&token=" + TOKEN, "y={n}&x={n}", "y={n}", "x=-1", "y=\u0663",
           "name={k}", "name=..%2f..%2fx.png", "&" * 3000, "token=%ff%00", "%"]  # fmt: skip
HOSTS = [*[HOST] * 40, f"localhost:{PORT}", "evil.example", "127.0.0.1", f"127.0.0.1:{PORT}.evil",
         f"[::1]:{PORT}", "", f"127.0.0.1:{PORT}\u00e9"]  # fmt: skip
COOKIES = [*[COOKIE] * 30, "", "a=b; " + COOKIE, COOKIE + "x", f"layerscope-{PORT}=",
           'x="\\377', "layerscope-1=" + TOKEN, "=" * 500]  # fmt: skip
MORE: list[tuple[str, str]] = [
    ("origin", "null"), ("origin", f"http://{HOST}"), ("origin", "https://evil.example"),
    ("sec-fetch-site", "cross-site"), ("sec-fetch-site", "same-origin"), ("sec-fetch-site", "none"),
    ("sec-fetch-site", "same-site"), ("content-length", "5"), ("content-length", "-1"), ("content-length", "9" * 20),
    ("content-length", "\u00b2"), ("content-type", "image/png"), ("range", "bytes=0-9999999999"), ("host", HOST),
    ("accept-encoding", "gzip"), ("x-forwarded-for", "1.2.3.4"), ("upgrade", "websocket"), ("cookie", COOKIE),
]  # fmt: skip


class Stage:
    """A server's inside: a saved record, or a tiny network at work."""

    def __init__(self, folder: Path, live: bool) -> None:
        # In a thread of its own: the tests' may run one already.
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self.session, self.worker = Session(), Worker()
        self.session.attach(self.loop)
        self.told: list[str] = []
        self.live: Live | None = None
        self.records = [load(crafting.write(folder / f"{at}.layerscope", *crafting.truth(at))) for at in range(4)]
        if live:
            self.live = Live([_network()], [], self.session, self.worker, self.told.append)
            self.live.start()
            self.worker.submit(lambda: None).result(120)
        else:
            self.session.show(self.records[0])
            self.session.tell("ready")
        self.guard = Guard(application(self.session, self.worker, self.live), PORT, TOKEN)

    def close(self) -> None:
        self.session.close()
        self.worker.close()
        if self.live:
            self.live.close()
        asyncio.run_coroutine_threadsafe(self.loop.shutdown_default_executor(), self.loop).result(60)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()

    def ask(self, scope: dict[str, Any], parts: list[bytes], leaves: bool = False) -> tuple[int, dict[str, str], bytes]:
        """(status, headers, body) of one request; `leaves`: the client is gone before its body ends."""
        return asyncio.run_coroutine_threadsafe(self._ask(scope, list(parts), leaves), self.loop).result(90)

    async def _ask(self, scope: dict[str, Any], parts: list[bytes], leaves: bool) -> tuple[int, dict[str, str], bytes]:
        sent: list[Any] = []
        begun = asyncio.Event()

        async def receive() -> dict[str, Any]:
            if parts:
                part = parts.pop(0)
                return {"type": "http.request", "body": part, "more_body": bool(parts) or leaves}
            if not leaves:
                await begun.wait()  # a stream is heard until it has said something
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)
            if message["type"] == "http.response.body" and message.get("body"):
                begun.set()

        async with asyncio.timeout(60):
            await self.guard(scope, receive, send)
        assert [one["type"] for one in sent].count("http.response.start") == 1
        body = b"".join(one.get("body", b"") for one in sent[1:])
        return sent[0]["status"], {k.decode(): v.decode("latin-1") for k, v in sent[0]["headers"]}, body


def _network() -> Any:
    import torch

    from tests.conftest import CODE

    torch.set_num_threads(1)
    space: dict[str, Any] = {}
    exec(CODE, space)
    return space["small"]()


def stages(folder: Path) -> list[Stage]:
    """One with a record, one with a network."""
    return [Stage(folder, False), Stage(folder, True)]


def _filled(text: str, choice: Choice) -> str:
    while "{n}" in text:
        text = text.replace("{n}", NUMBERS[choice.below(len(NUMBERS))], 1)
    return text.replace("{k}", KEYS[choice.below(len(KEYS))]) if "{k}" in text else text


def request(choice: Choice) -> tuple[dict[str, Any], list[bytes], bool]:
    """An HTTP scope as a server makes it of a request, the parts of its body, and whether its client leaves."""
    path = _filled(PATHS[choice.below(len(PATHS))], choice)
    query = _filled(QUERIES[choice.below(len(QUERIES))], choice)
    headers = [("host", HOSTS[choice.below(len(HOSTS))]), ("cookie", COOKIES[choice.below(len(COOKIES))])]
    headers += [MORE[choice.below(len(MORE))] for _ in range(max(0, choice.below(8) - 5))]
    raw = quote(path, safe="/%:*", errors="surrogateescape").encode()
    method = METHODS[choice.below(len(METHODS))]
    if choice.below(4):
        method = "POST" if path == "/api/image" else "GET"
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http", "root_path": "",
        "method": method, "path": path.encode("utf-8", "replace").decode(), "raw_path": raw,
        "query_string": query.encode("utf-8", "replace"), "client": ("127.0.0.1", 1), "server": ("127.0.0.1", PORT),
        "headers": [(name.encode(), value.encode("utf-8", "replace")) for name, value in headers],
    }  # fmt: skip
    return scope, _body(choice), choice.below(12) == 0


def _body(choice: Choice) -> list[bytes]:
    what = choice.below(5)
    if what < 2:
        return [b""]
    if what == 2:
        return [bytes((choice.below(256),)) * choice.below(2000) for _ in range(1 + choice.below(4))]
    files = samples()
    data = bytearray(files[sorted(files)[choice.below(len(files))]])
    if what == 4:
        data[choice.below(len(data))] = choice.below(256)
    cut = choice.below(len(data))
    return [bytes(data[:cut]), bytes(data[cut:])]


def entitled(scope: dict[str, Any], once: str) -> bool:
    """Whether the guard may let this in, worked out anew from what it promises."""
    found: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        found.setdefault(name.decode(), []).append(value.decode("latin-1"))
    hosts = found["host"]
    if len(hosts) != 1 or hosts[0] not in (HOST, f"localhost:{PORT}"):
        return False
    if set(found.get("sec-fetch-site", [])) - {"same-origin", "none"}:
        return False
    if set(found.get("origin", [])) - {f"http://{hosts[0]}"}:
        return False
    given = [one[6:] for one in scope["query_string"].decode("latin-1").split("&") if one.startswith("token=")]
    if scope["path"] == "/" and any(given):
        return [one for one in given if one][-1] in {TOKEN, once} - {""}
    return any(COOKIE in [part.strip() for part in text.split(";")] for text in found.get("cookie", []))


def check(stage: Stage, scope: dict[str, Any], parts: list[bytes], leaves: bool) -> int:
    """Ask, and hold the answer against the rules; its status."""
    allowed = entitled(scope, stage.guard.once)
    status, headers, body = stage.ask(scope, parts, leaves)
    assert status in STATUSES, status
    assert allowed or status == 403, (status, scope)
    assert {name.lower(): value for name, value in HEADERS.items()}.items() <= headers.items()
    assert not {"access-control-allow-origin", "server"} & headers.keys()
    assert len(body) <= MOST_BYTES
    assert ("set-cookie" in headers) <= (status == 303)
    if body and headers["content-type"] == "application/json":
        answer = json.loads(body)
        if status >= 400:
            assert answer["error"].isprintable(), answer
            assert "Traceback" not in answer["error"]
    if status == 500:
        assert stage.live is not None, body
    return status


def play(stage: Stage, choice: Choice, most: int = 6) -> list[int]:
    """A few requests, and things that happen between them; the statuses."""
    found = []
    for _ in range(1 + choice.below(most)):
        what = choice.below(10)
        if what == 0:
            states = ("starting", "loading", "running", "ready", "failed")
            stage.session.tell(states[choice.below(5)], choice.below(9), choice.below(9), KEYS[choice.below(len(KEYS))])
        elif what == 1 and stage.live is None:
            stage.session.show(stage.records[choice.below(4)])
        elif what == 2:
            stage.guard.launch()
        else:
            found.append(check(stage, *request(choice)))
    if stage.live is not None:
        stage.worker.submit(lambda: None).result(60)
    return found
