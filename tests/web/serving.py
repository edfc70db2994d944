"""A small server of the page over a saved record: the viewer's addresses and nothing of its doors."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from layerscope.records.record import Record
from layerscope.text import json_text
from layerscope.views import format as viewer_format
from layerscope.views.bundle import INDEX, TYPES, web_files

POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    record: Record
    live: dict[str, bool] | None
    log: list[str]

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.log.append(path)
        parts = path.strip("/").split("/")
        if path == "/":
            return self.give(web_files()[INDEX].encode(), "text/html; charset=utf-8")
        if parts[0] == "web":
            name = "/".join(parts[1:])
            kind = TYPES.get("." + name.rpartition(".")[2], "text/plain")
            text = web_files().get(name)
            return self.give((text or "").encode(), f"{kind}; charset=utf-8", 404 if text is None else 200)
        if parts[:2] == ["api", "index"]:
            index = viewer_format.index(self.record, self.live) | {"version": 0}
            return self.give(json_text(index).encode(), "application/json")
        if parts[:2] == ["api", "block"]:
            block = viewer_format.block_of(self.record, int(parts[2]), int(parts[3]))
            return self.give(block, "application/octet-stream")
        if parts[:2] == ["api", "picture"]:
            return self.give(viewer_format.picture_of(self.record, int(parts[2].partition(".")[0])), "image/png")
        if parts[:2] == ["api", "events"]:
            return self.give(b'retry: 60000\ndata: {"state":"ready","version":0}\n\n', "text/event-stream")
        return self.give(b"", "text/plain", 404)

    def give(self, body: bytes, kind: str, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", POLICY)
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serving(
    record: Record, live: dict[str, bool] | None = None, handler: type[Handler] = Handler
) -> Iterator[tuple[str, list[str]]]:
    """-> the address, and the list of paths that were asked for."""
    log: list[str] = []
    bound = type("Bound", (handler,), {"record": record, "live": live, "log": log})
    server = ThreadingHTTPServer(("127.0.0.1", 0), bound)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/", log
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
