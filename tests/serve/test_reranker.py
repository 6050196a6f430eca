"""Re-ranking by a deployment of its own: the order of the library, and what fails is said."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile
from builders import publish_catalog
from mulap_builders import random_mulap, save_text_encoder, store_features
from ray import serve

from raymtr.index.publish import live_build
from raymtr.mulap.folder import save_mulap
from raymtr.mulap.matcher import Question, RunMatcher
from raymtr.search.contract import SearchRequest
from raymtr.search.searcher import Searcher
from raymtr.workspace import Workspace
from serve.answer_cache import AnswerCache
from serve.messages import Problem, Searched
from serve.reranker import Reranker
from serve.settings import ServeSettings

TRACKS = 6


@pytest.fixture
def tunes(make_workspace: Callable, tmp_path: Path) -> Workspace:
    """Tracks that words rank alike, and a random MuLaP run that does not."""
    rng, uris = np.random.default_rng(0), {}
    for n in range(TRACKS):
        uris[f"t{n}"] = str(tmp_path / f"{n}.wav")
        soundfile.write(uris[f"t{n}"], 0.1 * rng.normal(size=8_000), 8_000)
    rows = [
        {"track_id": name, "uri": uri, "title": f"Tune {name}", "tags": ["slow", "tone"]}
        for name, uri in uris.items()
    ]
    workspace: Workspace = make_workspace(rows)
    save_text_encoder(tmp_path / "text")
    save_mulap(random_mulap(str(tmp_path / "text")), f"{workspace.run('one')}/model", provenance={})
    store_features(workspace, "one", uris)
    publish_catalog(workspace)
    return workspace


def settings_of(workspace: Workspace) -> ServeSettings:
    return ServeSettings(workspace=workspace.root, reranker=True)


@pytest.mark.slow
def test_questions_of_many_requests_are_answered_together(tunes: Workspace) -> None:
    reranker = Reranker(settings_of(tunes))
    questions = [Question("slow", ["t0", "t1"]), Question("fast tone", ["t5", "absent"])] * 3

    async def ask() -> list[object]:
        asked = [reranker.score("one", question) for question in questions]
        return await asyncio.gather(*asked, reranker.score("two", questions[0]))

    *scores, refused = asyncio.run(ask())
    here = RunMatcher(tunes, "one")
    for question, found in zip(questions, scores, strict=True):
        assert found == pytest.approx(here.probabilities(*question), abs=1e-5)
    assert isinstance(refused, Problem) and refused.status == 422
    assert "two" in refused.detail


def test_an_answer_that_was_not_ranked_again_is_not_remembered(tunes: Workspace) -> None:
    searcher, cache = Searcher(tunes), AnswerCache()
    request = SearchRequest(text="slow tone", mode="keyword", rerank={"depth": 3, "run": "one"})
    answer = searcher.find(request)
    assert "rerank" in answer["took_ms"]
    late = {**answer, "took_ms": {"encode": 0.0, "search": 1.0, "rank": 1.0, "total": 2.0}}
    cache.put(request, live_build(tunes), Searched(late, None))
    assert cache.get(request, live_build(tunes)) is None
    cache.put(request, live_build(tunes), Searched(answer, None))
    assert cache.get(request, live_build(tunes)) is not None


@pytest.mark.ray
@pytest.mark.slow
def test_http_with_a_reranker_gives_the_hits_of_one_process(
    client: httpx.Client, run_app: Callable[..., httpx.Client], tunes: Workspace
) -> None:
    served = run_app("again", workspace=tunes.root, reranker=True, open_to_anyone=True)
    asked = {"text": "slow tone", "mode": "keyword"}
    again = {**asked, "rerank": {"depth": TRACKS, "run": "one", "mix": 1.0}}
    until = time.monotonic() + 60
    while "rerank" not in (answer := served.post("/v1/search", json=again).json())["took_ms"]:
        assert "re-ranking took longer" in answer["notes"][0], answer  # while the run is loaded
        assert time.monotonic() < until
    hits = Searcher(tunes).search(**again)["hits"]
    assert [hit["track_id"] for hit in answer["hits"]] == [hit["track_id"] for hit in hits]
    for one, other in zip(answer["hits"], hits, strict=True):
        assert one["score"] == pytest.approx(other["score"], abs=1e-4)
    assert "rerank" not in served.post("/v1/search", json=asked).json()["took_ms"]
    refused = served.post("/v1/search", json={**again, "rerank": {"depth": 2, "run": "two"}})
    assert refused.status_code == 422 and "two" in refused.json()["detail"]
    serve.delete("again")  # later applications need its cores
