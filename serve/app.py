"""The endpoint on Ray Serve: an ingress, a retriever, and an encoder for each tower.

    ingress (HTTP) -> Retriever -> TextEncoder, AudioEncoder
                            -> RetrieverShard0 ... if shards > 1
                            -> Reranker, if reranker
                   -> Generator, if generation_model is set

The retriever calls the encoders, not the ingress. Only the retriever knows the model of its tables,
so one request uses one build throughout. Each deployment scales independently. In the fused layout
one replica is ingress, retriever and text encoder. It has no network hop and is meant for one
machine.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from ray import serve

from raymtr.errors import InputError, UnusableError
from raymtr.ports import listeners, own_cluster
from serve import ray_private
from serve.audio_encoder import AudioEncoder
from serve.backend import Backend, RemoteBackend, RemoteGenerator
from serve.encoders import TextEncoder
from serve.generator import Generator
from serve.http import build_http
from serve.reranker import Reranker
from serve.retriever import Retriever
from serve.settings import read_settings
from serve.shards import RetrieverShard

AUDIO_NICENESS = 4  # text queries take precedence on shared cores


def refuse_shared_port() -> None:
    """Raises UnusableError if another cluster's server listens on the same port.

    Checked only on machines where a proxy of this cluster runs; on other machines the port may be
    in other use. HAProxy is exempt: it leaves Ray's process tree when it reloads, so the cluster
    that it belongs to is unknown.
    """
    (host, port), own = ray_private.proxy_address(), own_cluster()
    here = listeners(host, port)
    others = [one for one in here if one.cluster != own and "haproxy" not in one.name]
    if own and others and len(others) < len(here):
        raise UnusableError(
            f"{host}:{port} is also in use by {others[0]}: requests would reach either server; "
            "stop that process, or choose another port in http_options"
        )


def build_app(args: dict[str, Any]) -> serve.Application:
    """The application for `serve run serve.app:build_app workspace=...` or a RayService."""
    settings = read_settings(args)
    if settings.api_keys is None and not settings.open_to_anyone:
        raise InputError(
            "set api_keys to a file of `name sha256-hex` lines, or open_to_anyone=true "
            "if only this machine can reach the port"
        )

    def http() -> FastAPI:
        return build_http(settings)

    on_gpu = settings.deployment(gpus=settings.num_gpus)
    text = serve.deployment(name="TextEncoder", **on_gpu)(TextEncoder).bind(settings)
    audio_options = settings.audio_deployment()
    audio_encoder = serve.deployment(name="AudioEncoder", **audio_options)(AudioEncoder)
    audio = audio_encoder.bind(settings, niceness=AUDIO_NICENESS)
    retriever = serve.deployment(name="Retriever", **settings.retriever_deployment())(Retriever)
    generator = serve.deployment(name="Generator", **settings.generator_deployment())(Generator)
    sound = generator.bind(settings) if settings.generation_model else None
    reranking = serve.deployment(name="Reranker", **on_gpu)(Reranker)
    reranker = reranking.bind(settings) if settings.reranker else None
    fused = settings.layout == "fused"
    resources = {"num_cpus": settings.num_cpus if fused else min(settings.num_cpus, 0.1)}
    if fused:  # it has the text encoder, and reads the tables
        resources |= {"num_gpus": settings.num_gpus} | settings.table_memory

    @serve.ingress(http)
    class Ingress:
        backend: Backend

        def __init__(self, inner: Any, sound: Any, reranker: Any) -> None:
            """`inner` is the retriever's handle; in the fused layout, the audio encoder's.

            `sound` is the generator's handle, or None. `reranker` is used in the fused layout.
            """
            refuse_shared_port()
            self.generator = RemoteGenerator(sound) if sound else None
            if fused:
                text = TextEncoder(settings)
                self.backend = Retriever(settings, text, inner, reranker=reranker)
            else:
                self.backend = RemoteBackend(inner, settings.queue_timeout_s)

        def check_health(self) -> None:
            """In the fused layout, the same as `Retriever.check_health`."""
            if isinstance(self.backend, Retriever):
                self.backend.check_health()

    options = settings.shard_deployment()
    shards = [
        serve.deployment(name=f"RetrieverShard{n}", **options)(RetrieverShard).bind(settings, n)
        for n in range(settings.shards if settings.shards > 1 else 0)
    ]
    inner = audio if fused else retriever.bind(settings, text, audio, *shards, reranker=reranker)
    deploy = serve.deployment(name="Ingress", ray_actor_options=resources, **settings.bounds())
    return deploy(Ingress).bind(inner, sound, reranker if fused else None)
