"""CLAP behind raymtr's verbs: the vectors of `transformers`, without its chance."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import raymtr
from raymtr.errors import UnusableError
from raymtr.model.model import Model

RATE = 48_000
TEXTS = ["a slow sad piano song", "drums", "a"]


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "fusion"])
def release(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    save_tokenizer: Callable[[Path], int],
) -> Path:
    """A small random CLAP as `transformers` saves one."""
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel

    folder = tmp_path_factory.mktemp("clap")
    config = ClapConfig(
        text_config={
            "vocab_size": save_tokenizer(folder),
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "max_position_embeddings": 90,
            "pad_token_id": 0,
        },
        audio_config={
            "patch_embeds_hidden_size": 16,
            "depths": [1, 1],
            "num_attention_heads": [2, 2],
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "enable_fusion": request.param,
        },
        projection_dim=24,
    )
    torch.manual_seed(3)
    model = ClapModel(config)
    with torch.no_grad():  # the defaults are so small that all vectors look alike
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    ClapFeatureExtractor(
        frequency_min=50, truncation="fusion" if request.param else "rand_trunc"
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(release: Path) -> Model:
    return raymtr.load_model(release)


def noise(seconds: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    samples = 0.1 * rng.standard_normal(int(RATE * seconds)).astype(np.float32)
    return np.asarray(np.convolve(samples, np.ones(4 * seed + 1) / 3, mode="same"), np.float32)


@pytest.mark.slow
def test_vectors_are_those_of_transformers(model: Model, release: Path) -> None:
    from transformers import AutoTokenizer, ClapFeatureExtractor, ClapModel

    reference = ClapModel.from_pretrained(release).eval()
    extractor = ClapFeatureExtractor.from_pretrained(release)
    clips = [noise(10.0, seed) for seed in (1, 2, 3)]
    features = extractor(clips, sampling_rate=RATE, return_tensors="pt")["input_features"]
    tokens = AutoTokenizer.from_pretrained(release)(TEXTS, return_tensors="pt", padding=True)
    with torch.no_grad():
        sound = reference.get_audio_features(
            input_features=features.float(), is_longer=torch.zeros(3, 1, dtype=torch.bool)
        ).pooler_output.numpy()
        text = reference.get_text_features(
            input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
        ).pooler_output.numpy()
    assert np.abs(model.encode_audio([(clip, RATE) for clip in clips]) - sound).max() < 1e-5
    assert np.abs(model.encode_text(TEXTS) - text).max() < 1e-5
    assert np.abs(sound[0] - sound[1]).max() > 1e-3  # the clips can be told apart


@pytest.mark.slow
def test_the_same_sound_gives_the_same_bytes(model: Model) -> None:
    long, short = noise(23.0, 1), noise(3.0, 2)  # three windows; one, padded
    together = model.encode_audio([(long, RATE), (short, RATE), (long, RATE)])
    assert np.array_equal(together[0], together[2])
    assert np.array_equal(together[1:2], model.encode_audio([(short, RATE)]))
    assert model.spec.audio.window_samples == 480_000 and model.spec.dim == 24


@pytest.mark.slow
def test_saved_in_our_form_it_is_the_same_model(model: Model, tmp_path: Path) -> None:
    model.save(str(tmp_path / "kept"))
    kept = raymtr.load_model(tmp_path / "kept")
    assert kept.fingerprint == model.fingerprint
    assert kept.check_golden() == pytest.approx(1.0)
    # Not always to the last bit: a kernel is chosen by how the weights lie in memory.
    assert np.abs(kept.encode_text(TEXTS) - model.encode_text(TEXTS)).max() < 1e-6
    hearing = raymtr.load_model(tmp_path / "kept", audio_only=True)
    clip = (noise(10.0, 4), RATE)
    assert np.abs(hearing.encode_audio([clip]) - model.encode_audio([clip])).max() < 1e-6
    assert hearing.fingerprint == model.fingerprint


def test_a_changed_weight_is_another_model(release: Path, model: Model) -> None:
    other = raymtr.load_model(release)
    with torch.no_grad():
        other.towers.audio_projector.linear1.bias.add_(1e-3)  # type: ignore[union-attr, operator]
    assert other.fingerprint != model.fingerprint


def test_a_damaged_release_is_named(release: Path, tmp_path: Path) -> None:
    for file in release.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(UnusableError, match="damaged CLAP release"):
        raymtr.load_model(tmp_path)


def test_the_published_name_asks_the_hub_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UnusableError, match=r"clap-general.*larger_clap_general"):
        raymtr.load_model("clap-general")
