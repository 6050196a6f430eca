"""The acoustic stage: a decoder over frames, and a depth decoder over the levels of one frame.

This is the RQ-Transformer (Lee et al. 2022), as in Moshi and Magenta RealTime 2: one step of the
large decoder per frame instead of one per token, and all levels of a frame before the next one. The
conditions are stretched to the frames and added to them, so each frame has the conditions of its
own moment next to it, and M_A is never far.

Two choices are for small models. A token often repeats the token of its level in the frame before,
so the depth decoder reads that one too, and the logits start out in favour of repeating it. And
half of the training crops are learned in short pieces, each without the frames before it. Otherwise
the frames before tell almost all that M_A does, and M_A is not learned.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from raymtr.generation.transformer import Cache, Decoder
from raymtr.generation.vocabulary import Vocabulary
from raymtr.generation_specs import MusicLMSpec

PIECE = 16  # frames
IN_PIECES = 0.5  # share of the rows of a training batch that are learned in pieces
REPEAT = 4.0  # the weight of repeating a token before training, in logits
ABSENT = -1  # the tokens of an absent condition, and of the frame before the first one


class FrameStage(nn.Module):
    """One stage from `conditions`, M_A first, to `output` tokens, frame by frame."""

    has_joint = True

    def __init__(
        self, conditions: Sequence[Vocabulary], output: Vocabulary, spec: MusicLMSpec
    ) -> None:
        super().__init__()
        self.output, width = output, spec.width
        self.conditions = nn.ModuleList([LevelEmbedding(kind, width) for kind in conditions])
        self.frame_before = LevelEmbedding(output, width)
        self.frames = Decoder(spec, spec.layers)
        self.narrow = nn.Linear(width, width)
        self.level = nn.Parameter(torch.empty(output.levels, width))
        self.token_before = LevelEmbedding(output, width)
        self.level_below = LevelEmbedding(output, width)
        self.depth = Decoder(spec, spec.depth_layers)
        self.head = nn.Parameter(torch.empty(output.levels, width, output.codes))
        self.repeat = nn.Parameter(torch.full((output.levels,), REPEAT))
        nn.init.normal_(self.level, std=0.02)
        nn.init.normal_(self.head, std=0.02)
        nn.init.normal_(self.token_before.weight, std=width**-0.5)  # vectors of about unit length

    def forward(
        self, conditions: Sequence[Tensor], target: Tensor, unconditional: Tensor
    ) -> Tensor:
        """The cross-entropy of each token of `target`, int64 [B, F, levels] -> [B, F * levels].

        `conditions` are int64 [B, T, levels] each; rows that are `unconditional` (bool [B]) have no
        M_A. In training random rows are cut into pieces, and the losses are flat, in any order.
        """
        given = self.condition(conditions, target.shape[1], unconditional)
        pieces = target.shape[1] // PIECE
        if not self.training or not pieces:
            return self._losses(given, target)
        # Exactly the share of the rows; what is left of a row, such as 0.5 of one, is drawn.
        count = int(IN_PIECES * len(target) + float(torch.rand(())))
        cut = torch.randperm(len(target)) < count
        cut_given, cut_target = (
            rows[cut, : pieces * PIECE].reshape(-1, PIECE, rows.shape[2])
            for rows in (given, target)
        )
        parts = [(given[~cut], target[~cut]), (cut_given, cut_target)]
        return torch.cat([self._losses(*rows).flatten() for rows in parts if len(rows[0])])

    def condition(self, conditions: Sequence[Tensor], frames: int, unconditional: Tensor) -> Tensor:
        """The sum of the conditions' embeddings at each frame, [B, frames, width]."""
        joint = torch.where(unconditional[:, None, None], ABSENT, conditions[0])
        parts = []
        for embed, tokens in zip(self.conditions, [joint, *conditions[1:]], strict=True):
            count = tokens.shape[1]
            places = torch.arange(frames, device=tokens.device) * count // frames
            parts.append(embed(tokens).sum(dim=2)[:, places])
        return torch.stack(parts).sum(dim=0)

    def begin(
        self, conditions: Sequence[Tensor], prefix: Tensor, frames: int, unconditional: Tensor
    ) -> FrameSampling:
        """Sampling of a window of `frames` after `prefix`, int64 [B, P, levels]."""
        return FrameSampling(self, self.condition(conditions, frames, unconditional), prefix)

    def states(self, before: Tensor, given: Tensor, cache: Cache | None = None) -> Tensor:
        """What the depth decoder reads of frames, [B, F, 1, width].

        `before` int64 [B, F, levels] are the tokens of the frame before each; `given` [B, F, width]
        the conditions.
        """
        states = self.frames(self.frame_before(before).sum(dim=2) + given, cache)
        narrow: Tensor = self.narrow(states)[:, :, None]
        return narrow

    def repeat_logits(self, before: Tensor) -> Tensor:
        """Logits [..., levels, codes] from the tokens of the frame before alone, [..., levels]."""
        codes = self.token_before.weight[:-1].view(*self.output, -1)  # [levels, codes, width]
        products: Tensor = torch.einsum("...lw,lcw->...lc", self.token_before(before), codes)
        return self.repeat[:, None] * products

    def _losses(self, given: Tensor, target: Tensor) -> Tensor:
        """[B, F, width] and int64 [B, F, levels] -> [B, F * levels]."""
        before = functional.pad(target[:, :-1], (0, 0, 1, 0), value=ABSENT)
        states = self.states(before, given)
        x = states + self.level + self.token_before(before)
        below = functional.pad(self.level_below(target)[:, :, :-1], (0, 0, 1, 0))
        y = self.depth((x + below).flatten(0, 1))  # [B * F, levels, width]
        logits = torch.einsum("nlw,lwc->nlc", y, self.head.to(y.dtype)).float()
        logits = logits + self.repeat_logits(before).flatten(0, 1)
        return functional.cross_entropy(
            logits.flatten(0, 1), target.flatten(), reduction="none"
        ).view(len(target), -1)


