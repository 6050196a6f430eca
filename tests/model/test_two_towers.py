"""Two towers: seeds, the scale, blank weights, and windows a tower can see."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from raymtr.errors import InputError
from raymtr.model.model_folder import load_weights
from raymtr.model.two_towers import blank_towers, build_towers
from raymtr.tower_specs import AudioSpec, TowersSpec


def test_a_seed_gives_its_weights_and_leaves_the_random_state_alone(spec: TowersSpec) -> None:
    before = torch.random.get_rng_state()
    one, same, other = (build_towers(spec, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(one[name], same[name]) for name in one)
    name = "audio_tower.layer1.0.conv1.weight"
    assert not torch.equal(one[name], other[name])
    text = [n for n in one if n.startswith("text_tower.")]
    assert text and all(torch.equal(one[n], other[n]) for n in text)  # pretrained, not drawn


def test_vectors_are_un_normalised_and_the_scale_starts_at_its_temperature(
    spec: TowersSpec,
) -> None:
    towers = build_towers(dataclasses.replace(spec, temperature=0.1), seed=0).eval()
    assert towers.logit_scale.item() == pytest.approx(math.log(10.0))
    assert towers.logit_scale.requires_grad
    vectors = towers.embed_text(**towers.tokenize(["sad piano", "a"]))
    assert vectors.shape == (2, 24)
    assert (vectors.norm(dim=1) - 1.0).abs().min() > 1e-3


def test_blank_towers_compute_as_the_ones_they_are_filled_from(
    spec: TowersSpec, text_folder: str
) -> None:
    """Whatever is no weight (positions, mel filters) must be there before the weights come.

    To the last bit on some CPUs only: a kernel is chosen by how the weights lie in memory.
    """
    towers = build_towers(spec, seed=3).eval()
    blank = blank_towers(spec, text_folder).eval()
    load_weights(blank, towers.state_dict())
    tokens = towers.tokenize(["a fast happy song", "piano"])
    waves = torch.randn(2, spec.audio.window_samples)
    near = {"rtol": 0, "atol": 1e-6}
    torch.testing.assert_close(blank.embed_text(**tokens), towers.embed_text(**tokens), **near)
    torch.testing.assert_close(blank.embed_audio(waves), towers.embed_audio(waves), **near)


def test_a_window_too_small_for_the_tower_is_rejected(spec: TowersSpec) -> None:
    with pytest.raises(InputError, match="20 frames is too small"):
        dataclasses.replace(spec, audio=AudioSpec(window_s=0.2))
