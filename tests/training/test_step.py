from __future__ import annotations

import copy
import dataclasses
import math

import pytest
import torch
from torch import Tensor, nn

from raymtr.errors import UnusableError
from raymtr.specs import TrainSpec
from raymtr.training.step import Batch, TrainStep, learning_rate

CPU = torch.device("cpu")
SPEC = TrainSpec(
    steps=8, global_batch=6, learning_rate=0.01, min_learning_rate=0.001, warmup_steps=2
)


class ToyTowers(nn.Module):
    """Audio: linear, batch norm; text: a frozen table with dropout, then linear."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.audio = nn.Sequential(
            nn.Unflatten(1, (4, 2, 2)), nn.Conv2d(4, 8, 1), nn.BatchNorm2d(8)
        )
        self.table = nn.Embedding(20, 12).requires_grad_(False)
        self.dropout = nn.Dropout(0.5)
        self.text = nn.Linear(12, 8)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(10.0)))

    def embed_audio(self, waves: Tensor) -> Tensor:
        return self.audio(waves).mean((2, 3))

    def embed_text(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.text(self.dropout(self.table(input_ids)).mean(1))


def batch_of(step: int) -> Batch:
    generator = torch.Generator().manual_seed(step)
    ids = torch.randint(0, 20, (6, 3), generator=generator)
    text = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return Batch(torch.randn(6, 16, generator=generator), [text])


def weights_of(towers: nn.Module) -> bytes:
    return b"".join(v.numpy().tobytes() for v in towers.state_dict().values())


def test_schedule_is_linear_then_half_a_cosine() -> None:
    rates = [learning_rate(step, SPEC) for step in range(SPEC.steps + 1)]
    assert rates[0] == pytest.approx(0.005) and rates[1:3] == pytest.approx([0.01, 0.01])
    assert rates[5] == pytest.approx((0.01 + 0.001) / 2), "half way down in the middle"
    assert rates[8] == pytest.approx(0.001)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_restored_training_ends_with_the_same_bits(precision: str) -> None:
    spec = dataclasses.replace(SPEC, precision=precision)
    whole = TrainStep(ToyTowers(), spec, CPU)
    for step in range(8):
        if step == 3:
            kept = copy.deepcopy(whole.state())
        whole(batch_of(step), step)
    resumed = TrainStep(ToyTowers(), spec, CPU)
    resumed.restore(kept)
    torch.rand(100)  # some other use of the global random state
    for step in range(3, 8):
        resumed(batch_of(step), step)
    assert weights_of(resumed.towers) == weights_of(whole.towers)


def test_state_holds_what_changes_and_no_frozen_weight() -> None:
    trainer = TrainStep(ToyTowers(), SPEC, CPU)
    before = trainer.towers.table.weight.clone()
    trainer(batch_of(0), 0)
    torch.testing.assert_close(trainer.towers.table.weight, before, rtol=0, atol=0)
    names = set(trainer.state()["towers"])
    assert "table.weight" not in names
    assert {"audio.1.weight", "audio.2.running_mean", "logit_scale"} <= names


@pytest.mark.slow
def test_training_finds_the_pairs() -> None:
    spec = dataclasses.replace(SPEC, steps=80, learning_rate=0.05)
    trainer = TrainStep(ToyTowers(), spec, CPU)
    losses = [trainer(batch_of(0), step)["loss"] for step in range(80)]
    assert losses[-1] < 0.5 * losses[0]


def test_frozen_batch_norm_keeps_its_statistics_and_learns_its_scale() -> None:
    trainer = TrainStep(ToyTowers(), dataclasses.replace(SPEC, batch_norm="frozen"), CPU)
    norm = trainer.towers.audio[2]
    scale = norm.weight.detach().clone()
    for step in range(2):
        trainer(batch_of(step), step)
    assert norm.running_mean.eq(0).all() and norm.running_var.eq(1).all()
    assert not torch.equal(norm.weight, scale)


def test_embedding_leaves_no_trace() -> None:
    trainer = TrainStep(ToyTowers(), SPEC, CPU)
    before = weights_of(trainer.towers)
    first, again = trainer.embed(batch_of(1)), trainer.embed(batch_of(1))
    assert torch.equal(first[1], again[1]), "no dropout outside of training"
    assert weights_of(trainer.towers) == before


def test_an_update_that_spoils_the_weights_is_seen_in_its_own_step() -> None:
    """The last step has no loss after it that would tell."""
    spec = dataclasses.replace(SPEC, learning_rate=1e30, warmup_steps=0)
    step = TrainStep(ToyTowers(), spec, CPU)
    with pytest.raises(
        UnusableError, match=r"norm of the weights became inf at step 0, .* rate 1e\+30"
    ):
        step(batch_of(0), 0)


def test_a_loss_of_nan_stops_with_step_and_rate() -> None:
    trainer = TrainStep(ToyTowers(), SPEC, CPU)
    poisoned = dataclasses.replace(batch_of(0), waves=torch.full((6, 16), float("nan")))
    with pytest.raises(UnusableError, match=r"nan at step 4, learning rate 0\.00775"):
        trainer(poisoned, 4)


def test_several_windows_of_a_track_are_pooled() -> None:
    """With `pool` as the mean, the step is that of the windows' mean vectors."""

    class Pooling(ToyTowers):
        def pool(self, windows: Tensor) -> Tensor:
            return windows.mean(1)

    one, other = TrainStep(Pooling(), SPEC, CPU), TrainStep(Pooling(), SPEC, CPU)
    batch = batch_of(0)
    alike = dataclasses.replace(batch, waves=batch.waves[:, None].expand(-1, 3, -1))
    assert one(alike, 0)["loss"] == pytest.approx(other(batch, 0)["loss"], abs=1e-6)
    unlike = dataclasses.replace(batch, waves=torch.randn(6, 3, 16))
    with torch.no_grad():
        audio, _ = one.embed(unlike)
        rows = one.towers.embed_audio(unlike.waves.flatten(0, 1)).view(6, 3, -1)
    torch.testing.assert_close(audio, rows.mean(1))
