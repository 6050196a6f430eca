"""Memorisation: transport of tokens, a stage that knows its training by heart, the verb."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from jobs.evaluate import describe
from jobs.evaluate_generation import evaluate_memorisation
from raymtr import load_model, storage
from raymtr.errors import InputError
from raymtr.evaluation.memorisation import (
    TrackTokens,
    centroid_distances,
    match_threshold,
    memorisation,
    sinkhorn,
)
from raymtr.generation.musiclm import MusicLM
from raymtr.generation.musiclm_folder import save_musiclm
from raymtr.generation.parts import Parts
from raymtr.generation.stages import Stages, stage_names
from raymtr.generation_specs import MusicLMSpec
from raymtr.track import check_tracks
from raymtr.workspace import Workspace
from tests.generation.conftest import TOKENS

LENGTH = 24  # tokens of a track; a crop has 25


def tracks_of(spec: MusicLMSpec, seed: int, count: int = 4) -> list[TrackTokens]:
    """Random tokens of the first stage of a model."""
    rng = np.random.default_rng(seed)
    levels, codes = Stages(TOKENS, spec, codec_codes=TOKENS.codes).of(stage_names(spec)[0]).output
    return [
        TrackTokens(
            rng.integers(TOKENS.joint_codes, size=(1, TOKENS.joint_levels)),
            rng.integers(codes, size=(LENGTH, levels)),
        )
        for _ in range(count)
    ]


def test_sinkhorn_is_the_cost_of_moving_tokens() -> None:
    places = torch.tensor([[0.0], [1.0], [3.0], [4.0]])
    cost = centroid_distances(places)
    mean = float(torch.cdist(places, places).mean())
    ours = np.array([[0, 0, 1, 1], [0, 0, 0, 0], [0, 1, 0, 1]])
    theirs = np.array([[1, 0, 1, 0], [2, 2, 2, 2], [2, 3, 3, 2]])
    far = sinkhorn(ours, theirs, cost)
    np.testing.assert_allclose(far, np.array([0, 3, 3]) / mean, atol=0.03)


def test_the_threshold_lets_few_pairs_of_different_tracks_pass() -> None:
    rng = np.random.default_rng(0)
    cost = centroid_distances(torch.from_numpy(rng.normal(size=(8, 3))))
    own = rng.integers(8, size=(40, 20))
    threshold = match_threshold(own, own, cost, seed=0)
    assert (sinkhorn(own, own, cost) < threshold).mean() > 0.9
    assert (sinkhorn(own, np.roll(own, 1, axis=0), cost) < threshold).mean() < 0.1


@pytest.fixture(scope="module")
def by_heart(spec: MusicLMSpec) -> Stages:
    """Stages of which the first has learnt `tracks_of(spec, 0)` by heart."""
    torch.manual_seed(0)
    stages = Stages(TOKENS, spec, codec_codes=TOKENS.codes)
    stage = stages.of(stage_names(spec)[0])
    known = tracks_of(spec, 0)
    joint = torch.from_numpy(np.stack([track.joint for track in known]))
    target = torch.from_numpy(np.stack([track.continued for track in known]))
    optimizer = torch.optim.AdamW(stage.parameters(), 1e-2)
    for _ in range(120):
        loss = stage([joint], target, torch.zeros(len(known), dtype=torch.bool)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return stages.eval()


@pytest.mark.slow
def test_what_was_learnt_by_heart_matches_and_what_was_not_does_not(
    by_heart: Stages, spec: MusicLMSpec, parts: Parts, tiny_model: str
) -> None:
    model = MusicLM(by_heart, parts, load_model(tiny_model), fingerprint="f")
    known, unknown = (tracks_of(spec, seed) for seed in (0, 1))
    figures = memorisation(model, known, unknown, seed=0)
    assert [row["prefix"] for row in figures] == [0, 10] and figures[0]["continued"] == 12
    given = figures[1]
    assert given["training"]["exact"] >= 0.75 and given["held_out"]["exact"] == 0
    assert given["training"]["approximate"] >= given["training"]["exact"]
    with pytest.raises(InputError, match="two of each at least"):
        memorisation(model, known, [], seed=0)


@pytest.mark.slow
def test_the_verb_reads_tokens_of_both_splits(
    by_heart: Stages, parts: Parts, token_table: pa.Table, tiny_model: str, tmp_path: Path
) -> None:
    workspace = Workspace.open(str(tmp_path / "w"), create=True)
    fingerprint = parts.save(str(tmp_path / "tokens/parts"))
    shutil.copytree(tiny_model, tmp_path / "tokens/model")
    save_musiclm(by_heart, str(tmp_path / "tokens"), f"{workspace.run('lm')}/model", provenance={})
    with pytest.raises(InputError, match="has no tokens of the parts"):
        evaluate_memorisation(workspace, "lm")
    storage.write_table(f"{workspace.tokens(fingerprint)}/tracks/a.parquet", token_table)
    ids = token_table["track_id"].to_pylist()
    rows = [
        {"track_id": name, "uri": f"{name}.wav", "split": "test" if n % 4 > 1 else "train"}
        for n, name in enumerate(ids)
    ]
    storage.write_table(
        f"{workspace.tracks}/part-0.parquet", check_tracks(pa.Table.from_pylist(rows))
    )
    answer = evaluate_memorisation(workspace, "lm")
    assert storage.read_json(answer["file"])["memorisation"] == answer["memorisation"]
    assert answer["memorisation"][0]["training"]["tracks"] == 8
    assert "0 tokens given" in describe(answer)
