"""The stages of MusicLM, with their conditions and outputs.

    semantic   M_A, melody                         -> semantic tokens
    coarse     M_A, melody, semantic tokens        -> the first levels of the codec
    fine       the first levels of the codec       -> its other levels

With `depth_layers` one stage replaces the last two (frame_stage.py):

    acoustic   M_A, melody, semantic tokens        -> all levels of the codec

The melody is a condition only if the parts have melody tokens; a row without one has melody.NONE.
A stage is one decoder over one sequence: the conditions, a start token, the output. Tokens of
several levels are flattened frame by frame, level by level. Each level has its own codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from raymtr.generation.frame_stage import FrameStage
from raymtr.generation.melody import no_melody
from raymtr.generation.transformer import Cache, Decoder
from raymtr.generation.vocabulary import Vocabulary
from raymtr.generation_specs import MusicLMSpec, TokensSpec

StageName = Literal["semantic", "coarse", "fine", "acoustic"]


def stage_names(spec: MusicLMSpec) -> tuple[StageName, ...]:
    """The names of a model's stages; without `hears_semantic` there is no semantic stage."""
    semantic: tuple[StageName, ...] = ("semantic",) if spec.hears_semantic else ()
    acoustic: tuple[StageName, ...] = ("acoustic",) if spec.depth_layers else ("coarse", "fine")
    return semantic + acoustic


class Stage(nn.Module):
    """One stage: a decoder from conditions (M_A first, if `has_joint`) to `output` tokens."""

    def __init__(
        self,
        conditions: Sequence[Vocabulary],
        output: Vocabulary,
        spec: MusicLMSpec,
        *,
        has_joint: bool,
    ) -> None:
        super().__init__()
        self.output, self.has_joint = output, has_joint
        self.vocabularies = [*conditions, output]
        sizes = [kind.levels * kind.codes for kind in self.vocabularies]
        self.offsets = [sum(sizes[:n]) for n in range(len(sizes))]
        self.start, self.null = sum(sizes), sum(sizes) + 1  # ids: start, and absent condition
        self.embed = nn.Embedding(sum(sizes) + 2, spec.width)
        self.decoder = Decoder(spec, spec.layers)
        self.head = nn.Parameter(torch.empty(output.levels, spec.width, output.codes))
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
        states = self.decoder(self.embed(ids))
        logits = self._logits(states[:, prompt.shape[1] - 1 :]).float()
        return functional.cross_entropy(
            logits.flatten(0, 2), target.flatten(), reduction="none"
        ).view(len(target), -1)

    def begin(
        self, conditions: Sequence[Tensor], prefix: Tensor, frames: int, unconditional: Tensor
    ) -> StageSampling:
        """Sampling after `prefix`, int64 [B, P, levels]; the rest is as in `condition`."""
        ids = self.condition(conditions, unconditional=unconditional)
        ids = torch.cat([ids, self.ids(len(self.vocabularies) - 1, prefix)], dim=1)
        return StageSampling(self, ids)

    def _logits(self, states: Tensor) -> Tensor:
        """States [B, F * levels, W] -> logits [B, F, levels, codes], with one head per level."""
        frames = states.view(len(states), -1, self.output.levels, states.shape[2])
        return torch.einsum("bflw,lwc->bflc", frames, self.head.to(states.dtype))


class StageSampling:
    """The state of sampling one window with a Stage; see sampling.WindowSampling."""

    def __init__(self, stage: Stage, ids: Tensor) -> None:
        self._stage, self._ids = stage, ids
        self._cache = Cache()
        self._drawn = 0  # tokens

    def logits(self, drawn: Tensor | None) -> Tensor:
        """See sampling.WindowSampling."""
        stage, output = self._stage, self._stage.output
        if drawn is not None:
            level = self._drawn % output.levels
            self._ids = (drawn + stage.offsets[-1] + level * output.codes)[:, None]
            self._drawn += 1
        states = stage.decoder(stage.embed(self._ids), self._cache)
        logits: Tensor = states[:, -1] @ stage.head[self._drawn % output.levels]
        return logits


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
        conditions = [joint, *melody]
        if spec.hears_semantic:
            self.semantic = Stage(conditions, semantic, spec, has_joint=True)
            conditions = [*conditions, semantic]
        if spec.depth_layers:
            acoustic = Vocabulary(tokens.levels, codec_codes)
            self.acoustic = FrameStage(conditions, acoustic, spec)
        else:
            self.coarse = Stage(conditions, coarse, spec, has_joint=True)
            self.fine = Stage([coarse], fine, spec, has_joint=False)

    def of(self, name: StageName) -> Stage | FrameStage:
        """The stage with this name."""
        stage: Stage | FrameStage = getattr(self, name)
        return stage

    def no_melody(self, rows: int, length_s: float) -> list[Tensor]:
        """Melody tokens of a crop without a melody, in a list; [] if there is no melody part."""
        melody = self.tokens.melody
        return [no_melody(rows, length_s, melody.levels)] if melody.steps else []

    def crop_s(self, name: StageName) -> float:
        """The crop length of a stage in training, in seconds."""
        return float(getattr(self.spec, f"{name}_s"))
