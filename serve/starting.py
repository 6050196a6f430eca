"""What Serve's own proxy answers where the application cannot: while it starts.

The proxy listens before there is an application, and says of every path that it is not found. A
probe, a load balancer or a script would take that for an answer. Serve builds its proxy around what
`RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH` returns; the application has the root, so that once it
is there no 404 is the proxy's.
"""

from __future__ import annotations

from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware

from serve.messages import Problem

NOT_YET = Problem(503, "starting", "the endpoint is starting", 2)
OWN = "text/plain"  # of the proxy's refusals; the application's are problems


def around_the_proxy() -> list[Middleware]:
    """What Serve asks for."""
    return [Middleware(Starting)]


class Starting:
    """ASGI middleware: 503 in the place of the proxy's own 404; request ids as text."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Hand on, and look at what comes back."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        early = False

        async def send_seen(message: Any) -> None:
            nonlocal early
            if message["type"] == "http.response.start":
                kind = MutableHeaders(scope=message).get("content-type", "")
                early = message["status"] == 404 and kind.startswith(OWN)
                if early:
                    await NOT_YET.response()(scope, receive, send)
            if not early:
                await send(message)

        await self.app(scope | {"headers": _readable(scope["headers"])}, receive, send_seen)


def _readable(headers: Any) -> list[tuple[bytes, bytes]]:
    """Headers whose request id is UTF-8, as the proxy reads it; clients may send any bytes."""
    return [
        (name, value.decode("latin-1").encode()) if name == b"x-request-id" else (name, value)
        for name, value in headers
    ]
