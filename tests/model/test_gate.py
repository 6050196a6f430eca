"""A collapsed text tower is refused when its model is loaded, and a whole one passes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from raymtr.errors import UnusableError
from raymtr.model.gate import MOST_ALIKE, require_apart
from raymtr.model.model import Model
from raymtr.model.model_folder import save_towers
from raymtr.model.pretrained import load_model
from raymtr.model.two_towers import TwoTowers


def test_a_whole_model_passes(make_towers: Callable[..., TwoTowers]) -> None:
    assert require_apart(Model(make_towers()), "whole") < MOST_ALIKE


def test_a_collapsed_text_tower_is_rejected(
    make_towers: Callable[..., TwoTowers], tmp_path: Path
) -> None:
    """As in the CLAP that collapsed: one direction for all texts, and a little of each text."""
    towers = make_towers()
    norm = towers.text_projector[0]  # type: ignore[index]
    assert isinstance(norm, nn.LayerNorm)
    with torch.no_grad():
        norm.weight.fill_(1e-3)
        norm.bias.normal_(generator=torch.Generator().manual_seed(0))
    save_towers(towers, str(tmp_path / "collapsed"))
    with pytest.raises(UnusableError, match=r"collapsed.*mean cosine 0\.99|mean cosine 1\.0"):
        load_model(tmp_path / "collapsed")
    hearing = load_model(tmp_path / "collapsed", audio_only=True)  # it reads no text
    assert hearing.spec == towers.spec
