"""Requests drawn from the endpoint's own OpenAPI, right and wrong ones, at the real endpoint.

No request is answered with a 5xx; every answer has a status, a media type and a shape that the
OpenAPI declares; what breaks the declared shape of a request is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from load_clients import wav

schemathesis = pytest.importorskip("schemathesis")

from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis.errors import Unsatisfiable  # noqa: E402
from ray import serve  # noqa: E402
from schemathesis import checks  # noqa: E402

from raymtr.workspace import Workspace  # noqa: E402
from serve.app import build_app  # noqa: E402

REQUESTS = 100  # of each operation and of each way to draw them
CHECKS = (
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.unsupported_method,
)

# The generated tracks have no audio, and no generation model is named.
NEVER_ANSWERED = {"GET /v1/tracks/{track_id}/audio", "POST /v1/generate"}
RECORDING = wav(np.random.default_rng(0).uniform(-0.5, 0.5, 8_000))
HERE = {
    "track_id": "t0007",
    "name": "Ada Lark",
    "from": "t0001",
    "to": "t0400",
    "n": 5,
    "format": "json",
    "file": RECORDING,
    "text": "calm piano",
    "like": ["t0003", {"track_id": "t0004", "weight": 0.5}],
    "unlike": ["t0008"],
    "exclude": ["odd"],
    "where": "year > 1970",
    "mode": "auto",
    "k": 3,
    "per_artist": 2,
    "diversity": 0.5,
    "input": ["rain", "sun"],
    "model": "raymtr",
    "encoding_format": "float",
}

pytestmark = pytest.mark.drill


@pytest.fixture(scope="module")
def openapi(ray_cluster: None, music: Workspace, free_port: Callable[[], int]) -> Iterator[Any]:
    """The schema as the endpoint gives it; requests drawn from it go there."""
    port = free_port()
    serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
    given = {"workspace": music.root, "open_to_anyone": True, "requests_per_minute": 10**6}
    few = {"num_cpus": 0.1, "max_replicas": 1, "audio_timeout_s": 5.0}
    serve.run(build_app({**given, **few}), name="raymtr", route_prefix="/")
    yield schemathesis.openapi.from_url(f"http://127.0.0.1:{port}/openapi.json")
    serve.shutdown()


def test_right_requests_are_answered_as_declared(openapi: Any) -> None:
    answered: set[str] = set()
    for operation in operations_of(openapi):
        drawn = operation.as_strategy()
        for case in (drawn, drawn.map(about_this_catalog)):
            send_all(case, operation.label, answered, CHECKS)
    assert answered == {operation.label for operation in operations_of(openapi)} - NEVER_ANSWERED


def test_wrong_requests_are_rejected_as_declared(openapi: Any) -> None:
    for operation in operations_of(openapi):
        wrong = operation.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE)
        with suppress(Unsatisfiable):  # without parameters there are no wrong ones
            refused = (*CHECKS, checks.negative_data_rejection)
            send_all(wrong, operation.label, set(), refused)


def operations_of(openapi: Any) -> list[Any]:
    """All that the OpenAPI offers."""
    return [result.ok() for result in openapi.get_all_operations()]


def send_all(drawn: Any, label: str, answered: set[str], checked: tuple[Any, ...]) -> None:
    """Send what is drawn; a label goes to `answered` when one was answered with 200."""

    @settings(
        max_examples=REQUESTS,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=drawn)
    def send(case: Any) -> None:
        if case.call_and_validate(checks=list(checked), timeout=60).status_code == 200:
            answered.add(label)

    send()


def about_this_catalog(case: Any) -> Any:
    """The same request, its values such as exist here; what has no such value is left out."""
    for part in ("path_parameters", "query", "body"):
        given = getattr(case, part)
        if isinstance(given, dict):
            setattr(case, part, {name: HERE[name] for name in given if name in HERE})
    if isinstance(case.body, bytes):
        case.body = RECORDING
    return case
