"""MuLaP as a module: two streams with co-attention between them (arXiv 2112.04214).

An audio tower gives one row of features for each chunk. The audio stream reads them behind its own
learned first token. The text stream is the first layers of a text encoder. Two co-attention layers
come before the last two text layers and the first two audio layers. So the chunk features depend
on the audio alone, and the text layers before them on the text alone: both can be computed once.
The two first tokens are pooled, multiplied and classified as match or not.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from raymtr.model.log_mel import LogMel
from raymtr.model.text_tower import TextTower, load_text_tower, read_text_tower
from raymtr.model.two_towers import UnfilledWeights, audio_tower_of, fill_audio_tower
from raymtr.mulap.streams import CoAttention, TextLayers, positions
from raymtr.specs import MulapSpec
from raymtr.tower_specs import TowersSpec

MEETINGS = 2  # co-attention layers
ALIGNED_DIM = 128
FIRST_TOKEN = (
    0.02  # initial standard deviation of the audio stream's first token, as BERT's embeddings
)


class Met(NamedTuple):
    """Both streams after the last layer."""

    text: Tensor  # [B, T, H]
    audio: Tensor  # [B, 1 + C, W], the first token first
    match: Tensor  # [B], the logit that the sentence is about the audio
    apart: tuple[Tensor, Tensor] | None  # unit vectors of audio and text before they meet, [B, D]


class Aligned(nn.Module):
    """Both streams before they meet as unit vectors of one space: "align before fuse".

    ALBEF's (Li et al., NeurIPS 2021) contrastive loss gives every row of a batch all others as
    negatives, and so a small catalog teaches both streams. Their cosine is part of the match logit.
    """

    def __init__(self, hidden: int, features: int) -> None:
        super().__init__()
        self.text, self.audio = nn.Linear(hidden, ALIGNED_DIM), nn.Linear(features, ALIGNED_DIM)
        self.scale = nn.Parameter(torch.tensor(math.log(10.0)))  # of cosines, its logarithm
        self.bias = nn.Parameter(torch.tensor(-2.0))

    def forward(
        self, text: Tensor, text_real: Tensor, features: Tensor, heard: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Unit vectors of audio and text, [B, ALIGNED_DIM] each, of the means of both streams."""
        sides = (self.audio(masked_mean(features, heard)), self.text(masked_mean(text, text_real)))
        return functional.normalize(sides[0], dim=-1), functional.normalize(sides[1], dim=-1)

    def logit(self, audio: Tensor, text: Tensor) -> Tensor:
        """The part of the match logit [B]."""
        return self.scale.exp() * (audio * text).sum(-1) + self.bias


def masked_mean(rows: Tensor, real: Tensor) -> Tensor:
    """The mean of the real rows: [B, N, D] and bool [B, N] -> [B, D]."""
    weights = real.unsqueeze(-1).to(rows.dtype)
    return (rows * weights).sum(1) / weights.sum(1).clamp(min=1.0)


