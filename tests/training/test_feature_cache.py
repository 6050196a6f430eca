"""A frozen tower computes each window once, with the same bits whatever is drawn beside it."""

import torch
from torch import Tensor

from raymtr.training import feature_cache
from raymtr.training.feature_cache import FeatureCache


def test_each_window_is_computed_once_and_alone() -> None:
    asked: list[Tensor] = []

    def compute(waves: Tensor) -> Tensor:
        asked.append(waves)
        return waves.sum(dim=1, keepdim=True)

    windows = FeatureCache(compute)
    waves = torch.arange(6.0).reshape(3, 2)
    first = windows(waves)
    again = windows(waves.flip(0))
    assert [len(each) for each in asked] == [1, 1, 1]
    assert torch.equal(first, torch.tensor([[1.0], [5.0], [9.0]]))
    assert torch.equal(again, first.flip(0))


def test_what_does_not_fit_is_computed_again(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(feature_cache, "MOST", 1)
    count = 0

    def compute(waves: Tensor) -> Tensor:
        nonlocal count
        count += 1
        return waves

    windows = FeatureCache(compute)
    waves = torch.eye(2)
    assert torch.equal(windows(waves), waves) and torch.equal(windows(waves), waves)
    assert count == 3
