"""Stored features and the re-ranker that reads them; another run's are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile
import torch
from builders import publish_catalog
from mulap_builders import store_features

from raymtr import audio, storage
from raymtr.errors import InputError
from raymtr.mulap.backbone import open_backbone
from raymtr.mulap.folder import save_mulap
from raymtr.mulap.matcher import Question, RunMatcher, match_probabilities
from raymtr.mulap.network import Mulap
from raymtr.mulap.store import open_features
from raymtr.search.searcher import Searcher
from raymtr.track import check_tracks
from raymtr.workspace import Workspace

Make = Callable[..., Mulap]


@pytest.fixture
def workspace(tmp_path: Path, make_mulap: Make) -> Workspace:
    """Two runs; features of the run `one` for two tracks, the third file is silent."""
    workspace = Workspace.open(str(tmp_path / "w"), create=True)
    for run, seed in (("one", 0), ("two", 1)):
        save_mulap(make_mulap(seed=seed), f"{workspace.run(run)}/model", provenance={})
    rng, uris = np.random.default_rng(0), {}
    for n, gain in enumerate((0.1, 0.1, 0.0)):
        uris[f"t{n}"] = str(tmp_path / f"{n}.wav")
        soundfile.write(uris[f"t{n}"], gain * rng.normal(size=8_000 * (2 + 2 * n)), 8000)
    store_features(workspace, "one", uris)
    return workspace


@pytest.mark.slow
def test_features_are_stored_in_half_precision(workspace: Workspace) -> None:
    backbone = open_backbone(workspace.trained("one"))
    store = open_features(workspace, backbone)
    windows = storage.read_tables(f"{store.folder}/windows")
    assert windows is not None and windows["vector"].type.value_type == pa.float16()
    assert store.read_dead_letters()["code"].to_pylist() == ["silent"]
    found = store.reader().read(["t0", "t1", "t2"])
    assert {name: rows.shape for name, rows in found.items()} == {"t0": (4, 24), "t1": (8, 24)}
    samples = audio.decode(str(Path(workspace.root).parent / "1.wav"), backbone.spec.audio).samples
    whole = backbone.embed_windows(audio.windows(samples, backbone.spec.audio)[1])
    np.testing.assert_allclose(found["t1"], whole, rtol=2e-3, atol=1e-4)
    alone = backbone.embed_windows(audio.windows(samples, backbone.spec.audio)[1][3:4])
    assert alone.tobytes() == whole[3:4].tobytes(), "a row does not depend on its batch"


@pytest.mark.slow
def test_probabilities_are_those_of_the_whole_model(workspace: Workspace) -> None:
    matcher = RunMatcher(workspace, "one")
    found = matcher.probabilities("slow high tone", ["t1", "t2", "unknown", "t0"])
    assert list(found) == ["t1", "t0"], "without features there is no probability"
    rows = torch.from_numpy(
        open_features(workspace, open_backbone(workspace.trained("one")))
        .reader()
        .read(["t0"])["t0"]
    )
    alone = match_probabilities(matcher.model, "slow high tone", [rows])
    assert found["t0"] == pytest.approx(alone[0], abs=1e-5)
    assert found != matcher.probabilities("fast", ["t1", "t0"])
    with pytest.raises(TimeoutError):
        matcher.probabilities("fast", ["t1"], within_s=-1.0)


@pytest.mark.slow
def test_questions_of_many_are_answered_as_if_alone(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    matcher = RunMatcher(workspace, "one")
    questions = [
        Question("slow high tone", ["t1", "t0"]),
        Question("fast", ["unknown"]),
        Question("low", ["t0", "t1", "t0"]),
    ]
    alone = [matcher.probabilities(*question) for question in questions]
    assert [list(answer) for answer in alone] == [["t1", "t0"], [], ["t0", "t1"]]
    for pairs in (1, 3, 16):  # also batches that end within a question
        monkeypatch.setattr("raymtr.mulap.matcher.PAIRS", pairs)
        for one, together in zip(alone, matcher.answer(questions), strict=True):
            assert together == pytest.approx(one, abs=1e-5)


@pytest.mark.slow
def test_features_of_another_run_and_runs_without_a_head_are_rejected(
    workspace: Workspace, tmp_path: Path
) -> None:
    with pytest.raises(
        InputError, match=r"no features of run two, model \w+ \(there are features of \w+, other"
    ):
        RunMatcher(workspace, "two")
    theirs, ours = (
        workspace.features(open_backbone(workspace.trained(run)).fingerprint)
        for run in ("one", "two")
    )
    storage.copy_folder(theirs, ours, last="run.json")
    with pytest.raises(InputError, match=r"has features of model \w+, not of run two"):
        RunMatcher(workspace, "two")
    with pytest.raises(InputError, match=r"is not a MuLaP model .* no head that matches"):
        RunMatcher(workspace, "towers")
    with pytest.raises(InputError, match="a run's name is one folder name"):
        RunMatcher(workspace, str(tmp_path))


@pytest.mark.slow
def test_a_random_backbone_and_log_mel_are_baselines(workspace: Workspace) -> None:
    source = workspace.trained("one")
    noise = np.random.default_rng(1).normal(0, 0.1, (2, 4_000)).astype(np.float32)
    random = [
        open_backbone(f"random:{source}", seed=seed).embed_windows(noise) for seed in (0, 0, 1)
    ]
    assert random[0].tobytes() == random[1].tobytes() != random[2].tobytes()
    assert not np.allclose(random[0], open_backbone(source).embed_windows(noise))
    log_mel = open_backbone("log-mel")
    sound = np.zeros((1, log_mel.spec.audio.window_samples), np.float32)
    assert log_mel.embed_windows(sound).shape == (1, log_mel.spec.dim)


@pytest.mark.slow
def test_a_search_looks_again_and_says_what_it_did(workspace: Workspace) -> None:
    rows = [
        {"track_id": f"t{n}", "uri": f"/{n}.wav", "title": f"Tune {n}", "tags": ["slow", "tone"]}
        for n in range(3)
    ]
    table = check_tracks(pa.Table.from_pylist(rows))
    storage.write_table(f"{workspace.tracks}/part-0.parquet", table)
    publish_catalog(workspace)
    searcher = Searcher(workspace)
    plain = searcher.search("slow tone", mode="keyword")
    again = searcher.search(
        "slow tone", mode="keyword", rerank={"depth": 3, "run": "one", "mix": 1.0}
    )
    found = RunMatcher(workspace, "one").probabilities("slow tone", ["t0", "t1"])
    scores = {hit["track_id"]: hit["score"] for hit in again["hits"]}
    assert set(scores) == {hit["track_id"] for hit in plain["hits"]} == {"t0", "t1", "t2"}
    for track_id, probability in found.items():
        assert scores[track_id] == pytest.approx(probability, abs=1e-4)
    reasons = {hit["track_id"]: [one["by"] for one in hit["why"]] for hit in again["hits"]}
    assert "rerank" in reasons["t0"] and "rerank" not in reasons["t2"]
    assert again["notes"] == ["1 of 3 hits have no features of one: not re-ranked"]
    assert again["took_ms"]["rerank"] > 0 and "rerank" not in plain["took_ms"]
    with pytest.raises(InputError, match=r"rerank is \{'depth'\}, 1 to 200"):
        searcher.search("slow", rerank={"depth": 0, "run": "one"})
    with pytest.raises(InputError, match="no features of run two"):
        searcher.search("slow", mode="keyword", rerank={"depth": 2})  # the newest run
    with pytest.raises(InputError, match="not a MuLaP model"):
        searcher.search("slow", mode="keyword", rerank={"depth": 2, "run": "none"})
