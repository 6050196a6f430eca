"""The routes of the endpoint: HTTP in, the retriever's answers or problem+json out.

Routes reach the retriever through `app.state.retriever`, anything whose methods have `.remote`.
What a search accepts is not said here again: the library checks it.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import mimetypes
import time
from email import message_from_bytes
from email.policy import HTTP
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, PlainTextResponse, Response
from fastapi.staticfiles import StaticFiles
from prometheus_client import generate_latest
from ray import serve
from ray.serve.exceptions import BackPressureError
from starlette.exceptions import HTTPException

import raymtr
from raymtr import storage
from serve.access import BodyTooLargeError, Gate, meters
from serve.messages import EmbeddingsBody, Refusal, RefusedError, SearchBody
from serve.settings import ServeSettings

PAGE = Path(__file__).parent / "page"
CODES = {404: "not_found", 405: "method_not_allowed", 400: "bad_request"}
MOST_INPUTS = 256


def build_http(settings: ServeSettings) -> FastAPI:
    """The FastAPI application of one ingress replica."""
    http = FastAPI(
        title="raymtr",
        version=raymtr.__version__,
        description="Finds music by words.",
        redoc_url=None,
    )
    http.state.timeout_s = settings.request_timeout_s
    add_search(http)
    add_tracks(http)
    add_embeddings(http)
    add_operations(http)
    add_errors(http)
    http.mount("/page", StaticFiles(directory=PAGE))
    http.add_middleware(Gate, settings=settings)
    return http


async def ask(http: FastAPI, verb: str, *arguments: Any) -> Any:
    """What the retriever says. Raises RefusedError: its own, 503 when full, 504 when late."""
    state = http.state
    if not hasattr(state, "retriever"):
        name = serve.get_replica_context().app_name
        state.retriever = serve.get_deployment_handle("Retriever", name)
    try:
        call = getattr(state.retriever, verb).remote(*arguments)
        answer = await asyncio.wait_for(call, state.timeout_s)
    except BackPressureError as error:
        raise RefusedError(Refusal(503, "busy", "more requests wait than fit", 1)) from error
    except TimeoutError as error:
        late = f"no answer within {state.timeout_s:g} s"
        raise RefusedError(Refusal(504, "timeout", late)) from error
    if isinstance(answer, Refusal):
        raise RefusedError(answer)
    return answer


def add_search(http: FastAPI) -> None:
    """Search by words, by examples, by a recording."""

    async def search(asked: dict[str, Any]) -> dict[str, Any]:
        began = time.perf_counter()
        answer: dict[str, Any] = await ask(http, "search", asked)
        counted = meters(http)
        counted.seconds.labels("search").observe(time.perf_counter() - began)
        for stage, took in answer["took_ms"].items():
            counted.stage.labels(stage).observe(took / 1e3)
        return answer

    @http.post("/v1/search")
    async def search_tracks(body: SearchBody) -> dict[str, Any]:
        asked = body.asked()
        if body.audio is not None:
            try:
                asked["audio"] = base64.b64decode(body.audio.data, validate=True)
            except (binascii.Error, ValueError) as error:
                refusal = Refusal(422, "invalid_request", f"audio.data is no base64: {error}")
                raise RefusedError(refusal) from error
        return await search(asked)

    @http.post("/v1/search/audio")
    async def search_by_upload(request: Request, k: int = 10, text: str | None = None) -> Any:
        """Multipart with one file; `k` and `text` in the query string."""
        data = file_of(request.headers.get("content-type", ""), await request.body())
        return await search({"audio": data, "k": k} | ({"text": text} if text else {}))

    @http.get("/v1/tracks/{track_id}/similar")
    async def similar_tracks(
        track_id: str, k: int = 10, where: str | None = None, per_artist: int | None = None
    ) -> dict[str, Any]:
        await ask(http, "track", track_id)
        return await search({"like": [track_id], "k": k, "where": where, "per_artist": per_artist})

    @http.get("/v1/artists/{name:path}/similar")
    async def similar_artists(name: str, k: int = 10, where: str | None = None) -> Any:
        return await ask(http, "similar_artists", name, {"k": k, "where": where})


def file_of(content_type: str, body: bytes) -> bytes:
    """The first file of a multipart body (RFC 7578), or the body itself where it is audio."""
    if content_type.startswith(("audio/", "application/octet-stream")):
        return body
    head = f"Content-Type: {content_type}\r\n\r\n".encode("latin-1")
    parts = message_from_bytes(head + body, policy=HTTP)
    if content_type.startswith("multipart/form-data") and parts.is_multipart():
        for part in parts.iter_parts():
            if part.get_filename() is not None:
                data: Any = part.get_payload(decode=True)
                return bytes(data)
    refusal = Refusal(422, "no_file", "expected multipart/form-data with one file, or audio/*")
    raise RefusedError(refusal)


def add_tracks(http: FastAPI) -> None:
    """A track, its sound, and where all of them lie."""

    @http.get("/v1/tracks/{track_id}")
    async def track(track_id: str) -> dict[str, Any]:
        found: dict[str, Any] = await ask(http, "track", track_id)
        return found

    @http.get("/v1/tracks/{track_id}/audio")
    async def track_audio(track_id: str) -> FileResponse:
        """The catalog's own file, whole or a range of bytes; no path is ever taken from a user."""
        uri = (await ask(http, "track", track_id)).get("uri")
        path = None if uri is None or storage.is_remote(uri) else Path(storage.local_path(uri))
        if path is None or not path.is_file():
            raise RefusedError(
                Refusal(404, "no_audio", f"no file of {track_id!r} is reachable here")
            )
        kind = mimetypes.guess_type(path.name)[0] or ""
        plays = kind.startswith(("audio/", "video/"))
        return FileResponse(path, media_type=kind if plays else "application/octet-stream")

    @http.get("/v1/map")
    async def catalog_map() -> dict[str, Any]:
        drawn: dict[str, Any] = await ask(http, "map")
        return drawn


