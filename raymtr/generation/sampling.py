"""Sampling of one stage: tokens of any length, in windows of the training crop.

A window after the first keeps its first half as a prefix and writes the other half. Each row has a
random generator of its own, so a clip depends on its own seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from raymtr.errors import UnusableError
from raymtr.generation.stages import Stage

Given = Callable[[int, int, int], Sequence[Tensor]]


@dataclass(frozen=True)
class Sampler:
    """How tokens are drawn: `guidance` above 1 weighs the condition (Ho & Salimans 2022).

    `before_token` is called before each; what it raises ends the sampling.
    """

    temperature: float
    guidance: float = 1.0
    before_token: Callable[[], None] = lambda: None


def next_window(done: int, total: int, crop: int, change: int | None = None) -> tuple[int, int]:
    """First and last frame of the next window, when `done` frames of `total` are written.

    It keeps at most half a crop of what is done, and ends before frame `change`, where the
    condition changes.
    """
    first = max(0, done - crop // 2)
    return first, min(first + crop, total, change or total)


def slide(
    stage: Stage,
    given: Given,
    prefix: Tensor,
    total: int,
    crop: int,
    sampler: Sampler,
    generators: Sequence[torch.Generator],
    *,
    changes: Sequence[int] = (),
) -> Tensor:
    """Tokens int64 [B, total, levels] that begin with `prefix` [B, P, levels].

    `given(first, last, done)` is what the stage is given for the window of frames first to last,
    whose frames from `done` are to be written. At frames `changes` it changes.
    """
    written = prefix
    while (done := written.shape[1]) < total:
        change = next((frame for frame in changes if frame > done), None)
        first, last = next_window(done, total, crop, change)
        window = sample(
            stage, given(first, last, done), written[:, first:], last - first, sampler, generators
        )
        written = torch.cat([written[:, :first], window], dim=1)
    return written


@torch.inference_mode()
def sample(
    stage: Stage,
    given: Sequence[Tensor],
    prefix: Tensor,
    frames: int,
    sampler: Sampler,
    generators: Sequence[torch.Generator],
) -> Tensor:
    """`frames` frames of tokens int64 [B, frames, levels], the first ones being `prefix`.

    `given` is int64 [B, T, levels] of each kind. Raises UnusableError where logits are not finite.
    """
    guided = sampler.guidance != 1 and stage.has_joint
    rows, levels = len(prefix), stage.writes.levels
    twice = 2 if guided else 1
    both = [tokens.repeat(twice, 1, 1) for tokens in given]
    without = torch.arange(twice * rows, device=prefix.device) >= rows
    kind = len(stage.books) - 1
    ids = torch.cat(
        [
            stage.condition(both, without=without if guided else None),
            stage.ids(kind, prefix.repeat(twice, 1, 1)),
        ],
        dim=1,
    )
    cache, drawn = None, []
    for place in range((frames - prefix.shape[1]) * levels):
        sampler.before_token()
        level = place % levels
        logits, cache = stage.step(ids, cache, level)
        if guided:
            with_it, bare = logits.chunk(2)
            logits = bare + sampler.guidance * (with_it - bare)
        tokens = draw(logits.float(), sampler.temperature, generators)
        drawn.append(tokens)
        offset = stage.offsets[kind] + level * stage.writes.codes
        ids = (tokens + offset).repeat(twice)[:, None]
    if not drawn:
        return prefix[:, :frames]
    made = torch.stack(drawn, dim=1).view(rows, -1, levels)
    return torch.cat([prefix, made], dim=1)


def draw(logits: Tensor, temperature: float, generators: Sequence[torch.Generator]) -> Tensor:
    """One token a row int64 [B], of logits [B, codes], by the Gumbel maximum.

    Raises UnusableError where a logit is not finite.
    """
    if not torch.isfinite(logits).all():
        raise UnusableError(
            "the model gives numbers that are not finite: its weights are damaged, or it was "
            "trained with too high a train.learning_rate; train it anew"
        )
    noise = torch.stack([torch.rand(logits.shape[1], generator=g) for g in generators])
    gumbel = -torch.log(-torch.log(noise.clamp(1e-9, 1 - 1e-7)))
    chosen: Tensor = (logits / temperature + gumbel.to(logits.device)).argmax(dim=1)
    return chosen
