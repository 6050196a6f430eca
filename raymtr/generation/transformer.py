"""A decoder-only transformer with relative positions and a key-value cache.

Positions are relative: each head has a learned attention bias per distance in tokens (T5's buckets,
Raffel et al. 2020, as in AudioLM and MusicLM). So a cached step computes the same as the full
forward, and sequences may be longer than in training.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from raymtr.generation_specs import MusicLMSpec

BUCKETS, MOST_DISTANCE = 64, 2_048  # distances below half the buckets are exact
Cache = list[tuple[Tensor, Tensor]]  # keys and values of each layer, [B, heads, T, width / heads]


class Decoder(nn.Module):
    """float32 [B, T, width] -> [B, T, width] with causal attention."""

    def __init__(self, spec: MusicLMSpec, layers: int) -> None:
        super().__init__()
        self.heads = spec.heads
        self.bias = nn.Embedding(BUCKETS, spec.heads)
        self.layers = nn.ModuleList([_Layer(spec, layers) for _ in range(layers)])
        self.norm = nn.LayerNorm(spec.width)
        self.dropout = nn.Dropout(spec.dropout)
        nn.init.normal_(self.bias.weight, std=0.02)

    def forward(self, x: Tensor, cache: Cache | None = None) -> tuple[Tensor, Cache]:
        """The states of `x`, and the extended cache; `cache` has all previous positions."""
        before = cache[0][0].shape[2] if cache else 0
        bias = self._bias(before, before + x.shape[1])
        extended: Cache = []
        x = self.dropout(x)
        for number, layer in enumerate(self.layers):
            x, state = layer(x, bias, cache[number] if cache else None)
            extended.append(state)
        return self.norm(x), extended

    def _bias(self, before: int, total: int) -> Tensor:
        """The bias of each head [1, heads, T, S]; minus infinity for future positions."""
        positions = torch.arange(total, device=self.bias.weight.device)
        distance = positions[before:, None] - positions[None]  # [T, S], negative: future
        bias: Tensor = self.bias(bucket(distance.clamp_min(0))).permute(2, 0, 1)[None]
        return bias.masked_fill(distance < 0, -torch.inf)


class _Layer(nn.Module):
    """Self-attention and a feed-forward network, both pre-norm and residual."""

    def __init__(self, spec: MusicLMSpec, layers: int) -> None:
        super().__init__()
        self.heads, self.drop = spec.heads, spec.dropout
        self.norms = nn.ModuleList([nn.LayerNorm(spec.width) for _ in range(2)])
        self.reads = nn.Linear(spec.width, 3 * spec.width)  # query, key and value projections
        self.writes = nn.Linear(spec.width, spec.width)  # output projection
        self.wide = nn.Linear(spec.width, spec.inner)
        self.narrow = nn.Linear(spec.inner, spec.width)
        self.dropout = nn.Dropout(spec.dropout)
        for linear in (self.writes, self.narrow):  # keeps the scale of the residual sum (GPT-2)
            nn.init.normal_(linear.weight, std=0.02 / math.sqrt(2 * layers))

    def forward(
        self, x: Tensor, bias: Tensor, cache: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        batch, length, width = x.shape
        qkv = self.reads(self.norms[0](x)).view(batch, length, 3, self.heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        if cache:
            key, value = (
                torch.cat([old, new], 2) for old, new in zip(cache, (key, value), strict=True)
            )
        attended = functional.scaled_dot_product_attention(
            query, key, value, bias.to(query.dtype), dropout_p=self.drop if self.training else 0.0
        )
        x = x + self.dropout(self.writes(attended.transpose(1, 2).reshape(batch, length, width)))
        x = x + self.dropout(self.narrow(functional.gelu(self.wide(self.norms[1](x)))))
        return x, (key, value)


def bucket(distance: Tensor) -> Tensor:
    """The bucket of each distance, int64 >= 0: exact in the lower half, then logarithmic."""
    exact = BUCKETS // 2
    ratio = torch.log(distance.clamp_min(1) / exact) / math.log(MOST_DISTANCE / exact)
    far = exact + (ratio * (BUCKETS - exact)).long()
    return torch.where(distance < exact, distance, far.clamp(max=BUCKETS - 1))
