"""The record of which saved models passed their golden check on this machine."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from raymtr.embeddings.kept_model import load_kept_side
from raymtr.embeddings.store import ModelRef
from raymtr.errors import UnusableError
from raymtr.model import checked
from raymtr.model.checked import MARKER
from raymtr.model.model import Model
from raymtr.model.pretrained import load_model


@pytest.fixture
def folder(tiny_model: str, tmp_path: Path) -> Path:
    load_model(tiny_model).save(str(tmp_path / "model"))
    return tmp_path / "model"


def made_by(folder: Path) -> ModelRef:
    model = load_model(folder)
    return ModelRef(fingerprint=model.fingerprint, precision="fp32", dim=model.spec.dim)


def checks(folder: Path, side: str, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether loading a side computes golden vectors."""
    ran = []
    check = Model.check_golden
    with monkeypatch.context() as patch:
        patch.setattr(
            Model, "check_golden", lambda self, sides: ran.append(sides) or check(self, sides)
        )
        load_kept_side(str(folder), made_by(folder), side)  # type: ignore[arg-type]
    return bool(ran)


@pytest.mark.slow
def test_a_side_is_checked_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [checks(folder, side, monkeypatch) for side in ("text", "text", "audio", "text")] == [
        True,
        False,
        True,
        False,
    ]


@pytest.mark.slow
def test_other_weights_libraries_or_a_broken_record_are_checked_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert checks(folder, "text", monkeypatch)
    os.utime(folder / "model.safetensors", ns=(1, 1))
    assert checks(folder, "text", monkeypatch)
    monkeypatch.setattr(checked, "version", lambda library: "another")
    assert checks(folder, "text", monkeypatch)
    (folder / MARKER).write_text("no JSON")
    assert checks(folder, "text", monkeypatch)
    assert not checks(folder, "text", monkeypatch)


@pytest.mark.slow
def test_another_model_than_the_tables_is_rejected(folder: Path) -> None:
    with pytest.raises(UnusableError, match="vectors are of model 0123"):
        other = ModelRef(fingerprint="0123", precision="fp32", dim=made_by(folder).dim)
        load_kept_side(str(folder), other, "text")
    golden = json.loads((folder / "golden.json").read_text())
    golden["text"] = golden["text"][::-1]
    (folder / "golden.json").write_text(json.dumps(golden))
    with pytest.raises(UnusableError, match="pinned text"):
        load_kept_side(str(folder), made_by(folder), "text")
    assert not (folder / MARKER).exists()
