from __future__ import annotations

import dataclasses
from pathlib import Path

import pyarrow as pa
import pytest

from raymtr import storage
from raymtr.errors import InputError
from raymtr.recipes import tiny
from raymtr.specs import Settings
from raymtr.training.identity import identity_of, may_resume

TRACKS = pa.table({"track_id": ["a", "b"], "uri": ["a.wav", "b.wav"]})
THEN = identity_of(tiny(), TRACKS)


def begun(folder: Path, *, checkpoint: bool) -> str:
    storage.write_json(f"{folder}/run.json", THEN)
    if checkpoint:
        storage.write_bytes(f"{folder}/checkpoint_000000002/state.pt", b"weights")
    return str(folder)


def changed(**train: object) -> Settings:
    return dataclasses.replace(tiny(), train=dataclasses.replace(tiny().train, **train))


def test_the_same_training_is_resumed(tmp_path: Path) -> None:
    assert not may_resume(str(tmp_path / "new"), THEN)
    assert may_resume(begun(tmp_path, checkpoint=True), identity_of(tiny(), TRACKS))


def test_each_difference_is_named_with_both_values(tmp_path: Path) -> None:
    folder = begun(tmp_path, checkpoint=True)
    other = identity_of(changed(threads=2, mixture={"a": 1.0}), TRACKS.slice(1))
    with pytest.raises(InputError) as refused:
        may_resume(folder, other | {"torch": "1.0"})
    message = str(refused.value)
    for part in (
        "train.threads was 1 and is 2",
        "train.mixture was {} and is {'a': 1.0}",
        "torch was",
        "tracks was",
    ):
        assert part in message
    assert "train.steps" not in message and "Give another --run" in message
    assert storage.exists(f"{folder}/checkpoint_000000002/state.pt")


def test_a_run_without_a_checkpoint_has_nothing_to_lose(tmp_path: Path) -> None:
    folder = begun(tmp_path / "run", checkpoint=False)
    assert not may_resume(folder, identity_of(changed(steps=9), TRACKS))
    assert not storage.exists(folder)


def test_settings_of_other_jobs_do_not_matter() -> None:
    other = dataclasses.replace(tiny(), embed=dataclasses.replace(tiny().embed, actors=9))
    assert identity_of(other, TRACKS) == THEN


def test_how_a_run_is_computed_may_differ(tmp_path: Path) -> None:
    folder = begun(tmp_path, checkpoint=True)
    other = changed(workers=2, min_workers=1, use_gpu=True, keep_checkpoints=9, validate_every=3)
    assert may_resume(folder, identity_of(other, TRACKS))


def test_a_run_of_an_older_version_continues(tmp_path: Path) -> None:
    """It kept the number of workers, and knew nothing of what came later."""
    folder = begun(tmp_path, checkpoint=True)
    storage.write_json(f"{folder}/run.json", THEN | {"train.workers": 4, "train.gone": True})
    assert may_resume(folder, identity_of(tiny(), TRACKS) | {"text_tower": "1234"})


def test_another_text_tower_under_the_same_name_is_another_training(tmp_path: Path) -> None:
    folder = begun(tmp_path, checkpoint=True)
    storage.write_json(f"{folder}/run.json", THEN | {"text_tower": "1234"})
    with pytest.raises(InputError, match="text_tower was '1234' and is '5678'"):
        may_resume(folder, THEN | {"text_tower": "5678"})
