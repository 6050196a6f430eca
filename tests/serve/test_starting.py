"""While the application starts, Serve's proxy is up: it says so instead of "not found"."""

from __future__ import annotations

import asyncio

import httpx
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse

from serve.starting import proxy_middleware


def ask(answer: PlainTextResponse | JSONResponse, **headers: bytes) -> httpx.Response:
    """What a client gets where the proxy's answer would be `answer`."""

    async def proxy(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        answer.headers["seen"] = Request(scope).headers.get("x-request-id", "")
        await answer(scope, receive, send)

    [around] = proxy_middleware()
    wrapped = around.cls(proxy, *around.args, **around.kwargs)

    async def get() -> httpx.Response:
        transport = httpx.ASGITransport(app=wrapped)
        async with httpx.AsyncClient(transport=transport, base_url="http://a") as client:
            return await client.get("/readyz", headers={k.encode(): v for k, v in headers.items()})

    return asyncio.run(get())


def test_a_path_that_is_not_there_yet_gets_a_retry_after() -> None:
    told = ask(PlainTextResponse("Path '/readyz' not found. Ping /-/routes", 404))
    assert (told.status_code, told.json()["code"], told.headers["retry-after"]) == (
        503,
        "starting",
        "2",
    )
    assert told.headers["content-type"] == "application/problem+json"
    there = ask(JSONResponse({"code": "unknown_track"}, 404))
    assert (there.status_code, there.json()) == (404, {"code": "unknown_track"})
    assert ask(PlainTextResponse("success")).text == "success"


def test_a_request_id_of_any_bytes_is_text() -> None:
    """Serve's proxy reads it as UTF-8, and would answer 500 to what is not."""
    answer = ask(PlainTextResponse("ok"), **{"x-request-id": "café".encode("latin-1")})
    assert answer.headers["seen"] == "café"
