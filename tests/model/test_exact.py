"""float32 stays float32, whatever the process allows, and its switches are given back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from raymtr.model.exact import exact_float32
from raymtr.model.model import Model
from raymtr.model.two_towers import TwoTowers

BACKENDS: Any = torch.backends


def switches() -> list[str]:
    kinds = (
        BACKENDS.cudnn.conv,
        BACKENDS.cuda.matmul,
        BACKENDS.mkldnn.conv,
        BACKENDS.mkldnn.matmul,
    )
    return [kind.fp32_precision for kind in kinds]


@pytest.fixture
def careless() -> Iterator[None]:
    """A process that lets everything be rounded."""
    before = BACKENDS.fp32_precision, BACKENDS.cudnn.benchmark
    BACKENDS.fp32_precision, BACKENDS.cudnn.benchmark = "tf32", True
    yield
    BACKENDS.fp32_precision, BACKENDS.cudnn.benchmark = before


@pytest.mark.usefixtures("careless")
def test_nothing_is_rounded_inside() -> None:
    assert "tf32" in switches()
    with exact_float32():
        assert switches() == ["ieee"] * 4
        assert BACKENDS.cudnn.deterministic and not BACKENDS.cudnn.benchmark
    assert "tf32" in switches() and BACKENDS.cudnn.benchmark


def test_switches_are_given_back_after_an_error() -> None:
    before = switches()
    with pytest.raises(ValueError, match="inside"), exact_float32():
        raise ValueError("inside")
    assert switches() == before


def test_the_first_thread_out_leaves_the_other_exact() -> None:
    before, entered, leave = switches(), threading.Event(), threading.Event()

    def stay() -> None:
        with exact_float32():
            entered.set()
            leave.wait(600)

    other = threading.Thread(target=stay)
    with exact_float32():
        other.start()
        assert entered.wait(600)
    assert switches() == ["ieee"] * 4
    leave.set()
    other.join()
    assert switches() == before


@pytest.mark.parametrize("side", ["audio", "text"])
def test_both_towers_compute_inside(
    side: str, make_towers: Any, waves: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    towers: TwoTowers = make_towers()
    seen: list[list[str]] = []
    head = towers.audio_projector if side == "audio" else towers.text_projector
    head[0].register_forward_hook(lambda *_: seen.append(switches()))
    model = Model(towers)
    model.embed_windows(waves[:1]) if side == "audio" else model.encode_text(["sad"])
    assert seen == [["ieee"] * 4]
