"""AST as an audio tower: transformers' own vectors, other lengths, wrong weights, a saved model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from raymtr.errors import InputError
from raymtr.model.model import Model
from raymtr.model.pretrained import load_model
from raymtr.model.spectrogram_transformer import SpectrogramTransformer, interpolated
from raymtr.model.two_towers import build_towers
from raymtr.recipes import mulan
from raymtr.tower_specs import AudioSpec, AudioTowerSpec, TowersSpec

AUDIO = AudioSpec(window_s=1.0, n_mels=64, level="removed")  # 100 frames: 5 by 9 patches
TOWER = AudioTowerSpec(kind="ast", dim=32, heads=4, depth=2, inner=64)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny AST of transformers' own class, with positions that are not zero."""
    from transformers import ASTConfig, ASTModel

    torch.manual_seed(4)
    config = ASTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        num_mel_bins=64,
        max_length=100,
        initializer_range=0.2,
    )
    model = ASTModel(config)
    with torch.no_grad():
        model.embeddings.position_embeddings.normal_(std=0.5)
        model.embeddings.cls_token.normal_(std=0.5)
    folder = tmp_path_factory.mktemp("ast")
    model.save_pretrained(folder)
    return str(folder)


def tower_of(source: str, audio: AudioSpec = AUDIO) -> SpectrogramTransformer:
    tower = SpectrogramTransformer(replace(TOWER, source=source), audio)
    tower.read_weights()
    return tower.eval()


@torch.no_grad()
def test_vectors_are_those_of_transformers(pretrained: str) -> None:
    from transformers import ASTModel

    mel = torch.rand(3, 64, 100, generator=torch.Generator().manual_seed(0)) * 2 - 1
    reference = ASTModel.from_pretrained(pretrained).eval()
    wanted = reference(mel.transpose(1, 2)).pooler_output
    got = tower_of(pretrained)(mel)
    assert float((got - wanted).abs().max()) < 1e-4
    assert float((wanted[0] - wanted[1]).abs().max()) > 1e-2, "the inputs must be told apart"


@torch.no_grad()
def test_another_length_has_interpolated_positions(pretrained: str) -> None:
    from transformers import ASTModel

    longer = tower_of(pretrained, replace(AUDIO, window_s=2.0))
    positions = longer.encoder.embeddings.position_embeddings
    before = ASTModel.from_pretrained(pretrained).embeddings.position_embeddings
    assert positions.shape == (1, 2 + 5 * 19, 32)
    assert torch.equal(positions[:, :2], before[:, :2])
    image = before[0, 2:].reshape(5, 9, 32)
    one_band = functional.interpolate(image[3].T[None], size=19, mode="linear")[0].T
    torch.testing.assert_close(positions[0, 2:].reshape(5, 19, 32)[3], one_band)
    assert longer(torch.zeros(1, 64, 200)).shape == (1, 32)


def test_the_same_grid_changes_nothing() -> None:
    positions = torch.randn(1, 2 + 12, 4)
    assert interpolated(positions, (3, 4), (3, 4)) is positions
    constant = torch.ones(1, 2 + 12, 4)
    assert torch.equal(interpolated(constant, (3, 4), (2, 9)), torch.ones(1, 20, 4))


def test_weights_of_other_sizes_are_rejected_with_the_setting(pretrained: str) -> None:
    spec = replace(TOWER, source=pretrained, depth=3)
    with pytest.raises(InputError, match=r"num_hidden_layers 2, .* have 3; set .*\.depth=2"):
        SpectrogramTransformer(spec, AUDIO).read_weights()
    with pytest.raises(InputError, match="there is no folder"):
        tower_of("/nowhere/ast")


def test_a_text_encoder_is_no_ast(text_folder: str) -> None:
    with pytest.raises(InputError, match=r"has no AST|is a bert, not an AST"):
        tower_of(text_folder)


def test_settings_that_do_not_fit_are_rejected() -> None:
    with pytest.raises(InputError, match="dim is a multiple of heads"):
        replace(TOWER, heads=5)
    with pytest.raises(InputError, match="source is for kind=ast"):
        AudioTowerSpec(source="MIT/ast")


def test_a_saved_model_is_the_same_model(
    spec: TowersSpec, pretrained: str, waves: np.ndarray, tmp_path: Path
) -> None:
    wanted = replace(spec, audio=AUDIO, audio_tower=replace(TOWER, source=pretrained))
    model = Model(build_towers(wanted, seed=0))
    model.save(str(tmp_path / "model"))
    loaded = load_model(tmp_path / "model")
    assert loaded.fingerprint == model.fingerprint
    assert loaded.check_golden() == pytest.approx(1.0, abs=1e-6)
    vectors = model.embed_windows(waves)
    assert np.array_equal(loaded.embed_windows(waves), vectors)
    assert float(np.abs(vectors[0] - vectors[1]).max()) > 1e-3


def test_mulan_is_ast_and_bert_with_its_mixture_of_texts() -> None:
    settings = mulan()
    assert settings.towers.audio_tower.kind == "ast"
    assert "bert" in settings.towers.text_tower.source
    assert settings.towers.text_tower.max_tokens == 512 and settings.towers.dim == 128
    assert list(settings.train.texts.values()) == [2, 2, 1, 1] and settings.train.text_filter
    assert settings.train.global_batch == 5_120 and settings.train.chunk == 64
