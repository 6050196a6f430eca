"""The endpoint as clients meet it: one real application on Ray Serve over a small made index."""

from __future__ import annotations

import io
import json
import re
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
import ray
import soundfile

from raymtr import storage
from raymtr.audio import decode
from raymtr.embeddings.store import find_embeddings
from raymtr.index.build_tables import tracks_table
from raymtr.index.publish import publish
from raymtr.model.pretrained import load_model
from raymtr.search.searcher import Searcher
from raymtr.specs import SearchSpec
from raymtr.tagging.analysis import TAGGED_AUDIO, Analyzer
from raymtr.workspace import Workspace


def test_a_text_longer_than_the_tower_reads_is_said_each_time(client: httpx.Client) -> None:
    asked = {"text": "slow piano ballad " * 60, "mode": "semantic", "k": 1}
    answers = [client.post("/v1/search", json=asked | {"k": k}).json() for k in (1, 2)]
    assert all("were not read" in answer["notes"][0] for answer in answers)
    short = client.post("/v1/search", json=asked | {"text": "slow piano"}).json()
    assert short["notes"] == []


def test_http_gives_the_hits_python_gives(client: httpx.Client, workspace: Workspace) -> None:
    searcher = Searcher(workspace)
    for asked in (
        {"text": "slow piano ballad", "k": 7},
        {"text": "similar to Cy Wren", "k": 5, "per_artist": 1},
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


def test_an_upload_is_tagged(client: httpx.Client) -> None:
    file = io.BytesIO()
    t = np.arange(5 * 16_000) / 16_000
    soundfile.write(file, 0.3 * np.sin(2 * np.pi * 220 * t), 16_000, format="WAV")
    answer = client.post("/v1/tag", files={"file": ("a.wav", file.getvalue())}).json()
    schema = client.get("/openapi.json").json()["components"]["schemas"]["RecordingTags"]
    assert answer.keys() == schema["properties"].keys()
    analysis = Analyzer().analyze(decode(file.getvalue(), TAGGED_AUDIO).samples)
    labels = [label for label, _ in analysis.ranked]
    assert [row["label"] for row in answer["labels"]] == labels
    assert answer["segment"] == {"start_s": 0.0, "end_s": 5.0}
    refused = client.post("/v1/tag", files={"file": ("a.wav", b"RIFF no music")})
    assert (refused.status_code, refused.json()["status"]) == (422, 422)


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
    assert len(client.get("/v1/map").json()["points"]) == 30
    similar = client.get("/v1/artists/Bo Finch/similar").json()["artists"]
    assert "Bo Finch" not in [entry["artist"] for entry in similar]


def test_a_promote_is_followed_without_a_restart(
    client: httpx.Client, workspace: Workspace
) -> None:
    asked = {"text": "techno beat", "k": 3}
    before = client.post("/v1/search", json=asked).json()
    tracks = tracks_table(storage.read_tables(workspace.tracks), None)
    build = publish(workspace, [tracks], find_embeddings(workspace), search=SearchSpec())
    for _ in range(50):
        after = client.post("/v1/search", json=asked).json()
        if after["table_version"] == build.name:
            break
        time.sleep(0.1)
    assert after["table_version"] == build.name != before["table_version"]
    stale = client.post("/v1/search", json=asked | {"cursor": before["next_cursor"]})
    assert stale.status_code == 422


def test_a_large_upload_goes_all_the_way(client: httpx.Client, workspace: Workspace) -> None:
    """Replicas hand it on by gRPC, which takes 4 MiB where nobody says more."""
    file = io.BytesIO()
    noise = np.random.default_rng(2).uniform(-0.5, 0.5, 4_000_000)
    soundfile.write(file, noise, 44_100, format="WAV")
    assert len(file.getvalue()) > 7 << 20
    sent = client.post("/v1/search/audio?k=5", files={"file": ("a.wav", file.getvalue())})
    assert sent.json()["hits"] == Searcher(workspace).search(audio=file.getvalue(), k=5)["hits"]


def test_a_repeated_query_is_answered_from_memory(client: httpx.Client) -> None:
    asked = {"text": "a song to ask for twice", "per_artist": 1}
    first, again = (client.post("/v1/search", json=asked).json() for _ in range(2))
    assert first["took_ms"]["search"] > 0 == again["took_ms"]["search"]
    assert again | {"took_ms": None} == first | {"took_ms": None}
    other = client.post("/v1/search", json=asked | {"per_artist": 2}).json()
    assert other["took_ms"]["search"] > 0 and other["hits"] != first["hits"]


def test_metrics_tell_each_stage(client: httpx.Client) -> None:
    for k in (3, 4, 4):  # new; its vectors are known; all of it is
        asked = {"text": "a line never asked", "k": k}
        assert client.post("/v1/search", json=asked).status_code == 200
    values = {}
    for line in client.get("/metrics").text.splitlines():
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            values[name] = float(value)
    for stage in ("encode", "search", "rank"):
        assert values[f'raymtr_stage_seconds_count{{stage="{stage}"}}'] >= 2
    assert values['raymtr_query_cache_total{outcome="hit"}'] >= 1
    assert values['raymtr_query_cache_total{outcome="miss"}'] >= 1
    assert values['raymtr_query_cache_total{outcome="answer"}'] >= 1
    assert values["raymtr_encoder_batch_requests_sum"] >= 1
    assert values['raymtr_index_rows{table="tracks"}'] == 30
    assert values["raymtr_index_unindexed_rows"] == 0
    assert sum(name.startswith("raymtr_index_info") for name in values) == 1
    assert values['raymtr_requests_total{path="/v1/search",status="200"}'] >= 2


def test_a_request_id_comes_back_once(client: httpx.Client) -> None:
    answer = client.get("/v1/tracks/t00", headers={"x-request-id": "mine-1"})
    assert answer.headers.get_list("x-request-id") == ["mine-1"]
    made = [client.get("/v1/tracks/nobody").headers.get_list("x-request-id") for _ in range(2)]
    assert len(made[0]) == 1
    assert made[0] != made[1]


def test_a_request_is_in_every_log_by_its_id_and_never_its_words(client: httpx.Client) -> None:
    """Serve's own log files, of every deployment the request went through."""
    asked = {"text": "zebra crossing lullaby"}
    client.post("/v1/search", json=asked, headers={"x-request-id": "find-me"})
    logs = Path(ray._private.worker.global_worker.node.get_logs_dir_path()) / "serve"
    wanted = {"Ingress", "Retriever", "TextEncoder"}
    for _ in range(50):
        told = {
            name
            for name in wanted
            for file in logs.glob(f"replica_raymtr_{name}_*.log")
            for line in file.read_text().splitlines()
            if json.loads(line).get("request_id") == "find-me"
        }
        if told == wanted:
            break
        time.sleep(0.1)
    assert told == wanted
    assert not any("zebra" in file.read_text() for file in logs.glob("*.log"))


def test_the_docs_need_no_other_host(client: httpx.Client) -> None:
    page = client.get("/docs").text
    assert "://" not in page
    for path in re.findall(r'(?:src|href)="(/[^"]+)"', page):
        assert client.get(path).status_code == 200
    described = client.get("/openapi.json").json()["paths"]
    assert {"/v1/search", "/v1/playlist", "/v1/embeddings"} <= set(described)
