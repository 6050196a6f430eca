"""The two streams: what is masked changes nothing, and each part depends on what it should."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from raymtr.errors import InputError, UnusableError
from raymtr.mulap.folder import read_mulap, save_mulap
from raymtr.mulap.network import Mulap, build_mulap, padded
from raymtr.recipes import mulap
from raymtr.specs import MulapSpec
from raymtr.tower_specs import TextTowerSpec, TowersSpec
from tests.mulap.conftest import SPEC

Make = Callable[..., Mulap]


@pytest.mark.parametrize("align_weight", [0.0, 4.0])
def test_padding_of_either_stream_changes_nothing(make_mulap: Make, align_weight: float) -> None:
    model = make_mulap(spec=dataclasses.replace(SPEC, align_weight=align_weight)).eval()
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(5, 24, generator=generator)
    ids = torch.tensor([[2, 5, 6, 3, 0, 0], [2, 5, 6, 7, 8, 3]])
    real = ids != 0
    rows, heard = padded(features, torch.tensor([2, 3]))
    assert heard.tolist() == [[True, True, False], [True, True, True]]
    rows = rows.clone()
    rows[0, 2] = 1e3  # what is masked is not read
    with torch.no_grad():
        both = model.meet(model.read(ids, real), real, rows, heard)
        short, own = ids[:1, :4], real[:1, :4]
        alone = model.meet(model.read(short, own), own, features[None, :2], heard[:1, :2])
    torch.testing.assert_close(both.match[0], alone.match[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(both.text[0, :4], alone.text[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(both.audio[0, :3], alone.audio[0], rtol=1e-4, atol=1e-5)


def test_the_cosine_before_the_streams_meet_is_part_of_the_match(make_mulap: Make) -> None:
    model = make_mulap(spec=dataclasses.replace(SPEC, align_weight=4.0)).eval()
    assert make_mulap().aligned is None and model.aligned is not None
    ids = torch.tensor([[2, 5, 6, 3], [2, 7, 8, 3]])
    real, heard = ids > 0, torch.ones(2, 3, dtype=torch.bool)
    features = torch.randn(2, 3, 24, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        text = model.read(ids, real)
        met = model.meet(text, real, features, heard)
        assert met.apart is not None
        audio, words = met.apart
        torch.testing.assert_close(audio.norm(dim=1), torch.ones(2))
        by_hand = model.aligned.text(text.mean(1))
        torch.testing.assert_close(words, by_hand / by_hand.norm(dim=1, keepdim=True))
        added = 10.0 * (audio * words).sum(1) + model.aligned.bias
        model.aligned = None
        rest = model.meet(text, real, features, heard).match
    torch.testing.assert_close(met.match, rest + added, rtol=1e-4, atol=1e-4)


def test_each_stream_reads_the_other_and_knows_the_order_of_chunks(make_mulap: Make) -> None:
    model = make_mulap().eval()
    features = torch.randn(1, 3, 24, generator=torch.Generator().manual_seed(1))
    heard, ids = torch.ones(1, 3, dtype=torch.bool), torch.tensor([[2, 5, 6, 3]])
    real = torch.ones_like(ids, dtype=torch.bool)

    def met(ids: torch.Tensor, features: torch.Tensor) -> list[float]:
        with torch.no_grad():
            found = model.meet(model.read(ids, real), real, features, heard)
        return [
            float(found.match),
            float(found.text[..., 0].sum()),
            float(found.audio[..., 0].sum()),
        ]

    before = met(ids, features)
    for other in (met(torch.tensor([[2, 7, 6, 3]]), features), met(ids, features.flip(1))):
        assert all(abs(a - b) > 1e-6 for a, b in zip(before, other, strict=True))


def test_a_frozen_text_tower_learns_only_what_reads_audio(
    make_mulap: Make, mulap_towers: TowersSpec
) -> None:
    frozen = dataclasses.replace(
        mulap_towers, text_tower=dataclasses.replace(mulap_towers.text_tower, trainable=False)
    )
    model = make_mulap(frozen).train()
    learned = {name for name, p in model.text.named_parameters() if p.requires_grad}
    assert {name.split(".")[1] for name in learned} == {"1", "2"}, "of three the last two"
    assert not model.text.layers[0].training and model.text.layers[1].training
    assert all(p.requires_grad for p in make_mulap().text.parameters())


@pytest.mark.slow
def test_a_saved_model_is_the_same_and_names_itself(make_mulap: Make, tmp_path: Path) -> None:
    model = make_mulap()
    save_mulap(model, str(tmp_path / "m"), provenance={"source": "test"})
    read, fingerprint = read_mulap(str(tmp_path / "m"))
    assert len(fingerprint) == 12
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, read.state_dict()[name]), name
    assert read.text_tower.tokenize(["slow tone"])["input_ids"].tolist() == [[2, 5, 9, 3]]
    save_mulap(make_mulap(seed=1), str(tmp_path / "other"), provenance={"source": "test"})
    assert read_mulap(str(tmp_path / "other"))[1] != fingerprint
    (tmp_path / "m" / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(UnusableError, match="is damaged"):
        read_mulap(str(tmp_path / "m"))
    with pytest.raises(InputError, match=r"is not a MuLaP model .* no head that matches"):
        read_mulap(str(tmp_path))


def test_a_text_encoder_that_does_not_fit_is_rejected(make_mulap: Make) -> None:
    with pytest.raises(InputError, match=r"has 3 layers; set mulap\.text_layers to that"):
        make_mulap(spec=dataclasses.replace(SPEC, text_layers=4))


def test_the_paper_recipe_has_the_papers_sizes() -> None:
    settings = mulap()
    spec = MulapSpec()
    assert settings.mulap == spec
    assert (spec.text_layers, spec.audio_layers, spec.audio_width) == (6, 6, 256)
    assert (spec.cross_width, spec.heads, spec.masked) == (1024, 8, 0.15)
    assert (spec.words_weight, spec.chunks_weight, spec.match_weight) == (0.1, 4.0, 2.0)
    assert spec.align_weight == 0.0
    train = settings.train
    assert (train.global_batch, train.learning_rate, train.beta2) == (64, 1e-4, 0.98)
    assert train.warmup_steps * 10 == train.steps and train.schedule == "linear"
    assert settings.clip.window_s == 20.0 and settings.towers.audio.window_s == 3.0


def test_musicnn_from_random_weights_is_a_backbone(mulap_text: str) -> None:
    towers = dataclasses.replace(
        mulap().towers, text_tower=TextTowerSpec(source=mulap_text, max_tokens=20)
    )
    first, second = (
        build_mulap(towers, SPEC, seed=seed, text_folder=mulap_text) for seed in (0, 1)
    )
    chunks = torch.randn(2, 48_000, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        heard = first.train().hear(chunks)
    assert heard.shape == (2, 1756) and torch.isfinite(heard).all()
    weights = [m.audio_tower.networks[0].dense.weight for m in (first, second)]  # type: ignore
    assert not torch.equal(*weights), "the packaged weights would be equal"
