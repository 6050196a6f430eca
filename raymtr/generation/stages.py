"""The three stages of MusicLM: what each is given, and what it writes.

    semantic   M_A, melody                         -> semantic tokens
    coarse     M_A, melody, semantic tokens        -> the first levels of the codec
    fine       the first levels of the codec       -> its other levels

The melody is given only where the parts have melody tokens; a row without one has melody.NONE.
A stage is one decoder over one sequence: what is given, a start sign, what is written. Tokens of
several levels are written frame by frame, level after level. Each level has its own codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from raymtr.generation.melody import no_melody
from raymtr.generation.transformer import Cache, Decoder
from raymtr.generation_specs import MusicLMSpec, TokensSpec

StageName = Literal["semantic", "coarse", "fine"]
STAGES: tuple[StageName, ...] = get_args(StageName)


def stage_names(spec: MusicLMSpec) -> tuple[StageName, ...]:
    """The stages of a model: without semantic tokens there is no stage for them."""
    return STAGES if spec.hears_semantic else STAGES[1:]


class Book(NamedTuple):
    """Tokens of one kind: of each frame `levels` tokens below `codes`."""

    levels: int
    codes: int


class Stage(nn.Module):
    """One stage: `given` are the kinds of tokens before the start sign, M_A first where it is."""

    def __init__(
        self, given: Sequence[Book], writes: Book, spec: MusicLMSpec, *, has_joint: bool
    ) -> None:
        super().__init__()
        self.writes, self.has_joint = writes, has_joint
        books = [*given, writes]
        sizes = [book.levels * book.codes for book in books]
        self.offsets = [sum(sizes[:n]) for n in range(len(sizes))]
        self.books = books
        self.start, self.nothing = sum(sizes), sum(sizes) + 1  # signs: start, and no condition
        self.embed = nn.Embedding(sum(sizes) + 2, spec.width)
        self.decoder = Decoder(spec)
        self.head = nn.Parameter(torch.empty(writes.levels, spec.width, writes.codes))
        nn.init.normal_(self.embed.weight, std=0.02)
        nn.init.normal_(self.head, std=0.02)

    def condition(self, given: Sequence[Tensor], *, without: Tensor | None = None) -> Tensor:
        """Ids [B, C] of the given tokens int64 [B, T, levels] each, and the start sign.

        Rows that are `without` (bool [B]) get the sign for nothing in the place of M_A.
        """
        parts = [self.ids(kind, tokens) for kind, tokens in enumerate(given)]
        if without is not None and self.has_joint:
            parts[0] = torch.where(without[:, None], self.nothing, parts[0])
        start = torch.full_like(parts[0][:, :1], self.start)
        return torch.cat([*parts, start], dim=1)

    def ids(self, kind: int, tokens: Tensor) -> Tensor:
        """Tokens int64 [B, T, levels] of a kind as ids [B, T * levels] of the embedding.

        A token below 0 becomes the sign for nothing.
        """
        book = self.books[kind]
        levels = torch.arange(book.levels, device=tokens.device) * book.codes
        own = tokens + levels + self.offsets[kind]
        return torch.where(tokens < 0, self.nothing, own).flatten(1)

    def forward(self, given: Sequence[Tensor], target: Tensor, without: Tensor) -> Tensor:
        """The cross-entropy of each token of `target`, int64 [B, F, levels] -> [B, F * levels].

        `given` and `without` are as of `condition`.
        """
        before = self.condition(given, without=without)
        written = self.ids(len(self.books) - 1, target)
        states, _ = self.decoder(self.embed(torch.cat([before, written[:, :-1]], dim=1)))
        logits = self._logits(states[:, before.shape[1] - 1 :])
        return functional.cross_entropy(
            logits.float().flatten(0, 1), target.flatten(), reduction="none"
        ).view(len(target), -1)

    def step(self, ids: Tensor, cache: Cache | None, level: int) -> tuple[Tensor, Cache]:
        """Logits [B, codes] of the token after `ids` [B, T], which is of `level`; and the cache."""
        states, cache = self.decoder(self.embed(ids), cache)
        return states[:, -1] @ self.head[level], cache

    def _logits(self, states: Tensor) -> Tensor:
        """States [B, F * levels, W] -> logits [B, F * levels, codes], each by its level's head."""
        frames = states.view(len(states), -1, self.writes.levels, states.shape[2])
        return torch.einsum("bflw,lwc->bflc", frames, self.head.to(states.dtype)).flatten(1, 2)


class Stages(nn.Module):
    """The stages together; they share nothing."""

    def __init__(self, tokens: TokensSpec, spec: MusicLMSpec, *, codec_codes: int) -> None:
        """`codec_codes` are those of a level of the codec: a hub's codec has its own."""
        super().__init__()
        self.tokens, self.spec, self.codec_codes = tokens, spec, codec_codes
        joint = Book(tokens.joint_levels, tokens.joint_codes)
        semantic = Book(1, tokens.semantic_codes)
        coarse = Book(spec.coarse, codec_codes)
        fine = Book(tokens.levels - spec.coarse, codec_codes)
        heard = [semantic] if spec.hears_semantic else []
        played = [Book(tokens.melody.levels, tokens.melody.codes)] if tokens.melody.steps else []
        if spec.hears_semantic:
            self.semantic = Stage([joint, *played], semantic, spec, has_joint=True)
        self.coarse = Stage([joint, *played, *heard], coarse, spec, has_joint=True)
        self.fine = Stage([coarse], fine, spec, has_joint=False)

    def of(self, name: StageName) -> Stage:
        """The stage of this name."""
        stage: Stage = getattr(self, name)
        return stage

    def no_melody(self, rows: int, length_s: float) -> list[Tensor]:
        """What stands in the place of the melody of a crop; [] for stages that are given none."""
        melody = self.tokens.melody
        return [no_melody(rows, length_s, melody.levels)] if melody.steps else []

    def crop_s(self, name: StageName) -> float:
        """The length of a stage's crop in training, in seconds."""
        return float(getattr(self.spec, f"{name}_s"))
