"""The protocols that routes call: implemented in this process, or behind a deployment handle."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from typing import Any, Protocol, TypeVar

import numpy as np
from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import (
    DeploymentHandle,
    DeploymentResponse,
    DeploymentResponseGenerator,
)
from typing_extensions import override

from raymtr.embeddings.store import ModelRef
from raymtr.search.contract import SearchAnswer, SearchRequest, SimilarArtists
from serve import ray_private
from serve.generator import QUEUE_FULL, ClipRequest
from serve.messages import (
    UPLOAD_RETRY_S,
    A,
    CatalogRow,
    Embedded,
    LiveState,
    Playlist,
    Problem,
    ProblemError,
    RecordingTags,
    Searched,
    TrackMap,
    Vectors,
)
from serve.metrics import Metrics

T = TypeVar("T")


class NoCapacityError(Exception):
    """No replica had capacity for a call in time."""


NO_CAPACITY = (BackPressureError, NoCapacityError)
REPLICA_LOST = (RayActorError, DeploymentUnavailableError)  # Serve starts another replica


class Backend(Protocol):
    """The calls available to routes. `serve.retriever.Retriever` implements and documents them."""

    async def search(self, request: SearchRequest) -> Searched[SearchAnswer] | Problem:
        """The answer to a search."""
        ...

    async def similar_artists(
        self, name: str, k: int, where: str | None
    ) -> Searched[SimilarArtists] | Problem:
        """Artists similar to one, each with its best track."""
        ...

    async def track(self, track_id: str) -> CatalogRow | Problem:
        """The catalog's row of a track."""
        ...

    async def path(self, start: str, end: str, count: int, where: str | None) -> Playlist | Problem:
        """A playlist of `count` tracks between two."""
        ...

    async def embed(self, model: str, sentences: list[str]) -> Embedded | Problem:
        """Vectors of sentences by the live model."""
        ...

    async def map(self) -> TrackMap | Problem:
        """Two-dimensional positions of tracks."""
        ...

    async def tag(self, data: bytes) -> RecordingTags | Problem:
        """The tags and attributes of a recording."""
        ...

    async def state(self) -> LiveState | Problem:
        """The live build, once it can answer."""
        ...


class TextBackend(Protocol):
    """Encodes sentences: `serve.encoders.TextEncoder`, in this process or remote."""

    async def encode(self, made_by: ModelRef, sentences: list[str]) -> Vectors | Problem:
        """The unit vectors."""
        ...


class AudioBackend(Protocol):
    """Encodes recordings: `serve.audio_encoder.AudioEncoder`, in this process or remote."""

    async def encode(self, made_by: ModelRef, data: bytes) -> np.ndarray | Problem:
        """The unit vectors."""
        ...

    async def tag(self, data: bytes) -> RecordingTags | Problem:
        """The tags and attributes."""
        ...


class GeneratorBackend(Protocol):
    """Generates audio: `serve.generator.Generator`, in this process or remote."""

    def stream(self, request: ClipRequest) -> AsyncGenerator[bytes | Problem, None]:
        """The bytes of a WAV in parts. A Problem is the last part and means failure."""
        ...


class RemoteBackend(Backend):
    """The `Backend` behind a deployment handle. Its calls raise NoCapacityError."""

    def __init__(self, handle: DeploymentHandle[Any], queue_timeout_s: float) -> None:
        self._handle, self._queue_timeout_s = handle, queue_timeout_s

    @override
    async def search(self, request: SearchRequest) -> Searched[SearchAnswer] | Problem:
        call: DeploymentResponse[Searched[SearchAnswer] | Problem] = unary_response(
            self._handle.search.remote(request)
        )
        return await result_of(call, self._queue_timeout_s)

    @override
    async def similar_artists(
        self, name: str, k: int, where: str | None
    ) -> Searched[SimilarArtists] | Problem:
        call: DeploymentResponse[Searched[SimilarArtists] | Problem] = unary_response(
            self._handle.similar_artists.remote(name, k, where)
        )
        return await result_of(call, self._queue_timeout_s)

    @override
    async def track(self, track_id: str) -> CatalogRow | Problem:
        call: DeploymentResponse[CatalogRow | Problem] = unary_response(
            self._handle.track.remote(track_id)
        )
        return await result_of(call, self._queue_timeout_s)

    @override
    async def path(self, start: str, end: str, count: int, where: str | None) -> Playlist | Problem:
        call: DeploymentResponse[Playlist | Problem] = unary_response(
            self._handle.path.remote(start, end, count, where)
        )
        return await result_of(call, self._queue_timeout_s)

    @override
    async def embed(self, model: str, sentences: list[str]) -> Embedded | Problem:
        call: DeploymentResponse[Embedded | Problem] = unary_response(
            self._handle.embed.remote(model, sentences)
        )
        return await result_of(call, self._queue_timeout_s)

    @override
    async def map(self) -> TrackMap | Problem:
        call: DeploymentResponse[TrackMap | Problem] = unary_response(self._handle.map.remote())
        return await result_of(call, self._queue_timeout_s)

    @override
    async def tag(self, data: bytes) -> RecordingTags | Problem:
        call: DeploymentResponse[RecordingTags | Problem] = unary_response(
            self._handle.tag.remote(data)
        )
        return await result_of(call, self._queue_timeout_s)

    @override
    async def state(self) -> LiveState | Problem:
        call: DeploymentResponse[LiveState | Problem] = unary_response(self._handle.state.remote())
        return await result_of(call, self._queue_timeout_s)


