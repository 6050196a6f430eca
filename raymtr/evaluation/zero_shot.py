"""Zero-shot: each class's words as a sentence, and no label.

A MuLaP model gives the probability that the sentence matches the track; two towers give the cosine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NotRequired, TypedDict

import numpy as np
import torch

from raymtr import metrics
from raymtr.evaluation.probe_tasks import Task
from raymtr.evaluation.probes import balanced_accuracy
from raymtr.model.two_towers import TwoTowers
from raymtr.mulap.backbone import LOG_MEL, RANDOM
from raymtr.mulap.folder import read_mulap
from raymtr.mulap.marker import is_mulap
from raymtr.mulap.matcher import match_probabilities, spread


class ZeroShot(TypedDict):
    """How well a model tells classes or tags by their names alone, on held-out tracks."""

    by: str  # cosine or match probability
    balanced_accuracy: NotRequired[float]  # of classes
    pr_auc: NotRequired[float]  # of tags, mean
    roc_auc: float  # mean over the classes or tags
    roc_aucs: dict[str, float]  # of each


def zero_shot(task: Task, source: str, features: Sequence[np.ndarray]) -> ZeroShot | None:
    """Balanced accuracy of the best class, or areas of tags, and the ROC-AUC of each, held out.

    None for a backbone without words, and for a number, which has no name.
    """
    held_out = np.flatnonzero(~task.train)
    if source == LOG_MEL or source.startswith(RANDOM) or task.kind == "number":
        return None
    held_out_features = [features[place] for place in held_out]
    score = _by_matching if is_mulap(source) else _by_cosine
    scores = score(source, held_out_features, task.classes)  # [tracks, classes]
    right = task.labels[held_out]
    has = right if task.kind == "tags" else right[:, None] == np.arange(len(task.classes))
    measured = [n for n in range(len(task.classes)) if 0 < has[:, n].sum() < len(has)]
    areas = metrics.roc_aucs(scores.T[measured], has.T[measured])
    found: ZeroShot = {
        "by": "match probability" if score is _by_matching else "cosine",
        "roc_auc": float(areas.mean()),
        "roc_aucs": {task.classes[n]: float(a) for n, a in zip(measured, areas, strict=True)},
    }
    if task.kind == "tags":
        found["pr_auc"] = float(metrics.average_precisions(scores.T, has.T).mean())
    else:
        found["balanced_accuracy"] = balanced_accuracy(scores.argmax(axis=1), right)
    return found


def _by_matching(source: str, own: Sequence[np.ndarray], classes: Sequence[str]) -> np.ndarray:
    model, _ = read_mulap(source)
    most = math.ceil(model.spec.clip_s / model.towers.audio.window_s)
    rows = [torch.from_numpy(spread(features, most)) for features in own]
    return np.array([match_probabilities(model, name, rows) for name in classes]).T


@torch.inference_mode()
def _by_cosine(source: str, own: Sequence[np.ndarray], classes: Sequence[str]) -> np.ndarray:
    from raymtr.model.pretrained import load_model

    model = load_model(source)
    towers = model.towers
    assert isinstance(towers, TwoTowers), "a backbone of another kind was refused before"
    vectors = [towers.embed_features(torch.from_numpy(rows)).mean(dim=0) for rows in own]
    tracks = torch.nn.functional.normalize(torch.stack(vectors), dim=-1).numpy()
    return np.asarray(tracks @ model.encode_text(list(classes)).T)
