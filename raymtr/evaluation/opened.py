"""A probe with a trainable backbone: a linear layer and the audio tower learn the labels together.

The statistics of a tower's batch norms stay fixed, because a few labelled tracks are too few to
estimate them. A track's prediction is the mean of its windows' probabilities, as in `probes`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from raymtr.audio import AudioError, decode, windows
from raymtr.errors import UnusableError
from raymtr.evaluation.probe_tasks import Task
from raymtr.evaluation.probes import balanced_accuracy, choose_labelled
from raymtr.mulap.backbone import open_tower
from raymtr.tower_specs import AudioSpec

STEPS, ROWS = 60, 32  # updates, and windows of each
TOWER_RATE, HEAD_RATE, DECAY = 1e-4, 1e-3, 1e-2


def finetuned(
    task: Task, source: str, uris: Sequence[str], count: int | None, *, seed: int
) -> float:
    """Balanced accuracy on the held-out tracks after training all of `source` on `count` a class.

    `uris` belong to the task's tracks. Raises InputError for a backbone without weights,
    UnusableError where a file cannot be decoded.
    """
    spec, tower, _ = open_tower(source, seed=seed)
    chosen = choose_labelled(task, count, seed=seed)
    heard = [cut(uris[place], spec.audio) for place in chosen]
    x = torch.from_numpy(np.concatenate(heard))
    y = torch.from_numpy(np.repeat(task.labels[chosen], [len(rows) for rows in heard]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = nn.Sequential(nn.LayerNorm(spec.dim), nn.Linear(spec.dim, len(task.classes)))
        model = nn.Sequential(tower, head)
        train(model, x, y)
    held_out = np.flatnonzero(~task.train)
    predicted = [_predict(model, cut(uris[place], spec.audio)) for place in held_out]
    return balanced_accuracy(np.array(predicted), task.labels[held_out])


def train(model: nn.Sequential, x: torch.Tensor, y: torch.Tensor) -> None:
    """STEPS updates of a tower and its head on windows x [n, samples] of classes y [n]."""
    tower, head = model
    tower.requires_grad_(True)
    optimizer = torch.optim.AdamW(
        [
            {"params": list(tower.parameters()), "lr": TOWER_RATE},
            {"params": list(head.parameters()), "lr": HEAD_RATE},
        ],
        weight_decay=DECAY,
    )
    for _ in range(STEPS):
        rows = torch.randperm(len(x))[:ROWS]
        optimizer.zero_grad()
        functional.cross_entropy(model(x[rows]), y[rows]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


@torch.inference_mode()
def _predict(model: nn.Module, rows: np.ndarray) -> int:
    return int(model(torch.from_numpy(rows)).softmax(dim=1).mean(dim=0).argmax())


def cut(uri: str, spec: AudioSpec) -> np.ndarray:
    """The windows of a file, float32 [W, samples]; raises UnusableError where it has none."""
    try:
        return np.asarray(windows(decode(uri, spec).samples, spec)[1], np.float32)
    except AudioError as error:
        raise UnusableError(f"{uri} of the task cannot be read: {error}") from error
