"""A read-only MCP server at /mcp for agents, stateless, on the official SDK.

Its four tools return the same fields as the HTTP API. Requests are independent, so any ingress
replica can answer them. `access` checks hosts, keys, rates and sizes, as for every other path. The
SDK's own host check is therefore off.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar

from fastapi import FastAPI
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.transport_security import TransportSecuritySettings
from mcp.types import CallToolResult, InputRequiredResult, ToolAnnotations
from pydantic import JsonValue, ValidationError
from starlette.routing import Route
from typing_extensions import override

import raymtr
from raymtr.errors import InputError
from raymtr.search.contract import (
    HitCount,
    PerArtist,
    SearchAnswer,
    SearchRequest,
    SimilarArtists,
    Text,
    Where,
)
from serve.backend import ask, ask_search, backend
from serve.messages import CatalogRow, ProblemError

INSTRUCTIONS = (
    "Finds music of one catalog by description, title, artist or likeness. Hits say where in the "
    "track to listen (segment, seconds) and why they are there."
)
READS = ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)
T = TypeVar("T")


def add_agents(http: FastAPI) -> Callable[[], AbstractAsyncContextManager[None]]:
    """Mounts the server. Enter the returned context manager while the application runs."""
    server = build_server(http)
    http.state.agents = server
    inner = server.streamable_http_app(
        streamable_http_path="/mcp",
        stateless_http=True,
        json_response=True,
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )
    for route in inner.routes:
        if isinstance(route, Route):
            http.router.routes.append(route)

    @asynccontextmanager
    async def running() -> AsyncIterator[None]:
        async with server.session_manager.run():
            yield

    return running


class Server(MCPServer):
    """The SDK's server, with error messages for wrong calls that let an agent correct them."""

    @override
    async def call_tool(
        self,
        name: str,
        arguments: dict[str, JsonValue],
        context: Context[object, object] | None = None,
    ) -> CallToolResult | InputRequiredResult:
        """Refuses unknown tool arguments, which the SDK would ignore."""
        tools = {tool.name: tool.input_schema["properties"] for tool in await self.list_tools()}
        unknown = sorted(arguments.keys() - tools.get(name, arguments).keys())
        if unknown:
            accepted = ", ".join(tools[name])
            raise ToolError(f"unknown argument {unknown[0]!r:.100}; accepted: {accepted}")
        try:
            return await super().call_tool(name, arguments, context)
        except ToolError as error:
            if isinstance(error.__cause__, ValidationError):
                first = error.__cause__.errors()[0]
                where = ".".join(map(str, first["loc"]))
                raise ToolError(f"invalid_request: {where}: {first['msg']}") from error
            raise


def build_server(http: FastAPI) -> MCPServer:
    """The server and its tools."""
    server = Server(
        "raymtr", instructions=INSTRUCTIONS, version=raymtr.__version__, log_level="WARNING"
    )

    def some(given: list[str] | str | None) -> list[str] | None:
        return [given] if isinstance(given, str) else given

    async def told(answer: Awaitable[T]) -> T:
        try:
            return await answer
        except ProblemError as error:
            raise ToolError(f"{error.problem.code}: {error.problem.detail}") from error
        except InputError as error:
            raise ToolError(f"invalid_request: {error}") from error

    async def find(**asked: object) -> SearchAnswer:
        return await ask_search(http, backend().search(SearchRequest.read(asked)))

    @server.tool(annotations=READS)
    async def search(
        text: str,
        where: Where = None,
        k: HitCount = 10,
        exclude: list[str] | str | None = None,
        per_artist: PerArtist = None,
    ) -> SearchAnswer:
        """Search tracks by words.

        The words may be a description ("rainy-day piano, no vocals"), a title, an artist, an album,
        or "similar to <artist or title>, but calmer", with years, tempo, key and duration. In the
        answer, `query` says how the words were understood, slot by slot. `ignored` lists the words
        that could not be used and why. `suggestions` lists what to ask instead. `where` is a filter
        such as "year > 1990 and tags has 'jazz'". `exclude` are terms that hits must not have.
        `per_artist` limits the hits of one artist.
        """
        return await told(
            find(text=text, where=where, k=k, exclude=some(exclude), per_artist=per_artist)
        )

    @server.tool(annotations=READS)
    async def similar(
        like: list[str] | str,
        unlike: list[str] | str | None = None,
        text: Text = None,
        where: Where = None,
        k: HitCount = 10,
    ) -> SearchAnswer:
        """Tracks that sound like the tracks in `like`.

        `like` and `unlike` are track ids; hits sound less like `unlike`. `text` may steer further.
        """
        return await told(find(like=some(like), unlike=some(unlike), text=text, where=where, k=k))

    @server.tool(annotations=READS)
    async def track(track_id: str) -> CatalogRow:
        """All catalog fields of one track."""
        return await told(ask(http, backend().track(track_id)))

    @server.tool(annotations=READS)
    async def artist(name: str, k: HitCount = 10) -> SimilarArtists:
        """Artists similar to one, each with a track to start with."""
        return await told(ask_search(http, backend().similar_artists(name, k, None)))

    return server
