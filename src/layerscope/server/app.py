"""The application: a fixed table of addresses over a session, and over a live network where there is one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import posixpath
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
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
from layerscope.views import wire
from layerscope.views.bundle import INDEX, TYPES, web_files
from layerscope.views.profile_block import profile_block

if TYPE_CHECKING:
    from layerscope.record import Record
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
    app = Starlette(routes=routes, exception_handlers={HTTPException: _http, Exception: _failed})
    app.router.redirect_slashes = False
    return app


def _error(status: int, line: str) -> Response:
    return Response(wire.dumps({"error": line}), status, media_type="application/json")


async def _http(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    answer = _error(error.status_code, error.detail)
    answer.headers.update(error.headers or {})
    return answer


async def _failed(_request: Request, error: Exception) -> Response:
    return _error(500, reason(error))


def _page() -> list[Route]:
    """The page's files, from a table that is read once: no address is ever joined to a path."""
    table = web_files()

    def give(name: str) -> Response:
        return Response(table[name], media_type=TYPES[posixpath.splitext(name)[1]])

    async def start(_request: Request) -> Response:
        return give(INDEX)

    async def file(request: Request) -> Response:
        name = request.path_params["name"]
        return give(name) if name in table else _error(404, "no such file")

    return [Route("/", start), Route("/web/{name:path}", file)]


def _record(session: Session, live: Live | None) -> list[Route]:
    def current() -> Record:
        if session.record is None:
            raise HTTPException(503, "not ready yet; the events say when")
        return session.record

    async def index(_request: Request) -> Response:
        record, version = session.record, session.version
        if record is None:
            return Response(wire.dumps(session.event), 202, media_type="application/json")
        more = {"version": version} | ({"kernels": live.kernel_names} if live else {})
        return Response(
            await asyncio.to_thread(lambda: wire.dumps(wire.index(record, live.can if live else None) | more)),
            media_type="application/json",
        )

    async def block(request: Request) -> Response:
        record = current()
        number, image = request.path_params["id"], request.path_params["image"]
        if number >= len(record) or image >= wire.images_of(record):
            raise HTTPException(404, f"no layer {number}, or no image {image}, in this record")
        entry = list(record.values())[number]
        data = await asyncio.to_thread(wire.block, entry, image)
        return Response(data, media_type="application/octet-stream")

    async def profile(request: Request) -> Response:
        record, number = current(), request.path_params["id"]
        known = list(record.values())[number].profile if number < len(record) else None
        if known is None:
            raise HTTPException(404, f"nothing more is known of layer {number} in this record")
        return Response(await asyncio.to_thread(profile_block, known), media_type="application/octet-stream")

    async def shown(request: Request) -> Response:
        record, number = current(), request.path_params["number"]
        found = next((one for one in record.shown if one.number == number and one.data.size), None)
        if found is None:
            raise HTTPException(404, f"no image {number} in this record")
        return Response(wire.webp(found), media_type="image/webp")

    async def picture(request: Request) -> Response:
        record, number = current(), request.path_params["number"]
        if number >= len(record.pictures):
            raise HTTPException(404, f"no picture {number} in this record")
        return Response(await asyncio.to_thread(wire.png, record, number), media_type="image/png")

    async def events(_request: Request) -> Response:
        return StreamingResponse(_lines(session), media_type="text/event-stream")

    return [
        Route("/api/index", _told(index)),
        Route("/api/block/{id:number}/{image:number}", _told(block)),
        Route("/api/picture/{number:number}.png", _told(picture)),
        Route("/api/profile/{id:number}", _told(profile)),
        Route("/api/shown/{number:number}", _told(shown)),
        Route("/api/events", events),
    ]


def _run(session: Session, following: Following) -> list[Route]:
    """In place of a record's addresses, which stand behind."""

    async def index(request: Request) -> Response:
        step = _whole(request, "step")
        data = await asyncio.to_thread(following.index, step)
        if data is None:
            return Response(wire.dumps(session.event), 202, media_type="application/json")
        return Response(data, media_type="application/json")

    async def about(_request: Request) -> Response:
        return Response(await asyncio.to_thread(following.about), media_type="application/json")

    async def block(request: Request) -> Response:
        step, number, image = (request.path_params[name] for name in ("step", "id", "image"))
        data = await asyncio.to_thread(following.block, step, number, image)
        return Response(data, media_type="application/octet-stream")

    async def picture(request: Request) -> Response:
        data = await asyncio.to_thread(following.picture, request.path_params["number"])
        return Response(data, media_type="image/png")

    return [
        Route("/api/index", _told(index)),
        Route("/api/run", _told(about)),
        Route("/api/block/{step:number}/{id:number}/{image:number}", _told(block)),
        Route("/api/picture/{number:number}.png", _told(picture)),
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
        return Response(b'{"ok":true}', media_type="application/json")

    async def worked(request: Request, job: Callable[[], bytes], kind: str = "application/octet-stream") -> Response:
        return Response(await _unless_gone(request, worker.submit(job)), media_type=kind)

    async def unit(request: Request) -> Response:
        key, channel, number = (request.path_params[name] for name in ("key", "channel", "image"))
        at = _place(request)
        return await worked(request, lambda: live.look(key, channel, number, at), "application/json")

    async def kernels(request: Request) -> Response:
        return await worked(request, lambda: wire.dumps(wire.index(live.kernels())), "application/json")

    async def kernel(request: Request) -> Response:
        record, number = await _unless_gone(request, worker.submit(live.kernels)), request.path_params["id"]
        if number >= len(record):
            raise HTTPException(404, f"no tensor {number} in this network")
        data = await asyncio.to_thread(wire.block, list(record.values())[number], 0)
        return Response(data, media_type="application/octet-stream")

    async def tokens(request: Request) -> Response:
        key, number = request.path_params["key"], request.path_params["image"]
        return await worked(request, lambda: live.tokens(key, number))

    async def attention(request: Request) -> Response:
        key, number, (y, x) = request.path_params["key"], request.path_params["image"], _place(request)
        at = None if y is None else (y, x or 0)
        return await worked(request, lambda: live.attention(key, number, at))

    return [
        Route("/api/image", _told(image), methods=["POST"]),
        Route("/api/unit/{key:path}/{channel:number}/{image:number}", _told(unit)),
        Route("/api/kernels", _told(kernels)),
        Route("/api/block/kernels/{id:number}/0", _told(kernel)),
        Route("/api/tokens/{key:path}/{image:number}", _told(tokens)),
        Route("/api/attention/{key:path}/{image:number}", _told(attention)),
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


def _place(request: Request) -> tuple[int | None, int | None]:
    return _whole(request, "y"), _whole(request, "x")


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


def _told(endpoint: Endpoint) -> Endpoint:
    """What goes wrong as a status and one line."""

    async def told(request: Request) -> Response:
        try:
            return await endpoint(request)
        except Busy:
            return _error(503, "too much is waiting already; try again in a moment")
        except NoMatch as error:
            return _error(404, reason(error))
        except UsageError as error:
            return _error(400, reason(error))
        except RecordError as error:
            return _error(422, reason(error))
        except LayerscopeError as error:
            return _error(500, reason(error))

    return told
