"""One thread beside the event loop, for whatever takes long: imports, loading, passes. One job after the other."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from layerscope.errors import LayerscopeError

__all__ = ["Busy", "Closing", "Worker"]

#: jobs that may wait; a further one is refused for now
MOST_WAITING = 16


class Busy(LayerscopeError):
    """Too many jobs are waiting already."""

    def __init__(self) -> None:
        super().__init__("too much is waiting already; try again in a moment")


class Closing(Exception):
    """The server stops; a job that reports progress ends here."""


class Worker:
    """A daemon thread: a pass that hangs keeps nobody from leaving."""

    def __init__(self) -> None:
        self._jobs: queue.Queue[tuple[Callable[[], Any], Future[Any]] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, name="layerscope-worker", daemon=True)
        self._thread.start()
        self.closing = False

    def submit(self, job: Callable[[], Any]) -> Future[Any]:
        """Run a job after those that wait. Raises Busy."""
        if self._jobs.qsize() >= MOST_WAITING or self.closing:
            raise Busy
        future: Future[Any] = Future()
        self._jobs.put((job, future))
        return future

    def checked(self) -> None:
        """To be called by long jobs now and then. Raises Closing when the server stops."""
        if self.closing:
            raise Closing

    def close(self, patience_s: float = 2.0) -> None:
        """Start no further job, and give the present one a moment to end."""
        self.closing = True
        self._jobs.put(None)
        self._thread.join(patience_s)

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            if job is None or self.closing:
                return
            work, future = job
            if not future.set_running_or_notify_cancel():
                continue  # the tab that asked is gone
            try:
                future.set_result(work())
            except BaseException as error:  # raised where the result is waited for
                future.set_exception(error)
