"""The endpoint as clients meet it: one real application on Ray Serve over a small made index."""

from __future__ import annotations

import io
import shutil
import socket
import time
from collections.abc import Callable, Iterator

import httpx
import numpy as np
import pytest
import soundfile

from raymtr import storage
from raymtr.index.build_tables import tracks_table
from raymtr.index.publish import publish
from raymtr.index.shards import find_shards
from raymtr.model.pretrained import load_model
from raymtr.search.searcher import Searcher
from raymtr.specs import SearchSpec
from raymtr.workspace import Workspace

SOUNDS = ["slow piano ballad", "heavy metal guitars", "techno beat"]


@pytest.fixture(scope="module")
def workspace(
    make_workspace: Callable,
    commit_vectors: Callable,
    tiny_model: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Workspace:
    folder = tmp_path_factory.mktemp("songs")
    soundfile.write(folder / "song.wav", np.sin(np.arange(16_000) / 9), 16_000)
    rows = [
        {
            "track_id": f"t{number:02}",
            "uri": str(folder / "song.wav") if number == 0 else f"/gone/{number}.wav",
            "title": f"Tune {number}",
            "artist": f"Artist {number % 5}",
            "year": 1980 + number,
            "tags": [SOUNDS[number % 3].split()[-1]],
            "similar_artists": [f"Artist {(number + 1) % 5}"],
        }
        for number in range(30)
    ]
    workspace = make_workspace(rows)
    model = load_model(tiny_model)
    sounds = model.encode_text(SOUNDS)
    noise = 0.02 * np.random.default_rng(0).standard_normal((30, 2, sounds.shape[1]))
    windows = sounds[np.arange(30) % 3][:, None] + noise.astype(np.float32)
    windows /= np.linalg.norm(windows, axis=2, keepdims=True)
    vectors = {f"t{number:02}": windows[number] for number in range(30)}
    commit_vectors(workspace, vectors, fingerprint=model.fingerprint)
    shutil.copytree(tiny_model, find_shards(workspace).model_folder)
    tracks = tracks_table(storage.read_tables(workspace.tracks), None)
    publish(workspace, tracks, find_shards(workspace), search=SearchSpec())
    return workspace


@pytest.fixture(scope="module")
def client(ray_cluster: None, workspace: Workspace) -> Iterator[httpx.Client]:
    from ray import serve

    from jobs.serve import serve_endpoint

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve_endpoint(workspace, port=port, layout="composed")
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as opened:
        yield opened
    serve.shutdown()


def test_http_gives_the_hits_python_gives(client: httpx.Client, workspace: Workspace) -> None:
    searcher = Searcher(workspace)
    for asked in (
        {"text": "slow piano ballad", "k": 7},
        {"text": "similar to Artist 2", "k": 5, "per_artist": 1},
        {"like": [{"track_id": "t03"}], "where": "year > 1990", "k": 5, "diversity": 0.5},
        {"text": "Tune 4", "exclude": ["beat"]},
    ):
        answer = client.post("/v1/search", json=asked).json()
        assert answer["hits"] == searcher.search(**asked)["hits"]


def test_pages_neither_repeat_nor_skip(client: httpx.Client) -> None:
    asked = {"text": "techno beat", "k": 7}
    whole = client.post("/v1/search", json=asked | {"k": 30}).json()["hits"]
    seen, cursor = [], None
    while True:
        page = client.post("/v1/search", json=asked | ({"cursor": cursor} if cursor else {})).json()
        seen += [hit["track_id"] for hit in page["hits"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == [hit["track_id"] for hit in whole]
    first = client.post("/v1/search", json=asked).json()["next_cursor"]
    other = client.post("/v1/search", json={"text": "piano", "k": 7, "cursor": first})
    assert other.status_code == 422


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"texx": "a"}, 422, "invalid_request"),
        ({"text": "a", "k": 101}, 422, "invalid_request"),
        ({"text": " "}, 422, "invalid_request"),
        ({"like": [{"track_id": "nobody"}]}, 422, "invalid_request"),
        ({"text": "a", "where": "year >"}, 422, "invalid_request"),
        ({"text": "a", "cursor": "abc"}, 422, "invalid_request"),
        ({"audio": {"data": "bm8gbXVzaWM="}}, 422, None),
        ({"text": "a" * 300_000}, 422, "invalid_request"),
    ],
)
def test_wrong_searches_are_problems(
    client: httpx.Client, body: dict, status: int, code: str | None
) -> None:
    answer = client.post("/v1/search", json=body)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert code is None or answer.json()["code"] == code


def test_other_errors_are_problems(client: httpx.Client) -> None:
    kind = {"content-type": "application/json"}
    answers = {
        400: client.post("/v1/search", content="{", headers=kind),
        403: client.get("/readyz", headers={"host": "evil.example"}),
        404: client.get("/v1/tracks/nobody"),
        405: client.put("/v1/search"),
        413: client.post("/v1/embeddings", json={"input": "a" * 300_000}),
    }
    for status, answer in answers.items():
        assert answer.status_code == status
        assert answer.json()["status"] == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["x-request-id"]


def test_a_recording_finds_tracks_whichever_way_it_is_sent(
    client: httpx.Client, workspace: Workspace
) -> None:
    file = io.BytesIO()
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, 32_000)
    soundfile.write(file, noise, 16_000, format="WAV")
    data = file.getvalue()
    sent = client.post("/v1/search/audio", params={"k": 5}, files={"file": ("a.wav", data)})
    assert sent.json()["hits"] == Searcher(workspace).search(audio=data, k=5)["hits"]


def test_tracks_play_by_ranges(client: httpx.Client) -> None:
    whole = client.get("/v1/tracks/t00/audio")
    assert whole.headers["content-type"].startswith("audio/")
    part = client.get("/v1/tracks/t00/audio", headers={"range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, whole.content[10:20])
    assert client.get("/v1/tracks/t01/audio").json()["code"] == "no_audio"


def test_embeddings_are_the_models_own(client: httpx.Client, tiny_model: str) -> None:
    answer = client.post("/v1/embeddings", json={"input": ["rain", "sun"]}).json()
    made = np.array([item["embedding"] for item in answer["data"]], np.float32)
    np.testing.assert_allclose(made, load_model(tiny_model).encode_text(["rain", "sun"]), atol=1e-5)
    other = client.post("/v1/embeddings", json={"input": "rain", "model": "ada"})
    assert other.json()["code"] == "unknown_model"


def test_the_page_and_the_probes(client: httpx.Client) -> None:
    page = client.get("/")
    assert "raymtr" in page.text
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert client.get("/readyz").json()["rows"]["tracks"] == 30
    assert "raymtr_stage_seconds_count" in client.get("/metrics").text
    assert len(client.get("/v1/map").json()["points"]) == 30
    similar = client.get("/v1/artists/Artist 1/similar").json()["artists"]
    assert "Artist 1" not in [entry["artist"] for entry in similar]


def test_a_promote_is_followed_without_a_restart(
    client: httpx.Client, workspace: Workspace
) -> None:
    asked = {"text": "techno beat", "k": 3}
    before = client.post("/v1/search", json=asked).json()
    tracks = tracks_table(storage.read_tables(workspace.tracks), None)
    build = publish(workspace, tracks, find_shards(workspace), search=SearchSpec())
    for _ in range(50):
        after = client.post("/v1/search", json=asked).json()
        if after["table_version"] == build.name:
            break
        time.sleep(0.1)
    assert after["table_version"] == build.name != before["table_version"]
    stale = client.post("/v1/search", json=asked | {"cursor": before["next_cursor"]})
    assert stale.status_code == 422
