"""Routes that make sound from words, where the endpoint has a model for it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable

from fastapi import FastAPI
from fastapi.responses import JSONResponse, StreamingResponse

from serve.backend import GeneratorBackend, metrics_of
from serve.generator import ClipRequest
from serve.messages import GenerateBody, Generates, Problem, ProblemError
from serve.metrics import Metrics
from serve.openapi import SOUND, answers_with
from serve.settings import ServeSettings

OFF = Problem(
    404, "generation_off", "this endpoint makes no sound: it was started without generation_model"
)


def add_generate(
    http: FastAPI, settings: ServeSettings, generator: Callable[[], GeneratorBackend | None]
) -> None:
    """Adds the routes; `generator` gives this replica's, None where there is no model."""

    @http.get("/v1/generate", responses=answers_with(Generates))
    async def generates() -> JSONResponse:
        """Whether this endpoint makes sound, and how much at once."""
        on = generator() is not None
        return JSONResponse(Generates(on=on, most_seconds=settings.generate_max_s if on else 0.0))

    @http.post("/v1/generate", response_class=StreamingResponse, responses=SOUND)
    async def generate(body: GenerateBody) -> StreamingResponse:
        """A WAV, sent while it is made; its tags say that it is generated, and by which models."""
        maker = generator()
        if maker is None:
            raise ProblemError(OFF)
        wanted = ClipRequest(body.text, body.seconds, body.seed)
        wanted.check(settings.generate_max_s)
        parts = maker.stream(wanted)
        first = await anext(parts)
        if isinstance(first, Problem):
            raise ProblemError(first)
        sound = _rest(first, parts, metrics_of(http))
        headers = {"Content-Disposition": 'inline; filename="generated.wav"'}
        return StreamingResponse(sound, media_type="audio/wav", headers=headers)


async def _rest(
    first: bytes, parts: AsyncGenerator[bytes | Problem, None], metrics: Metrics
) -> AsyncIterator[bytes]:
    """The bytes of a clip; a problem breaks the answer off, so that no one takes it for whole."""
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
