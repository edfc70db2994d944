"""Who may ask: this machine's browser, on the page that the server itself gave, with the token that it printed.

Against other pages in the same browser (they can send requests to loopback addresses), names that are made to point
here (DNS rebinding), and other users of the machine.
"""

from __future__ import annotations

import hmac
import secrets
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["HEADERS", "Guard"]

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Guard:
    """ASGI middleware: refuses before the application sees anything, and puts the headers on every answer.

    `token` opens the door as often as it is given; `once`, which stands on the command line of the browser where
    other users can read it, does so a single time.
    """

    def __init__(self, app: ASGIApp, port: int, token: str) -> None:
        self._app = app
        self._hosts = {f"127.0.0.1:{port}", f"localhost:{port}"} | ({"127.0.0.1", "localhost"} if port == 80 else set())
        self._token = token
        # Cookies know no ports: without the port in its name, a second server would take this one's away.
        self._cookie = f"layerscope-{port}"
        self.once = ""

    def launch(self) -> str:
        """A token for one use."""
        self.once = secrets.token_urlsafe(32)
        return self.once

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, let in with a cookie, or hand on."""
        if scope["type"] != "http":
            return
        await (self._answer(scope) or self._app)(scope, receive, _dressed(send))

    def _answer(self, scope: Scope) -> Response | None:
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))
        host = headers.get("host", [])
        if len(host) != 1 or host[0].lower() not in self._hosts:
            return _refused("this server answers to its loopback address alone")
        # "same-site" is another port of this machine: not this page either.
        if any(one not in ("same-origin", "none") for one in headers.get("sec-fetch-site", [])):
            return _refused("another page has sent this request; open the address itself")
        if any(one.lower() != f"http://{host[0].lower()}" for one in headers.get("origin", [])):
            return _refused("another page has sent this request")
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token")
        if scope["path"] == "/" and given:
            return self._let_in(given[-1])
        if not self._known(headers.get("cookie", [])):
            return _refused("open the address that layerscope printed, with its token")
        return None

    def _let_in(self, given: str) -> Response:
        launched = bool(self.once) and _same(given, self.once)
        if not launched and not _same(given, self._token):
            return _refused("this token is not, or no longer, the right one; open the address that layerscope printed")
        self.once = "" if launched else self.once
        answer = RedirectResponse("/", 303)
        answer.set_cookie(self._cookie, self._token, httponly=True, samesite="strict")
        return answer

    def _known(self, cookies: list[str]) -> bool:
        for text in cookies:
            try:
                found = SimpleCookie(text).get(self._cookie)
            except CookieError:
                continue
            if found and _same(found.value, self._token):
                return True
        return False


def _same(a: str, b: str) -> bool:
    return hmac.compare_digest(a.encode(), b.encode())


def _refused(why: str) -> Response:
    return PlainTextResponse(f"403: {why}\n", 403)


def _dressed(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(HEADERS)
        await send(message)

    return sent
