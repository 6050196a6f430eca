"""Symmetric InfoNCE over all workers' pairs, with gradient through the gather.

Each worker compares its own rows with all rows. The mean of the workers' losses is the loss of the
whole batch, and the mean of their gradients is its gradient. That requires the gather to pass
gradient back to the worker a row came from. The usual shortcut, a plain all_gather with the
worker's own chunk put back in, loses half of the gradient on two workers. `torch.distributed.nn`
has such a gather, but it is deprecated, so this file has its own.

Workers' shares may differ by a row, because an elastic run may have any number of workers. A worker
with more rows gets a larger weight.

A batch may contain a track twice, or two tracks with the same sentence: this happens with small
data sets of a mixture and with short sentences. Such rows are positives of one another and are
excluded from the negatives. Losses take embeddings, never a model.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional

LARGEST_SCALE = 100.0  # CLIP's clamp of the learned scale (Radford et al. 2021)


def workers() -> int:
    """The number of processes in this training; 1 outside of a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def shares(rows: int, among: int) -> list[int]:
    """The number of a batch's rows per worker, by rank: equal, or one more for the first ranks."""
    least, more = divmod(rows, among)
    return [least + (rank < more) for rank in range(among)]


class _GatherRows(torch.autograd.Function):
    """[b, D] of each worker -> [sum b, D], the same on all; gradients return to their worker."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, sizes: list[int]) -> Tensor:
        ctx.sizes = sizes
        padded = functional.pad(rows, (0, 0, 0, max(sizes) - len(rows)))  # to equal sizes
        gathered = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(gathered, padded.contiguous())
        return torch.cat([part[:size] for part, size in zip(gathered, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total = gradients[0].clone()  # every worker's loss uses this worker's rows
        dist.all_reduce(total)
        return torch.split(total, ctx.sizes)[dist.get_rank()], None


def gather_rows(rows: Tensor, sizes: list[int] | None = None) -> Tensor:
    """All workers' rows in rank order [sum of `sizes`, D], differentiable.

    `sizes` is the number of rows of each worker; without it all have the same number.
    """
    if workers() == 1:
        return rows
    sizes = sizes or [len(rows)] * workers()
    gathered: Tensor = _GatherRows.apply(rows, sizes)  # type: ignore[no-untyped-call]
    return gathered


def right_answers(names: Tensor, sizes: list[int] | None = None) -> Tensor:
    """Which of all rows are further positives of this worker's rows: bool [b, sum of sizes].

    `names`, int64 [b, n], belong to this worker's rows. Rows with an equal value in any of the n
    columns are positives of one another. A row is not marked as its own further positive.
    """
    sizes = sizes or [len(names)] * workers()
    everyone = gather_rows(names, sizes)
    shared = (names[:, None] == everyone[None]).any(-1)
    first = sum(sizes[: dist.get_rank()]) if workers() > 1 else 0
    rows = torch.arange(len(names), device=names.device)
    shared[rows, rows + first] = False
    return shared


def contrastive_loss(
    audio: Tensor,
    text: Tensor,
    logit_scale: Tensor,
    sizes: list[int] | None = None,
    shared: Tensor | None = None,
) -> Tensor:
    """InfoNCE of this worker's pairs [b, D] against all pairs, in both directions, averaged.

    The mean over workers is the loss of the whole batch. `sizes` is as for `gather_rows`. `shared`,
    from `right_answers`, marks pairs that are not negatives. Embeddings are un-normalised.
    `logit_scale` is ln(1 / temperature), its exp clamped at 100 (Radford et al. 2021; the loss of
    Doh et al., ICASSP 2024). Always computed in float32.
    """
    audio = functional.normalize(audio.float(), dim=-1)
    text = functional.normalize(text.float(), dim=-1)
    scale = logit_scale.float().exp().clamp(max=LARGEST_SCALE)
    sizes = sizes or [len(audio)] * workers()
    everyone = gather_rows(torch.cat([audio, text], dim=1), sizes)  # one message for both towers
    all_audio, all_text = everyone.chunk(2, dim=1)
    first = sum(sizes[: dist.get_rank()]) if workers() > 1 else 0
    targets = torch.arange(first, first + len(audio), device=audio.device)
    to_text, to_audio = scale * audio @ all_text.T, scale * text @ all_audio.T  # [b, all rows]
    if shared is not None:
        to_text = to_text.masked_fill(shared, -torch.inf)
        to_audio = to_audio.masked_fill(shared, -torch.inf)
    audio_to_text = functional.cross_entropy(to_text, targets)
    text_to_audio = functional.cross_entropy(to_audio, targets)
    weight = len(audio) * len(sizes) / sum(sizes)  # 1 where all have the same number
    return (audio_to_text + text_to_audio) / 2 * weight
