"""The three losses and their baselines, against numbers computed by hand."""

from __future__ import annotations

import math

import pytest
import torch

from raymtr.errors import UnusableError
from raymtr.mulap.losses import (
    chunks_loss,
    match_baseline,
    match_loss,
    refuse_collapse,
    spread_of,
    words_loss,
)


def test_words() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0]])  # probabilities 1/4, 3/4; 1/2, 1/2
    unigram = torch.log(torch.tensor([0.9, 0.1]))
    loss, baseline = words_loss(logits, torch.tensor([0, 1]), unigram)
    assert float(loss) == pytest.approx(math.log(4) + math.log(2))
    assert float(baseline) == pytest.approx(-math.log(0.9) - math.log(0.1))
    empty, none = words_loss(torch.zeros(0, 2), torch.zeros(0, dtype=torch.long), unigram)
    assert (float(empty), float(none)) == (0.0, 0.0), "a batch without a masked word"


def test_chunks() -> None:
    heard = torch.tensor([[1.0, 3.0], [0.0, 0.0]])
    loss, baseline = chunks_loss(torch.tensor([[1.0, 1.0], [2.0, 0.0]]), heard, torch.ones(2))
    assert float(loss) == pytest.approx((0 + 4) / 2 + (4 + 0) / 2)
    assert float(baseline) == pytest.approx((0 + 4) / 2 + (1 + 1) / 2)
    with pytest.raises(AssertionError, match="target with gradient"):
        chunks_loss(heard, heard.clone().requires_grad_(), torch.ones(2))


def test_match() -> None:
    loss = match_loss(torch.tensor([0.0, math.log(3.0)]), torch.tensor([1.0, 0.0]))
    assert float(loss) == pytest.approx(math.log(2) + math.log(4))
    assert match_baseline(0.5) == pytest.approx(math.log(2))
    assert match_baseline(1.0) == 0.0


def test_spread_tells_one_vector_from_many() -> None:
    assert float(spread_of(torch.ones(5, 3))) == 0.0
    assert float(spread_of(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))) == 1.0
    small = torch.tensor([[1e-8, -1e-8], [-1e-8, 1e-8]])
    for spread, size in ((0.001, 1.0), (float("nan"), 1.0), (float(spread_of(small)), 1e-8)):
        with pytest.raises(UnusableError, match=r"collapsed .* at step 3"):
            refuse_collapse(spread, size, " at step 3")
    refuse_collapse(0.2, 1.0, "")
