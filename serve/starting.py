"""Middleware for Serve's own proxy while the application starts.

The proxy listens before there is an application, and answers 404 for every path. A probe, a load
balancer or a script would take that for an answer. Ray Serve wraps its proxy in the middleware
returned by `RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH`. The application is mounted at the root, so
once it runs no 404 comes from the proxy.
"""

from __future__ import annotations

from collections.abc import Iterable

from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.messages import Problem

NOT_YET = Problem(503, "starting", "the endpoint is starting", 2)
OWN = "text/plain"  # of the proxy's refusals; the application's are problem+json


def proxy_middleware() -> list[Middleware]:
    """The callback that Serve calls for middleware."""
    return [Middleware(Starting)]


class Starting:
    """ASGI middleware: 503 instead of the proxy's own 404; request ids as valid UTF-8."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forwards a request and inspects the response."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        early = False

        async def send_seen(message: Message) -> None:
            nonlocal early
            if message["type"] == "http.response.start":
                kind = MutableHeaders(scope=message).get("content-type", "")
                early = message["status"] == 404 and kind.startswith(OWN)
                if early:
                    await NOT_YET.response()(scope, receive, send)
            if not early:
                await send(message)

        await self.app({**scope, "headers": _readable(scope["headers"])}, receive, send_seen)


def _readable(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Headers whose request id is UTF-8, as the proxy decodes it; clients may send any bytes."""
    return [
        (name, value.decode("latin-1").encode()) if name == b"x-request-id" else (name, value)
        for name, value in headers
    ]
