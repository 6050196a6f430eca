"""A decoder-only transformer with relative positions and a key-value cache.

Positions are relative: each head has a learned attention bias per distance in tokens (T5's buckets,
Raffel et al. 2020, as in AudioLM and MusicLM). So a cached step computes the same as the full
forward, and sequences may be longer than in training.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from raymtr.generation_specs import MusicLMSpec

BUCKETS, MOST_DISTANCE = 64, 2_048  # distances below half the buckets are exact


class Cache:
    """The keys and values of all positions so far. A layer's buffer doubles when it is full."""

    def __init__(self) -> None:
        self.length = 0  # positions
        self._buffers: dict[int, Tensor] = {}  # of each layer, [2, B, heads, room, width / heads]

    def extend(self, layer: int, new: Tensor) -> Tensor:
        """Add the keys and values of the next T positions, [2, B, heads, T, width / heads].

        Returns those of all positions. `Decoder` sets `length` after the last layer.
        """
        total, buffer = self.length + new.shape[3], self._buffers.get(layer)
        if buffer is None or buffer.shape[3] < total:
            larger = new.new_empty(*new.shape[:3], max(total, 2 * self.length), new.shape[4])
            if buffer is not None:
                larger[:, :, :, : self.length] = buffer[:, :, :, : self.length]
            buffer = self._buffers[layer] = larger
        buffer[:, :, :, self.length : total] = new
        return buffer[:, :, :, :total]


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

    def forward(self, x: Tensor, cache: Cache | None = None) -> Tensor:
        """The states of `x`, which continues the positions of `cache` and is added to them."""
        before = cache.length if cache else 0
        bias = self._bias(before, before + x.shape[1])
        x = self.dropout(x)
        for number, layer in enumerate(self.layers):
            extend = functools.partial(cache.extend, number) if cache else None
            x = layer(x, bias, extend)
        if cache:
            cache.length += x.shape[1]
        states: Tensor = self.norm(x)
        return states

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

    def forward(self, x: Tensor, bias: Tensor, extend: Callable[[Tensor], Tensor] | None) -> Tensor:
        """`extend` puts the cached keys and values before those of `x`; see Cache.extend."""
        batch, length, width = x.shape
        qkv = self.reads(self.norms[0](x)).view(batch, length, 3, self.heads, -1)
        qkv = qkv.permute(2, 0, 3, 1, 4)
        query, (key, value) = qkv[0], extend(qkv[1:]) if extend else qkv[1:]
        attended = functional.scaled_dot_product_attention(
            query, key, value, bias.to(query.dtype), dropout_p=self.drop if self.training else 0.0
        )
        x = x + self.dropout(self.writes(attended.transpose(1, 2).reshape(batch, length, width)))
        x = x + self.dropout(self.narrow(functional.gelu(self.wide(self.norms[1](x)))))
        return x


def bucket(distance: Tensor) -> Tensor:
    """The bucket of each distance, int64 >= 0: exact in the lower half, then logarithmic."""
    exact = BUCKETS // 2
    ratio = torch.log(distance.clamp_min(1) / exact) / math.log(MOST_DISTANCE / exact)
    far = exact + (ratio * (BUCKETS - exact)).long()
    return torch.where(distance < exact, distance, far.clamp(max=BUCKETS - 1))
