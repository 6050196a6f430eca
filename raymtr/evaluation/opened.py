"""A probe with a trainable backbone: a linear layer and the audio tower learn the labels together.

The statistics of a tower's batch norms stay fixed, because a few labelled tracks are too few to
estimate them. A track's prediction is the mean of its windows' probabilities, as in `probes`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

from raymtr.audio import AudioError, decode, windows
from raymtr.errors import UnusableError
from raymtr.evaluation.probe_tasks import Task
from raymtr.evaluation.probes import (
    OBJECTIVES,
    Figures,
    choose_labelled,
    measure,
    outputs_of,
    predict,
    targets_of,
)
from raymtr.mulap.backbone import open_tower
from raymtr.tower_specs import AudioSpec

STEPS, ROWS = 60, 32  # updates, and windows of each
TOWER_RATE, HEAD_RATE, DECAY = 1e-4, 1e-3, 1e-2


def finetuned(
    task: Task, source: str, uris: Sequence[str], count: int | None, *, seed: int
) -> Figures:
    """The figures on the held-out tracks after training all of `source` on `count` a class.

    `uris` belong to the task's tracks. Raises InputError for a backbone without weights,
    UnusableError where a file cannot be decoded.
    """
    spec, tower, _ = open_tower(source, seed=seed)
    chosen = choose_labelled(task, count, seed=seed)
    heard = [cut(uris[place], spec.audio) for place in chosen]
    x = torch.from_numpy(np.concatenate(heard))
    y = targets_of(task, chosen, [len(rows) for rows in heard])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = nn.Sequential(nn.LayerNorm(spec.dim), nn.Linear(spec.dim, outputs_of(task)))
        model = nn.Sequential(tower, head)
        train(model, x, y, OBJECTIVES[task.kind].loss)
    held_out = np.flatnonzero(~task.train)
    scores = [predict(task, model, cut(uris[place], spec.audio)) for place in held_out]
    return measure(task, np.stack(scores), chosen)


def train(
    model: nn.Sequential,
    x: torch.Tensor,
    y: torch.Tensor,
    loss_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> None:
    """STEPS updates of a tower and its head on windows x [n, samples] with the targets y."""
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
        loss_of(model(x[rows]), y[rows]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def cut(uri: str, spec: AudioSpec) -> np.ndarray:
    """The windows of a file, float32 [W, samples]; raises UnusableError where it has none."""
    try:
        return np.asarray(windows(decode(uri, spec).samples, spec)[1], np.float32)
    except AudioError as error:
        raise UnusableError(f"{uri} of the task cannot be read: {error}") from error
