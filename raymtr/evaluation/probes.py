"""Probes: how well a frozen backbone's features predict a task, with few labels.

A probe is fitted on the chunks of the labelled tracks. A track's prediction is the mean over its
chunks: of the probabilities of classes or tags, or of the number. Torch fits both kinds of probe,
on the whole training set at once, so a seed gives the same figures each time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from raymtr import metrics
from raymtr.errors import InputError
from raymtr.evaluation.probe_tasks import Task

PROBES = ("logistic", "mlp")
HIDDEN = 512  # of the MLP, as in the paper
RIDGE = 1e-2  # of the linear probe's weights; features are standardised
MLP_STEPS, MLP_RATE, MLP_DECAY = 150, 1e-3, 1e-2

Figures = dict[str, float]  # name -> value; the first is the task's main figure


@dataclass(frozen=True)
class Objective:
    """How one kind of task is learnt and measured."""

    main: str  # name of the main figure
    loss: Callable[[Tensor, Tensor], Tensor]  # of outputs [n, C] and targets
    probability: Callable[[Tensor], Tensor]  # of outputs; the identity for a number
    measure: Callable[[np.ndarray, np.ndarray], Figures]  # of predictions [N, C] and labels
    chance: Callable[[Task], float]  # of the main figure


def balanced_accuracy(predicted: np.ndarray, right: np.ndarray) -> float:
    """The mean over classes of the share of their tracks that are predicted right."""
    return float(np.mean([(predicted[right == c] == c).mean() for c in np.unique(right)]))


def tag_areas(scores: np.ndarray, right: np.ndarray) -> Figures:
    """Areas under the ROC and the precision-recall curve, each the mean over tags.

    Scores and labels are [N, tags]; the second area is the average precision.
    """
    return {
        "roc_auc": float(metrics.roc_aucs(scores.T, right.T).mean()),
        "pr_auc": float(metrics.average_precisions(scores.T, right.T).mean()),
    }


def r_squared(predicted: np.ndarray, right: np.ndarray) -> float:
    """The coefficient of determination: 1 is exact, 0 the mean of the right numbers."""
    rest = np.square(right - predicted).sum()
    return float(1 - rest / np.square(right - right.mean()).sum())


def _number_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.mse_loss(outputs[:, 0], targets)


OBJECTIVES = {
    "class": Objective(
        "balanced_accuracy",
        functional.cross_entropy,
        lambda outputs: outputs.softmax(dim=1),
        lambda scores, right: {"balanced_accuracy": balanced_accuracy(scores.argmax(1), right)},
        lambda task: 1 / len(task.classes),
    ),
    "tags": Objective(
        "roc_auc",
        functional.binary_cross_entropy_with_logits,
        torch.sigmoid,
        tag_areas,
        lambda task: 0.5,
    ),
    "number": Objective(
        "r2",
        _number_loss,
        lambda outputs: outputs,
        lambda scores, right: {"r2": r_squared(scores[:, 0], right)},
        lambda task: 0.0,
    ),
}


def choose_labelled(task: Task, count: int | None, *, seed: int) -> np.ndarray:
    """Places of `count` training tracks per class, or with each tag, by `seed` (None: all).

    Of numbers they are `count` tracks in all. A class that has fewer gives what it has. Raises
    InputError where a class has none.
    """
    rng, chosen = np.random.default_rng(seed), []
    if count is None or task.kind == "number":
        available = rng.permutation(np.flatnonzero(task.train))
        return available[: count or len(available)]
    for number, name in enumerate(task.classes):
        has = task.labels[:, number] if task.kind == "tags" else task.labels == number
        available = np.flatnonzero(task.train & has)
        if not len(available):
            raise InputError(f"task {task.name} has no track of {name!r} to train on")
        chosen.append(rng.permutation(available)[:count])
    return np.unique(np.concatenate(chosen))


def targets_of(task: Task, places: np.ndarray, repeats: Sequence[int]) -> Tensor:
    """What the probe learns of these tracks, each repeated for its chunks; numbers standardised."""
    labels = task.labels if task.kind != "tags" else task.labels.astype(np.float32)
    if task.kind == "number":
        mean, spread = scale_of(task, places)
        labels = ((labels - mean) / spread).astype(np.float32)
    return torch.from_numpy(np.repeat(labels[places], repeats, axis=0))


def scale_of(task: Task, places: np.ndarray) -> tuple[float, float]:
    """The mean and the spread of the numbers of these tracks."""
    numbers = task.labels[places]
    return float(numbers.mean()), float(numbers.std()) + 1e-6


def measure(task: Task, scores: np.ndarray, learnt: np.ndarray) -> Figures:
    """The figures of predictions [held out, C], by a probe that learnt from the places `learnt`."""
    if task.kind == "number":
        mean, spread = scale_of(task, learnt)
        scores = scores * spread + mean
    return OBJECTIVES[task.kind].measure(scores, task.labels[~task.train])


def probe(
    task: Task, features: Sequence[np.ndarray], kind: str, count: int | None, *, seed: int
) -> Figures:
    """The figures on the held-out tracks; `features` [W, D] belong to the task's tracks."""
    chosen = choose_labelled(task, count, seed=seed)
    held_out = np.flatnonzero(~task.train)
    if not len(held_out):
        raise InputError(f"task {task.name} has no held-out track: nothing can be measured")
    x = np.concatenate([features[place] for place in chosen])
    y = targets_of(task, chosen, [len(features[place]) for place in chosen])
    mean, spread = x.mean(axis=0), x.std(axis=0) + 1e-6
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fit = fit_linear if kind == "logistic" else fit_mlp
        model = fit(_tensor((x - mean) / spread), y, outputs_of(task), OBJECTIVES[task.kind].loss)
    scores = [predict(task, model, (features[place] - mean) / spread) for place in held_out]
    return measure(task, np.stack(scores), chosen)


def outputs_of(task: Task) -> int:
    """The width of a probe's output."""
    return len(task.classes) or 1


def fit_linear(
    x: Tensor, y: Tensor, outputs: int, loss_of: Callable[[Tensor, Tensor], Tensor]
) -> nn.Module:
    """A linear model of x [n, D] with an L2 penalty, by L-BFGS: logistic or ridge regression."""
    model = nn.Linear(x.shape[1], outputs)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimizer.zero_grad()
        penalty = RIDGE * model.weight.square().sum() / 2
        loss = loss_of(model(x), y) + penalty
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return model


def fit_mlp(
    x: Tensor, y: Tensor, outputs: int, loss_of: Callable[[Tensor, Tensor], Tensor]
) -> nn.Module:
    """One hidden layer of HIDDEN on x [n, D], by AdamW on the whole set."""
    model = nn.Sequential(
        nn.Linear(x.shape[1], HIDDEN), nn.ReLU(), nn.Dropout(0.5), nn.Linear(HIDDEN, outputs)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=MLP_RATE, weight_decay=MLP_DECAY)
    for _ in range(MLP_STEPS):
        optimizer.zero_grad()
        loss_of(model(x), y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model.eval()


@torch.inference_mode()
def predict(task: Task, model: nn.Module, rows: np.ndarray) -> np.ndarray:
    """The prediction of a track [C], the mean over its chunks `rows`."""
    made: Tensor = OBJECTIVES[task.kind].probability(model(_tensor(rows))).mean(dim=0)
    return made.numpy()


def _tensor(rows: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(rows, np.float32))
