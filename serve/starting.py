"""Middleware for Serve's own proxy while the application starts.

The proxy listens before the application runs, and returns 404 for every path. A probe, a load
balancer or a script would mistake that for the application's answer. Ray Serve wraps its proxy in
the middleware returned by `RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH`. The application is mounted
at the root, so the proxy returns no 404 once the application runs.
"""

from __future__ import annotations

from collections.abc import Iterable

from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.messages import Problem

STARTING = Problem(503, "starting", "the endpoint is starting", 2)
PROXY_TYPE = "text/plain"  # of the proxy's errors; the application's are problem+json


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
        starting = False

        async def send_checked(message: Message) -> None:
            nonlocal starting
            if message["type"] == "http.response.start":
                kind = MutableHeaders(scope=message).get("content-type", "")
                starting = message["status"] == 404 and kind.startswith(PROXY_TYPE)
                if starting:
                    await STARTING.response()(scope, receive, send)
            if not starting:
                await send(message)

        await self.app({**scope, "headers": _with_utf8_id(scope["headers"])}, receive, send_checked)


def _with_utf8_id(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Headers with the request id as valid UTF-8. Clients may send any bytes; the proxy decodes."""
    return [
        (name, value.decode("latin-1").encode()) if name == b"x-request-id" else (name, value)
        for name, value in headers
    ]
