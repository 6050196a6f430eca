"""The loop that fits a small network of the parts: the codec's decoder, the melody encoder."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from raymtr.errors import UnusableError
from raymtr.progress import Progress

MOST_NORM = 1.0  # of a step's gradients


def fit_network(
    network: nn.Module,
    loss_of: Callable[[torch.Generator], Tensor],
    *,
    what: str,
    steps: int,
    learning_rate: float,
    seed: int,
    cure: str,
    betas: tuple[float, float] = (0.9, 0.99),
) -> float:
    """Train `network` in place; `loss_of` draws a batch by its generator and gives a scalar.

    The rate rises and falls in one cycle. Returns the mean loss of the last tenth of the steps.
    Raises UnusableError, which names `what` and `cure`, where a loss is not finite.
    """
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    optimizer = torch.optim.AdamW(network.parameters(), learning_rate, betas=betas)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps + 1)
    losses, progress = [], Progress(what, steps, unit="steps")
    network.train()
    for step in range(steps):
        loss = loss_of(generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), MOST_NORM)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if not losses[-1] < float("inf"):
            raise UnusableError(f"the {what} diverged at step {step}; {cure}")
        progress.advance(1, note=f"loss {losses[-1]:.3f}")
    network.eval()
    last = losses[-max(1, steps // 10) :]
    return sum(last) / len(last)
