"""The retriever's interface for routes: one protocol, local or behind a deployment handle."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, Protocol, TypeVar

import numpy as np
from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from typing_extensions import override

from raymtr.embeddings.store import ModelRef
from serve import ray_private
from serve.messages import UPLOAD_AGAIN_S, Embedded, Problem, ProblemError, Searched, Vectors
from serve.metrics import Metrics

Answer = dict[str, Any]
T = TypeVar("T")


class NoCapacityError(Exception):
    """No replica had capacity for a call in time."""


NO_CAPACITY = (BackPressureError, NoCapacityError)
REPLICA_LOST = (RayActorError, DeploymentUnavailableError)  # Serve starts another replica


class Backend(Protocol):
    """The calls available to routes. `serve.retriever.Retriever` implements and documents them."""

    async def search(self, asked: Answer) -> Searched | Problem:
        """The answer to a search."""
        ...

    async def similar_artists(self, name: str, asked: Answer) -> Searched | Problem:
        """Artists similar to one, each with its best track."""
        ...

    async def track(self, track_id: str) -> Answer | Problem:
        """The catalog's row of a track."""
        ...

    async def path(self, start: str, end: str, count: int, where: str | None) -> Answer | Problem:
        """A playlist of `count` tracks between two."""
        ...

    async def embed(self, model: str, sentences: list[str]) -> Embedded | Problem:
        """Vectors of sentences by the live model."""
        ...

    async def map(self) -> Answer | Problem:
        """Two-dimensional positions of tracks."""
        ...

    async def tag(self, data: bytes) -> Answer | Problem:
        """The tags and attributes of a recording."""
        ...

    async def state(self) -> Answer | Problem:
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

    async def tag(self, data: bytes) -> Answer | Problem:
        """The tags and attributes."""
        ...


class RemoteBackend(Backend):
    """The `Backend` behind a deployment handle. Its calls raise NoCapacityError."""

    def __init__(self, handle: Any, queue_timeout_s: float) -> None:
        self._handle, self._queue_timeout_s = handle, queue_timeout_s

    @override
    async def search(self, asked: Answer) -> Searched | Problem:
        answer: Searched | Problem = await self._call("search", asked)
        return answer

    @override
    async def similar_artists(self, name: str, asked: Answer) -> Searched | Problem:
        answer: Searched | Problem = await self._call("similar_artists", name, asked)
        return answer

    @override
    async def track(self, track_id: str) -> Answer | Problem:
        answer: Answer | Problem = await self._call("track", track_id)
        return answer

    @override
    async def path(self, start: str, end: str, count: int, where: str | None) -> Answer | Problem:
        answer: Answer | Problem = await self._call("path", start, end, count, where)
        return answer

    @override
    async def embed(self, model: str, sentences: list[str]) -> Embedded | Problem:
        answer: Embedded | Problem = await self._call("embed", model, sentences)
        return answer

    @override
    async def map(self) -> Answer | Problem:
        answer: Answer | Problem = await self._call("map")
        return answer

    @override
    async def tag(self, data: bytes) -> Answer | Problem:
        answer: Answer | Problem = await self._call("tag", data)
        return answer

    @override
    async def state(self) -> Answer | Problem:
        answer: Answer | Problem = await self._call("state")
        return answer

    async def _call(self, method: str, *arguments: Any) -> Any:
        call = getattr(self._handle, method).remote(*arguments)
        return await result_of(call, self._queue_timeout_s)


class RemoteEncoder:
    """A `TextBackend` or `AudioBackend` behind a deployment handle."""

    def __init__(self, handle: Any, queue_timeout_s: float) -> None:
        self._handle, self._queue_timeout_s = handle, queue_timeout_s

    async def encode(self, made_by: ModelRef, content: Any) -> Any:
        """The encoder's answer; a Problem (503) if no replica has capacity or the replica died."""
        retry_s = UPLOAD_AGAIN_S if isinstance(content, bytes) else 1
        return await self._ask("encode", made_by, content, retry_s=retry_s)

    async def tag(self, data: bytes) -> Any:
        """As `encode`, the answer of `AudioBackend.tag`."""
        return await self._ask("tag", data, retry_s=UPLOAD_AGAIN_S)

    async def _ask(self, method: str, *arguments: Any, retry_s: int) -> Any:
        try:
            call = getattr(self._handle, method).remote(*arguments)
            return await result_of(call, self._queue_timeout_s)
        except NO_CAPACITY:
            return Problem(503, "busy", "no encoder has room now", retry_s)
        except REPLICA_LOST:
            return Problem(503, "replica_lost", "the encoder that was asked is gone", 1)


async def result_of(call: Any, queue_timeout_s: float) -> Any:
    """The result of `call` (a DeploymentResponse), once a replica has accepted it.

    Raises NoCapacityError if no replica accepts it within `queue_timeout_s`: all are full, or dead
    and not yet replaced.
    """
    try:
        await asyncio.wait_for(ray_private.taken(call), queue_timeout_s)
    except TimeoutError as error:
        raise NoCapacityError from error
    try:
        return await call
    except asyncio.CancelledError:
        call.cancel()  # otherwise a replica works on an abandoned request
        raise


def backend() -> Backend:
    """The backend of the ingress replica that runs this code."""
    found: Backend = serve.get_replica_context().servable_object.backend
    return found


async def ask(http: FastAPI, answer: Awaitable[T | Problem]) -> T:
    """The answer of a backend call, within the endpoint's deadline.

    Raises ProblemError: the backend's own problem, 503 if it has no capacity or is lost, 504 if it
    misses the deadline.
    """
    timeout_s = http.state.timeout_s
    try:
        found = await asyncio.wait_for(answer, timeout_s)
    except NO_CAPACITY as error:
        raise ProblemError(Problem(503, "busy", "no replica has room now", 1)) from error
    except REPLICA_LOST as error:
        raise ProblemError(Problem(503, "replica_lost", "what answered is gone", 1)) from error
    except TimeoutError as error:
        late = f"no answer within {timeout_s:g} s"
        raise ProblemError(Problem(504, "timeout", late)) from error
    if isinstance(found, Problem):
        raise ProblemError(found)
    return found


async def ask_search(http: FastAPI, answer: Awaitable[Searched | Problem]) -> Answer:
    """The answer of a search, with its stages recorded in the metrics."""
    searched = await ask(http, answer)
    metrics_of(http).searched(searched)
    return searched.answer


def metrics_of(http: FastAPI) -> Metrics:
    """The metrics of this replica."""
    found: Metrics = http.state.metrics
    return found
