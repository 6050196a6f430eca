"""Residual vector quantisation: vectors become a few tokens each, and back.

Each level is a codebook learnt by k-means on what the levels before left over, with moving
averages (EMA) over minibatches; a code that is hardly used is moved to a vector that is far
from its code (van den Oord et al. 2017; Zeghidour et al. 2021). One level is plain k-means.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from raymtr.errors import UnusableError

BATCH = 8_192  # vectors at a time
DECAY = 0.8  # of the moving averages, per minibatch
TINIEST = 1e-12
DEAD = 0.1  # a code with less than this share of an even part is moved


class ResidualQuantizer(nn.Module):
    """Codebooks float32 [levels, codes, D]."""

    books: Tensor

    def __init__(self, levels: int, codes: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("books", torch.zeros(levels, codes, dim))

    @property
    def levels(self) -> int:
        """Tokens of a vector."""
        return self.books.shape[0]

    @property
    def codes(self) -> int:
        """Codes of a level."""
        return self.books.shape[1]

    @torch.no_grad()
    def encode(self, vectors: Tensor) -> Tensor:
        """float32 [N, D] -> tokens int64 [N, levels]."""
        made = []
        for part in torch.split(vectors, BATCH):
            tokens, rest = [], part
            for book in self.books:
                nearest = _nearest(rest, book)
                tokens.append(nearest)
                rest = rest - book[nearest]
            made.append(torch.stack(tokens, dim=1))
        return torch.cat(made) if made else torch.empty(0, self.levels, dtype=torch.int64)

    def decode(self, tokens: Tensor) -> Tensor:
        """Tokens int64 [..., L], of the first L levels -> the sum of their codes [..., D]."""
        books = self.books[: tokens.shape[-1]]
        return torch.stack([books[n][tokens[..., n]] for n in range(len(books))]).sum(dim=0)


@torch.no_grad()
def fit_quantizer(
    vectors: Tensor, levels: int, codes: int, *, rounds: int, seed: int
) -> ResidualQuantizer:
    """A quantizer fitted to float32 [N, D], level by level, each in `rounds` passes.

    Raises UnusableError where there are fewer vectors than codes, or they are not finite.
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
    rest = vectors.clone()
    for level in range(levels):
        book = _fit_book(rest, codes, rounds, generator)
        quantizer.books[level] = book
        for part in torch.split(rest, BATCH):
            part -= book[_nearest(part, book)]
    return quantizer


def _fit_book(vectors: Tensor, codes: int, rounds: int, generator: torch.Generator) -> Tensor:
    """One codebook [codes, D] by k-means with moving averages."""
    chosen = torch.randperm(len(vectors), generator=generator)[:codes]
    book = vectors[chosen].clone()
    even = min(len(vectors), BATCH) / codes  # vectors of a code in a minibatch
    counts, sums = torch.full((codes,), even), even * book
    for number in range(rounds):
        for places in torch.split(torch.randperm(len(vectors), generator=generator), BATCH):
            part = vectors[places]
            nearest = _nearest(part, book)
            now = torch.bincount(nearest, minlength=codes).float()
            now_sums = torch.zeros_like(sums).index_add_(0, nearest, part)
            counts.mul_(DECAY).add_(now, alpha=1 - DECAY)
            sums.mul_(DECAY).add_(now_sums, alpha=1 - DECAY)
            book = sums / counts.clamp_min(1e-6)[:, None]
            dead = counts < DEAD * even
            if number + 1 < rounds and dead.any():  # a code moved last would never be fitted
                far = (part - book[nearest]).square().sum(dim=1) + TINIEST  # as in k-means++
                drawn = torch.multinomial(far, int(dead.sum()), True, generator=generator)
                book[dead] = part[drawn]
                counts[dead], sums[dead] = even, even * part[drawn]
    return book


def _nearest(vectors: Tensor, book: Tensor) -> Tensor:
    """The place of the nearest code of each vector, int64 [N]."""
    products = torch.addmm(book.square().sum(dim=1), vectors, book.T, alpha=-2)
    nearest: Tensor = products.argmin(dim=1)
    return nearest
