"""The application: a fixed table of addresses over a session, and over a live network where there is one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import posixpath
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from layerscope.errors import LayerscopeError, NoMatch, RecordError, UsageError
from layerscope.server.live import reason
from layerscope.server.session import Session
from layerscope.server.worker import Busy, Worker
from layerscope.text import json_text
from layerscope.views import format as viewer
from layerscope.views.bundle import INDEX, TYPES, web_files

if TYPE_CHECKING:
    from layerscope.server.live import Live
    from layerscope.server.runs import Following

__all__ = ["MOST_UPLOAD_BYTES", "application"]

MOST_UPLOAD_BYTES = 64 << 20
#: all of an upload has to be there by then
UPLOAD_S = 120.0
#: what is sent of one that is too large is thrown away for so long
LINGER_S = 2.0
#: how often it is asked whether a tab still waits
GONE_S = 0.25
#: a tab whose stream ended comes back after this
RETRY_MS = 3000

_BINARY, _JSON = "application/octet-stream", "application/json"
#: the first kind that fits; whatever else went wrong is a 500
_STATUS = ((Busy, 503), (NoMatch, 404), (UsageError, 400), (RecordError, 422))

Endpoint = Callable[[Request], Awaitable[Response]]


class _Number(Convertor[int]):
    """A number in an address; Starlette's own takes any number of digits, which int() refuses from 4300 on."""

    regex = "[0-9]{1,9}"

    def convert(self, value: str) -> int:
        return int(value)

    def to_string(self, value: int) -> str:
        return str(value)


register_url_convertor("number", _Number())


def application(
    session: Session, worker: Worker, live: Live | None = None, following: Following | None = None
) -> Starlette:
    """Everything but the doors, which are the guard's."""
    routes = [*_page(), *(_run(session, following) if following else []), *_record(session, live)]
    routes += _network(session, worker, live) if live else []
    handlers = dict.fromkeys((HTTPException, LayerscopeError, Exception), _failed)
    app = Starlette(routes=routes, exception_handlers=handlers)
    app.router.redirect_slashes = False
    return app


async def _failed(_request: Request, error: Exception) -> Response:
    """What went wrong as a status and one line."""
    if not isinstance(error, HTTPException):
        status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
        return _json({"error": reason(error)}, status)
    answer = _json({"error": error.detail}, error.status_code)
    answer.headers.update(error.headers or {})
    return answer


def _json(data: Any, status: int = 200) -> Response:
    return Response(json_text(data), status, media_type=_JSON)


def _made(make: Callable[..., bytes | str], kind: str) -> Endpoint:
    """What `make` returns for the numbers in the address; it works beside the event loop."""

    async def answer(request: Request) -> Response:
        return Response(await asyncio.to_thread(make, *request.path_params.values()), media_type=kind)

    return answer


def _page() -> list[Route]:
    """The page's files, from a table that is read once: no address is ever joined to a path."""
    table = web_files()

    async def file(request: Request) -> Response:
        name = request.path_params.get("name", INDEX)
        if name not in table:
            raise HTTPException(404, "no such file")
        return Response(table[name], media_type=TYPES[posixpath.splitext(name)[1]])

    return [Route("/", file), Route("/web/{name:path}", file)]


def _record(session: Session, live: Live | None) -> list[Route]:
    async def index(_request: Request) -> Response:
        record, version = session.record, session.version
        if record is None:
            return _json(session.event, 202)
        more = {"version": version} | ({"kernels": live.kernel_names} if live else {})
        return _json(await asyncio.to_thread(viewer.index, record, live.can if live else None) | more)

    def part(make: Callable[..., bytes], kind: str = _BINARY) -> Endpoint:
        def of_record(*numbers: int) -> bytes:
            if session.record is None:
                raise HTTPException(503, "not ready yet; the events say when")
            return make(session.record, *numbers)

        return _made(of_record, kind)

    async def events(_request: Request) -> Response:
        return StreamingResponse(_lines(session), media_type="text/event-stream")

    return [
        Route("/api/index", index),
        Route("/api/block/{id:number}/{image:number}", part(viewer.block_of)),
        Route("/api/picture/{number:number}.png", part(viewer.picture_of, "image/png")),
        Route("/api/profile/{id:number}", part(viewer.profile_of)),
        Route("/api/shown/{number:number}", part(viewer.thumbnail_of, "image/webp")),
        Route("/api/events", events),
    ]


