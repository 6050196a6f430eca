"""Probes: how well a frozen backbone's features predict the labels of a task, with few labels.

A probe is fitted on the chunks of the labelled tracks. A track's prediction is the mean of its
chunks' probabilities. Torch fits both kinds of probe, on the whole training set at once, so a seed
gives the same figure each time.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from raymtr.errors import InputError
from raymtr.evaluation.probe_tasks import Task

KINDS = ("logistic", "mlp")
HIDDEN = 512  # of the MLP, as in the paper
RIDGE = 1e-2  # of the logistic regression's weights; features are standardised
MLP_STEPS, MLP_RATE, MLP_DECAY = 150, 1e-3, 1e-2


def balanced_accuracy(predicted: np.ndarray, right: np.ndarray) -> float:
    """The mean over classes of the share of their tracks that are predicted right."""
    return float(np.mean([(predicted[right == c] == c).mean() for c in np.unique(right)]))


def choose_labelled(task: Task, count: int | None, *, seed: int) -> np.ndarray:
    """Places of `count` training tracks per class (None: all), by `seed`; fewer if it has less.

    Raises InputError where a class has none.
    """
    rng, chosen = np.random.default_rng(seed), []
    for number, name in enumerate(task.classes):
        available = np.flatnonzero(task.train & (task.labels == number))
        if not len(available):
            raise InputError(f"task {task.name} has no track of {name!r} to train on")
        chosen.append(rng.permutation(available)[: count or len(available)])
    return np.concatenate(chosen)


def probe(
    task: Task, features: Sequence[np.ndarray], kind: str, count: int | None, *, seed: int
) -> float:
    """Balanced accuracy on the held-out tracks; `features` [W, D] belong to the task's tracks."""
    chosen = choose_labelled(task, count, seed=seed)
    held_out = np.flatnonzero(~task.train)
    if not len(held_out):
        raise InputError(f"task {task.name} has no held-out track: nothing can be measured")
    x = np.concatenate([features[place] for place in chosen])
    y = np.concatenate([np.full(len(features[place]), task.labels[place]) for place in chosen])
    mean, spread = x.mean(axis=0), x.std(axis=0) + 1e-6
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fit = fit_logistic if kind == "logistic" else fit_mlp
        model = fit(_tensor((x - mean) / spread), torch.from_numpy(y), len(task.classes))
    predicted = [_predict(model, (features[place] - mean) / spread) for place in held_out]
    return balanced_accuracy(np.array(predicted), task.labels[held_out])


def fit_logistic(x: Tensor, y: Tensor, classes: int) -> nn.Module:
    """Multinomial logistic regression of x [n, D] on y [n], with an L2 penalty, by L-BFGS."""
    model = nn.Linear(x.shape[1], classes)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimizer.zero_grad()
        penalty = RIDGE * model.weight.square().sum() / 2
        loss = functional.cross_entropy(model(x), y) + penalty
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return model


def fit_mlp(x: Tensor, y: Tensor, classes: int) -> nn.Module:
    """One hidden layer of HIDDEN on x [n, D], by AdamW on the whole set."""
    model = nn.Sequential(
        nn.Linear(x.shape[1], HIDDEN), nn.ReLU(), nn.Dropout(0.5), nn.Linear(HIDDEN, classes)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=MLP_RATE, weight_decay=MLP_DECAY)
    for _ in range(MLP_STEPS):
        optimizer.zero_grad()
        functional.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model.eval()


@torch.inference_mode()
def _predict(model: nn.Module, rows: np.ndarray) -> int:
    """The class of a track, from its chunks' probabilities."""
    return int(model(_tensor(rows)).softmax(dim=1).mean(dim=0).argmax())


def _tensor(rows: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(rows, np.float32))
