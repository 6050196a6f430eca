"""Gradient caching: the gradient of a large batch with the memory of a small one (Gao et al. 2021).

A contrastive loss needs all vectors of a batch, but the towers' activations need not exist at once.
First every part is embedded without gradient. The loss gives the gradient of each vector. Then each
part is embedded again, now with gradient, and its vectors' gradients go through it.

The second forward of a part must equal its first, so the random state before each part is saved and
restored. Without dropout the result is that of the whole batch. With dropout it is that of the same
parts embedded with gradient. Layers whose output depends on the other rows (batch norm in training)
give another function in parts: specs.Settings refuses them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Parts = Sequence[Callable[[], Tensor]]  # each returns the vectors of its rows, [b, dim]


def cached_backward(
    audio: Parts, text: Parts, loss_of: Callable[[Tensor, Tensor], Tensor], device: torch.device
) -> Tensor:
    """Add the gradient of `loss_of(audio vectors, text vectors)` to the parameters.

    `loss_of` gets all rows of the parts in order, [B, dim] each. The loss is returned detached.
    """
    parts = [*audio, *text]
    states, vectors = [], []
    with torch.no_grad():
        for part in parts:
            states.append(_random_state(device))
            vectors.append(part())
    after = _random_state(device)
    leaves = [vector.detach().requires_grad_() for vector in vectors]
    loss = loss_of(torch.cat(leaves[: len(audio)]), torch.cat(leaves[len(audio) :]))
    loss.backward()  # type: ignore[no-untyped-call]
    for part, state, leaf in zip(parts, states, leaves, strict=True):
        _restore(state, device)
        vector = part()
        if vector.requires_grad:
            vector.backward(leaf.grad)  # type: ignore[no-untyped-call]
    _restore(after, device)
    return loss.detach()


def _random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    """The state of the CPU's generator, and of `device`'s where it has its own."""
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return torch.get_rng_state(), cuda


def _restore(state: tuple[Tensor, Tensor | None], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
