"""What all tabs look at: the record of the moment, the state of the work, and the news of both; answers once made."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Hashable
from typing import Literal, TypeVar

from layerscope.records.record import Record

__all__ = ["MOST_STREAMS", "Event", "Kept", "Session", "State"]

State = Literal["starting", "waiting", "loading", "running", "ready", "failed"]
Event = dict[str, str | int]
Made = TypeVar("Made")

#: a browser opens six connections to one host at most: with more streams than this, a further tab could not load
MOST_STREAMS = 4
#: a stream says something at least this often, so that both ends notice when the other is gone
BEAT_S = 15.0


class Kept(OrderedDict[Hashable, Made]):
    """What was asked for last, within a budget; `size` is what one of them takes of it. For any thread."""

    def __init__(self, budget: int, size: Callable[[Made], int]) -> None:
        super().__init__()
        self._budget, self._size, self._lock = budget, size, threading.Lock()

    def made(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """What has this key, made if it is not there."""
        value = self.get(key)
        value = make() if value is None else value
        with self._lock:
            self[key] = value
            self.move_to_end(key)
            while len(self) > 1 and sum(map(self._size, self.values())) > self._budget:
                self.popitem(last=False)
        return value


class Session:
    """One record and one state for everyone; told by the thread that works, heard on the event loop.

    `version` counts the records, so that a tab knows whether its index is still the right one.
    """

    def __init__(self) -> None:
        self.record: Record | None = None
        self.version = 0
        self.event: Event = {"state": "starting", "done": 0, "of": 1, "what": "", "version": 0}
        self.closed = False
        self.watched = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._news = asyncio.Event()
        self._streams: list[asyncio.Event] = []

    def show(self, record: Record | None) -> None:
        """Another record takes the place of the last one; None where a run has changed."""
        self.record = record
        self.version += 1
        self.tell("ready")

    def tell(self, state: State, done: int = 0, of: int = 1, what: str = "") -> None:
        """Say how the work stands; from any thread."""
        self.event = {"state": state, "done": done, "of": of, "what": what, "version": self.version}
        self._ring()

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """The loop on which the news are heard."""
        self._loop = loop

    def close(self) -> None:
        """End every stream."""
        self.closed = True
        self._ring()

    def _ring(self) -> None:
        if self._loop and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def events(self) -> AsyncIterator[Event | None]:
        """The state now, then every newer one; None where nothing was new for a while. The latest is never missed.

        A stream too many ends the oldest one, whose tab comes back on its own.
        """
        out = asyncio.Event()
        self._streams.append(out)
        if len(self._streams) > MOST_STREAMS:
            self._streams.pop(0).set()
            self._wake()
        self.watched.set()
        seen: Event | None = None
        try:
            while not self.closed and not out.is_set():
                if self.event is not seen:
                    seen = self.event
                    yield seen
                    continue
                try:
                    await asyncio.wait_for(self._news.wait(), BEAT_S)
                except TimeoutError:
                    yield None
        finally:
            if out in self._streams:
                self._streams.remove(out)
