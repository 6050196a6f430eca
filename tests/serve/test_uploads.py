"""Recordings sent in: in whatever body, in company, and more than there is room for."""

from __future__ import annotations

import asyncio
import base64
import io
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile

from raymtr.index.publish import live_build
from raymtr.model import audio_forward
from raymtr.workspace import Workspace
from serve import audio_encoder
from serve.app import build_app
from serve.messages import Problem, ProblemError
from serve.settings import ServeSettings
from serve.uploads import file_of, recording_in

FOUR_MINUTES_S = 240
DATA = bytes(range(256)) * 9 + b"\r\n--x\n\r"


def flac(seconds: float, seed: int) -> bytes:
    """Noise that is another for each seed."""
    file = io.BytesIO()
    noise = np.random.default_rng(seed).uniform(-0.5, 0.5, int(seconds * 22_050))
    soundfile.write(file, noise, 22_050, format="FLAC")
    return file.getvalue()


def form(*parts: tuple[str, bytes], eol: bytes = b"\r\n", end: bytes = b"--BB--") -> bytes:
    body = b""
    for head, data in parts:
        said = eol.join(line.encode() for line in head.split("\n"))
        body += b"--BB" + eol + said + eol + eol + data + eol
    return body + end + eol


FILE = 'Content-Disposition: form-data; name="f"; filename="a.mp3"'
FIELD = 'Content-Disposition: form-data; name="k"'
PACKED = f"{FILE}\nContent-Transfer-Encoding: base64"


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data; boundary=BB", form((FILE, DATA))),
        ('Multipart/Form-Data; boundary="BB"', form((FILE, DATA))),
        ("multipart/form-data; boundary=BB", form((FIELD, b"5"), (FIELD, b""), (FILE, DATA))),
        ("multipart/form-data; boundary=BB", form((FILE, DATA), eol=b"\n")),
        ("multipart/form-data; boundary=BB", b"preamble\r\n" + form((FILE, DATA), (FIELD, b"5"))),
        ("multipart/form-data; boundary=BB", form((PACKED, base64.encodebytes(DATA)))),
        ("Audio/FLAC", DATA),
        ("video/mp4", DATA),
        ("application/ogg", DATA),
        ("application/x-www-form-urlencoded", DATA),  # what curl --data-binary says
        ("", DATA),
    ],
)
def test_a_file_comes_out_byte_for_byte(kind: str, body: bytes) -> None:
    assert file_of(kind, body) == DATA


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data; boundary=BB", form((FIELD, DATA))),
        ("multipart/form-data; boundary=CC", form((FILE, DATA))),
        ("multipart/form-data", form((FILE, DATA))),
        ("multipart/mixed; boundary=BB", form((FILE, DATA))),
        ("multipart/form-data; boundary=BB", b"--BB\r\n" + b"x" * 100_000),
        ("application/json", b"{}"),
        ("audio/flac", b""),
    ],
)
def test_a_body_without_a_file_is_told_so(kind: str, body: bytes) -> None:
    with pytest.raises(ProblemError, match="expected multipart/form-data with one file"):
        file_of(kind, body)


def test_a_file_of_thirty_megabytes_is_found_in_a_moment() -> None:
    """Other searches of the replica wait for the interpreter meanwhile."""
    data = bytes(range(256)) * (30 << 12)
    began = time.process_time()
    assert file_of("multipart/form-data; boundary=BB", form((FILE, data))) == data
    assert time.process_time() - began < 0.4


def test_base64_may_have_lines() -> None:
    assert recording_in(base64.encodebytes(DATA).decode()) == DATA
    with pytest.raises(ProblemError, match="not base64"):
        recording_in("no base64")


