"""Attention over a track's windows: the mean at first, then learned, and saved with the model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import raymtr
from raymtr.model.identity import read_identity
from raymtr.model.model import Model
from raymtr.model.two_towers import TwoTowers
from raymtr.model.window_attention import WindowAttention
from raymtr.tower_specs import TowersSpec


@pytest.fixture
def attentive(spec: TowersSpec, make_towers: Callable[..., TwoTowers]) -> TwoTowers:
    towers = make_towers(dataclasses.replace(spec, window_pooling="attention"))
    assert towers.window_attention is not None
    nn.init.normal_(towers.window_attention.score.weight, std=3.0)
    return towers


def test_untrained_it_is_the_mean_and_one_window_is_itself() -> None:
    windows = torch.randn(3, 5, 8)
    attention = WindowAttention(8)
    assert (attention(windows) - windows.mean(1)).abs().max() < 1e-6
    nn.init.normal_(attention.score.weight, std=3.0)
    assert (attention(windows) - windows.mean(1)).abs().max() > 0.1
    assert (attention(windows[:, :1]) - windows[:, 0]).abs().max() < 1e-6
    shuffled = windows[:, [3, 0, 4, 1, 2]]
    assert (attention(shuffled) - attention(windows)).abs().max() < 1e-5
    assert (attention(7.0 * windows) - 7.0 * attention(windows)).abs().max() < 1e-4


def test_it_learns_which_windows_tell_something() -> None:
    """Every track is one window of its own among four that all tracks share."""
    torch.manual_seed(0)
    own, shared = torch.randn(40, 16), torch.randn(4, 16)
    own[:, 0] = 4.0
    windows = torch.cat([own[:, None], shared.expand(40, 4, 16)], 1)
    attention = WindowAttention(16)
    optimizer = torch.optim.Adam(attention.parameters(), lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        (attention(windows[:20]) - own[:20]).square().mean().backward()
        optimizer.step()
    with torch.no_grad():
        assert float(attention.weights(windows[20:])[:, 0].min()) > 0.9


def test_a_model_pools_by_it_and_keeps_it(
    attentive: TwoTowers,
    spec: TowersSpec,
    make_towers: Callable[..., TwoTowers],
    waves: np.ndarray,
    tmp_path: Path,
) -> None:
    model = Model(attentive, normalize=False)
    rate = spec.audio.sample_rate
    samples = waves[:3].reshape(-1)
    _, windows = model.audio_windows((samples, rate))
    assert len(windows) > 1
    assert attentive.window_attention is not None
    with torch.no_grad():
        wanted = attentive.window_attention(torch.from_numpy(windows)[None])[0].numpy()
    vector = model.encode_audio([(samples, rate)])[0]
    assert np.abs(vector - wanted).max() < 1e-5
    assert np.abs(vector - windows.mean(0)).max() > 0.01 * np.abs(vector).max()

    model.save(str(tmp_path / "m"))
    again = raymtr.load_model(tmp_path / "m", normalize=False, audio_only=True)
    assert np.array_equal(again.encode_audio([(samples, rate)])[0], vector)
    identity = read_identity(str(tmp_path / "m"), "fp32")
    assert identity is not None and identity.fingerprint == again.fingerprint == model.fingerprint
    other = Model(make_towers(dataclasses.replace(spec, window_pooling="attention")))
    assert len({model.fingerprint, other.fingerprint, Model(make_towers()).fingerprint}) == 3
