"""Checks before every request: known hosts, no other origin, bodies within limits; and the headers of every answer."""

import json
import re
import time
from collections.abc import Collection
from typing import Any

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lesa.web.limits import Limits

HEADERS = {
    # Scripts and styles come from this server only, and none is inline. The page sends requests to no other server.
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
HOST = re.compile(r"(?:\[(?P<six>[0-9a-f:.]+)\]|(?P<name>[a-z0-9._-]+))(?::\d+)?", re.IGNORECASE)
"""A `Host` header: a name or an address, and maybe a port."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Guard:
    """Passes a request on to an application, or refuses it before any of its body is read."""

    def __init__(self, app: ASGIApp, hosts: Collection[str], limits: Limits) -> None:
        """Take the application and the names and addresses that the server has besides loopback."""
        self._app = app
        self._hosts = {host.lower() for host in (*LOOPBACK, *hosts)}
        self._limits = limits
        self._inside = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        send = _with_headers(send)
        refusal = self._refusal(Headers(scope=scope), scope["method"])
        if refusal:
            await refusal(scope, receive, send)
        elif scope["method"] == "POST":
            self._inside += 1
            try:
                await self._app(scope, self._bounded(receive), send)
            finally:
                self._inside -= 1
        else:
            await self._app(scope, receive, send)

    def _refusal(self, headers: Headers, method: str) -> Response | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        # A page elsewhere can give its own name this address (DNS rebinding), so only known names are answered.
        if (name := host_name(host)) not in self._hosts:
            return problem(421, f"this server is not called {name or host!r}: allow the name with --allow-host")
        if origin is not None and origin.lower() not in (f"http://{host}".lower(), f"https://{host}".lower()):
            return problem(403, f"pages of {origin!r} may not use this server")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self._limits.body:
            return _too_large(self._limits)
        if method == "POST" and self._inside >= self._limits.places:
            return problem(503, "the server is busy: try again in a moment", {"retry-after": "1"})
        return None

    def _bounded(self, receive: Receive) -> Receive:
        """Return `receive` with limits for a body that does not state its length or arrives too slowly."""
        left, until = self._limits.body, time.monotonic() + self._limits.seconds

        async def bounded() -> Message:
            nonlocal left
            with anyio.move_on_after(until - time.monotonic()):
                message = await receive()
                left -= len(message.get("body", b""))
                if left < 0:
                    raise HTTPException(413, _too_large_text(self._limits))
                return message
            raise HTTPException(408, f"the request took longer than {self._limits.seconds:.0f} s to send")

        return bounded


def host_name(header: str) -> str | None:
    """Return the name or address of a `Host` header, in lower case; None if it is not one."""
    found = HOST.fullmatch(header)
    return (found["six"] or found["name"]).lower() if found else None


def answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return a JSON answer, in ASCII: file names may hold characters that UTF-8 cannot write."""
    return Response(json.dumps(value), status, headers, "application/json")


def problem(status: int, error: str, headers: dict[str, str] | None = None) -> Response:
    """Return an answer that says what is wrong."""
    return answer({"error": error}, status, headers)


def _too_large_text(limits: Limits) -> str:
    return f"the request is larger than the limit of {limits.body >> 20} MiB: send fewer or smaller photos"


def _too_large(limits: Limits) -> Response:
    return problem(413, _too_large_text(limits))


def _with_headers(send: Send) -> Send:
    async def guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.update(HEADERS)
            # Answers are about private photos, and a page of a newer version must not load an older version's script.
            headers.setdefault("cache-control", "no-cache" if "etag" in headers else "no-store")
        await send(message)

    return guarded
