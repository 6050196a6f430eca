"""Parts of MuLaP's two streams: the first layers of a text encoder, co-attention, positions.

In a co-attention layer each stream attends to the other: queries come from one stream, keys and
values from the other (Lu et al., ViLBERT, 2019). So words and chunks need no common order.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from raymtr.errors import InputError
from raymtr.model.text_tower import TextTower


class TextLayers(nn.Module):
    """Embeddings and the first layers of a text encoder of BERT's structure."""

    def __init__(self, tower: TextTower, count: int) -> None:
        """Raises InputError where the encoder has another structure or fewer layers."""
        super().__init__()
        encoder: Any = tower.encoder
        if tower.tokenizer.mask_token_id is None:
            raise InputError(
                f"MuLaP masks words, and the tokenizer of {tower.spec.source} has no mask token: "
                "choose another towers.text_tower.source"
            )
        layers = getattr(getattr(encoder, "encoder", None), "layer", None)
        if layers is None or not hasattr(encoder, "embeddings"):
            raise InputError(
                f"MuLaP reads text with an encoder of BERT's structure; {tower.spec.source} is a "
                f"{type(encoder).__name__}: choose another towers.text_tower.source"
            )
        if len(layers) < count:
            raise InputError(
                f"{tower.spec.source} has {len(layers)} layers; set mulap.text_layers to that, "
                f"or less, got {count}"
            )
        self.embeddings: nn.Module = encoder.embeddings
        self.layers = nn.ModuleList(layers[:count])

    @property
    def words(self) -> Tensor:
        """The embeddings of the vocabulary [V, H]."""
        table: Any = self.embeddings.word_embeddings
        weight: Tensor = table.weight
        return weight

    def embed(self, input_ids: Tensor) -> Tensor:
        """Tokens [B, T] -> states [B, T, H]."""
        states: Tensor = self.embeddings(input_ids=input_ids)
        return states

    def layer(self, number: int, states: Tensor, real: Tensor) -> Tensor:
        """States [B, T, H] through one layer; `real`, bool [B, T], is False for padding."""
        hidden = torch.zeros(real.shape, dtype=states.dtype, device=states.device)
        hidden = hidden.masked_fill(~real, torch.finfo(states.dtype).min)
        made: Tensor = self.layers[number](states, attention_mask=hidden[:, None, None, :])
        return made


class CrossAttention(nn.Module):
    """One direction of a co-attention layer, with its feed-forward layer, each with a residual."""

    def __init__(self, asks: int, answers: int, *, inner: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.rate = heads, dropout
        self.query = nn.Linear(asks, inner)
        self.key_value = nn.Linear(answers, 2 * inner)
        self.out = nn.Linear(inner, asks)
        self.forward_layer = nn.Sequential(
            nn.Linear(asks, inner), nn.GELU(), nn.Linear(inner, asks), nn.Dropout(dropout)
        )
        self.norms = nn.ModuleList([nn.LayerNorm(asks), nn.LayerNorm(asks)])
        self.dropout = nn.Dropout(dropout)

    def forward(self, own: Tensor, other: Tensor, other_real: Tensor) -> Tensor:
        """`own` [B, n, asks] after it attended to `other` [B, m, answers]; bool [B, m]."""
        query = self._split(self.query(own))
        key, value = (self._split(part) for part in self.key_value(other).chunk(2, dim=-1))
        attended = functional.scaled_dot_product_attention(
            *(query, key, value),
            attn_mask=other_real[:, None, None, :],
            dropout_p=self.rate if self.training else 0.0,
        )
        attended = attended.transpose(1, 2).flatten(2)
        own = self.norms[0](own + self.dropout(self.out(attended)))
        output: Tensor = self.norms[1](own + self.forward_layer(own))
        return output

    def _split(self, states: Tensor) -> Tensor:
        rows, count, inner = states.shape
        return states.view(rows, count, self.heads, inner // self.heads).transpose(1, 2)


class CoAttention(nn.Module):
    """Attention in both directions, each over the other stream's states before this layer."""

    def __init__(self, text: int, audio: int, *, inner: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.text = CrossAttention(text, audio, inner=inner, heads=heads, dropout=dropout)
        self.audio = CrossAttention(audio, text, inner=inner, heads=heads, dropout=dropout)

    def forward(
        self, text: Tensor, text_real: Tensor, audio: Tensor, audio_real: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Text [B, T, H] and audio [B, C, W], each with its mask, False for padding."""
        return self.text(text, audio, audio_real), self.audio(audio, text, text_real)


def positions(count: int, width: int) -> Tensor:
    """Sines and cosines of positions, float32 [count, width] (Vaswani et al. 2017), any count."""
    rates = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    angles = torch.arange(count)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)
