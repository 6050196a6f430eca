"""The training loop of the small networks: the codec's decoder and the melody encoder."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from raymtr.errors import UnusableError
from raymtr.progress import Progress

MOST_NORM = 1.0  # gradients are clipped to this norm


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
    """Train `network` in place; `loss_of` draws a batch with the generator and returns its loss.

    The learning rate has a one-cycle schedule. Returns the mean loss of the last tenth of the
    steps. Raises UnusableError, with `what` and `cure` in its message, if a loss is not finite.
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
