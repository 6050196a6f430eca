"""Figures of generated clips on vectors whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from raymtr.evaluation.generation import frechet_at_infinity, frechet_distance, prompt_figures
from raymtr.vectors import unit


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
