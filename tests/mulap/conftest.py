"""A small MuLaP: two text layers of a random BERT, two audio layers, a ResNet of four blocks."""

from __future__ import annotations

from collections.abc import Callable

import mulap_builders
import pytest
from mulap_builders import SPEC, save_text_encoder

from raymtr.mulap.network import Mulap, build_mulap
from raymtr.specs import MulapSpec
from raymtr.tower_specs import TowersSpec


@pytest.fixture(scope="session")
def mulap_text(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("mulap_text")
    save_text_encoder(folder)
    return str(folder)


@pytest.fixture(scope="session")
def mulap_towers(mulap_text: str) -> TowersSpec:
    return mulap_builders.mulap_towers(mulap_text)


@pytest.fixture
def make_mulap(mulap_towers: TowersSpec, mulap_text: str) -> Callable[..., Mulap]:
    """A function: a new model of a seed."""

    def make(towers: TowersSpec = mulap_towers, spec: MulapSpec = SPEC, seed: int = 0) -> Mulap:
        return build_mulap(towers, spec, seed=seed, text_folder=mulap_text)

    return make
