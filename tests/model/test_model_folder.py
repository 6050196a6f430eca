"""A saved model: the same vectors back, whole or not at all, and damage told in a sentence."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from raymtr.errors import InputError, UnusableError
from raymtr.model.model import Model
from raymtr.model.model_folder import FORMAT, save_towers
from raymtr.model.pretrained import load_model
from raymtr.model.two_towers import TwoTowers
from raymtr.trained_on import record_of

TEXTS = ["sad piano", "a fast happy jazz song"]


@pytest.fixture
def saved(make_towers: Callable[..., TwoTowers], tmp_path: Path) -> Path:
    folder = tmp_path / "a model"
    save_towers(make_towers(), str(folder), provenance={"source": "a test", "licence": "CC0-1.0"})
    return folder


@pytest.mark.slow
def test_a_saved_model_is_the_same_model(
    saved: Path, make_towers: Callable[..., TwoTowers], waves: np.ndarray
) -> None:
    model, loaded = Model(make_towers()), load_model(saved)
    assert loaded.spec == model.spec
    assert loaded.fingerprint == model.fingerprint
    assert loaded.provenance == {"source": "a test", "licence": "CC0-1.0"}
    assert loaded.check_golden() == pytest.approx(1.0, abs=1e-6)
    assert np.array_equal(loaded.encode_text(TEXTS), model.encode_text(TEXTS))
    assert np.array_equal(loaded.embed_windows(waves), model.embed_windows(waves))
    assert load_model(saved.as_uri()).fingerprint == model.fingerprint
    hearing = load_model(saved, audio_only=True)
    assert hearing.check_golden() == pytest.approx(1.0, abs=1e-6)
    assert np.array_equal(hearing.embed_windows(waves), model.embed_windows(waves))
    reading = load_model(saved, text_only=True)
    assert reading.check_golden() == pytest.approx(1.0, abs=1e-6)
    assert np.array_equal(reading.encode_text(TEXTS), model.encode_text(TEXTS))
    for ask in (lambda: reading.embed_windows(waves), lambda: reading.fingerprint):
        with pytest.raises(InputError, match="hears no audio"):
            ask()


@pytest.mark.slow
def test_what_it_was_trained_on_goes_with_it_and_is_no_part_of_what_it_is(
    saved: Path, make_towers: Callable[..., TwoTowers], tmp_path: Path
) -> None:
    record = record_of(["track a", "sound b"])
    save_towers(make_towers(), str(tmp_path / "learnt"), trained_on=record)
    load_model(tmp_path / "learnt").save(str(tmp_path / "again"))
    again = load_model(tmp_path / "again")
    assert again.trained_on is not None and np.array_equal(again.trained_on, record)
    assert load_model(saved).trained_on is None
    assert again.fingerprint == load_model(saved).fingerprint


def test_it_needs_nothing_outside_its_folder(saved: Path, tmp_path: Path) -> None:
    """Moved, and with the text encoder it was built from unknown to it."""
    config = json.loads((saved / "config.json").read_text())
    config["model"]["text_tower"]["source"] = "gone/for-good"
    (saved / "config.json").write_text(json.dumps(config))
    moved = shutil.move(saved, tmp_path / "elsewhere")
    assert load_model(moved).check_golden() == pytest.approx(1.0, abs=1e-6)


def test_a_second_save_takes_the_firsts_place(
    saved: Path, make_towers: Callable[..., TwoTowers]
) -> None:
    other = Model(make_towers(seed=9))
    other.save(str(saved))
    assert load_model(saved).fingerprint == other.fingerprint
    assert sorted(os.listdir(saved.parent)) == ["a model"]
    assert sorted(os.listdir(saved)) == [
        "config.json",
        "golden.json",
        "model.safetensors",
        "text_tower",
    ]
    assert (saved / "model.safetensors").stat().st_mode & 0o044  # others may read it


def test_a_failed_save_leaves_the_old_model(
    saved: Path, make_towers: Callable[..., TwoTowers], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = load_model(saved).fingerprint
    towers = make_towers(seed=9)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(towers.text_tower.tokenizer, "save_pretrained", full)
    with pytest.raises(UnusableError, match="No space left"):
        save_towers(towers, str(saved))
    assert sorted(os.listdir(saved.parent)) == ["a model"]
    assert load_model(saved).fingerprint == before


def test_somebody_elses_folder_is_not_overwritten(
    make_towers: Callable[..., TwoTowers], tmp_path: Path
) -> None:
    (tmp_path / "thesis.txt").write_text("ten years of work")
    with pytest.raises(InputError, match="not a raymtr model"):
        save_towers(make_towers(), str(tmp_path))
    assert os.listdir(tmp_path) == ["thesis.txt"]


@pytest.mark.slow
def test_an_object_store_holds_a_model(saved: Path) -> None:
    """`fsspec+memory` stands for any store that pyarrow reaches."""
    model = load_model(saved)
    uri = f"fsspec+memory:///models{saved}"
    model.save(uri)
    model.save(uri)
    assert load_model(uri).fingerprint == model.fingerprint
    with pytest.raises(InputError, match="no model"):
        load_model(uri + "/none")


def test_somebody_elses_model_is_distinguished(text_folder: str) -> None:
    with pytest.raises(InputError, match="not a raymtr model"):
        load_model(text_folder)


def break_json(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def cut_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def lose_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def lose_a_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["audio_projector.1.weight"]
    save_file(weights, folder / "model.safetensors")


def add_a_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file({**weights, "extra": torch.zeros(1)}, folder / "model.safetensors")


def lose_tokenizer(folder: Path) -> None:
    shutil.rmtree(folder / "text_tower")


def invent_setting(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["model"]["colour"] = "blue"
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    "damage",
    [
        break_json,
        cut_weights,
        lose_weights,
        lose_a_weight,
        add_a_weight,
        lose_tokenizer,
        invent_setting,
    ],
)
def test_damage_is_one_sentence(saved: Path, damage: Callable[[Path], None]) -> None:
    damage(saved)
    with pytest.raises(UnusableError, match="is damaged") as error:
        load_model(saved)
    assert str(saved) in str(error.value)


def test_a_newer_format_is_distinguished(saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps({**config, "format": FORMAT + 1}))
    with pytest.raises(UnusableError, match=f"format {FORMAT + 1}.*newer"):
        load_model(saved)
