"""Two hundred clients at once: every one gets the right bytes and the last news, and the server's memory is bounded."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest

from layerscope.records.file import load
from layerscope.records.record import Record
from layerscope.views import format as viewer_format
from tests.web.making import entry_of

#: events that everyone hears of
NEWS = 4
#: a server of its own process: its memory is its own; it does what it is told on its standard input
SERVER = """
import sys, threading
from layerscope.server import Viewer
from layerscope.server.run import Patience
Patience.head_s = 3.0
viewer = Viewer(sys.argv[1], warn=lambda line: None)
print(viewer.url, flush=True)
def listen():
    for line in sys.stdin:
        if line.startswith("tell"):
            viewer.session.tell("running", int(line.split()[1]), 1000, "news")
        if line.startswith("memory"):
            print([row for row in open("/proc/self/status") if row.startswith(sys.argv[2])][0].strip(), flush=True)
    viewer.server.should_exit = True
threading.Thread(target=listen, daemon=True).start()
viewer.run()
"""


class Crowd:
    """A server over a record, and its clients."""

    def __init__(self, path: Path) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", SERVER, str(path), "VmHWM"], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
        assert self.process.stdin and self.process.stdout
        self.orders: IO[str] = self.process.stdin
        found = re.match(r"http://127.0.0.1:(\d+)/\?token=(\S+)", self.process.stdout.readline())
        assert found
        self.port, self.token = int(found[1]), found[2]
        self.refused: Counter[str] = Counter()
        self.blocks = [viewer_format.block(entry, 0) for entry in load(path).values()]

    def say(self, order: str) -> None:
        self.orders.write(f"{order}\n")
        self.orders.flush()

    @property
    def memory_mb(self) -> float:
        """The most memory that the server ever held."""
        assert self.process.stdout
        self.say("memory")
        return int(self.process.stdout.readline().split()[1]) / 1024

    def close(self) -> None:
        self.orders.close()
        assert self.process.wait(20) == 0
        assert self.process.stdout
        self.process.stdout.close()

    async def _sent(self, path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, int, dict[str, str]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 22)
        cookie = f"layerscope-{self.port}={self.token}"
        sent = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{self.port}", f"Cookie: {cookie}", "Connection: close"]
        writer.write("\r\n".join([*sent, "", ""]).encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        return reader, writer, int(head[0].split()[1]), dict(line.split(": ", 1) for line in head[1:] if line)

    async def get(self, path: str) -> bytes:
        """The body; who is told that there are too many comes again, as a page does when its user asks again."""
        for wait in range(400):
            try:
                reader, writer, status, headers = await self._sent(path)
                body = await reader.read()
                writer.close()
                if status == 200:
                    assert len(body) == int(headers["content-length"])
                    return body
                assert status == 503, (status, body)
                self.refused["503"] += 1
            except (OSError, asyncio.IncompleteReadError):
                self.refused["cut"] += 1
            await asyncio.sleep(0.1 + 0.02 * wait)
        raise AssertionError(f"{path}: refused to the end")

    async def hear(self, last: int) -> int:
        """Listen as a browser does, coming back when the stream ends, until the last news; how often it came back."""
        for times in range(400):
            try:
                reader, writer, status, _ = await self._sent("/api/events")
                while status == 200 and (line := await reader.readline()):
                    found = re.search(rb'\{.*"state".*\}', line)
                    if found and json.loads(found[0])["done"] == last:
                        writer.close()
                        return times
                writer.close()
                self.refused["503"] += status == 503
            except (OSError, asyncio.IncompleteReadError):
                self.refused["cut"] += 1
            await asyncio.sleep(1.0 + times % 7 / 10)  # a browser waits for three seconds
        raise AssertionError("never heard the last news")

    async def client(self, number: int, last: int) -> int:
        hearing = asyncio.create_task(self.hear(last))
        index = json.loads(await self.get("/api/index"))
        assert len(index["layers"]) == len(self.blocks)
        for at in range(len(self.blocks)):
            layer = (number + at) % len(self.blocks)
            assert await self.get(f"/api/block/{layer}/0") == self.blocks[layer]
        return await hearing


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    """Six layers, 4.9 MB of maps."""
    rng, record = np.random.default_rng(0), Record("features", "net")
    for number in range(6):
        shape = (64, 112, 112) if number < 6 else (9, 9, 9)
        record.add(entry_of(f"layer{number}", [rng.normal(size=shape).astype(np.float32)]))
    return record.save(tmp_path_factory.mktemp("crowd") / "a.layerscope")


@pytest.fixture
def crowd(path) -> Iterator[Crowd]:
    made = Crowd(path)
    yield made
    made.close()


async def _all(crowd: Crowd, clients: int) -> Any:
    async def news() -> None:
        for number in range(1, NEWS + 1):
            await asyncio.sleep(0.1)
            crowd.say(f"tell {number}")

    async with asyncio.timeout(120):
        return await asyncio.gather(news(), *(crowd.client(number, NEWS) for number in range(clients)))


@pytest.mark.parametrize("clients", [12, pytest.param(200, marks=pytest.mark.slow)])
def test_many_clients_at_once(crowd, clients, capsys):
    before = crowd.memory_mb
    found = asyncio.run(_all(crowd, clients))
    after = crowd.memory_mb
    assert len(found) == clients + 1
    # At most 64 connections are open, and each holds a block: 64 x 0.8 MB, twice while it is sent, and threads.
    assert after - before < 64 * 2 * 0.9 + 60, (before, after)
    with capsys.disabled():
        if clients > 100:
            print(f"\n{clients} clients: {before:.0f} MB before, {after:.0f} MB at most; {dict(crowd.refused)}; "
                  f"streams opened anew {sum(found[1:])} times")  # fmt: skip


@pytest.mark.slow
def test_connections_that_say_nothing_keep_nobody_out_for_long(crowd):
    """Two hundred that only connect are cut off, here after three seconds; others get in meanwhile or after."""

    async def run() -> int:
        idle = [await asyncio.open_connection("127.0.0.1", crowd.port) for _ in range(200)]
        async with asyncio.timeout(30):
            body = await crowd.get("/api/block/0/0")
            ends = await asyncio.gather(*(reader.read() for reader, _ in idle), return_exceptions=True)
        for _, writer in idle:
            writer.close()
        assert len(ends) == 200
        return len(body)

    assert asyncio.run(run()) == len(crowd.blocks[0])
