"""A decoder-only transformer with relative positions and a key-value cache.

Positions are known only as distances, by a learnt bias of each head on the attention (T5's buckets,
Raffel et al. 2020, as in AudioLM and MusicLM). So a cached step is the same sum as the full
forward, and a sequence may be longer than those in training.
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
    """float32 [B, T, width] -> [B, T, width]; a place sees itself and those before it."""

    def __init__(self, spec: MusicLMSpec) -> None:
        super().__init__()
        self.heads = spec.heads
        self.bias = nn.Embedding(BUCKETS, spec.heads)
        self.layers = nn.ModuleList([_Layer(spec) for _ in range(spec.layers)])
        self.norm = nn.LayerNorm(spec.width)
        self.dropout = nn.Dropout(spec.dropout)
        nn.init.normal_(self.bias.weight, std=0.02)

    def forward(self, x: Tensor, cache: Cache | None = None) -> tuple[Tensor, Cache]:
        """The states of `x`, and the cache with them; `cache` is of all places before."""
        before = cache[0][0].shape[2] if cache else 0
        bias = self._bias(before, before + x.shape[1], x.device)
        made: Cache = []
        x = self.dropout(x)
        for number, layer in enumerate(self.layers):
            x, state = layer(x, bias, cache[number] if cache else None)
            made.append(state)
        return self.norm(x), made

    def _bias(self, before: int, total: int, device: torch.device) -> Tensor:
        """The bias of each head [1, heads, T, S]; minus infinity for places to come."""
        places = torch.arange(total, device=device)
        far = places[before:, None] - places[None]  # [T, S], negative: to come
        bias: Tensor = self.bias(bucket(far.clamp_min(0))).permute(2, 0, 1)[None]
        return bias.masked_fill(far < 0, -torch.inf)


class _Layer(nn.Module):
    """Attention and a feed-forward part, each behind a norm."""

    def __init__(self, spec: MusicLMSpec) -> None:
        super().__init__()
        self.heads, self.drop = spec.heads, spec.dropout
        self.norms = nn.ModuleList([nn.LayerNorm(spec.width) for _ in range(2)])
        self.reads = nn.Linear(spec.width, 3 * spec.width)
        self.writes = nn.Linear(spec.width, spec.width)
        self.wide = nn.Linear(spec.width, spec.inner)
        self.narrow = nn.Linear(spec.inner, spec.width)
        self.dropout = nn.Dropout(spec.dropout)
        for linear in (self.writes, self.narrow):  # the residual sum keeps its size (GPT-2)
            nn.init.normal_(linear.weight, std=0.02 / math.sqrt(2 * spec.layers))

    def forward(
        self, x: Tensor, bias: Tensor, cache: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        batch, length, width = x.shape
        read = self.reads(self.norms[0](x)).view(batch, length, 3, self.heads, -1)
        query, key, value = read.permute(2, 0, 3, 1, 4)
        if cache:
            key, value = (
                torch.cat([old, new], 2) for old, new in zip(cache, (key, value), strict=True)
            )
        heard = functional.scaled_dot_product_attention(
            query, key, value, bias.to(query.dtype), dropout_p=self.drop if self.training else 0.0
        )
        x = x + self.dropout(self.writes(heard.transpose(1, 2).reshape(batch, length, width)))
        x = x + self.dropout(self.narrow(functional.gelu(self.wide(self.norms[1](x)))))
        return x, (key, value)


def bucket(distance: Tensor) -> Tensor:
    """The bucket of each distance int64 of at least 0: exact below half of them, then by ratio."""
    exact = BUCKETS // 2
    ratio = torch.log(distance.clamp_min(1) / exact) / math.log(MOST_DISTANCE / exact)
    far = exact + (ratio * (BUCKETS - exact)).long()
    return torch.where(distance < exact, distance, far.clamp(max=BUCKETS - 1))
