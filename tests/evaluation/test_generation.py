"""Figures of generated clips on vectors whose answer is known."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile
import torch

from jobs.evaluate_generation import describe, evaluate_generation
from raymtr import storage
from raymtr.evaluation.generation import (
    frechet_at_infinity,
    frechet_distance,
    kl_divergence,
    prompt_figures,
)
from raymtr.evaluation.vggish import VGGish
from raymtr.generation.sound_file import manifest_of
from raymtr.track import check_tracks
from raymtr.vectors import unit
from raymtr.workspace import Workspace


def test_frechet_distance_of_known_gaussians() -> None:
    """Equal covariances leave the squared distance of the means."""
    rows = np.random.default_rng(0).normal(size=(5_000, 3))
    assert frechet_distance(rows, rows) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(rows + np.array([2, 0, 0]), rows) == pytest.approx(4)
    assert frechet_distance(2 * rows, rows) == pytest.approx(3, rel=0.1)  # 3 dims: (2 - 1)^2 each


def test_extrapolation_takes_out_the_bias_of_few_clips() -> None:
    rng = np.random.default_rng(0)
    many, few = rng.normal(size=(20_000, 16)), rng.normal(size=(60, 16))
    biased = frechet_distance(few, many)
    assert abs(frechet_at_infinity(few, many, seed=0)) < 0.5 * biased


def test_prompts_are_ranked() -> None:
    texts = np.eye(4, dtype=np.float32)
    clips = unit(texts[[0, 1, 2, 0]] + 0.01)
    figures = prompt_figures(clips, texts, np.array([0, 1, 2, 3]))
    assert figures["first"] == 0.75 and figures["chance_first"] == 0.25
    assert figures["mcc"] > 0.7 and figures["mcc_shuffled"] < 0.3


def test_label_divergence_is_that_of_distributions() -> None:
    real = np.array([[0.5, 0.5], [0.2, 0.2]])
    assert kl_divergence(real, real) == pytest.approx(0, abs=1e-9)
    assert kl_divergence(0.1 * real, real) == pytest.approx(0, abs=1e-4)  # sums do not count
    skewed = np.array([[0.9, 0.1], [0.9, 0.1]])
    assert kl_divergence(skewed, real) == pytest.approx(0.5 * np.log(0.5**2 / 0.09), rel=1e-3)


@pytest.mark.slow
def test_the_verb_compares_clips_with_held_out_tracks(tmp_path: Path, tiny_model: str) -> None:
    """Clips that are the held-out sounds are nearer to them than noise is."""
    workspace, rng = Workspace.open(str(tmp_path / "w"), create=True), np.random.default_rng(0)
    shutil.copytree(tiny_model, f"{workspace.tokens('p')}/model")
    rows, made = [], []
    for n in range(4):
        tone = np.sin(np.arange(48_000) * (0.05 + 0.01 * n)).astype(np.float32) / 3
        soundfile.write(tmp_path / f"{n}.wav", tone, 16_000)
        soundfile.write(tmp_path / f"noise{n}.wav", rng.normal(size=48_000) / 8, 16_000)
        rows.append({"track_id": f"t{n}", "uri": str(tmp_path / f"{n}.wav"), "split": "test"})
        rows[-1]["tags"] = ["Low Tone"]
        for model, uri in (("same", f"{n}.wav"), ("noise", f"noise{n}.wav")):
            made.append({"clip_id": f"{model}{n}", "uri": str(tmp_path / uri), "model": model})
            made[-1] |= {"prompt": "low tone", "parts": "p"}
    tracks = check_tracks(pa.Table.from_pylist(rows))
    storage.write_table(f"{workspace.tracks}/part-0.parquet", tracks)
    for model in ("same", "noise"):
        mine = manifest_of([row for row in made if row["model"] == model])
        storage.write_table(f"{workspace.generated}/{model}/manifest/a.parquet", mine)
    same, noise = (evaluate_generation(workspace, clips=name) for name in ("same", "noise"))
    assert same["kld"]["clips"] == 4 and same["kld"]["kld"] < noise["kld"]["kld"]
    assert same["fad"]["musicnn-msd"]["fad"] < 1e-3 < noise["fad"]["musicnn-msd"]["fad"]
    assert "KLD by ears-2" in describe(same)
    weights = str(tmp_path / "vggish.pth")
    torch.save(VGGish().state_dict(), weights)
    by_vggish = evaluate_generation(workspace, clips="noise", vggish=weights)["fad"]["vggish"]
    assert by_vggish["embeddings"] == 4 * 3 and by_vggish["fad"] > 0  # clips of 3 s
