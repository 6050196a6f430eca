"""Sound from words over HTTP: streamed, bounded, given up; and where it is off."""

from __future__ import annotations

import io
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
import soundfile
import torch
import uvicorn
from fastapi import FastAPI

from raymtr.generation.musiclm_folder import read_musiclm
from raymtr.generation.sound_file import is_generated, wav_bytes
from raymtr.workspace import Workspace
from serve.generate_routes import add_generate
from serve.generator import Generator
from serve.http import add_errors, add_operations
from serve.metrics import Metrics
from serve.settings import ServeSettings
from tests.token_builders import make_musiclm

ASKED = {"text": "slow piano", "seconds": 3.3, "seed": 5}
WAIT_S = 60.0
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
FLAGS = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]


@pytest.fixture(scope="module")
def musiclm(tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_musiclm(tmp_path_factory.mktemp("musiclm"), tiny_model)


@pytest.fixture(scope="module")
def settings(musiclm: str, tmp_path_factory: pytest.TempPathFactory) -> Callable:
    root = Workspace.open(str(tmp_path_factory.mktemp("w") / "w"), create=True).root

    def make(**given: object) -> ServeSettings:
        return ServeSettings(workspace=root, generation_model=musiclm, **given)  # type: ignore[arg-type]

    return make


class Running:
    """A generator in this process behind a real HTTP server."""

    def __init__(self, settings: ServeSettings, generator: Generator | None, port: int) -> None:
        self.metrics = Metrics()
        http = FastAPI()
        http.state.metrics = self.metrics
        add_generate(http, settings, lambda: generator)
        add_operations(http)
        add_errors(http)
        self.server = uvicorn.Server(uvicorn.Config(http, port=port, log_level="critical"))
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        until(lambda: self.server.started)
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=WAIT_S)

    def clips(self, outcome: str) -> float:
        counted = self.metrics.registry.get_sample_value(
            "raymtr_generated_clips_total", {"outcome": outcome}
        )
        return counted or 0.0

    def stop(self) -> None:
        self.client.close()
        self.server.should_exit = True
        self.thread.join(WAIT_S)


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)


@pytest.fixture
def running(port: int, settings: Callable) -> Iterator[Callable]:
    """A function: settings -> a running endpoint and its generator."""
    started = []

    def start(*, on: bool = True, **given: object) -> tuple[Running, Generator]:
        made = settings(**given)
        generator = Generator(made)
        started.append(Running(made, generator if on else None, port))
        return started[-1], generator

    yield start
    for one in started:
        one.stop()


@pytest.mark.slow
def test_a_clip_is_the_verbs_and_comes_in_windows(running: Callable, musiclm: str) -> None:
    endpoint, _ = running()
    parts = []
    with endpoint.client.stream("POST", "/v1/generate", json=ASKED) as answer:
        assert (answer.status_code, answer.headers["content-type"]) == (200, "audio/wav")
        parts = list(answer.iter_raw())
    model = read_musiclm(musiclm)
    [samples] = model.generate([ASKED["text"]], ASKED["seconds"], [ASKED["seed"]])
    facts = {"prompt": ASKED["text"], "seed": ASKED["seed"], "made_by": model.made_by}
    data = b"".join(parts)
    assert data == wav_bytes(samples, model.sample_rate, **facts)
    assert is_generated(data) and len(parts) > 2 and len(parts[0]) < len(data) / 2
    until(lambda: endpoint.clips("whole") == 1)
    assert endpoint.client.get("/v1/generate").json() == {"on": True, "most_seconds": 30.0}


@pytest.mark.slow
def test_wrong_requests_are_problems(running: Callable) -> None:
    endpoint, _ = running()
    for wrong, said in (
        ({"text": "  "}, "the text is empty"),
        ({"text": "a" * 1_001}, "at most 1000 characters"),
        ({"seconds": 0}, "1 to 600 seconds, got 0"),
        ({"seconds": 31}, "at most 30 seconds (generate_max_s), got 31"),
        ({"seconds": 10_800}, "1 to 600 seconds, got 10800"),
        ({"seed": -1}, "a seed is from 0"),
        ({"prompt": "a"}, "prompt: Extra inputs"),
    ):
        answer = endpoint.client.post("/v1/generate", json=ASKED | wrong)
        assert answer.status_code == 422, wrong
        assert said in answer.json()["detail"]


