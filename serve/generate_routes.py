"""Routes that generate audio from text, if the endpoint has a generation model."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable

from fastapi import FastAPI
from fastapi.responses import JSONResponse, StreamingResponse

from serve.backend import GeneratorBackend, metrics_of
from serve.generator import ClipRequest
from serve.messages import GenerateBody, Generates, Problem, ProblemError
from serve.metrics import Metrics
from serve.openapi import WAV, answers_with
from serve.settings import ServeSettings

GENERATION_OFF = Problem(
    404, "generation_off", "this endpoint generates no audio: set generation_model to enable it"
)


def add_generate(
    http: FastAPI, settings: ServeSettings, generator: Callable[[], GeneratorBackend | None]
) -> None:
    """Adds the routes; `generator` returns this replica's generator, or None without a model."""

    @http.get("/v1/generate", responses=answers_with(Generates))
    async def generates() -> JSONResponse:
        """Whether this endpoint generates audio, and the longest clip in seconds."""
        on = generator() is not None
        return JSONResponse(Generates(on=on, most_seconds=settings.generate_max_s if on else 0.0))

    @http.post("/v1/generate", response_class=StreamingResponse, responses=WAV)
    async def generate(body: GenerateBody) -> StreamingResponse:
        """A WAV, streamed while it is generated. Its tags name the models that generated it."""
        backend = generator()
        if backend is None:
            raise ProblemError(GENERATION_OFF)
        request = ClipRequest(body.text, body.seconds, body.seed)
        request.check(settings.generate_max_s)
        parts = backend.stream(request)
        first = await anext(parts)
        if isinstance(first, Problem):
            raise ProblemError(first)
        wav = _wav_bytes(first, parts, metrics_of(http))
        headers = {"Content-Disposition": 'inline; filename="generated.wav"'}
        return StreamingResponse(wav, media_type="audio/wav", headers=headers)


async def _wav_bytes(
    first: bytes, parts: AsyncGenerator[bytes | Problem, None], metrics: Metrics
) -> AsyncIterator[bytes]:
    """The bytes of a clip. A problem aborts the response, so that the client sees it is cut off."""
    outcome = "broken_off"
    try:
        yield first
        async for part in parts:
            if isinstance(part, Problem):
                raise ProblemError(part)
            yield part
        outcome = "whole"
    finally:
        metrics.generated(outcome)
        await parts.aclose()
