"""The endpoint on Ray Serve: an ingress, a retriever, and an encoder for each tower.

    ingress (HTTP) -> Retriever -> TextEncoder, AudioEncoder

The retriever asks the encoders, rather than the ingress in turn: it alone knows which model its
table wants, and the whole of a request then sees one build. Each deployment scales by itself. In
the fused layout one replica is ingress, retriever and text encoder: no hop, and for one machine.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from fastapi import FastAPI
from ray import serve
from ray.serve.context import _get_global_client as get_global_client

from raymtr.errors import InputError, UnusableError
from raymtr.index.calls import overdue
from raymtr.index.shards import MadeBy
from raymtr.ports import listeners, own_cluster
from serve import audio_encoder, encoders, retriever
from serve.asking import LOST, NOT_TAKEN, answer_of
from serve.http import build_http
from serve.messages import UPLOAD_AGAIN_S, Refusal, Vectors
from serve.settings import ServeSettings, read_settings

GIVES_WAY = 4  # niceness of an audio encoder above its neighbours': words go first on shared cores


class TextEncoder:
    """Sentences of many requests in one pass."""

    def __init__(self, settings: ServeSettings) -> None:
        encoder = encoders.TextEncoder(settings)
        self.passes = encoders.Passes(encoder.encode, most=settings.max_batch_size)

    async def encode(self, made_by: MadeBy, sentences: list[str]) -> Vectors | Refusal:
        """Unit vectors [N, D] of one request's sentences."""
        return await self.passes.join((made_by, sentences))


class AudioEncoder:
    """Decodes and embeds uploads."""

    def __init__(self, settings: ServeSettings) -> None:
        os.nice(GIVES_WAY)
        self.encoder = audio_encoder.AudioEncoder(settings)

    async def encode(self, made_by: MadeBy, data: bytes) -> np.ndarray | Refusal:
        """The unit vector [D] of one recording."""
        return await self.encoder.encode(made_by, data)


async def vectors_of(encoder: Any, made_by: MadeBy, said: Any, *, queue_timeout_s: float) -> Any:
    """What an encoder's deployment makes of it; 503 where its queue is full or it died."""
    again_s = UPLOAD_AGAIN_S if isinstance(said, bytes) else 1
    try:
        return await answer_of(encoder.encode.remote(made_by, said), queue_timeout_s)
    except NOT_TAKEN:
        return Refusal(503, "busy", "no encoder has room now", again_s)
    except LOST:
        return Refusal(503, "replica_lost", "the encoder that answered is gone", 1)


class Retriever:
    """The library's search over the live build."""

    def __init__(self, settings: ServeSettings, text: Any, audio: Any) -> None:
        self.deadline_s = settings.request_timeout_s
        wait = {"queue_timeout_s": settings.queue_timeout_s}

        async def encode_text(made_by: MadeBy, sentences: list[str]) -> Vectors | Refusal:
            made: Vectors | Refusal = await vectors_of(text, made_by, sentences, **wait)
            return made

        async def encode_audio(made_by: MadeBy, data: bytes) -> np.ndarray | Refusal:
            made: np.ndarray | Refusal = await vectors_of(audio, made_by, data, **wait)
            return made

        fused = TextEncoder(settings).encode if text is None else encode_text
        self.retriever = retriever.Retriever(settings, encode_text=fused, encode_audio=encode_audio)

    async def search(self, asked: dict[str, Any]) -> Any:
        """See serve.retriever."""
        return await self.retriever.search(asked)

    async def embed(self, model: str, sentences: list[str]) -> Any:
        """See serve.retriever."""
        return await self.retriever.embed(model, sentences)

    async def track(self, track_id: str) -> Any:
        """See serve.retriever."""
        return await self.retriever.track(track_id)

    async def similar_artists(self, name: str, asked: dict[str, Any]) -> Any:
        """See serve.retriever."""
        return await self.retriever.similar_artists(name, asked)

    async def path(self, start: str, end: str, count: int, where: str | None) -> Any:
        """See serve.retriever."""
        return await self.retriever.path(start, end, count, where)

    async def map(self) -> Any:
        """See serve.retriever."""
        return await self.retriever.map()

    async def state(self) -> Any:
        """What serves, after one real search has warmed table, encoder and golden vectors."""
        if not self.warm:
            answer = await self.retriever.search({"text": "warm piano", "mode": "hybrid", "k": 1})
            if isinstance(answer, Refusal):
                return Refusal(503, "not_ready", answer.detail, 5)
            self.warm = True
        return await self.retriever.state()

    def check_health(self) -> None:
        """Serve asks this now and then, and puts another replica in the place of one that fails.

        A call that outlives its request cannot be stopped, and holds its thread, or a core, for as
        long as this process lives.
        """
        stuck = overdue(self.deadline_s)
        if stuck:
            raise UnusableError(f"calls into the tables do not come back (seconds): {stuck}")

    warm = False


def refuse_shared_port() -> None:
    """Raises UnusableError where another cluster's server listens on this one's port too.

    Looked at where a proxy of this cluster is, for elsewhere the port is anyone's. HAProxy leaves
    its Ray's tree of processes when it reloads, so it is not told apart.
    """
    address, own = get_global_client().http_config, own_cluster()
    here = listeners(address.host or "", address.port)
    others = [one for one in here if one.cluster != own and "haproxy" not in one.name]
    if own and others and len(others) < len(here):
        raise UnusableError(
            f"{address.host}:{address.port} is in use by {others[0]} too: requests would go to "
            "either; end that, or choose another port in http_options"
        )


def build_app(args: dict[str, Any]) -> serve.Application:
    """The application for `serve run serve.app:build_app workspace=...` or a RayService."""
    settings = read_settings(args)
    if settings.api_keys is None and not settings.open_to_anyone:
        raise InputError(
            "set api_keys to a file of `name sha256-hex` lines, or open_to_anyone=true "
            "where only this machine can reach the port"
        )

    def http() -> FastAPI:
        return build_http(settings)

    on_gpu = settings.deployment(gpus=settings.num_gpus)
    text = serve.deployment(TextEncoder, name="TextEncoder").options(**on_gpu).bind(settings)
    on_few = settings.audio_deployment()
    audio = serve.deployment(AudioEncoder, name="AudioEncoder").options(**on_few).bind(settings)
    retrieve = serve.deployment(Retriever, name="Retriever").options(**settings.deployment())
    fused = settings.layout == "fused"
    has = {"num_cpus": settings.num_cpus if fused else min(settings.num_cpus, 0.1)}
    has |= {"num_gpus": settings.num_gpus} if fused else {}  # where its text encoder is

    @serve.deployment(name="Ingress", ray_actor_options=has, **settings.bounds())
    @serve.ingress(http)
    class Ingress:
        def __init__(self, behind: Any) -> None:
            """`behind` is the retriever; in the fused layout what that one asks for uploads."""
            refuse_shared_port()
            self.retriever = Retriever(settings, None, behind) if fused else behind

        async def ask(self, verb: str, *arguments: Any) -> Any:
            """What the retriever says; see serve.asking."""
            called = getattr(self.retriever, verb)
            if fused:
                return await called(*arguments)
            return await answer_of(called.remote(*arguments), settings.queue_timeout_s)

        def check_health(self) -> None:
            """In the fused layout the retriever's; see there."""
            if fused:
                self.retriever.check_health()

    inner = audio if fused else retrieve.bind(settings, text, audio)
    return Ingress.bind(inner)  # type: ignore[attr-defined]
