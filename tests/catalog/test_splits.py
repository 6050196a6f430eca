"""Splits by artist: stable, leak-free, close to the shares asked for."""

import pyarrow as pa
import pytest

from raymtr.catalog.splits import assign_splits, check_no_leak
from raymtr.errors import InputError
from raymtr.track import check_tracks


def tracks(artists, splits=None):
    columns = {"track_id": [f"t{i:05}" for i in range(len(artists))], "artist": artists}
    return check_tracks(pa.table(columns | ({"split": splits} if splits else {})))


def test_an_artist_is_in_one_split_however_spelled():
    table = assign_splits(tracks(["Beyoncé", "beyonce", "The Cure", "cure "] * 50))
    splits = dict(zip(table["artist"].to_pylist(), table["split"].to_pylist(), strict=True))
    assert splits["Beyoncé"] == splits["beyonce"] and splits["The Cure"] == splits["cure "]
    check_no_leak(table)


def test_more_tracks_move_nobody():
    few = assign_splits(tracks([f"artist {i % 40}" for i in range(100)]))
    many = assign_splits(tracks([f"artist {i % 400}" for i in range(1000)]))
    by_artist = dict(zip(many["artist"].to_pylist(), many["split"].to_pylist(), strict=True))
    assert all(by_artist[row["artist"]] == row["split"] for row in few.to_pylist())
    assert set(few["split"].to_pylist()) == {"train", "valid", "test"}


def test_shares_are_met_on_average_and_the_seed_redraws():
    table = tracks([f"artist {i}" for i in range(5000)])
    drawn = assign_splits(table, valid=0.2, test=0.05)["split"].to_pylist()
    assert 0.18 < drawn.count("valid") / 5000 < 0.22
    assert 0.04 < drawn.count("test") / 5000 < 0.06
    other = assign_splits(table, valid=0.2, test=0.05, seed=1)["split"].to_pylist()
    assert other != drawn
    assert set(assign_splits(table, valid=0.0, test=0.0)["split"].to_pylist()) == {"train"}


def test_tracks_without_artist_form_no_group():
    drawn = assign_splits(tracks([None] * 500))["split"].to_pylist()
    assert 300 < drawn.count("train") < 480
    assert drawn == assign_splits(tracks([None] * 500))["split"].to_pylist()


def test_given_splits_stay_and_their_artists_follow():
    table = tracks(["A", "a", "B", None], ["test", None, "valid", "train"])
    assert assign_splits(table)["split"].to_pylist() == ["test", "test", "valid", "train"]


def test_a_leak_is_rejected_by_name():
    table = tracks(["Beyoncé", "BEYONCE", "Cure"], ["train", "test", "train"])
    with pytest.raises(
        InputError, match=r"1 artists are in two splits.*Beyonc.*test.*train|train.*test"
    ):
        check_no_leak(table)
    with pytest.raises(InputError, match="in two splits"):
        assign_splits(table)


def test_shares_that_are_none_are_rejected():
    with pytest.raises(InputError, match="together 1"):
        assign_splits(tracks(["a"]), valid=0.6, test=0.6)
