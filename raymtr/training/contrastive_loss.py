"""Symmetric InfoNCE over all workers' pairs, with gradient through the gather.

Each worker compares its own rows with everyone's: the mean of the workers' losses is the loss of
the whole batch, and the mean of their gradients is its gradient. That holds only because the
gather passes gradient back to the worker a row came from; the usual shortcut, a plain all_gather
with the own chunk put back in, loses half of it on two workers. `torch.distributed.nn` has such a
gather, deprecated, so twelve lines stand here.

Shares may differ by a row, for an elastic run has as many workers as there are: a worker with more
rows weighs more.

A batch may hold a track twice, or two tracks with the same sentence: a small data set of a mixture
does, and short sentences do. Those rows are right answers to one another, and are no negatives.

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


def shares(rows: int, among: int) -> list[int]:
    """How many of a batch's rows each worker has, by rank: alike, or one more for the first."""
    least, more = divmod(rows, among)
    return [least + (rank < more) for rank in range(among)]


class _GatherRows(torch.autograd.Function):
    """[b, D] of each worker -> [sum b, D], the same on all; gradients find their way home."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, sizes: list[int]) -> Tensor:
        ctx.sizes = sizes
        padded = functional.pad(rows, (0, 0, 0, max(sizes) - len(rows)))  # messages are alike
        gathered = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(gathered, padded.contiguous())
        return torch.cat([part[:size] for part, size in zip(gathered, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total = gradients[0].clone()  # every worker's loss has used my rows
        dist.all_reduce(total)
        return torch.split(total, ctx.sizes)[dist.get_rank()], None


def gather_rows(rows: Tensor, sizes: list[int] | None = None) -> Tensor:
    """All workers' rows in rank order [sum of `sizes`, D], differentiable.

    `sizes` is how many each worker brings; without it all bring as many.
    """
    if workers() == 1:
        return rows
    sizes = sizes or [len(rows)] * workers()
    gathered: Tensor = _GatherRows.apply(rows, sizes)  # type: ignore[no-untyped-call]
    return gathered


def right_answers(names: Tensor, sizes: list[int] | None = None) -> Tensor:
    """Which rows of everyone's are as right an answer to mine as its own: bool [b, sum of sizes].

    `names`, int64 [b, n], are this worker's rows: rows that share any of their n names, each of
    which has its own column, are right answers to one another. Itself no row is in this.
    """
    sizes = sizes or [len(names)] * workers()
    everyone = gather_rows(names, sizes)
    shared = (names[:, None] == everyone[None]).any(-1)
    first = sum(sizes[: dist.get_rank()]) if workers() > 1 else 0
    own = torch.arange(len(names), device=names.device)
    shared[own, own + first] = False
    return shared


def contrastive_loss(
    audio: Tensor,
    text: Tensor,
    logit_scale: Tensor,
    sizes: list[int] | None = None,
    shared: Tensor | None = None,
) -> Tensor:
    """InfoNCE of this worker's pairs [b, D] against everyone's, both ways, averaged.

    The mean over workers is the whole batch's. `sizes` as for `gather_rows`; `shared`, of
    `right_answers`, are pairs that are no negatives. Embeddings come un-normalised. `logit_scale`
    is ln(1 / temperature), its exp clamped at 100 (Radford et al. 2021; the loss of Doh et al.,
    ICASSP 2024). Always computed in float32.
    """
    audio = functional.normalize(audio.float(), dim=-1)
    text = functional.normalize(text.float(), dim=-1)
    scale = logit_scale.float().exp().clamp(max=LARGEST_SCALE)
    sizes = sizes or [len(audio)] * workers()
    everyone = gather_rows(torch.cat([audio, text], dim=1), sizes)  # one message for both towers
    all_audio, all_text = everyone.chunk(2, dim=1)
    first = sum(sizes[: dist.get_rank()]) if workers() > 1 else 0
    own = torch.arange(first, first + len(audio), device=audio.device)
    to_text, to_audio = scale * audio @ all_text.T, scale * text @ all_audio.T  # [b, everyone]
    if shared is not None:
        to_text = to_text.masked_fill(shared, -torch.inf)
        to_audio = to_audio.masked_fill(shared, -torch.inf)
    audio_to_text = functional.cross_entropy(to_text, own)
    text_to_audio = functional.cross_entropy(to_audio, own)
    weight = len(audio) * len(sizes) / sum(sizes)  # 1 where all have as many
    return (audio_to_text + text_to_audio) / 2 * weight
