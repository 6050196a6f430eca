"""Sampling of one stage: token sequences of any length, in windows of the training crop.

Each window after the first has the last half of the previous one as its prefix, and samples the
other half. After a change of the condition the prefix may be shorter, because the sound before the
change can outweigh the new condition. Each row has its own random generator, so a clip depends only
on its seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from raymtr.errors import UnusableError
from raymtr.generation.frame_stage import FrameStage
from raymtr.generation.stages import Stage

ConditionsOf = Callable[[int, int, int], Sequence[Tensor]]


class WindowSampling(Protocol):
    """The state of sampling one window."""

    def logits(self, drawn: Tensor | None) -> Tensor:
        """Logits [B, codes] of the next token; `drawn` int64 [B] was drawn from the last ones."""
        ...


@dataclass(frozen=True)
class Sampler:
    """Options of sampling: temperatures, and classifier-free guidance (Ho & Salimans 2022).

    Each level has its temperature; further levels have the last one. `before_token` is called
    before each token; an exception that it raises ends the sampling.
    """

    temperatures: Sequence[float]
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
    stage: Stage | FrameStage,
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


def sample(
    stage: Stage | FrameStage,
    conditions: Sequence[Tensor],
    prefix: Tensor,
    frames: int,
    sampler: Sampler,
    generators: Sequence[torch.Generator],
) -> Tensor:
    """Tokens int64 [B, frames, levels] that begin with `prefix` [B, P, levels].

    `conditions` are int64 [B, T, levels] each. Raises UnusableError if logits are not finite.
    """
    *_, tokens = sample_in_parts(
        stage, conditions, prefix, frames, sampler, generators, part=frames
    )
    return tokens


@torch.inference_mode()
def sample_in_parts(
    stage: Stage | FrameStage,
    conditions: Sequence[Tensor],
    prefix: Tensor,
    frames: int,
    sampler: Sampler,
    generators: Sequence[torch.Generator],
    *,
    part: int,
) -> Iterator[Tensor]:
    """As `sample`; yields all tokens so far after each `part` frames, and at the end."""
    guided = sampler.guidance != 1 and stage.has_joint
    rows, levels = len(prefix), stage.output.levels
    copies = 2 if guided else 1  # guidance: the second copy is unconditional
    window: WindowSampling = stage.begin(
        [tokens.repeat(copies, 1, 1) for tokens in conditions],
        prefix.repeat(copies, 1, 1),
        frames,
        torch.arange(copies * rows, device=prefix.device) >= rows,
    )
    tokens, drawn = prefix[:, :frames], None
    while (missing := frames - tokens.shape[1]) > 0:
        new: list[Tensor] = []
        for place in range(min(part, missing) * levels):
            sampler.before_token()
            logits = window.logits(None if drawn is None else drawn.repeat(copies))
            if guided:
                conditional, plain = logits.chunk(2)
                logits = plain + sampler.guidance * (conditional - plain)
            temperature = sampler.temperatures[min(place % levels, len(sampler.temperatures) - 1)]
            drawn = draw(logits.float(), temperature, generators)
            new.append(drawn)
        tokens = torch.cat([tokens, torch.stack(new, dim=1).view(rows, -1, levels)], dim=1)
        yield tokens


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
