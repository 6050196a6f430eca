"""Residual quantisation: every level helps, dead codes are revived, too little is refused."""

from __future__ import annotations

import pytest
import torch

from raymtr.errors import UnusableError
from raymtr.generation.quantizer import fit_quantizer


def test_each_level_lowers_the_error() -> None:
    vectors = torch.randn(2_000, 6, generator=torch.Generator().manual_seed(0))
    quantizer = fit_quantizer(vectors, 4, 16, rounds=5, seed=0)
    tokens = quantizer.encode(vectors)
    assert tokens.shape == (2_000, 4) and tokens.max() < 16
    errors = [
        float((quantizer.decode(tokens[:, :n]) - vectors).square().mean()) for n in range(1, 5)
    ]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 0.5 * errors[0]


def test_dead_codes_are_revived() -> None:
    """Codes start at random rows, so some of 16 points get two and others none."""
    points = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
    vectors = points.repeat(100, 1)
    first = torch.randperm(len(vectors), generator=torch.Generator().manual_seed(0))[:16] % 16
    assert len(first.unique()) < 16
    quantizer = fit_quantizer(vectors, 1, 16, rounds=80, seed=0)
    assert len(quantizer.encode(points).unique()) == 16


def test_too_few_or_damaged_vectors_are_refused() -> None:
    with pytest.raises(UnusableError, match="16 codes cannot be fitted to 15 vectors"):
        fit_quantizer(torch.randn(15, 2), 1, 16, rounds=2, seed=0)
    with pytest.raises(UnusableError, match="not all finite"):
        fit_quantizer(torch.full((20, 2), torch.nan), 1, 16, rounds=2, seed=0)
