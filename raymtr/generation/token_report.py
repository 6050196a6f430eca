"""Statistics of the tokens of a catalog: use of each codebook, entropy, repeats, predictability.

A language model learns little from a codebook with few used codes, or from one whose next token
follows from the previous token.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypedDict

import numpy as np


class CodebookReport(TypedDict):
    """Figures of one codebook over a catalog."""

    tokens: int
    used: float  # share of the codes
    entropy_bits: float
    repeats: float  # share of tokens equal to the previous token
    entropy_given_before_bits: float


def report_codebooks(
    rows: Iterable[tuple[np.ndarray, np.ndarray]], *, semantic_codes: int, codes: int
) -> dict[str, CodebookReport]:
    """Figures of the codebooks `semantic`, `acoustic 1`, `acoustic 2`, ...

    `rows` are tracks: semantic tokens [T] and acoustic tokens [F, levels].
    """
    counters: dict[str, _Counter] = {}
    for semantic, acoustic in rows:
        books = {"semantic": (semantic, semantic_codes)}
        for level in range(acoustic.shape[1]):
            books[f"acoustic {level + 1}"] = (acoustic[:, level], codes)
        for name, (tokens, size) in books.items():
            counters.setdefault(name, _Counter(size)).add(tokens)
    return {name: counter.report() for name, counter in counters.items()}


class _Counter:
    """Counts of the tokens and of adjacent pairs of one codebook."""

    def __init__(self, codes: int) -> None:
        self.single = np.zeros(codes, np.int64)
        self.pairs: dict[int, int] = {}
        self.repeats = self.neighbours = 0

    def add(self, tokens: np.ndarray) -> None:
        self.single += np.bincount(tokens, minlength=len(self.single))
        before, after = tokens[:-1], tokens[1:]
        self.repeats += int((before == after).sum())
        self.neighbours += len(after)
        names, counts = np.unique(before * len(self.single) + after, return_counts=True)
        for name, count in zip(names.tolist(), counts.tolist(), strict=True):
            self.pairs[name] = self.pairs.get(name, 0) + count

    def report(self) -> CodebookReport:
        pairs = np.array(list(self.pairs.values()), np.float64)
        firsts = np.bincount(
            np.array(list(self.pairs), np.int64) // len(self.single),
            weights=pairs,
            minlength=len(self.single),
        )
        return {
            "tokens": int(self.single.sum()),
            "used": float((self.single > 0).mean()),
            "entropy_bits": entropy_bits(self.single),
            "repeats": self.repeats / max(1, self.neighbours),
            "entropy_given_before_bits": entropy_bits(pairs) - entropy_bits(firsts),
        }


def entropy_bits(counts: np.ndarray) -> float:
    """The entropy of a distribution given by counts [n], in bits; 0 without any."""
    total = counts.sum()
    if not total:
        return 0.0
    shares = counts[counts > 0] / total
    return float(-(shares * np.log2(shares)).sum())
