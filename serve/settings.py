"""All settings of the endpoint, strictly validated in one place.

The defaults set limits that Ray Serve leaves open: how many requests a replica accepts, how many
wait, how long one may take. Settings that must be consistent are validated together.

Uploads have separate limits. Encoding a sentence takes milliseconds. Encoding a recording of four
minutes takes several core-seconds, and a child process of up to audio_memory_mb. So an audio
encoder accepts few uploads at a time, and scales up as soon as it has that many. Further uploads
are refused at once with Retry-After, because a long queue would only turn all uploads into
timeouts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from raymtr.errors import InputError
from raymtr.validation import from_dict, spec

LOGS = {"encoding": "JSON"}  # Serve adds the request's id, deployment and replica to each line


@spec
class ServeSettings:
    """Settings of one endpoint; `build_app` takes them by name."""

    workspace: str
    api_keys: str | None = None  # file of `name sha256-hex` lines
    open_to_anyone: bool = False  # no keys; only behind a loopback address
    layout: Literal["composed", "fused"] = "composed"  # fused: one replica, all but audio
    shards: PositiveInt = 1  # table shards, one deployment each; 1: the retriever reads all tables
    shard_timeout_s: PositiveFloat = 2.0  # of one look-up; after it the answer is partial
    index_cache_gb: PositiveFloat = 6.0  # of index pages, per replica that reads tables
    memory_gb: NonNegativeFloat = 0.0  # that Ray reserves for each such replica; 0: none
    device: Literal["cpu", "cuda"] = "cpu"  # of each encoder; Ray assigns the GPU
    text_int8: bool = False  # quantized queries on a CPU: a third of the time, not exact
    num_cpus: NonNegativeFloat = 1.0  # of each replica except the ingress
    num_gpus: NonNegativeFloat = 0.0  # of each encoder; 0.5 lets two share a GPU
    min_replicas: PositiveInt = 1
    max_replicas: PositiveInt = 4
    max_batch_size: PositiveInt = 16
    max_ongoing_requests: PositiveInt = 64
    max_queued_requests: PositiveInt = 128
    request_timeout_s: PositiveFloat = 30.0
    queue_timeout_s: PositiveFloat = 10.0  # of the wait for a retriever, and for an encoder
    reranker: bool = False  # a deployment of its own re-ranks, not each retriever
    audio_ongoing: PositiveInt = 2  # concurrent uploads per audio encoder, one child process each
    audio_queued: PositiveInt = 4  # uploads that wait for an audio encoder, per calling replica
    audio_timeout_s: PositiveFloat = 15.0  # of decoding one upload
    audio_max_s: PositiveFloat = 1_200.0
    audio_memory_mb: PositiveInt = 2_048  # of each decoding child process
    generation_model: str = ""  # a MusicLM run or folder for /v1/generate; empty: off
    generate_max_s: PositiveFloat = 30.0  # of one clip
    generate_queued: NonNegativeInt = 3  # clips that wait per replica, which runs one
    generate_timeout_s: PositiveFloat = 300.0  # of one clip, including its wait
    body_timeout_s: PositiveFloat = 60.0  # for a client to send the whole body
    body_max_mb: PositiveFloat = 32.0
    json_max_kb: PositiveFloat = 256.0  # of a body without audio
    requests_per_minute: PositiveInt = 600  # of one key
    cors_origins: str = ""  # allowed other origins, separated by blanks; * is any
    pointer_every_s: PositiveFloat = 2.0  # how often the live pointer is read
    health_check_s: PositiveFloat = 10.0
    shutdown_wait_s: PositiveFloat = 5.0

    def __post_init__(self) -> None:
        if (self.device == "cuda") != (self.num_gpus > 0):
            raise InputError(
                f"device={self.device} and num_gpus={self.num_gpus:g} disagree: encoders on a GPU "
                "need device=cuda num_gpus=1 (or less than 1), on a CPU device=cpu num_gpus=0"
            )
        rules = {
            "num_gpus <= 1, because an encoder uses one GPU": self.num_gpus <= 1,
            "text_int8 only with device=cpu": not self.text_int8 or self.device == "cpu",
            "max_ongoing_requests >= 2 * max_batch_size": self.max_ongoing_requests
            >= 2 * self.max_batch_size,
            "max_queued_requests >= max_ongoing_requests": self.max_queued_requests
            >= self.max_ongoing_requests,
            "min_replicas <= max_replicas": self.min_replicas <= self.max_replicas,
            "queue_timeout_s <= request_timeout_s": self.queue_timeout_s <= self.request_timeout_s,
            "audio_timeout_s < request_timeout_s - queue_timeout_s": self.audio_timeout_s
            < self.encoding_s,
            "layout=composed where shards > 1": self.shards == 1 or self.layout == "composed",
            "shard_timeout_s < request_timeout_s where shards > 1": self.shards == 1
            or self.shard_timeout_s < self.request_timeout_s,
            "json_max_kb <= 1024 * body_max_mb": self.json_max_kb <= 1024 * self.body_max_mb,
        }
        violated = [rule for rule, valid in rules.items() if not valid]
        if violated:
            raise InputError(f"the endpoint's settings must satisfy: {'; '.join(violated)}")

    @property
    def index_cache_bytes(self) -> int:
        """The limit of LanceDB's index cache, which the open builds of a replica share."""
        return int(self.index_cache_gb * 2**30)

    @property
    def encoding_s(self) -> float:
        """The time left to encode an upload after the longest allowed wait for an encoder."""
        return self.request_timeout_s - self.queue_timeout_s

    @property
    def uploads_at_once(self) -> int:
        """The uploads that one ingress replica reads at a time: those that run and those that wait.

        At most half of its requests, so that the other half is left for text queries.
        """
        accepted = self.max_replicas * self.audio_ongoing + self.audio_queued
        return min(accepted, self.max_ongoing_requests // 2)

    def bounds(self) -> dict[str, Any]:
        """Options of every deployment: capacity, health checks, shutdown."""
        return {
            "max_ongoing_requests": self.max_ongoing_requests,
            "max_queued_requests": self.max_queued_requests,
            "logging_config": LOGS,
            "health_check_period_s": self.health_check_s,
            "graceful_shutdown_wait_loop_s": min(1.0, self.shutdown_wait_s),
            "graceful_shutdown_timeout_s": self.request_timeout_s + self.shutdown_wait_s,
        }

    def deployment(self, *, gpus: float = 0.0) -> dict[str, Any]:
        """Options common to every deployment that computes."""
        return self.bounds() | {
            "ray_actor_options": {"num_cpus": self.num_cpus, "num_gpus": gpus},
            "autoscaling_config": {
                "min_replicas": self.min_replicas,
                "max_replicas": self.max_replicas,
                "target_ongoing_requests": self.max_ongoing_requests / 2,
            },
        }

    def audio_deployment(self) -> dict[str, Any]:
        """Options of the audio encoder: few uploads at a time, and fast scale-up."""
        options = self.deployment(gpus=self.num_gpus) | {
            "max_ongoing_requests": self.audio_ongoing,
            "max_queued_requests": self.audio_queued,
        }
        options["autoscaling_config"] |= {
            "target_ongoing_requests": max(1.0, self.audio_ongoing / 2),
            "metrics_interval_s": 5.0,  # several samples per look-back period, as Serve requires
            "look_back_period_s": 15.0,  # Serve's default of 30 s reacts to a burst too late
            "upscale_delay_s": 5.0,
        }
        return options

    def retriever_deployment(self) -> dict[str, Any]:
        """Options of the retriever. With table shards it reads no tables, so it needs no memory."""
        return self.deployment() if self.shards > 1 else self._reading_tables(self.deployment())

    def shard_deployment(self) -> dict[str, Any]:
        """Options of a table shard. One search calls it many times, so the retrievers limit it."""
        return self._reading_tables(self.deployment()) | {
            "max_ongoing_requests": 8 * self.max_ongoing_requests,
            "max_queued_requests": -1,
        }

    @property
    def table_memory(self) -> dict[str, float]:
        """Ray's resource of a replica that reads tables, in bytes; {} if none is reserved."""
        return {"memory": self.memory_gb * 2**30} if self.memory_gb else {}

    def _reading_tables(self, options: dict[str, Any]) -> dict[str, Any]:
        return options | {"ray_actor_options": options["ray_actor_options"] | self.table_memory}

    def generator_deployment(self) -> dict[str, Any]:
        """Options of the generator. It limits its queue itself, and a clip may take long."""
        options = self.deployment(gpus=self.num_gpus) | {
            # One more than it accepts, so that the generator itself refuses the excess request.
            "max_ongoing_requests": self.generate_queued + 2,
            "max_queued_requests": self.generate_queued + 2,
            "graceful_shutdown_timeout_s": self.generate_timeout_s + self.shutdown_wait_s,
        }
        options["autoscaling_config"] |= {"target_ongoing_requests": 1.0}
        return options


def read_settings(values: Mapping[str, Any]) -> ServeSettings:
    """Settings by name; numbers given as text are parsed (`serve run` passes text only)."""
    types = {field.name: field.type for field in fields(ServeSettings)}
    read = {
        key: _parse(value) if isinstance(value, str) and "str" not in str(types.get(key)) else value
        for key, value in values.items()
    }
    if isinstance(workspace := read.get("workspace"), str):
        read["workspace"] = _expand_variables(workspace)
    return from_dict(ServeSettings, read)


def _expand_variables(workspace: str) -> str:
    """Expands `$NAME` from the environment, where pods set the workspace once."""
    if not workspace.startswith("$"):
        return workspace
    if (name := workspace[1:]) not in os.environ:
        raise InputError(f"workspace is {workspace}, but the environment has no {name}")
    return os.environ[name]


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
