"""Residual vector quantisation (RVQ): encodes a vector as one token per level, and decodes it.

The codebook of each level is fitted by k-means to the residuals of the levels before, with moving
averages (EMA) over minibatches. A rarely used code is moved to a vector that is far from its own
code (van den Oord et al. 2017; Zeghidour et al. 2021). One level is plain k-means.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from raymtr.errors import UnusableError

BATCH = 8_192  # vectors per minibatch
DECAY = 0.8  # of the moving averages, per minibatch
TINIEST = 1e-12
DEAD = 0.1  # a code with a count below this share of the mean count is moved


class ResidualQuantizer(nn.Module):
    """Codebooks float32 [levels, codes, D]."""

    books: Tensor  # the codebooks; the name is a key of saved weights

    def __init__(self, levels: int, codes: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("books", torch.zeros(levels, codes, dim))

    @property
    def levels(self) -> int:
        """Tokens per vector."""
        return self.books.shape[0]

    @property
    def codes(self) -> int:
        """Codebook size of a level."""
        return self.books.shape[1]

    @torch.no_grad()
    def encode(self, vectors: Tensor) -> Tensor:
        """float32 [N, D] -> tokens int64 [N, levels]."""
        batches = []
        for batch in torch.split(vectors, BATCH):
            tokens, residual = [], batch
            for codebook in self.books:
                nearest = _nearest(residual, codebook)
                tokens.append(nearest)
                residual = residual - codebook[nearest]
            batches.append(torch.stack(tokens, dim=1))
        return torch.cat(batches) if batches else torch.empty(0, self.levels, dtype=torch.int64)

    def decode(self, tokens: Tensor) -> Tensor:
        """Tokens int64 [..., L] of the first L levels -> the sum of their code vectors [..., D]."""
        books = self.books[: tokens.shape[-1]]
        return torch.stack([books[n][tokens[..., n]] for n in range(len(books))]).sum(dim=0)


@torch.no_grad()
def fit_quantizer(
    vectors: Tensor, levels: int, codes: int, *, rounds: int, seed: int
) -> ResidualQuantizer:
    """A quantizer fitted to float32 [N, D], level by level, with `rounds` epochs per level.

    Raises UnusableError if there are fewer vectors than codes, or if they are not finite.
    """
    if len(vectors) < codes:
        raise UnusableError(
            f"{codes} codes cannot be fitted to {len(vectors)} vectors; tokenise more audio, or "
            "lower the number of codes (tokens.codes, semantic_codes, joint_codes, melody.codes)"
        )
    if not torch.isfinite(vectors).all():
        raise UnusableError("the vectors to quantise are not all finite: the model is damaged")
    generator = torch.Generator().manual_seed(seed)
    quantizer = ResidualQuantizer(levels, codes, vectors.shape[1])
    residuals = vectors.clone()
    for level in range(levels):
        codebook = _fit_codebook(residuals, codes, rounds, generator)
        quantizer.books[level] = codebook
        for batch in torch.split(residuals, BATCH):
            batch -= codebook[_nearest(batch, codebook)]
    return quantizer


def _fit_codebook(vectors: Tensor, codes: int, rounds: int, generator: torch.Generator) -> Tensor:
    """One codebook [codes, D] by k-means with moving averages."""
    chosen = torch.randperm(len(vectors), generator=generator)[:codes]
    codebook = vectors[chosen].clone()
    mean_count = min(len(vectors), BATCH) / codes  # vectors per code in a minibatch
    counts, sums = torch.full((codes,), mean_count), mean_count * codebook
    for number in range(rounds):
        for rows in torch.split(torch.randperm(len(vectors), generator=generator), BATCH):
            batch = vectors[rows]
            nearest = _nearest(batch, codebook)
            batch_counts = torch.bincount(nearest, minlength=codes).float()
            batch_sums = torch.zeros_like(sums).index_add_(0, nearest, batch)
            counts.mul_(DECAY).add_(batch_counts, alpha=1 - DECAY)
            sums.mul_(DECAY).add_(batch_sums, alpha=1 - DECAY)
            codebook = sums / counts.clamp_min(1e-6)[:, None]
            dead = counts < DEAD * mean_count
            if number + 1 < rounds and dead.any():  # a code moved last would never be fitted
                errors = (batch - codebook[nearest]).square().sum(dim=1) + TINIEST  # k-means++
                drawn = torch.multinomial(errors, int(dead.sum()), True, generator=generator)
                codebook[dead] = batch[drawn]
                counts[dead], sums[dead] = mean_count, mean_count * batch[drawn]
    return codebook


def _nearest(vectors: Tensor, codebook: Tensor) -> Tensor:
    """The index of the nearest code of each vector, int64 [N]."""
    products = torch.addmm(codebook.square().sum(dim=1), vectors, codebook.T, alpha=-2)
    nearest: Tensor = products.argmin(dim=1)
    return nearest
