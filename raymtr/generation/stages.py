"""The three stages of MusicLM, with their conditions and outputs.

    semantic   M_A, melody                         -> semantic tokens
    coarse     M_A, melody, semantic tokens        -> the first levels of the codec
    fine       the first levels of the codec       -> its other levels

The melody is a condition only if the parts have melody tokens; a row without one has melody.NONE.
A stage is one decoder over one sequence: the conditions, a start token, the output. Tokens of
several levels are flattened frame by frame, level by level. Each level has its own codes.

With `bigram_prior` the coarse and the fine stage predict the residual over the bigrams of the
training tokens: their log-probabilities, fixed, are added to the logits. Most acoustic tokens
repeat the one before, and a small model needs long to learn only that. The semantic stage, whose
tokens repeat less, was worse with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from raymtr.generation.bigrams import log_bigrams
from raymtr.generation.melody import no_melody
from raymtr.generation.transformer import NO_TIME, Cache, Decoder, Times
from raymtr.generation_specs import MusicLMSpec, TokensSpec

StageName = Literal["semantic", "coarse", "fine"]
STAGES: tuple[StageName, ...] = get_args(StageName)


def stage_names(spec: MusicLMSpec) -> tuple[StageName, ...]:
    """The names of a model's stages; the ablation has no semantic stage."""
    return STAGES if spec.hears_semantic else STAGES[1:]


class Vocabulary(NamedTuple):
    """One kind of tokens: `levels` tokens per frame, each below `codes`."""

    levels: int
    codes: int


class Stage(nn.Module):
    """One stage: a decoder from conditions (M_A first, if `has_joint`) to `output` tokens."""

    bigrams: Tensor | None  # log-probabilities float32 [levels, codes + 1, codes]

    def __init__(
        self,
        conditions: Sequence[Vocabulary],
        output: Vocabulary,
        spec: MusicLMSpec,
        *,
        has_joint: bool,
        bigram_prior: bool = False,
    ) -> None:
        super().__init__()
        self.output, self.has_joint = output, has_joint
        self.vocabularies = [*conditions, output]
        sizes = [kind.levels * kind.codes for kind in self.vocabularies]
        self.offsets = [sum(sizes[:n]) for n in range(len(sizes))]
        self.start, self.null = sum(sizes), sum(sizes) + 1  # ids: start, and absent condition
        self.embed = nn.Embedding(sum(sizes) + 2, spec.width)
        self.decoder = Decoder(spec)
        self.head = nn.Parameter(torch.empty(output.levels, spec.width, output.codes))
        shape = (output.levels, output.codes + 1, output.codes)
        self.register_buffer("bigrams", torch.zeros(shape) if bigram_prior else None)
        nn.init.normal_(self.embed.weight, std=0.02)
        nn.init.normal_(self.head, std=0.02)

    def condition(
        self, conditions: Sequence[Tensor], *, unconditional: Tensor | None = None
    ) -> Tensor:
        """Ids [B, C] of the conditions, int64 [B, T, levels] each, followed by the start id.

        Rows that are `unconditional` (bool [B]) have the null id in place of M_A.
        """
        parts = [self.ids(kind, tokens) for kind, tokens in enumerate(conditions)]
        if unconditional is not None and self.has_joint:
            parts[0] = torch.where(unconditional[:, None], self.null, parts[0])
        start = torch.full_like(parts[0][:, :1], self.start)
        return torch.cat([*parts, start], dim=1)

    def ids(self, kind: int, tokens: Tensor) -> Tensor:
        """Tokens int64 [B, T, levels] of a kind as embedding ids [B, T * levels].

        Tokens below 0 become the null id.
        """
        vocabulary = self.vocabularies[kind]
        level_offsets = torch.arange(vocabulary.levels, device=tokens.device) * vocabulary.codes
        ids = tokens + level_offsets + self.offsets[kind]
        return torch.where(tokens < 0, self.null, ids).flatten(1)

    def forward(
        self, conditions: Sequence[Tensor], target: Tensor, unconditional: Tensor
    ) -> Tensor:
        """The cross-entropy of each token of `target`, int64 [B, F, levels] -> [B, F * levels].

        `conditions` and `unconditional` are as in `condition`.
        """
        prompt = self.condition(conditions, unconditional=unconditional)
        output = self.ids(len(self.vocabularies) - 1, target)
        ids = torch.cat([prompt, output[:, :-1]], dim=1)
        states, _ = self.decoder(self.embed(ids), self.times(conditions, target.shape[1]))
        logits = self._logits(states[:, prompt.shape[1] - 1 :]).float()
        if self.bigrams is not None:
            before = functional.pad(target[:, :-1], (0, 0, 1, 0), value=self.output.codes)
            levels = torch.arange(self.output.levels, device=target.device)
            logits = logits + self.bigrams[levels, before]
        return functional.cross_entropy(
            logits.flatten(0, 2), target.flatten(), reduction="none"
        ).view(len(target), -1)

    def times(self, conditions: Sequence[Tensor], frames: int) -> Times:
        """The frames of all positions: `conditions` as in `condition`, `frames` of output.

        A condition is stretched to the output's length; M_A belongs to no moment.
        """
        device = conditions[0].device
        parts = []
        for number, tokens in enumerate(conditions):
            count, levels = tokens.shape[1:]
            places = torch.arange(count, device=device) * frames // max(count, 1)
            if number == 0 and self.has_joint:
                places = torch.full_like(places, NO_TIME)
            parts.append(places.repeat_interleave(levels))
        output = torch.arange(frames, device=device).repeat_interleave(self.output.levels)
        start = torch.full_like(output[:1], NO_TIME)
        return Times(
            own=torch.cat([*parts, start, output]), next=torch.cat([*parts, output, start])
        )

    def step(
        self, ids: Tensor, cache: Cache | None, level: int, times: Times, before: Tensor
    ) -> tuple[Tensor, Cache]:
        """Logits [B, codes] of the next token after `ids` [B, T], at `level`, and the cache.

        `before` [B] are the tokens of that level in the frame before; in the first frame `codes`.
        """
        states, cache = self.decoder(self.embed(ids), times, cache)
        logits = states[:, -1] @ self.head[level]
        return logits if self.bigrams is None else logits + self.bigrams[level, before], cache

    def _logits(self, states: Tensor) -> Tensor:
        """States [B, F * levels, W] -> logits [B, F, levels, codes], with one head per level."""
        frames = states.view(len(states), -1, self.output.levels, states.shape[2])
        return torch.einsum("bflw,lwc->bflc", frames, self.head.to(states.dtype))