@pytest.fixture
def encoder(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> audio_encoder.AudioEncoder:
    """An encoder whose forward takes as many windows as a GPU's does, on this CPU."""
    monkeypatch.setitem(audio_forward.WINDOWS_AT_ONCE, "cpu", 16)
    return audio_encoder.AudioEncoder(ServeSettings(workspace=workspace.root, audio_ongoing=4))


@pytest.mark.slow
def test_a_recordings_vector_is_the_same_alone_and_in_company(
    encoder: audio_encoder.AudioEncoder, workspace: Workspace
) -> None:
    made_by = live_build(workspace).made_by
    assert made_by is not None
    recordings = [flac(seconds, seed) for seed, seconds in enumerate((3.0, 25.0, 41.0, 8.0))]
    together: list[int] = []
    hold, embed = threading.Event(), encoder.batcher._run

    def watched(jobs: Any) -> Any:
        assert hold.wait(600)
        together.append(len({id(window.base) for _, window in jobs}))
        return embed(jobs)

    async def all_at_once() -> list[Any]:
        asked = [asyncio.create_task(encoder.encode(made_by, data)) for data in recordings]
        while len({id(window.base) for (_, window), _ in encoder.batcher._waiting}) < 2:
            await asyncio.sleep(0.01)
        hold.set()
        return list(await asyncio.gather(*asked))

    alone = [asyncio.run(encoder.encode(made_by, data)) for data in recordings]
    encoder.batcher._run = watched
    company = asyncio.run(all_at_once())
    assert max(together) >= 2  # recordings in one forward
    assert [vector.tobytes() for vector in alone] == [vector.tobytes() for vector in company]
    np.testing.assert_allclose(
        alone, encoder.models.get(made_by).encode_audio(recordings), atol=1e-6
    )


@pytest.mark.slow
def test_nobody_waits_for_a_recording_that_was_given_up(
    encoder: audio_encoder.AudioEncoder, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its child is ended, so that as many run as the deployment's bound says."""
    made_by = live_build(workspace).made_by
    assert made_by is not None
    started = []
    start = audio_encoder.start_decoder

    def noted(*given: Any) -> Any:
        started.append(start(*given))
        return started[-1]

    monkeypatch.setattr(audio_encoder, "start_decoder", noted)

    async def give_up() -> None:
        asked = asyncio.create_task(encoder.encode(made_by, flac(FOUR_MINUTES_S, 1)))
        while not started:
            await asyncio.sleep(0.001)
        asked.cancel()
        await asyncio.wait([asked])

    asyncio.run(give_up())
    assert started[0].wait(600) < 0


@pytest.mark.slow
def test_a_recording_too_late_gets_a_retry_after(
    encoder: audio_encoder.AudioEncoder, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_by = live_build(workspace).made_by
    assert made_by is not None
    hasty = {"request_timeout_s": 0.3, "queue_timeout_s": 0.1, "audio_timeout_s": 0.1}
    encoder.settings = ServeSettings(workspace=workspace.root, **hasty)

    def slow(_: Any) -> None:
        time.sleep(1)

    monkeypatch.setattr(encoder.models, "get", slow)
    made = asyncio.run(encoder.encode(made_by, b""))
    assert isinstance(made, Problem)
    assert (made.status, made.code, made.retry_after_s) == (503, "busy", 5)


def bound(application: Any) -> Iterator[tuple[str, Any]]:
    """Deployments of an application by name."""
    deployment = application._bound_deployment
    yield deployment.name, deployment._deployment_config
    for argument in (*deployment.init_args, *deployment.init_kwargs.values()):
        if hasattr(argument, "_bound_deployment"):
            yield from bound(argument)


@pytest.mark.parametrize("layout", ["composed", "fused"])
def test_an_audio_encoder_has_few_uploads_and_wants_help_soon(layout: str) -> None:
    given = {"workspace": "/w", "open_to_anyone": True, "layout": layout}
    configs = dict(bound(build_app(given)))
    audio = configs["AudioEncoder"]
    assert (audio.max_ongoing_requests, audio.max_queued_requests) == (2, 4)
    scaling = audio.autoscaling_config
    assert scaling.target_ongoing_requests == 1  # one more than one is at work on: a second replica
    assert scaling.upscale_delay_s <= 5
    for name in set(configs) - {"AudioEncoder", "Ingress"}:
        assert configs[name].autoscaling_config.target_ongoing_requests == 32


def test_on_a_gpu_each_text_and_audio_encoder_has_it() -> None:
    given = {"workspace": "/w", "open_to_anyone": True, "device": "cuda", "num_gpus": 0.5}
    for layout, text in (("composed", "TextEncoder"), ("fused", "Ingress")):
        application = build_app(given | {"layout": layout})
        configs = {}

        def collect(one: Any, into: dict = configs) -> None:
            deployment = one._bound_deployment
            into[deployment.name] = deployment.ray_actor_options
            for argument in deployment.init_args:
                if hasattr(argument, "_bound_deployment"):
                    collect(argument)

        collect(application)
        assert configs["AudioEncoder"]["num_gpus"] == configs[text]["num_gpus"] == 0.5
        assert not configs.get("Retriever", {}).get("num_gpus")


def test_more_uploads_than_there_is_room_for_are_told_at_once(run_app: Callable) -> None:
    """Each is answered or told to come again, none runs into a timeout; words are still found."""
    few = {"audio_ongoing": 1, "audio_queued": 1, "max_replicas": 3}
    client: httpx.Client = run_app("crowded", layout="composed", open_to_anyone=True, **few)
    data = flac(FOUR_MINUTES_S, 0)
    gate = threading.Barrier(13)

    def upload(number: int) -> tuple[httpx.Response, float]:
        gate.wait()
        began = time.monotonic()
        answer = client.post("/v1/search/audio", files={"file": ("a.flac", data)})
        return answer, time.monotonic() - began

    words: list[tuple[int, float]] = []
    with ThreadPoolExecutor(12) as pool:
        sent = [pool.submit(upload, number) for number in range(12)]
        gate.wait()
        while not all(one.done() for one in sent):
            began = time.monotonic()
            asked = {"text": f"piano number {len(words)}"}
            words.append((client.post("/v1/search", json=asked).status_code, began))
    answers = [one.result() for one in sent]
    statuses = [answer.status_code for answer, _ in answers]
    assert set(statuses) == {200, 503}
    for answer, _ in answers:
        if answer.status_code == 503:
            assert answer.json()["code"] == "busy" and int(answer.headers["retry-after"]) >= 1
    told = [took for answer, took in answers if answer.status_code == 503]
    assert min(told) < min(took for answer, took in answers if answer.status_code == 200)
    assert {status for status, _ in words} == {200}