def add_embeddings(http: FastAPI) -> None:
    """Text vectors for OpenAI's clients."""

    @http.post("/v1/embeddings")
    async def embeddings(body: EmbeddingsBody) -> dict[str, Any]:
        texts = [body.input] if isinstance(body.input, str) else body.input
        if not 1 <= len(texts) <= MOST_INPUTS or not all(text.strip() for text in texts):
            detail = f"input is 1 to {MOST_INPUTS} non-empty texts"
            raise RefusedError(Refusal(422, "invalid_request", detail))
        if body.encoding_format not in ("float", "base64") or body.dimensions is not None:
            detail = "encoding_format is float or base64; dimensions cannot be chosen"
            raise RefusedError(Refusal(422, "invalid_request", detail))
        made = await ask(http, "embed", body.model, texts)
        packed = body.encoding_format == "base64"
        data = [
            {
                "object": "embedding",
                "index": index,
                "embedding": base64.b64encode(row.astype("<f4").tobytes()).decode()
                if packed
                else row.tolist(),
            }
            for index, row in enumerate(made["vectors"])
        ]
        words = sum(len(text.split()) for text in texts)  # words stand for tokens here
        usage = {"prompt_tokens": words, "total_tokens": words}
        return {"object": "list", "data": data, "model": made["model"], "usage": usage}


def add_operations(http: FastAPI) -> None:
    """The page, and what an operator asks."""

    @http.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html")

    @http.get("/livez")
    async def livez() -> dict[str, str]:
        return {"status": "alive"}

    @http.get("/readyz")
    async def readyz() -> dict[str, Any]:
        """Ready once a model with right golden vectors answered over a warm table."""
        state: dict[str, Any] = await ask(http, "state")
        return {"status": "ready"} | state

    @http.get("/metrics")
    async def metrics() -> Response:
        meters(http)
        return PlainTextResponse(generate_latest(), media_type="text/plain; version=0.0.4")


def add_errors(http: FastAPI) -> None:
    """Every way to fail, as problem+json."""

    @http.exception_handler(RefusedError)
    async def refused(request: Request, error: RefusedError) -> Response:
        return error.refusal.response()

    @http.exception_handler(HTTPException)
    async def known(request: Request, error: HTTPException) -> Response:
        code = CODES.get(error.status_code, "refused")
        answer = Refusal(error.status_code, code, str(error.detail)).response()
        answer.headers.update(error.headers or {})
        return answer

    @http.exception_handler(BodyTooLargeError)
    async def too_large(request: Request, error: BodyTooLargeError) -> Response:
        return Refusal(413, "body_too_large", "the body is larger than taken").response()

    @http.exception_handler(Exception)
    async def broken(request: Request, error: Exception) -> Response:
        return Refusal(500, "internal", "the request failed inside; the log says why").response()

    @http.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        status = 400 if first["type"] == "json_invalid" else 422
        code = "invalid_json" if status == 400 else "invalid_request"
        return Refusal(status, code, f"{where}: {first['msg']}").response()