class FrameSampling:
    """The state of sampling one window with a FrameStage; see sampling.WindowSampling."""

    def __init__(self, stage: FrameStage, given: Tensor, prefix: Tensor) -> None:
        self._stage, self._given = stage, given
        self._cache, self._depth_cache = Cache(), Cache()
        self._done = prefix.shape[1]  # frames
        self._tokens: list[Tensor] = []  # of the frame in sampling, one per level
        start = prefix.new_full((len(prefix), 1, stage.output.levels), ABSENT)
        self._state, self._before, self._repeats = self._hear(torch.cat([start, prefix], dim=1))

    def logits(self, drawn: Tensor | None) -> Tensor:
        """See sampling.WindowSampling."""
        stage = self._stage
        if drawn is not None:
            self._tokens.append(drawn)
        if len(self._tokens) == stage.output.levels:
            frame = torch.stack(self._tokens, dim=1)[:, None]
            self._done, self._tokens, self._depth_cache = self._done + 1, [], Cache()
            self._state, self._before, self._repeats = self._hear(frame)
        level = len(self._tokens)
        x = self._state + stage.level[level] + self._before[:, level]
        if level:
            x = x + stage.level_below.at(self._tokens[-1], level - 1)
        y = stage.depth(x[:, None], self._depth_cache)
        logits: Tensor = y[:, -1] @ stage.head[level] + self._repeats[:, level]
        return logits

    def _hear(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Add `frames`, int64 [B, T, levels], to the cache; T ends before the next frame.

        Returns for the next frame: the state [B, width], and of each level the vector of the token
        before [B, levels, width] and the logits of repeating it [B, levels, codes].
        """
        stage, last = self._stage, frames[:, -1]
        given = self._given[:, self._done + 1 - frames.shape[1] : self._done + 1]
        states = stage.states(frames, given, self._cache)
        return states[:, -1, 0], stage.token_before(last), stage.repeat_logits(last)


class LevelEmbedding(nn.Embedding):
    """Tokens int64 [..., levels], of which each level has its own codes -> [..., levels, width].

    Tokens below 0 share one vector, the last.
    """

    def __init__(self, kind: Vocabulary, width: int) -> None:
        super().__init__(kind.levels * kind.codes + 1, width)
        self._levels, self._codes = kind
        nn.init.normal_(self.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """See the class."""
        levels = torch.arange(self._levels, device=tokens.device)
        ids = torch.where(tokens < 0, self._levels * self._codes, tokens + levels * self._codes)
        return super().forward(ids)

    def at(self, tokens: Tensor, level: int) -> Tensor:
        """Tokens int64 [B] of one level -> [B, width]."""
        return super().forward(tokens + level * self._codes)
