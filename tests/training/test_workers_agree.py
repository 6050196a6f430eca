"""Two gloo processes against one with the whole batch: loss, gradient, batch statistics."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from raymtr.model.resnet import ModifiedResNet
from raymtr.specs import TrainSpec
from raymtr.tower_specs import AudioTowerSpec
from raymtr.training.contrastive_loss import gather_rows, shares
from raymtr.training.step import Batch, TrainStep

pytestmark = pytest.mark.slow

MODES = ("without", "frozen", "shared", "local")  # of batch norm
BATCHES = (8, 9)  # rows of the global batch; of nine one worker has five
SPEC = TrainSpec(steps=3, global_batch=8, learning_rate=1e-3, warmup_steps=0)
TOWER = AudioTowerSpec(layers=(1, 1, 1, 1), width=8, heads=4, dim=16)


class SmallTowers(nn.Module):
    """The real audio tower, or linear layers alone, beside a table of words."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        torch.manual_seed(11)
        self.audio: nn.Module = ModifiedResNet(TOWER)
        if mode == "without":
            self.audio = nn.Sequential(
                nn.Flatten(), nn.Linear(32 * 64, 64), nn.GELU(), nn.Linear(64, 16)
            )
        for name, parameter in self.audio.named_parameters():
            if name.endswith("bn3.weight"):  # born 0, which would hide most of the tower
                nn.init.constant_(parameter, 0.5)
        self.words = nn.Embedding(30, 16)
        self.logit_scale = nn.Parameter(torch.tensor(2.0))

    def embed_audio(self, waves: Tensor) -> Tensor:
        return self.audio(waves.view(-1, 32, 64))

    def embed_text(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.words(input_ids).mean(1)


def part_of_batch(step: int, rank: int, workers: int, rows: int) -> Batch:
    generator = torch.Generator().manual_seed(step)
    ids = torch.randint(0, 30, (rows, 4), generator=generator)
    waves = torch.randn(rows, 32 * 64, generator=generator)
    waves += torch.arange(float(rows))[:, None] / 4  # so that parts of it differ in statistics
    own = ids.split(shares(rows, workers))[rank]
    text = {"input_ids": own, "attention_mask": torch.ones_like(own)}
    names = torch.randint(0, 4 * rows, (rows, 2), generator=generator)  # some rows share one
    parts = (part.split(shares(rows, workers))[rank] for part in (waves, names))
    return Batch(next(parts), [text], next(parts))


def train(mode: str, rank: int, workers: int, rows: int = 8) -> dict[str, Any]:
    """Loss and gradient of the first step from the same weights, and what three steps lead to."""
    batch_norm = "local" if mode == "without" else mode
    spec = dataclasses.replace(SPEC, global_batch=rows, batch_norm=batch_norm)
    trainer = TrainStep(SmallTowers(mode), spec, torch.device("cpu"))
    losses, shared, gradient = [], [], torch.empty(0)
    for step in range(3):
        figures = trainer(part_of_batch(step, rank, workers, rows), step)
        losses.append(figures["loss"])
        shared.append(figures["shared"])
        if step == 0:
            gradient = torch.cat([p.grad.flatten().clone() for p in trainer.learned])
    state = trainer.towers.state_dict()
    statistics = [v for k, v in state.items() if k.endswith(("running_mean", "running_var"))]
    weights = torch.cat([p.detach().flatten() for p in trainer.learned])
    return {
        "losses": losses,
        "shared": shared,
        "gradient": gradient,
        "statistics": statistics,
        "weights": weights,
    }


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    results: dict[str, Any] = {
        f"{mode} {size}": train(mode, rank, 2, size) for mode in MODES for size in BATCHES
    }
    rows = torch.full((2, 3), float(rank + 1), requires_grad=True)
    gathered = gather_rows(rows)
    (gathered * torch.arange(4.0)[:, None] * (rank + 1)).sum().backward()
    results["gather"] = {"rows": gathered.detach(), "gradient": rows.grad}
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()
    os._exit(0)  # gloo's threads may still drop tensors: in Python's own exit that would abort


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder: Path = tmp_path_factory.mktemp("gloo")
    mp.spawn(worker, args=(str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


def relative(got: Tensor, wanted: Tensor) -> float:
    return float((got - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("rows", BATCHES)
@pytest.mark.parametrize("mode", ["without", "frozen", "shared"])
def test_two_workers_are_one(mode: str, rows: int, two: list[dict[str, Any]]) -> None:
    one = train(mode, 0, 1, rows)
    mine, other = (results[f"{mode} {rows}"] for results in two)
    assert mine["losses"] == other["losses"], "all workers know the global loss"
    assert mine["shared"] == pytest.approx(one["shared"], abs=0.05) and any(one["shared"])
    assert torch.equal(mine["weights"], other["weights"])
    assert mine["losses"][0] == pytest.approx(one["losses"][0], abs=1e-5)
    assert relative(mine["gradient"], one["gradient"]) < 1e-5
    for got, wanted in zip(mine["statistics"], one["statistics"], strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-4)


def test_local_batch_norm_is_not_equal(two: list[dict[str, Any]]) -> None:
    assert relative(two[0]["local 8"]["gradient"], train("local", 0, 1)["gradient"]) > 1e-2


def test_gathered_gradients_of_all_workers_come_home(two: list[dict[str, Any]]) -> None:
    assert two[0]["gather"]["rows"][:, 0].tolist() == [1.0, 1.0, 2.0, 2.0]
    for rank in (0, 1):  # row n weighs n, worker r's loss weighs r + 1: together 3 n
        got = two[rank]["gather"]["gradient"][:, 0].tolist()
        assert got == [3.0 * (2 * rank), 3.0 * (2 * rank + 1)]