class Mulap(nn.Module):
    """Chunks and tokens -> Met; `towers` names the audio tower, the text encoder and the audio."""

    def __init__(self, towers: TowersSpec, spec: MulapSpec, text_tower: TextTower) -> None:
        super().__init__()
        self.towers, self.spec = towers, spec
        self.log_mel = LogMel(towers.audio)
        self.audio_tower = audio_tower_of(towers.audio_tower, towers.audio)
        self.text = TextLayers(text_tower, spec.text_layers)
        self.text_tower = text_tower
        text_tower.encoder = nn.Identity()  # its layers are in self.text; the tower still tokenizes
        hidden, width, inner = text_tower.hidden, spec.audio_width, spec.cross_width
        self.audio_in = nn.Linear(towers.audio_tower.dim, width)
        self.audio_first = nn.Parameter(torch.randn(width) * FIRST_TOKEN)
        self.audio_norm = nn.LayerNorm(width)
        self.audio_layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, spec.heads, 4 * width, spec.dropout, "gelu", batch_first=True
            )
            for _ in range(spec.audio_layers)
        )
        self.meetings = nn.ModuleList(
            CoAttention(hidden, width, inner=inner, heads=spec.heads, dropout=spec.dropout)
            for _ in range(MEETINGS)
        )
        self.text_pool, self.audio_pool = nn.Linear(hidden, inner), nn.Linear(width, inner)
        self.match = nn.Linear(inner, 1)
        aligned = spec.align_weight > 0
        self.aligned = Aligned(hidden, towers.audio_tower.dim) if aligned else None
        self.word_head = nn.Sequential(nn.Linear(hidden, hidden), nn.GELU(), nn.LayerNorm(hidden))
        self.word_bias = nn.Parameter(torch.zeros(len(self.text.words)))
        self.chunk_head = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.Linear(width, towers.audio_tower.dim)
        )
        self.text.requires_grad_(True)  # a frozen tower has no layer to train
        if not towers.text_tower.trainable:
            for module in self._frozen_text():
                module.requires_grad_(False)

    @property
    def apart(self) -> int:
        """How many text layers come before the first co-attention."""
        return self.spec.text_layers - MEETINGS

    def train(self, mode: bool = True) -> Mulap:
        """As for any module, but frozen text layers never apply dropout."""
        super().train(mode)
        if not self.towers.text_tower.trainable:
            for module in self._frozen_text():
                module.eval()
        return self

    def hear(self, chunks: Tensor) -> Tensor:
        """Chunks [N, window_samples] -> the audio tower's features [N, D]."""
        trains = torch.is_grad_enabled() and self.towers.audio_tower.trainable
        with torch.set_grad_enabled(trains):
            features: Tensor = self.audio_tower(self.log_mel(chunks))
        return features

    def read(self, input_ids: Tensor, real: Tensor) -> Tensor:
        """Tokens [B, T] -> states [B, T, H] before the first co-attention; `real` is bool."""
        states = self.text.embed(input_ids)
        for number in range(self.apart):
            states = self.text.layer(number, states, real)
        return states

    def meet(self, text: Tensor, text_real: Tensor, features: Tensor, heard: Tensor) -> Met:
        """States of `read` and features [B, C, D], with their masks [B, T] and [B, C] -> Met."""
        features = standardised(features)
        apart = None
        if self.aligned is not None:
            apart = self.aligned(text, text_real, features, heard)
        audio = self.audio_in(features)
        audio = torch.cat([self.audio_first.expand(len(audio), 1, -1), audio], dim=1)
        audio = self.audio_norm(audio + positions(*audio.shape[1:]).to(audio))
        real = torch.cat([heard.new_ones(len(heard), 1), heard], dim=1)
        for number, layer in enumerate(self.audio_layers):
            if number < MEETINGS:
                text, audio = self.meetings[number](text, text_real, audio, real)
                text = self.text.layer(self.apart + number, text, text_real)
            audio = layer(audio, src_key_padding_mask=~real)
        pooled = torch.tanh(self.text_pool(text[:, 0])) * torch.tanh(self.audio_pool(audio[:, 0]))
        match = self.match(pooled)[:, 0]
        if self.aligned is not None and apart is not None:
            match = match + self.aligned.logit(*apart)
        return Met(text, audio, match, apart)

    def words_at(self, states: Tensor) -> Tensor:
        """Text states [M, H] -> logits of the vocabulary [M, V]; the embeddings are shared."""
        logits: Tensor = self.word_head(states) @ self.text.words.T + self.word_bias
        return logits

    def _frozen_text(self) -> list[nn.Module]:
        return [self.text.embeddings, *self.text.layers[: self.apart]]


def standardised(features: Tensor) -> Tensor:
    """Features [..., D] with mean 0 and standard deviation 1 over D; a masked row stays zero.

    The regression target has this fixed scale. Otherwise a tower in training could lower the loss
    by shrinking its features.
    """
    return functional.layer_norm(features.float(), features.shape[-1:])


def padded(features: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Features [N, D] of all rows' chunks, `counts` [B] to a row -> [B, C, D] and mask [B, C]."""
    rows = pad_sequence(list(torch.split(features, counts.tolist())), batch_first=True)
    return rows, torch.arange(rows.shape[1], device=counts.device) < counts[:, None]


def build_mulap(
    towers: TowersSpec, spec: MulapSpec, *, seed: int, text_folder: str | None = None
) -> Mulap:
    """A new model over the pretrained text encoder; the same specs and seed give the same weights.

    Raises InputError where the text encoder does not fit, UnusableError where it is missing.
    """
    text_tower = load_text_tower(towers.text_tower, text_folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Mulap(towers, spec, text_tower)
    fill_audio_tower(model.audio_tower, towers.audio_tower)
    return model


def blank_mulap(towers: TowersSpec, spec: MulapSpec, text_folder: str) -> Mulap:
    """A model with uninitialised weights, for a checkpoint that fills every one."""
    with UnfilledWeights():
        return Mulap(towers, spec, read_text_tower(towers.text_tower, text_folder))