def test_without_a_model_it_is_off(running: Callable) -> None:
    endpoint, _ = running(on=False)
    answer = endpoint.client.post("/v1/generate", json=ASKED)
    assert (answer.status_code, answer.json()["code"]) == (404, "generation_off")
    assert endpoint.client.get("/v1/generate").json()["on"] is False


@pytest.mark.slow
def test_a_clip_ends_when_its_client_leaves_and_the_queue_is_bounded(running: Callable) -> None:
    endpoint, generator = running(generate_queued=0, generate_max_s=60.0)
    long = ASKED | {"seconds": 60}
    with endpoint.client.stream("POST", "/v1/generate", json=long) as answer:
        parts = answer.iter_raw()  # kept: without it the connection is closed
        next(parts)
        refused = httpx.post(answer.url, json=ASKED, timeout=WAIT_S)
        assert (refused.status_code, refused.json()["code"]) == (429, "generator_full")
        assert int(refused.headers["retry-after"]) > 0
    until(lambda: generator._pending == 0)
    assert (endpoint.clips("broken_off"), endpoint.clips("whole")) == (1, 0)
    assert endpoint.client.post("/v1/generate", json=ASKED).status_code == 200


@pytest.mark.slow
def test_what_cannot_be_made_is_told_before_any_sound(running: Callable) -> None:
    endpoint, generator = running(generate_timeout_s=1e-6)
    late = endpoint.client.post("/v1/generate", json=ASKED)
    assert (late.status_code, late.json()["code"]) == (504, "timeout")
    generator.settings = ServeSettings(workspace="w")
    with torch.no_grad():
        generator.model.stages.semantic.head.fill_(torch.nan)
    broken = endpoint.client.post("/v1/generate", json=ASKED)
    assert (broken.status_code, broken.json()["code"]) == (503, "model_unavailable")
    assert "not finite" in json.dumps(broken.json())


@pytest.mark.drill
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_page_offers_a_sound_and_plays_it(running: Callable) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    endpoint, _ = running(generate_max_s=2.0)
    offer = "import('/page/make.js').then((made) => made.offer('slow piano', () => {}))"
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page()
        page.goto(str(endpoint.client.base_url))
        playwright.expect(page.locator("#make")).to_be_hidden()
        page.evaluate(offer)
        page.click("#make")
        playwright.expect(page.locator("#now-title")).to_have_text("slow piano")
        playwright.expect(page.locator("#now-by")).to_have_text("generated, not a recording")
        sound = page.locator("#audio")
        until(lambda: sound.evaluate("audio => Math.round(audio.duration) === 2"))
        assert sound.get_attribute("src").startswith("blob:")
        browser.close()


@pytest.mark.ray
def test_a_generator_of_its_own_streams_and_is_given_up(run_app: Callable, musiclm: str) -> None:
    given = {"generation_model": musiclm, "generate_queued": 0, "generate_max_s": 60.0}
    client: httpx.Client = run_app("makes", layout="fused", open_to_anyone=True, **given)
    answer = client.post("v1/generate", json=ASKED)
    assert answer.status_code == 200 and is_generated(answer.content)
    samples, rate = soundfile.read(io.BytesIO(answer.content))
    assert len(samples) == round(ASKED["seconds"] * rate)
    with client.stream("POST", "v1/generate", json=ASKED | {"seconds": 60}) as long:
        parts = long.iter_raw()
        next(parts)
        assert client.post("v1/generate", json=ASKED).json()["code"] == "generator_full"

    def free() -> bool:
        return client.post("v1/generate", json=ASKED).status_code == 200

    until(free)
    counted = client.get("metrics").text
    assert 'raymtr_generated_clips_total{outcome="broken_off"} 1.0' in counted