def _run(session: Session, following: Following) -> list[Route]:
    """In place of a record's addresses, which stand behind."""

    async def index(request: Request) -> Response:
        data = await asyncio.to_thread(following.index, _whole(request, "step"))
        return _json(session.event, 202) if data is None else Response(data, media_type=_JSON)

    return [
        Route("/api/index", index),
        Route("/api/run", _made(following.about, _JSON)),
        Route("/api/block/{step:number}/{id:number}/{image:number}", _made(following.block, _BINARY)),
        Route("/api/picture/{number:number}.png", _made(following.picture, "image/png")),
    ]


async def _lines(session: Session) -> AsyncIterator[str]:
    yield f"retry: {RETRY_MS}\n\n"
    async for event in session.events():
        yield f"data: {json.dumps(event)}\n\n" if event else ": still here\n\n"


def _network(session: Session, worker: Worker, live: Live) -> list[Route]:
    async def image(request: Request) -> Response:
        data = await _body(request)
        if not data:
            raise HTTPException(400, "an empty image; send its bytes")
        live.take(request.query_params.get("name", "image"), data)
        return _json({"ok": True})

    def worked(make: Callable[..., bytes | str], kind: str = _BINARY, place: bool = False) -> Endpoint:
        """What `make` returns in the worker's thread for what is in the address, with the place in its query."""

        async def answer(request: Request) -> Response:
            at = [(_whole(request, "y"), _whole(request, "x"))] if place else []
            arguments = [*request.path_params.values(), *at]
            return Response(await _unless_gone(request, worker.submit(partial(make, *arguments))), media_type=kind)

        return answer

    return [
        Route("/api/image", image, methods=["POST"]),
        Route("/api/unit/{key:path}/{channel:number}/{image:number}", worked(live.look, _JSON, place=True)),
        Route("/api/kernels", worked(lambda: json_text(viewer.index(live.kernels())), _JSON)),
        Route("/api/block/kernels/{id:number}/0", worked(lambda number: viewer.block_of(live.kernels(), number, 0))),
        Route("/api/tokens/{key:path}/{image:number}", worked(live.tokens)),
        Route("/api/attention/{key:path}/{image:number}", worked(live.attention, place=True)),
    ]


async def _unless_gone(request: Request, future: Future[Any]) -> Any:
    """The result of a job; a job that has not begun when its tab looks elsewhere is not done at all."""
    result = asyncio.wrap_future(future)
    while not (await asyncio.wait({result}, timeout=GONE_S))[0]:
        if await request.is_disconnected():
            result.cancel()
            raise HTTPException(400, "nobody waits for this any more")
    return result.result()


def _whole(request: Request, name: str) -> int | None:
    value = request.query_params.get(name)
    if value is not None and not (value.isdecimal() and len(value) < 10):
        raise HTTPException(400, f"{name}: give a whole number from 0 on")
    return None if value is None else int(value)


async def _body(request: Request) -> bytes:
    """The whole body, if it is small enough and comes soon enough."""
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or len(length) > 18 or int(length) > MOST_UPLOAD_BYTES:
        raise await _too_large(request)
    data = bytearray()
    try:
        async with asyncio.timeout(UPLOAD_S):
            async for part in request.stream():
                data += part
                if len(data) > MOST_UPLOAD_BYTES:
                    raise await _too_large(request)
    except TimeoutError:
        raise HTTPException(408, "the image took too long to arrive", {"Connection": "close"}) from None
    except ClientDisconnect:
        raise HTTPException(400, "the upload broke off") from None
    return bytes(data)


async def _too_large(request: Request) -> HTTPException:
    # A browser that is still sending when the connection closes never reads the answer: hear it out for a moment.
    with contextlib.suppress(TimeoutError, ClientDisconnect):
        async with asyncio.timeout(LINGER_S):
            async for _ in request.stream():
                pass
    most = f"an image has at most {MOST_UPLOAD_BYTES >> 20} MB; make it smaller"
    return HTTPException(413, most, {"Connection": "close"})
