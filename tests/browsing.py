"""A viewer's server on a real port, and a browser's tab without a browser: plain HTTP."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np

from layerscope.records.record import Picture, Record
from layerscope.server import Viewer
from tests.test_wire import entry


def small_record() -> Record:
    """Made by hand: no network is needed to serve a record."""
    made = Record("features", "a <network>", pictures=[Picture("photo", np.zeros((4, 5, 3), np.uint8))])
    made.add(entry())
    return made


class Tab:
    """A browser's tab: keeps its cookie, and sends what a browser sends."""

    def __init__(self, viewer: Viewer, enter: bool = True) -> None:
        self.viewer, self.host = viewer, f"127.0.0.1:{viewer.port}"
        self.cookie = ""
        if enter:
            assert self.enter(viewer.token).status == 303

    def enter(self, token: str) -> SimpleNamespace:
        answer = self.get(f"/?token={token}")
        self.cookie = answer.headers.get("set-cookie", "").split(";")[0]
        return answer

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> SimpleNamespace:
        sent = {"Host": self.host, "Cookie": self.cookie} | {k.replace("_", "-"): v for k, v in headers.items()}
        line = http.client.HTTPConnection("127.0.0.1", self.viewer.port, timeout=20)
        with contextlib.closing(line):
            line.request(method, path, body, {name: value for name, value in sent.items() if value})
            answer = line.getresponse()
            return SimpleNamespace(status=answer.status, headers=answer.headers, body=answer.read())

    def get(self, path: str, **headers: str) -> SimpleNamespace:
        return self.ask("GET", path, **headers)

    def json(self, path: str) -> Any:
        return json.loads(self.get(path).body)

    @contextlib.contextmanager
    def events(self) -> Iterator[Iterator[dict]]:
        line = http.client.HTTPConnection("127.0.0.1", self.viewer.port, timeout=20)
        line.request("GET", "/api/events", headers={"Host": self.host, "Cookie": self.cookie})
        answer = line.getresponse()
        assert answer.headers["content-type"].startswith("text/event-stream")
        try:
            yield (json.loads(one[6:]) for one in answer if one.startswith(b"data: "))
        finally:
            answer.close()
            line.close()

    def until(self, *states: str) -> dict:
        with self.events() as events:
            return next(event for event in events if event["state"] in states)


@contextlib.contextmanager
def served(*arguments: Any, **options: Any) -> Iterator[Viewer]:
    viewer = Viewer(*arguments, warn=options.pop("warn", lambda line: None), **options)
    thread = threading.Thread(target=viewer.run, daemon=True)
    thread.start()
    try:
        yield viewer
    finally:
        viewer.server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()


def raw(viewer: Viewer, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", viewer.port), timeout=10) as line:
        line.sendall(request)
        return line.recv(65536)


def closed(line: socket.socket) -> bool:
    with contextlib.suppress(ConnectionResetError):
        while line.recv(65536):
            pass
    return True
