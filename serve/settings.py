"""Everything that can be set of the endpoint, in one strict place.

The defaults keep what Ray Serve leaves open within bounds: how many requests a replica takes, how
many wait, how long one may take. What must agree is checked here, when it is set.

Uploads have bounds of their own. A sentence costs an encoder milliseconds; a recording of four
minutes one to two and a half core-seconds, and a child that may take audio_memory_mb. So an audio
encoder has few at a time, wants a second replica when that few are there, and the rest are told to
come again at once: under load, waiting would only turn all of them into timeouts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from raymtr.errors import InputError
from raymtr.specs import from_dict

LOGS = {"encoding": "JSON"}  # Serve adds the request's id, deployment and replica to each line


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """Settings of one endpoint; `build_app` takes them by name."""

    workspace: str
    api_keys: str | None = None  # file of `name sha256-hex` lines
    open_to_anyone: bool = False  # without keys; only behind a loopback address
    layout: Literal["composed", "fused"] = "composed"  # fused: one replica, all but audio
    device: Literal["cpu", "cuda"] = "cpu"  # of each encoder; which GPU is Ray's to say
    text_int8: bool = False  # of queries, on a CPU: a third of the time, not quite exact
    num_cpus: float = 1.0  # of each replica that computes
    num_gpus: float = 0.0  # of each encoder; 0.5 lets two share a GPU
    min_replicas: int = 1
    max_replicas: int = 4
    max_batch_size: int = 16
    max_ongoing_requests: int = 64
    max_queued_requests: int = 128
    request_timeout_s: float = 30.0
    queue_timeout_s: float = 10.0  # that a request, or its query, waits for a replica to take it
    audio_ongoing: int = 2  # uploads that one audio encoder has in work, each with a child
    audio_queued: int = 4  # uploads that wait for one, at each replica that asks
    audio_timeout_s: float = 15.0  # of decoding one upload
    audio_max_s: float = 1_200.0
    audio_memory_mb: int = 2_048  # of each child that decodes
    body_timeout_s: float = 60.0  # in which a client sends what it says it sends
    body_max_mb: float = 32.0
    json_max_kb: float = 256.0  # of a body without audio
    requests_per_minute: int = 600  # of one key
    cors_origins: str = ""  # of pages elsewhere that may ask, blanks between; * is any page
    pointer_every_s: float = 2.0  # how often the live pointer is read
    health_check_s: float = 10.0
    shutdown_wait_s: float = 5.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            may_be_zero = field.name in ("num_cpus", "num_gpus")
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if number and (value < 0 or (value == 0 and not may_be_zero)):
                raise InputError(f"{field.name} is above 0, got {value}")
        if (self.device == "cuda") != (self.num_gpus > 0):
            raise InputError(
                f"device={self.device} and num_gpus={self.num_gpus:g} disagree: encoders on a GPU "
                "take device=cuda num_gpus=1 (or a share of one), on a CPU device=cpu num_gpus=0"
            )
        rules = {
            "num_gpus <= 1, for an encoder uses one": self.num_gpus <= 1,
            "text_int8 with device=cpu alone": not self.text_int8 or self.device == "cpu",
            "max_ongoing_requests >= 2 * max_batch_size": self.max_ongoing_requests
            >= 2 * self.max_batch_size,
            "max_queued_requests >= max_ongoing_requests": self.max_queued_requests
            >= self.max_ongoing_requests,
            "min_replicas <= max_replicas": self.min_replicas <= self.max_replicas,
            "queue_timeout_s <= request_timeout_s": self.queue_timeout_s <= self.request_timeout_s,
            "audio_timeout_s < request_timeout_s - queue_timeout_s": self.audio_timeout_s
            < self.encoding_s,
            "json_max_kb <= 1024 * body_max_mb": self.json_max_kb <= 1024 * self.body_max_mb,
        }
        broken = [rule for rule, holds in rules.items() if not holds]
        if broken:
            raise InputError(f"the endpoint's settings must keep {'; '.join(broken)}")

    @property
    def encoding_s(self) -> float:
        """What is left for an upload that waited for an encoder as long as it may."""
        return self.request_timeout_s - self.queue_timeout_s

    @property
    def uploads_at_once(self) -> int:
        """Uploads that one ingress replica reads at a time: what can be in work and waiting.

        Never more than half of its requests, so that the other half is left to words.
        """
        taken = self.max_replicas * self.audio_ongoing + self.audio_queued
        return min(taken, self.max_ongoing_requests // 2)

    def bounds(self) -> dict[str, Any]:
        """Options of every deployment: how much it takes, how it is watched, how it ends."""
        return {
            "max_ongoing_requests": self.max_ongoing_requests,
            "max_queued_requests": self.max_queued_requests,
            "logging_config": LOGS,
            "health_check_period_s": self.health_check_s,
            "graceful_shutdown_wait_loop_s": min(1.0, self.shutdown_wait_s),
            "graceful_shutdown_timeout_s": self.request_timeout_s + self.shutdown_wait_s,
        }

    def deployment(self, *, gpus: float = 0.0) -> dict[str, Any]:
        """Options that every deployment which computes has in common."""
        return self.bounds() | {
            "ray_actor_options": {"num_cpus": self.num_cpus, "num_gpus": gpus},
            "autoscaling_config": {
                "min_replicas": self.min_replicas,
                "max_replicas": self.max_replicas,
                "target_ongoing_requests": self.max_ongoing_requests / 2,
            },
        }

    def audio_deployment(self) -> dict[str, Any]:
        """Options of the audio encoder: few uploads at a time, and soon another replica."""
        options = self.deployment(gpus=self.num_gpus) | {
            "max_ongoing_requests": self.audio_ongoing,
            "max_queued_requests": self.audio_queued,
        }
        options["autoscaling_config"] |= {
            "target_ongoing_requests": max(1.0, self.audio_ongoing / 2),
            "metrics_interval_s": 5.0,  # Serve wants several in a period
            "look_back_period_s": 15.0,  # a mean of Serve's 30 s would see a burst when it is over
            "upscale_delay_s": 5.0,
        }
        return options


def read_settings(values: Mapping[str, Any]) -> ServeSettings:
    """Settings by name; texts that stand for numbers are read (`serve run` hands texts only)."""
    names = {field.name: field.type for field in fields(ServeSettings)}
    read = {
        key: _parse(value) if isinstance(value, str) and "str" not in str(names.get(key)) else value
        for key, value in values.items()
    }
    if isinstance(workspace := read.get("workspace"), str):
        read["workspace"] = _told(workspace)
    return from_dict(ServeSettings, read)


def _told(workspace: str) -> str:
    """`$NAME` by the environment, so that pods are told in one place where the workspace is."""
    if not workspace.startswith("$"):
        return workspace
    if (name := workspace[1:]) not in os.environ:
        raise InputError(f"workspace is {workspace}, and the environment has no {name}")
    return os.environ[name]


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
