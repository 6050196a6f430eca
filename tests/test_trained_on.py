"""The record of what a model was trained on: exact, sorted, damaged or absent."""

from pathlib import Path

import numpy as np
import pytest

from raymtr.errors import UnusableError
from raymtr.trained_on import (
    RECORD,
    known,
    pair_names,
    read_record,
    record_of,
    to_bytes,
    track_names,
)


def test_a_track_is_known_by_its_id_or_by_its_sound() -> None:
    record = record_of(track_names("a", "sound of a") + track_names("b", None))
    tracks = [
        ("a", None),
        ("new id", "sound of a"),
        ("b", "other"),
        ("c", None),
        ("c", "d"),
        ("", ""),
    ]
    found = known(record, [track_names(*track) for track in tracks])
    assert found.tolist() == [True, True, True, False, False, False]


def test_an_id_is_not_taken_for_a_sound_of_that_name() -> None:
    assert not known(record_of(["track x"]), [track_names("y", "x")]).any()


def test_a_pair_is_known_by_its_clip_or_by_its_words() -> None:
    record = record_of(pair_names("0", ["Piano", "calm"], "A calm piece."))
    again = [
        pair_names("0", ["rock"], "Other words."),
        pair_names("1", ["calm", "piano"], "A CALM piece."),
        pair_names("1", ["calm"], "A calm piece."),
    ]
    assert known(record, again).tolist() == [True, True, False]


def test_the_record_is_eight_bytes_a_name_and_comes_back(tmp_path: Path) -> None:
    record = record_of(f"track {n}" for n in [*range(5000), 7, 7])
    assert record.dtype == np.uint64 and len(record) == 5000 and (np.diff(record) > 0).all()
    (tmp_path / RECORD).write_bytes(to_bytes(record))
    assert (tmp_path / RECORD).stat().st_size < 5000 * 8 + 200
    assert np.array_equal(read_record(str(tmp_path)), record)
    assert known(record, [[f"track {n}"] for n in range(4990, 5010)]).sum() == 10


def test_a_hash_is_the_same_on_every_machine() -> None:
    assert record_of(["track a"]).tolist() == [12588992019858164536]


def test_without_a_record_nothing_is_known(tmp_path: Path) -> None:
    assert read_record(str(tmp_path)) is None


@pytest.mark.parametrize("data", [b"", b"\x93NUMPY torn", to_bytes(np.zeros((2, 2)))])
def test_a_damaged_record_is_rejected_by_name(tmp_path: Path, data: bytes) -> None:
    (tmp_path / RECORD).write_bytes(data)
    with pytest.raises(UnusableError, match=RECORD):
        read_record(str(tmp_path))