class Stages(nn.Module):
    """All stages of a model; they share no weights."""

    def __init__(self, tokens: TokensSpec, spec: MusicLMSpec, *, codec_codes: int) -> None:
        """`codec_codes` is the codebook size of the codec, which a hub's codec determines."""
        super().__init__()
        self.tokens, self.spec, self.codec_codes = tokens, spec, codec_codes
        joint = Vocabulary(tokens.joint_levels, tokens.joint_codes)
        semantic = Vocabulary(1, tokens.semantic_codes)
        coarse = Vocabulary(spec.coarse, codec_codes)
        fine = Vocabulary(tokens.levels - spec.coarse, codec_codes)
        melody_spec = tokens.melody
        melody = [Vocabulary(melody_spec.levels, melody_spec.codes)] if melody_spec.steps else []
        conditions, prior = [joint, *melody], spec.bigram_prior
        if spec.hears_semantic:
            self.semantic = Stage(conditions, semantic, spec, has_joint=True)
            conditions = [*conditions, semantic]
        self.coarse = Stage(conditions, coarse, spec, has_joint=True, bigram_prior=prior)
        self.fine = Stage([coarse], fine, spec, has_joint=False, bigram_prior=prior)

    def of(self, name: StageName) -> Stage:
        """The stage with this name."""
        stage: Stage = getattr(self, name)
        return stage

    @torch.no_grad()
    def count_bigrams(self, tracks: Sequence[np.ndarray]) -> None:
        """Set the prior of each stage that has one, from acoustic tokens [F, levels] of tracks."""
        levels = {self.coarse: slice(self.spec.coarse), self.fine: slice(self.spec.coarse, None)}
        for stage, own in levels.items():
            if stage.bigrams is not None:
                found = log_bigrams([tokens[:, own] for tokens in tracks], self.codec_codes)
                stage.bigrams.copy_(torch.from_numpy(found))

    def no_melody(self, rows: int, length_s: float) -> list[Tensor]:
        """Melody tokens of a crop without a melody, in a list; [] if there is no melody part."""
        melody = self.tokens.melody
        return [no_melody(rows, length_s, melody.levels)] if melody.steps else []

    def crop_s(self, name: StageName) -> float:
        """The crop length of a stage in training, in seconds."""
        return float(getattr(self.spec, f"{name}_s"))
