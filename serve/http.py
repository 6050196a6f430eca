"""The HTTP application of one ingress replica: routes by subject, all failures as problem+json."""

from __future__ import annotations

import importlib.resources
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

import raymtr
from raymtr.errors import InputError
from serve.access import AccessMiddleware
from serve.agents import add_agents
from serve.backend import backend, generator, metrics_of, within_deadline
from serve.generate_routes import add_generate
from serve.messages import Problem, ProblemError
from serve.metrics import Metrics
from serve.openai_routes import add_embeddings
from serve.openapi import add_problem, error_responses
from serve.search_routes import add_search
from serve.settings import ServeSettings
from serve.subsonic import add_subsonic
from serve.track_routes import add_playlist, add_tracks

PAGE = Path(__file__).parent / "page"
CODES = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    408: "body_too_slow",
    413: "body_too_large",
}
# CORS: headers that other origins may send, and response headers that they may read.
ALLOWED_HEADERS = ["authorization", "content-type", "range", "x-request-id", "mcp-protocol-version"]
EXPOSED_HEADERS = ["content-range", "etag", "retry-after", "x-request-id"]


def build_http(settings: ServeSettings) -> FastAPI:
    """The FastAPI application. Built in the replica, because its metrics cannot be pickled."""

    @asynccontextmanager
    async def lifespan(http: FastAPI) -> AsyncIterator[None]:
        async with agents():
            yield

    http = FastAPI(
        title="raymtr",
        version=raymtr.__version__,
        description="Finds music by words.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        responses=error_responses(),
        dependencies=[Depends(known_parameters)],
    )
    http.state.timeout_s = settings.request_timeout_s
    http.state.metrics = Metrics()
    add_search(http)
    add_tracks(http)
    add_playlist(http)
    add_embeddings(http)
    add_subsonic(http)
    add_generate(http, settings, generator)
    agents = add_agents(http)
    add_operations(http)
    add_errors(http)
    add_problem(http)
    http.add_middleware(AccessMiddleware, settings=settings, metrics=http.state.metrics)
    if settings.cors_origins:  # outermost: a preflight request has no key
        http.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins.split(),
            allow_methods=["GET", "POST"],
            allow_headers=ALLOWED_HEADERS,
            expose_headers=EXPOSED_HEADERS,
        )
    return http


async def known_parameters(request: Request) -> None:
    """Refuses unknown query parameters. A silently ignored one would seem to work."""
    route = request.scope["route"]
    known = {parameter.alias for parameter in route.dependant.query_params}
    unknown = sorted(set(request.query_params) - known)
    if unknown and route.include_in_schema and route.path.startswith("/v1/"):
        accepted = ", ".join(sorted(known)) or "none"
        detail = f"unknown parameter {unknown[0]!r:.100}; accepted: {accepted}"
        raise ProblemError(Problem(422, "invalid_request", detail))


def add_operations(http: FastAPI) -> None:
    """The page, the API documentation and the operators' routes."""

    @http.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html")

    @http.get("/docs", include_in_schema=False)
    async def docs() -> FileResponse:
        return FileResponse(PAGE / "docs.html")

    # Swagger UI from a package, so the page loads nothing from other hosts.
    swagger = importlib.resources.files("fastapi_offline") / "static"
    http.mount("/page/swagger", StaticFiles(directory=str(swagger)))
    http.mount("/page", StaticFiles(directory=PAGE))

    @http.get("/livez")
    async def livez() -> dict[str, str]:
        return {"status": "alive"}

    @http.get("/readyz")
    async def readyz() -> JSONResponse:
        """Ready once a model with verified golden vectors answered over a warm table."""
        state = await within_deadline(http, backend().state())
        return JSONResponse({"status": "ready", **state})

    @http.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        metrics = metrics_of(http)
        with suppress(ProblemError):  # if not ready, the counters are still returned
            metrics.indexed(await within_deadline(http, backend().state()))
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")


def add_errors(http: FastAPI) -> None:
    """Turns every failure into problem+json."""

    @http.exception_handler(ProblemError)
    async def problem_error(request: Request, error: ProblemError) -> Response:
        return error.problem.response()

    @http.exception_handler(InputError)
    async def input_error(request: Request, error: InputError) -> Response:
        return Problem(422, "invalid_request", str(error)).response()

    @http.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        code = CODES.get(error.status_code, "refused")
        answer = Problem(error.status_code, code, str(error.detail)).response()
        answer.headers.update(error.headers or {})
        return answer

    @http.exception_handler(Exception)
    async def internal_error(request: Request, error: Exception) -> Response:
        return Problem(500, "internal", "internal error; see the endpoint's log").response()

    @http.exception_handler(RequestValidationError)
    async def validation_error(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        kind = request.headers.get("content-type", "")
        if first["loc"] == ("body",) and "json" not in kind.lower():
            got = repr(kind)[:100] if kind else "none"
            detail = f"expected JSON with the header `Content-Type: application/json`, got {got}"
            return Problem(422, "invalid_request", detail).response()
        if first["type"] == "invalid_request":  # the search contract's message names the field
            return Problem(422, "invalid_request", first["msg"]).response()
        where = ".".join(str(part) for part in first["loc"][1:])
        status = 400 if first["type"] == "json_invalid" else 422
        code = "invalid_json" if status == 400 else "invalid_request"
        return Problem(status, code, f"{where}: {first['msg']}").response()
