"""uvicorn with limits of its own: nobody may be slow for ever, and it stops at once."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    from starlette.types import ASGIApp

__all__ = ["Patience", "Server", "server_for"]

MOST_CONNECTIONS = 64


class Patience(H11Protocol):
    """A connection that is cut when its client sends or reads too slowly; uvicorn has a limit for idle ones alone."""

    head_s = 10.0  # from the first byte of a request to the end of its headers
    stall_s = 30.0  # between two parts of a body, and until a full buffer was read

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client that connects has to ask for something."""
        self._timers: dict[str, asyncio.TimerHandle] = {}
        super().connection_made(transport)
        self._arm("reading", self.head_s)

    def data_received(self, data: bytes) -> None:
        """Each part of a body wins time; parts of the headers do not."""
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._arm("reading", self.head_s)
            return
        self._disarm("reading")
        if self.conn.their_state is h11.SEND_BODY:
            self._arm("reading", self.stall_s)

    def pause_writing(self) -> None:
        """The client reads more slowly than the server writes."""
        super().pause_writing()
        self._arm("writing", self.stall_s)

    def resume_writing(self) -> None:
        """It has caught up."""
        super().resume_writing()
        self._disarm("writing")

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._disarm("reading")
        super().connection_lost(exc)
        self._disarm("writing")

    def _arm(self, what: str, seconds: float) -> None:
        if what not in self._timers:
            self._timers[what] = self.loop.call_later(seconds, self.transport.abort)

    def _disarm(self, what: str) -> None:
        if timer := self._timers.pop(what, None):
            timer.cancel()


class Server(uvicorn.Server):
    """Tells the application when it starts and stops: streams and passes end before the connections are waited for."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None], stopping: Callable[[], None]) -> None:
        super().__init__(config)
        self._started, self._stopping = started, stopping

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the doors."""
        self._started()
        await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close them."""
        self._stopping()
        await super().shutdown(sockets)


def server_for(app: ASGIApp, started: Callable[[], None], stopping: Callable[[], None]) -> Server:
    """A server without logs, upgrades or names in its headers."""
    options: dict[str, Any] = {
        "http": Patience,
        "ws": "none",
        "lifespan": "off",
        "loop": "asyncio",
        "log_config": None,
        "log_level": "critical",
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,
        "limit_concurrency": MOST_CONNECTIONS,
        "timeout_keep_alive": 15,
        "timeout_graceful_shutdown": 1,
        "h11_max_incomplete_event_size": 16384,
    }
    return Server(uvicorn.Config(app, **options), started, stopping)