class RemoteTextEncoder(TextBackend):
    """The `TextBackend` behind a deployment handle."""

    def __init__(self, handle: DeploymentHandle[Any], queue_timeout_s: float) -> None:
        self._handle, self._queue_timeout_s = handle, queue_timeout_s

    @override
    async def encode(self, made_by: ModelRef, sentences: list[str]) -> Vectors | Problem:
        call: DeploymentResponse[Vectors | Problem] = unary_response(
            self._handle.encode.remote(made_by, sentences)
        )
        return await _encoder_result(call, self._queue_timeout_s, retry_s=1)


class RemoteAudioEncoder(AudioBackend):
    """The `AudioBackend` behind a deployment handle."""

    def __init__(self, handle: DeploymentHandle[Any], queue_timeout_s: float) -> None:
        self._handle, self._queue_timeout_s = handle, queue_timeout_s

    @override
    async def encode(self, made_by: ModelRef, data: bytes) -> np.ndarray | Problem:
        call: DeploymentResponse[np.ndarray | Problem] = unary_response(
            self._handle.encode.remote(made_by, data)
        )
        return await _encoder_result(call, self._queue_timeout_s, retry_s=UPLOAD_RETRY_S)

    @override
    async def tag(self, data: bytes) -> RecordingTags | Problem:
        call: DeploymentResponse[RecordingTags | Problem] = unary_response(
            self._handle.tag.remote(data)
        )
        return await _encoder_result(call, self._queue_timeout_s, retry_s=UPLOAD_RETRY_S)


class RemoteGenerator(GeneratorBackend):
    """The `GeneratorBackend` behind a deployment handle."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle

    @override
    async def stream(self, request: ClipRequest) -> AsyncGenerator[bytes | Problem, None]:
        call = self._handle.options(stream=True).stream.remote(request)
        assert isinstance(call, DeploymentResponseGenerator)
        try:
            async for part in call:
                yield part
        except NO_CAPACITY:
            yield QUEUE_FULL
        except REPLICA_LOST:
            yield Problem(503, "replica_lost", "the generator stopped during the request", 1)
        finally:
            call.cancel()  # if the client has disconnected; no effect on a finished call


def unary_response(
    call: DeploymentResponse[Any] | DeploymentResponseGenerator[Any],
) -> DeploymentResponse[Any]:
    """`call` with the type of a unary call; Ray's type includes streaming calls."""
    assert isinstance(call, DeploymentResponse)
    return call


async def _encoder_result(
    call: DeploymentResponse[T], queue_timeout_s: float, *, retry_s: int
) -> T | Problem:
    """The encoder's result; a Problem (503) if no replica has capacity or the replica died."""
    try:
        return await result_of(call, queue_timeout_s)
    except NO_CAPACITY:
        return Problem(503, "busy", "no encoder has capacity now", retry_s)
    except REPLICA_LOST:
        return Problem(503, "replica_lost", "the encoder stopped during the request", 1)


async def result_of(call: DeploymentResponse[T], queue_timeout_s: float) -> T:
    """The result of `call`, once a replica has accepted it.

    Raises NoCapacityError if no replica accepts it within `queue_timeout_s`: all are full, or dead
    and not yet replaced.
    """
    try:
        await asyncio.wait_for(ray_private.wait_until_accepted(call), queue_timeout_s)
    except TimeoutError as error:
        raise NoCapacityError from error
    try:
        result: T = await call
        return result
    except asyncio.CancelledError:
        call.cancel()  # otherwise the replica continues an abandoned request
        raise


def backend() -> Backend:
    """The backend of the ingress replica that runs this code."""
    ingress: Any = serve.get_replica_context().servable_object  # Ray types it as a function
    found: Backend = ingress.backend
    return found


def generator() -> GeneratorBackend | None:
    """The generator of the ingress replica that runs this code."""
    ingress: Any = serve.get_replica_context().servable_object  # as in `backend`
    found: GeneratorBackend | None = ingress.generator
    return found


async def within_deadline(http: FastAPI, call: Awaitable[T | Problem]) -> T:
    """The result of a backend call, within the endpoint's deadline.

    Raises ProblemError: the backend's own problem, 503 if it has no capacity or is lost, 504 if it
    misses the deadline.
    """
    timeout_s = http.state.timeout_s
    try:
        result = await asyncio.wait_for(call, timeout_s)
    except NO_CAPACITY as error:
        raise ProblemError(Problem(503, "busy", "no replica has capacity now", 1)) from error
    except REPLICA_LOST as error:
        lost = "the replica stopped during the request"
        raise ProblemError(Problem(503, "replica_lost", lost, 1)) from error
    except TimeoutError as error:
        late = f"no answer within {timeout_s:g} s"
        raise ProblemError(Problem(504, "timeout", late)) from error
    if isinstance(result, Problem):
        raise ProblemError(result)
    return result


async def run_search(http: FastAPI, call: Awaitable[Searched[A] | Problem]) -> A:
    """The answer of a search. Its stages are recorded in the metrics."""
    searched = await within_deadline(http, call)
    metrics_of(http).searched(searched)
    return searched.answer


def metrics_of(http: FastAPI) -> Metrics:
    """The metrics of this replica."""
    found: Metrics = http.state.metrics
    return found
