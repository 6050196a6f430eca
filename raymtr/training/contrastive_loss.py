"""Symmetric InfoNCE over all workers' pairs, with gradient through the gather.

Each worker compares its own rows with everyone's: the mean of the workers' losses is the loss of
the whole batch, and the mean of their gradients is its gradient. That holds only because the
gather passes gradient back to the worker a row came from; the usual shortcut, a plain all_gather
with the own chunk put back in, loses half of it on two workers. `torch.distributed.nn` has such a
gather, deprecated, so twelve lines stand here.

Losses take embeddings, never a model.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional

LARGEST_SCALE = 100.0  # CLIP's clamp of the learned scale (Radford et al. 2021)


def workers() -> int:
    """How many processes share this training; 1 outside of a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


class _GatherRows(torch.autograd.Function):
    """[b, D] of each worker -> [workers x b, D], the same on all; gradients find their way home."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        gathered = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(gathered, rows.contiguous())
        return torch.cat(gathered)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()  # every worker's loss has used my rows
        dist.all_reduce(total)
        return total.chunk(dist.get_world_size())[dist.get_rank()]


def gather_rows(rows: Tensor) -> Tensor:
    """All workers' rows in rank order [workers x b, D], differentiable; b is alike on all."""
    if workers() == 1:
        return rows
    gathered: Tensor = _GatherRows.apply(rows)  # type: ignore[no-untyped-call]
    return gathered


def contrastive_loss(audio: Tensor, text: Tensor, logit_scale: Tensor) -> Tensor:
    """InfoNCE of this worker's pairs [b, D] against everyone's, both ways, averaged.

    Embeddings come un-normalised. `logit_scale` is ln(1 / temperature), its exp clamped at 100
    (Radford et al. 2021; the loss of Doh et al., ICASSP 2024). Always computed in float32.
    """
    audio = functional.normalize(audio.float(), dim=-1)
    text = functional.normalize(text.float(), dim=-1)
    scale = logit_scale.float().exp().clamp(max=LARGEST_SCALE)
    everyone = gather_rows(torch.cat([audio, text], dim=1))  # one message for both towers
    all_audio, all_text = everyone.chunk(2, dim=1)
    first = dist.get_rank() * len(audio) if workers() > 1 else 0
    own = torch.arange(first, first + len(audio), device=audio.device)
    audio_to_text = functional.cross_entropy(scale * audio @ all_text.T, own)
    text_to_audio = functional.cross_entropy(scale * text @ all_audio.T, own)
    return (audio_to_text + text_to_audio) / 2
