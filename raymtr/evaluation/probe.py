"""A probe: a small classifier on frozen track vectors, to see what they hold (as MuLaP is probed).

The features are standardised by the training tracks. The classifier is linear, or has one hidden
layer. Its weight decay is chosen on the validation tracks, never on the test tracks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from raymtr import metrics
from raymtr.errors import InputError

DECAYS = (1e-4, 1e-2, 1.0)  # tried on the validation tracks
STEPS = 300
RATE = 1e-2


@dataclass(frozen=True)
class Split:
    """Tracks of one split: features [N, D], and 0 or 1 for each label, [N, labels]."""

    features: NDArray[np.float32]
    labels: NDArray[np.float32]


def labels_of(cells: Sequence[object], names: Sequence[str]) -> NDArray[np.float32]:
    """0 or 1 for each of `names`, [N, labels]; a cell is a text, a list of texts, or null."""
    place = {name: column for column, name in enumerate(names)}
    found = np.zeros((len(cells), len(names)), np.float32)
    for row, cell in enumerate(cells):
        for name in cell if isinstance(cell, list) else [cell]:
            if name is not None and str(name) in place:
                found[row, place[str(name)]] = 1
    return found


def few_labelled(labels: NDArray[np.float32], per_label: int, seed: int) -> NDArray[np.int64]:
    """Rows with at most `per_label` examples drawn for each label, without repeats, sorted."""
    rng = np.random.default_rng(seed)
    chosen: set[int] = set()
    for column in labels.T:
        chosen.update(rng.permutation(np.flatnonzero(column))[:per_label].tolist())
    return np.array(sorted(chosen), np.int64)


def probe(
    train: Split, valid: Split, test: Split, *, hidden: int, single: bool, seed: int
) -> dict[str, float]:
    """Accuracy (`single`: one label a track) or macro ROC-AUC and AP on `test`.

    `hidden` is the width of the hidden layer, 0 for a linear probe. Labels that the test tracks
    all have or all lack are left out of the macro averages. Raises InputError where none is left.
    """
    mean, spread = train.features.mean(axis=0), train.features.std(axis=0) + 1e-6
    parts = [Split((part.features - mean) / spread, part.labels) for part in (train, valid, test)]
    best: tuple[float, NDArray[np.float32]] | None = None
    for decay in DECAYS:
        model = _fit(parts[0], hidden=hidden, single=single, decay=decay, seed=seed)
        with torch.no_grad():
            scores = [model(torch.from_numpy(part.features)).numpy() for part in parts[1:]]
        value = next(iter(_figures(scores[0], parts[1].labels, single=single).values()))
        if best is None or value > best[0]:
            best = value, scores[1]
    assert best is not None
    return _figures(best[1], parts[2].labels, single=single)


def _fit(part: Split, *, hidden: int, single: bool, decay: float, seed: int) -> nn.Module:
    """Full-batch AdamW from seeded weights; the global random state is not changed."""
    inputs, labels = torch.from_numpy(part.features), torch.from_numpy(part.labels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        width, count = inputs.shape[1], labels.shape[1]
        model = nn.Linear(width, count) if not hidden else nn.Sequential()
        if isinstance(model, nn.Sequential):
            model.extend([nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, count)])
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=decay)
    loss_of = functional.cross_entropy if single else functional.binary_cross_entropy_with_logits
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss: Tensor = loss_of(model(inputs), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model


def _figures(
    scores: NDArray[np.float32], labels: NDArray[np.float32], *, single: bool
) -> dict[str, float]:
    if single:
        return {"accuracy": float((scores.argmax(axis=1) == labels.argmax(axis=1)).mean())}
    varied = labels.any(axis=0) & ~labels.all(axis=0)
    if not varied.any():
        raise InputError("no label is on some of these tracks and not on others: nothing to probe")
    asked, right = scores.T[varied], labels.T[varied]
    return {
        "roc_auc": float(metrics.roc_aucs(asked, right).mean()),
        "ap": float(metrics.average_precisions(asked, right).mean()),
        "labels": float(varied.sum()),
    }
