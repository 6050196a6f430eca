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
from serve.backend import backend, run_search, within_deadline
from serve.messages import CatalogRow, ProblemError

INSTRUCTIONS = (
    "Searches one music catalog by description, title, artist or similarity. Each hit has the "
    "segment of the track that fits best (in seconds) and the reasons why it was found."
)
READ_ONLY = ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)
T = TypeVar("T")


def add_agents(http: FastAPI) -> Callable[[], AbstractAsyncContextManager[None]]:
    """Mounts the server. Its session manager runs inside the returned context manager."""
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
    """The SDK's server, with error messages that help an agent to correct an invalid call."""

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

    def as_list(value: list[str] | str | None) -> list[str] | None:
        return [value] if isinstance(value, str) else value

    async def with_tool_errors(answer: Awaitable[T]) -> T:
        try:
            return await answer
        except ProblemError as error:
            raise ToolError(f"{error.problem.code}: {error.problem.detail}") from error
        except InputError as error:
            raise ToolError(f"invalid_request: {error}") from error

    async def find(**arguments: object) -> SearchAnswer:
        return await run_search(http, backend().search(SearchRequest.read(arguments)))

    @server.tool(annotations=READ_ONLY)
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
        answer, `query` says how the words were parsed, slot by slot. `ignored` lists the words that
        could not be used and why. `suggestions` lists other queries to try. `where` is a filter
        such as "year > 1990 and tags has 'jazz'". `exclude` are terms that hits must not have.
        `per_artist` limits the hits of one artist.
        """
        answer = find(text=text, where=where, k=k, exclude=as_list(exclude), per_artist=per_artist)
        return await with_tool_errors(answer)

    @server.tool(annotations=READ_ONLY)
    async def similar(
        like: list[str] | str,
        unlike: list[str] | str | None = None,
        text: Text = None,
        where: Where = None,
        k: HitCount = 10,
    ) -> SearchAnswer:
        """Tracks that sound like the tracks in `like`.

        `like` and `unlike` are track ids. Hits are similar to `like` and dissimilar to `unlike`.
        `text` refines the query further.
        """
        answer = find(like=as_list(like), unlike=as_list(unlike), text=text, where=where, k=k)
        return await with_tool_errors(answer)

    @server.tool(annotations=READ_ONLY)
    async def track(track_id: str) -> CatalogRow:
        """All catalog fields of one track."""
        return await with_tool_errors(within_deadline(http, backend().track(track_id)))

    @server.tool(annotations=READ_ONLY)
    async def artist(name: str, k: HitCount = 10) -> SimilarArtists:
        """Artists similar to `name`, each with its best matching track."""
        similar = backend().similar_artists(name, k, None)
        return await with_tool_errors(run_search(http, similar))

    return server
