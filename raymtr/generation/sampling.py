"""Sampling of one stage: token sequences of any length, in windows of the training crop.

Each window after the first has the last half of the previous one as its prefix, and samples the
other half. After a change of the condition the prefix may be shorter, because the sound before the
change can outweigh the new condition. Each row has its own random generator, so a clip depends only
on its seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from raymtr.errors import UnusableError
from raymtr.generation.stages import Stage

ConditionsOf = Callable[[int, int, int], Sequence[Tensor]]


@dataclass(frozen=True)
class Sampler:
    """Options of sampling: temperature, and classifier-free guidance (Ho & Salimans 2022).

    `before_token` is called before each token; an exception that it raises ends the sampling.
    """

    temperature: float
    guidance: float = 1.0
    before_token: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Changes:
    """The frames at which the condition changes, and how many frames before one stay a prefix."""

    frames: Sequence[int] = ()
    kept: int = 0

    @classmethod
    def at(cls, seconds: Sequence[float], kept_s: float, rate: float) -> Changes:
        """Changes at times, in frames of `rate` Hz."""
        return cls([round(second * rate) for second in seconds], round(kept_s * rate))


NO_CHANGES = Changes()


def next_window(done: int, total: int, crop: int, changes: Changes = NO_CHANGES) -> tuple[int, int]:
    """First and last frame of the next window, after `done` of `total` frames are sampled.

    Its prefix is at most half a crop, with at most `changes.kept` frames from before the last
    change. It ends at the next change.
    """
    earlier = [frame - changes.kept for frame in changes.frames if frame <= done]
    first = max(0, done - crop // 2, *earlier)
    return first, min([first + crop, total, *(f for f in changes.frames if f > done)])


def slide(
    stage: Stage,
    conditions_of: ConditionsOf,
    prefix: Tensor,
    total: int,
    crop: int,
    sampler: Sampler,
    generators: Sequence[torch.Generator],
    *,
    changes: Changes = NO_CHANGES,
) -> Tensor:
    """Tokens int64 [B, total, levels] that begin with `prefix` [B, P, levels].

    `conditions_of(first, last, done)` returns the conditions of the window of frames first to last,
    in which the frames before `done` are a prefix.
    """
    tokens = prefix
    while (done := tokens.shape[1]) < total:
        first, last = next_window(done, total, crop, changes)
        conditions = conditions_of(first, last, done)
        window = sample(stage, conditions, tokens[:, first:], last - first, sampler, generators)
        tokens = torch.cat([tokens[:, :first], window], dim=1)
    return tokens


@torch.inference_mode()
def sample(
    stage: Stage,
    conditions: Sequence[Tensor],
    prefix: Tensor,
    frames: int,
    sampler: Sampler,
    generators: Sequence[torch.Generator],
) -> Tensor:
    """Tokens int64 [B, frames, levels] that begin with `prefix` [B, P, levels].

    `conditions` are int64 [B, T, levels] each. Raises UnusableError if logits are not finite.
    """
    guided = sampler.guidance != 1 and stage.has_joint
    rows, levels = len(prefix), stage.output.levels
    copies = 2 if guided else 1  # guidance: the second copy is unconditional
    unconditional = torch.arange(copies * rows, device=prefix.device) >= rows
    kind = len(stage.vocabularies) - 1
    ids = torch.cat(
        [
            stage.condition(
                [tokens.repeat(copies, 1, 1) for tokens in conditions],
                unconditional=unconditional if guided else None,
            ),
            stage.ids(kind, prefix.repeat(copies, 1, 1)),
        ],
        dim=1,
    )
    times, cache = stage.times(conditions, frames), None
    none = torch.full_like(unconditional, stage.output.codes, dtype=torch.int64)
    before = list(prefix[:, -1].repeat(copies, 1).T) if prefix.shape[1] else [none] * levels
    drawn = []
    for place in range((frames - prefix.shape[1]) * levels):
        sampler.before_token()
        level = place % levels
        logits, cache = stage.step(ids, cache, level, times, before[level])
        if guided:
            conditional, plain = logits.chunk(2)
            logits = plain + sampler.guidance * (conditional - plain)
        tokens = draw(logits.float(), sampler.temperature, generators)
        drawn.append(tokens)
        before[level] = tokens.repeat(copies)
        offset = stage.offsets[kind] + level * stage.output.codes
        ids = (tokens + offset).repeat(copies)[:, None]
    if not drawn:
        return prefix[:, :frames]
    sampled = torch.stack(drawn, dim=1).view(rows, -1, levels)
    return torch.cat([prefix, sampled], dim=1)


def draw(logits: Tensor, temperature: float, generators: Sequence[torch.Generator]) -> Tensor:
    """Draws one token per row, int64 [B], from logits [B, codes] with the Gumbel-max trick.

    Raises UnusableError if a logit is not finite.
    """
    if not torch.isfinite(logits).all():
        raise UnusableError(
            "the model gives numbers that are not finite: its weights are damaged, or "
            "train.learning_rate was too high; train it again"
        )
    noise = torch.stack([torch.rand(logits.shape[1], generator=g) for g in generators])
    gumbel = -torch.log(-torch.log(noise.clamp(1e-9, 1 - 1e-7)))
    chosen: Tensor = (logits / temperature + gumbel.to(logits.device)).argmax(dim=1)
    return chosen
