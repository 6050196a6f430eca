"""A frozen tower computes each input once, and gives the same bits whatever is drawn beside."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from raymtr.model.log_mel import LogMel
from raymtr.tower_specs import AudioSpec
from raymtr.training import feature_cache
from raymtr.training.feature_cache import FeatureCache


def test_each_input_is_computed_once_and_alone() -> None:
    asked: list[Tensor] = []

    def tower(waves: Tensor) -> Tensor:
        asked.append(waves)
        return waves.sum(dim=1, keepdim=True)

    features = FeatureCache(tower)
    waves = torch.arange(6.0).reshape(3, 2)
    first = features(waves)
    again = features(waves.flip(0))
    assert [len(each) for each in asked] == [1, 1, 1]
    assert torch.equal(first, torch.tensor([[1.0], [5.0], [9.0]]))
    assert torch.equal(again, first.flip(0))


def test_what_does_not_fit_is_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_cache, "MOST", 1)
    count = 0

    def tower(waves: Tensor) -> Tensor:
        nonlocal count
        count += 1
        return waves

    features = FeatureCache(tower)
    waves = torch.eye(2)
    assert torch.equal(features(waves), waves) and torch.equal(features(waves), waves)
    assert count == 3


def test_reading_in_a_thread_leaves_the_bits_of_a_bfloat16_step() -> None:
    """The gradient of a weight that is used twice is rounded once, in bfloat16, as without it."""
    weight = torch.randn(64, 64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    inputs = torch.randn(2, 64, 64, generator=torch.Generator().manual_seed(1))
    log_mel = LogMel(AudioSpec(window_s=0.5))
    features = FeatureCache(lambda waves: log_mel(waves)[:, 0])

    def gradient(between: Callable[[], None]) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            first = inputs[0] @ weight
            between()
            second = inputs[1] @ weight
        (found,) = torch.autograd.grad((first.float().square() + second.float()).sum(), weight)
        return found

    def read_in_a_thread() -> None:
        with ThreadPoolExecutor(1) as thread:
            thread.submit(features, torch.zeros(1, log_mel.spec.window_samples)).result()

    alone = gradient(lambda: None)
    assert not torch.equal(alone, gradient(torch.clear_autocast_cache)), "the casts matter"
    assert torch.equal(alone, gradient(read_in_a_thread))
