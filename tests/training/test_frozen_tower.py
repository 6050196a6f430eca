"""Heads are trained over a frozen tower: its features are read ahead, and it never changes."""

from dataclasses import replace

import numpy as np
import torch

from raymtr.model.two_towers import build_towers
from raymtr.recipes import laptop
from raymtr.training.step import Batch, TrainStep


def test_heads_learn_and_the_tower_stays() -> None:
    settings = laptop()
    towers = build_towers(settings.towers, seed=0)
    spec = replace(settings.train, steps=6, warmup_steps=1, global_batch=2, threads=1)
    before = {name: tensor.clone() for name, tensor in towers.audio_tower.state_dict().items()}
    seconds = np.arange(settings.towers.audio.window_samples) / 16_000
    waves = np.stack([0.3 * np.sin(2 * np.pi * hz * seconds) for hz in (110.0, 1760.0)])
    batch = Batch(
        waves=torch.from_numpy(waves.astype(np.float32)),
        texts=[towers.tokenize(["a low tone", "a high tone"])],
    )
    step = TrainStep(towers, spec, torch.device("cpu"))
    ahead = step.read_ahead(batch)
    assert ahead.waves.shape == (2, settings.towers.audio_tower.dim)
    losses = [step(ahead, number)["loss"] for number in range(6)]
    assert losses[-1] < losses[0]
    after = towers.audio_tower.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    torch.testing.assert_close(step.embed(batch)[0], step.embed(ahead)[0])
    assert not any(
        name.startswith("audio_tower") and "weight" in name and "norm" not in name
        for name in step.state()["towers"]
    )
