"""The viewer's server: a record, a run, or a live network and images, in the browser of this machine alone.

import layerscope

layerscope.view("tulip.layerscope")            # returns when it is stopped; Ctrl-C raises KeyboardInterrupt
layerscope.view("AlexNet.pth", ["tulip.jpg"], port=8000)
layerscope.view("runs/a")                                # a training, followed while it runs
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from layerscope.errors import ImageError, UsageError
from layerscope.networks.feeding import BATCH_SIZE
from layerscope.records.file import load
from layerscope.records.record import Record
from layerscope.server.app import application
from layerscope.server.guard import Guard
from layerscope.server.live import Live, Opener, opened
from layerscope.server.run import Server, server_for
from layerscope.server.runs import Following, run_path
from layerscope.server.session import Session
from layerscope.server.worker import Busy, Worker

__all__ = ["Viewer", "is_record", "view"]

#: the network is loaded when a page is there to show it, or after this: loading torch stops everything for a while
HEAD_START_S = 1.5


def is_record(given: object) -> bool:
    """Whether this names a saved record: a safetensors file with the record's JSON, or a name that ends as one."""
    if not isinstance(given, str | os.PathLike):
        return False
    path = Path(given)
    try:
        there = path.is_file()
    except OSError:  # a name that no file system takes
        return False
    if not there:
        return path.suffix == ".layerscope"
    with path.open("rb") as file:
        return b'"__metadata__":{"layerscope":' in file.read(64) or path.suffix == ".layerscope"


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen(128)
    except (OSError, OverflowError) as error:
        listener.close()
        said = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"port {port}: cannot be used ({said}); give another one, or none for a free one") from error
    return listener


def _complain(line: str) -> None:
    print(f"layerscope: {line}", file=sys.stderr, flush=True)


class Viewer:
    """A server that listens already: its address is known, `run` answers until it is stopped.

    `given`: a Record, the path of one, the folder of a run, or what `features` takes for a network. `against`: another
    network, to be compared with it on one image. `opener` makes a network of what was given, which runs on `device`
    until `close`, with `batch_size` images a pass.
    Raises RecordError for a record or a run that cannot be read, ImageError for an image that is not there, UsageError
    for a port that is taken.
    """

    def __init__(
        self,
        given: Any,
        images: Sequence[str | os.PathLike[str]] = (),
        port: int = 0,
        warn: Callable[[str], None] = _complain,
        against: Any = None,
        opener: Opener = opened,
        device: Any = None,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        record = given if isinstance(given, Record) else load(given) if is_record(given) else None
        folder = run_path(given) if record is None else None
        kept = record is not None or folder is not None
        if kept and images:
            raise UsageError(f"{images[0]}: a record takes no image; give a network to run it")
        if against is not None and (kept or is_record(against)):
            raise UsageError("a record is not run against a network; compare two networks, or save their comparison")
        networks = [one for one in (given, against) if one is not None and not kept]
        for one in networks:
            if isinstance(one, str) and not Path(one).exists() and not set(one) & set(":="):
                raise UsageError(f"{one}: no such record or checkpoint; check the path, or write torchvision:NAME")
        paths = _found(images)
        if len(networks) == 2 and len(paths) > 1:
            raise UsageError(f"{paths[1]}: two networks are compared on one image; drop others on the page")
        self.session, self.worker = Session(), Worker()
        self.following = Following(folder, self.session, warn) if folder is not None else None
        if self.following:
            self.following.look()
        self._socket = _listen(port)
        self.port: int = self._socket.getsockname()[1]
        self.token = secrets.token_urlsafe(32)
        self.live: Live | None = None
        if record is not None:
            self.session.show(record)
        elif self.following is None:
            self.live = Live(networks, paths, self.session, self.worker, warn, opener, device, batch_size)
        app = application(self.session, self.worker, self.live, self.following)
        self.guard = Guard(app, self.port, self.token)
        self.server: Server = server_for(self.guard, self._started, self._stopping)

    @property
    def url(self) -> str:
        """The address with the token: what is to be opened."""
        return f"http://127.0.0.1:{self.port}/?token={self.token}"

    def run(self) -> None:
        """Answer until SIGINT (raises KeyboardInterrupt), SIGTERM, or `server.should_exit`."""
        try:
            self.server.run([self._socket])
        finally:
            self.close()
            self._socket.close()

    def close(self) -> None:
        """End the streams and the work, and remove what was uploaded; may be called twice."""
        self.session.close()
        self.worker.close()
        for one in (self.live, self.following):
            if one:
                one.close()

    def _started(self) -> None:
        loop = asyncio.get_running_loop()
        self.session.attach(loop)
        if self.following:
            self.following.start()
        if self.live:
            self._begin = loop.create_task(self._head_start(self.live))

    def _stopping(self) -> None:
        self.session.close()
        self.worker.closing = True

    async def _head_start(self, live: Live) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.session.watched.wait(), HEAD_START_S)
        with contextlib.suppress(Busy):  # it stops already
            live.start()


def _found(images: Sequence[str | os.PathLike[str]]) -> list[Path]:
    for image in images:
        if not Path(image).exists():
            raise ImageError(f"{image}: no such image; check the path")
    if not images:
        return []
    from layerscope.images.files import find_images

    return find_images(images)


def _browse(url: str) -> None:
    """Open a browser with a window; never one that would take over the terminal."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return
    threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()


def view(
    given: Any,
    images: Sequence[str | os.PathLike[str]] = (),
    *,
    against: Any = None,
    port: int = 0,
    browser: bool = True,
    device: Any = None,
    batch_size: int = BATCH_SIZE,
    opener: Opener = opened,
    say: Callable[[str], None] = print,
    warn: Callable[[str], None] = _complain,
) -> None:
    """Show a record, a run, or a network at work on images, in the browser, until Ctrl-C (KeyboardInterrupt).

    `given`, `images`, `against`, `port`, `device`, `batch_size`, `opener`: as `Viewer` takes them, and what it raises;
    what opening a network raises is shown on the page, since that is there by then. `browser`: whether one is opened.
    `say` gets the address, `warn` what failed.

        >>> layerscope.view("tulip.layerscope", port=8000)  # doctest: +SKIP
    """
    viewer = Viewer(given, images, port, warn, against, opener, device, batch_size)
    say(viewer.url)
    if browser:
        _browse(f"http://127.0.0.1:{viewer.port}/?token={viewer.guard.launch()}")
    viewer.run()
