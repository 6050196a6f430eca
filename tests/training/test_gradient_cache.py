"""Gradient caching, recomputed activations, layer-wise rates and LoRA, on the real small towers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from raymtr.errors import InputError
from raymtr.model.two_towers import TwoTowers, build_towers
from raymtr.recipes import tiny
from raymtr.specs import Settings, TrainSpec
from raymtr.training import layers
from raymtr.training.contrastive_loss import contrastive_loss
from raymtr.training.gradient_cache import cached_backward
from raymtr.training.layers import layers_below
from raymtr.training.lora import merge_lora
from raymtr.training.step import Batch, TrainStep

CPU = torch.device("cpu")
TINY = tiny().towers
SPEC = TrainSpec(
    steps=4, global_batch=7, learning_rate=1e-3, warmup_steps=0, batch_norm="frozen", seed=3
)
SENTENCES = ["slow piano", "a fast drum", "jazz", "a calm flute at night", "rock", "folk", "waltz"]


@pytest.fixture(scope="module")
def made() -> TwoTowers:
    """Both towers trained; MiniLM's dropout is 0.1, and the ResNet's blocks are not shortcuts."""
    text = replace(TINY.text_tower, trainable=True)
    towers = build_towers(replace(TINY, text_tower=text), seed=0)
    for name, parameter in towers.audio_tower.named_parameters():
        if name.endswith("bn3.weight"):
            nn.init.constant_(parameter, 0.5)
    return towers


@pytest.fixture
def towers(made: TwoTowers) -> TwoTowers:
    return copy.deepcopy(made)


@pytest.fixture(scope="module")
def batch(made: TwoTowers) -> Batch:
    generator = torch.Generator().manual_seed(0)
    waves = 0.2 * torch.randn(7, TINY.audio.window_samples, generator=generator)
    tokens = made.tokenize(SENTENCES)
    groups = [{name: rows[part] for name, rows in tokens.items()} for part in _halves()]
    return Batch(waves=waves, texts=groups)


def _halves() -> Iterator[slice]:
    yield from (slice(0, 4), slice(4, 7))


def without_dropout(towers: TwoTowers) -> TwoTowers:
    for module in towers.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return towers


def gradients(step: TrainStep) -> Tensor:
    return torch.cat([p.grad.flatten() for p in step.learned if p.grad is not None])


def relative(got: Tensor, wanted: Tensor) -> float:
    return float((got - wanted).norm() / wanted.norm())


def taken(towers: TwoTowers, batch: Batch, **changed: Any) -> tuple[float, Tensor, TrainStep]:
    step = TrainStep(towers, replace(SPEC, **changed), CPU)
    loss = step(batch, 0)["loss"]
    return loss, gradients(step), step


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [2, 3])
def test_gradient_caching_equals_the_whole_batch(chunk: int, made: TwoTowers, batch: Batch) -> None:
    """Seven rows do not divide into chunks, and text groups do not end where chunks do."""
    whole = taken(without_dropout(copy.deepcopy(made)), batch)
    cached = taken(without_dropout(copy.deepcopy(made)), batch, chunk=chunk)
    assert cached[0] == pytest.approx(whole[0], abs=1e-5)
    assert relative(cached[1], whole[1]) < 1e-5


@pytest.mark.slow
def test_with_dropout_it_equals_the_same_parts_with_gradient(
    towers: TwoTowers, batch: Batch
) -> None:
    """Each part's second forward draws the dropout of its first, or the gradient is another's."""
    loss, got, step = taken(towers, batch, chunk=3)
    again = TrainStep(copy.deepcopy(towers), replace(SPEC, chunk=3), CPU)
    again.towers.load_state_dict(step.towers.state_dict())

    def run(restored: bool) -> Tensor:
        again.optimizer.zero_grad()
        again.towers.train()
        torch.manual_seed(5)
        audio, text = again._chunks(batch)
        if restored:
            cached_backward(audio, text, loss_of, CPU)
        else:
            vectors = [torch.cat([part() for part in parts]) for parts in (audio, text)]
            loss_of(*vectors).backward()  # type: ignore[no-untyped-call]
        return gradients(again)

    def loss_of(audio: Tensor, text: Tensor) -> Tensor:
        return contrastive_loss(audio, text, again.towers.logit_scale)

    again.towers.audio_tower.eval()
    assert relative(run(restored=True), run(restored=False)) < 1e-5
    assert loss > 0 and bool(got.isfinite().all())


@pytest.mark.slow
def test_the_random_state_after_a_step_is_that_of_one_forward(
    towers: TwoTowers, batch: Batch
) -> None:
    step = TrainStep(towers, replace(SPEC, chunk=3), CPU)
    step.towers.train()
    torch.manual_seed(9)
    with torch.no_grad():
        for part in (part for parts in step._chunks(batch) for part in parts):
            part()
    wanted = torch.rand(3)
    torch.manual_seed(9)
    scale = step.towers.logit_scale
    cached_backward(*step._chunks(batch), lambda a, t: contrastive_loss(a, t, scale), CPU)
    assert torch.equal(torch.rand(3), wanted)


@pytest.mark.slow
def test_recomputed_activations_change_no_gradient_and_keep_dropout(
    made: TwoTowers, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return checkpoint(*args, **kwargs)

    monkeypatch.setattr(layers, "checkpoint", counted)
    plain = taken(copy.deepcopy(made), batch)
    assert not calls
    again = taken(copy.deepcopy(made), batch, checkpoint_activations=True)
    assert len(calls) == 4 + 2 * 6, "four bottlenecks, and six text layers for two groups"
    assert again[0] == pytest.approx(plain[0], abs=1e-6)
    assert relative(again[1], plain[1]) < 1e-5


def test_rates_fall_with_the_depth_of_a_layer(towers: TwoTowers, batch: Batch) -> None:
    step = TrainStep(towers, replace(SPEC, layer_decay=0.5), CPU)
    step(batch, 0)
    rates = {id(p): group["lr"] for group in step.optimizer.param_groups for p in group["params"]}
    of = {name: rates[id(p)] for name, p in towers.named_parameters() if p.requires_grad}
    full = SPEC.learning_rate
    assert of["logit_scale"] == of["audio_projector.1.weight"] == full
    assert of["audio_tower.attn_pool.c_proj.weight"] == full
    assert of["audio_tower.layer4.0.conv1.weight"] == full / 2
    assert of["audio_tower.layer1.0.conv1.weight"] == full / 16
    assert of["audio_tower.conv1.weight"] == full / 32
    last = "text_tower.encoder.encoder.layer.5.output.dense.weight"
    assert of[last] == full / 2
    assert of["text_tower.encoder.embeddings.word_embeddings.weight"] == full / 2**7


def test_the_text_tower_has_a_rate_of_its_own(towers: TwoTowers, batch: Batch) -> None:
    step = TrainStep(towers, replace(SPEC, text_rate=0.1), CPU)
    step(batch, 0)
    rates = {id(p): group["lr"] for group in step.optimizer.param_groups for p in group["params"]}
    for name, p in towers.named_parameters():
        own = 0.1 if name.startswith("text_tower.") else 1.0
        assert not p.requires_grad or rates[id(p)] == pytest.approx(own * SPEC.learning_rate)


def test_a_tower_without_layers_has_the_whole_rate() -> None:
    assert layers_below(["audio_tower.dense.weight"]) == {"audio_tower.dense.weight": 0}


def test_without_decay_a_state_of_before_still_fits(towers: TwoTowers) -> None:
    step = TrainStep(towers, SPEC, CPU)
    assert len(step.optimizer.param_groups) == 1


@pytest.mark.slow
@pytest.mark.parametrize("side", ["audio", "text"])
def test_lora_trains_little_and_is_merged(side: str, towers: TwoTowers, batch: Batch) -> None:
    before = copy.deepcopy(towers.state_dict())
    step = TrainStep(towers, replace(SPEC, learning_rate=1e-2, **{f"lora_{side}": 2}), CPU)
    tower = f"{side}_tower"
    learned = [n for n, p in towers.named_parameters() if p.requires_grad and n.startswith(tower)]
    assert learned and all(".lora_" in name for name in learned)
    first = step.embed(batch)
    torch.testing.assert_close(
        first[side == "text"],
        TrainStep(_with(towers, before), SPEC, CPU).embed(batch)[side == "text"],
    )
    for number in range(3):
        step(batch, number)
    trained = step.embed(batch)
    merged = merge_lora(towers, step.spec)
    assert set(merged.state_dict()) == set(before), "a saved model has the usual parts"
    after = TrainStep(merged, SPEC, CPU).embed(batch)
    for got, wanted in zip(after, trained, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
    assert relative(after[side == "text"], first[side == "text"]) > 1e-3


def _with(towers: TwoTowers, weights: dict[str, Tensor]) -> TwoTowers:
    plain = build_towers(towers.spec, seed=1)
    plain.load_state_dict(weights)
    return plain


@pytest.mark.slow
def test_lora_resumes_to_the_same_bits(made: TwoTowers, batch: Batch) -> None:
    spec = replace(SPEC, lora_text=2, lora_audio=2)
    whole = TrainStep(copy.deepcopy(made), spec, CPU)
    whole(batch, 0)
    kept = copy.deepcopy(whole.state())
    assert not any(name.endswith("query.base_layer.weight") for name in kept["towers"])
    whole(batch, 1)
    resumed = TrainStep(copy.deepcopy(made), spec, CPU)
    resumed.restore(kept)
    resumed(batch, 1)
    ends = (step.towers.state_dict() for step in (whole, resumed))
    assert all(
        torch.equal(one, other) for one, other in zip(*(e.values() for e in ends), strict=True)
    )


REFUSED: list[tuple[str, Callable[[Settings], Settings], str]] = [
    ("chunk", lambda s: replace(s, train=replace(s.train, chunk=2)), "batch_norm=frozen"),
    (
        "activations",
        lambda s: replace(s, train=replace(s.train, checkpoint_activations=True)),
        "batch_norm=frozen",
    ),
    ("gain", lambda s: replace(s, train=replace(s.train, gain_db=6.0)), "level=removed"),
    (
        "overdrive",
        lambda s: replace(
            s,
            towers=replace(s.towers, audio_tower=replace(s.towers.audio_tower, trainable=False)),
            train=replace(s.train, overdrive_db=6.0),
        ),
        "train.overdrive_db changes nothing",
    ),
    ("lora", lambda s: replace(s, train=replace(s.train, lora_text=4)), "text_tower.trainable"),
    (
        "window pooling",
        lambda s: replace(s, towers=replace(s.towers, window_pooling="attention")),
        "learns from several windows of a track; set train.windows=4",
    ),
    (
        "texts",
        lambda s: replace(s, train=replace(s.train, texts={"lyrics": 1.0})),
        "texts weighs tags, caption, metadata, similar_artists, playlist; got 'lyrics'",
    ),
]


@pytest.mark.parametrize(("change", "said"), [case[1:] for case in REFUSED])
def test_settings_that_do_not_fit_are_rejected(
    change: Callable[[Settings], Settings], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        change(tiny())
