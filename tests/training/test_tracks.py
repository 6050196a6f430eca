from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from raymtr import storage
from raymtr.audio import marker_of
from raymtr.errors import UnusableError
from raymtr.recipes import tiny
from raymtr.specs import TrainSpec
from raymtr.tower_specs import AudioSpec
from raymtr.track import DEAD_LETTER, check_tracks
from raymtr.training.tracks import (
    MOST_VALID_TRACKS,
    audio_cache_of,
    check_trainable,
    content_hash,
    fill_audio_cache,
    read_training_tracks,
)
from raymtr.workspace import Workspace

SPEC = TrainSpec(global_batch=2)


def workspace_of(
    folder: Path, tracks: list[dict[str, Any]], captions: list[tuple[str, str]] = ()
) -> Workspace:
    workspace = Workspace.open(str(folder), create=True)
    table = check_tracks(pa.Table.from_pylist(tracks))
    half = len(table) // 2  # two files, as a job with two tasks writes
    storage.write_table(f"{workspace.tracks}/a.parquet", table.slice(0, half))
    storage.write_table(f"{workspace.tracks}/b.parquet", table.slice(half))
    if captions:
        ids, sentences = zip(*captions, strict=True)
        rows = pa.table({"track_id": ids, "caption": sentences, "provenance": ["{}"] * len(ids)})
        storage.write_table(f"{workspace.captions}/0.parquet", rows)
    return workspace


def a_track(n: int, split: str | None, **more: Any) -> dict[str, Any]:
    track = {"track_id": f"t{n:03d}", "uri": f"{n}.wav", "title": f"T{n}", "split": split}
    return track | {"tags": None, "similar_artists": None} | more


def test_only_tracks_with_audio_words_and_a_split_are_taken(tmp_path: Path) -> None:
    tracks = [
        a_track(1, "train"),
        a_track(2, "train", uri=None),
        a_track(3, "train", title=None),
        a_track(4, "train", title=None, tags=[]),
        a_track(5, "train", title=None, tags=["jazz"]),
        a_track(6, "train", title=None),  # has a caption
        a_track(7, "train", title=None, similar_artists=["Someone"]),
        a_track(8, "valid"),
        a_track(9, "test"),
        a_track(10, None),
    ]
    workspace = workspace_of(tmp_path, tracks, [("t006", "Calm."), ("t009", "Loud.")])
    table = read_training_tracks(workspace, SPEC)
    assert table["track_id"].to_pylist() == ["t001", "t005", "t006", "t007", "t008"]
    assert table["split"].to_pylist() == ["train"] * 4 + ["valid"]
    assert table["captions"].to_pylist() == [None, None, ["Calm."], None, None]


def test_captions_come_in_an_order_of_their_own(tmp_path: Path) -> None:
    tracks = [a_track(n, "train") for n in range(3)]
    captions = [(f"t{n:03d}", f"Caption {m} of {n}") for n in range(3) for m in range(4)]
    tables = []
    for turn in range(2):
        random.Random(turn).shuffle(captions)
        tables.append(
            read_training_tracks(workspace_of(tmp_path / str(turn), tracks, captions), SPEC)
        )
    assert tables[0].equals(tables[1])
    assert tables[0]["captions"][2].as_py() == [f"Caption {m} of 2" for m in range(4)]
    assert content_hash(tables[0]) == content_hash(tables[1])
    assert content_hash(tables[0]) != content_hash(tables[0].slice(1))


def test_validation_is_a_spread_of_at_most_two_hundred(tmp_path: Path) -> None:
    tracks = [a_track(0, "train"), a_track(1, "train")]
    tracks += [a_track(n, "valid") for n in range(2, 502)]
    table = read_training_tracks(workspace_of(tmp_path, tracks), SPEC)
    valid = table["track_id"].to_pylist()[2:]
    assert len(set(valid)) == MOST_VALID_TRACKS and valid[-1] == "t501"


def test_what_cannot_be_decoded_is_a_row_with_its_reason(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "good.wav", 0.1 * np.sin(np.arange(8000.0)), 8000)
    (tmp_path / "bad.wav").write_bytes(b"RIFF of nothing")
    names = ["good.wav", "bad.wav", "gone.wav"]
    columns = {"track_id": ["a", "b", "c"], "uri": [str(tmp_path / n) for n in names]}
    tracks = pa.table(columns | {"file_version": ["1", None, "1"]})
    towers = dataclasses.replace(tiny().towers, audio=AudioSpec(sample_rate=8000, window_s=1.0))
    settings = dataclasses.replace(tiny(), towers=towers)
    made = fill_audio_cache(tracks, Workspace(str(tmp_path)), settings, hung="/absent")
    assert made.column_names == [*DEAD_LETTER.names, "samples"]
    assert made["samples"].to_pylist() == [8000, None, None]
    assert made["code"].to_pylist() == [None, "not_audio", "missing"]
    assert "gone.wav" in made["reason"][2].as_py()


def test_a_decoder_that_hung_before_and_a_file_too_large_are_rows(tmp_path: Path) -> None:
    for name in ("slow.wav", "large.wav"):
        soundfile.write(tmp_path / name, 0.1 * np.sin(np.arange(8000.0)), 8000)
    columns = {
        "track_id": ["slow", "large"],
        "uri": [f"{tmp_path}/{n}.wav" for n in ("slow", "large")],
    }
    tracks = pa.table(columns | {"file_version": ["1", "1"]})
    storage.write_bytes(f"{tmp_path}/hung/{marker_of('slow')}", b"")
    embed = dataclasses.replace(tiny().embed, max_file_mb=0.001)
    settings = dataclasses.replace(tiny(), embed=embed)
    made = fill_audio_cache(tracks, Workspace(str(tmp_path)), settings, hung=f"{tmp_path}/hung")
    assert made["code"].to_pylist() == ["timeout", "too_large"]
    assert "embed.max_file_mb allows more" in made["reason"][1].as_py()


def test_only_a_cache_that_all_workers_read_is_filled_beforehand(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", 0.1 * np.sin(np.arange(22_050.0)), 22_050)
    track = {"track_id": "a", "uri": str(tmp_path / "a.wav"), "file_version": "1"}
    tracks = pa.Table.from_pylist([track])
    for folder in ("", str(tmp_path / "own")):
        train = dataclasses.replace(tiny().train, cache_folder=folder)
        settings = dataclasses.replace(tiny(), train=train)
        made = fill_audio_cache(tracks, Workspace(str(tmp_path / "w")), settings, hung="/absent")
        assert made["samples"].to_pylist() == [22_050]
    assert list((tmp_path / "w" / "cache" / "audio").rglob("a-*.npy"))
    assert not (tmp_path / "own").exists()


def test_each_machine_has_a_cache_of_its_own_for_an_object_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    caches = [audio_cache_of(Workspace(root), tiny()) for root in ("s3://a/w", "s3://b/w")]
    assert all(Path(cache.folder).is_relative_to(tmp_path) for cache in caches)
    assert caches[0].folder != caches[1].folder and caches[0].budget == 50 << 30


def test_nothing_left_after_decoding_says_what_was_lost() -> None:
    tracks = pa.table({"split": ["train", "valid"], "dataset": ["a", "a"]})
    rows = [{"track_id": "x", "uri": "x.mp3", "code": "truncated", "reason": "half of it is gone"}]
    failures = pa.Table.from_pylist(rows, DEAD_LETTER)
    with pytest.raises(UnusableError, match=r"1 tracks .* 1 to train on .* x\.mp3: half of it"):
        check_trainable(tracks, SPEC, failures)


def test_the_text_filter_leaves_captions_of_music_and_tracks_with_other_words(
    tmp_path: Path,
) -> None:
    tracks = [
        a_track(0, "train", title=None, tags=None),
        a_track(1, "train", title=None, tags=["dungeon synth"]),
        a_track(2, "train", title=None),
        a_track(3, "train", title=None),
    ]
    captions = [
        ("t000", "Thanks for watching, subscribe!"),
        ("t001", "Some dungeon synth from my shelf."),
        ("t001", "Buy it at my shop."),
        ("t002", "A sad PIANO in the rain."),
        ("t003", "Guitar."),
    ]
    workspace = workspace_of(tmp_path, tracks, captions)
    spec = dataclasses.replace(SPEC, text_filter=True)
    table = read_training_tracks(workspace, spec)
    assert dict(zip(table["track_id"].to_pylist(), table["captions"].to_pylist(), strict=True)) == {
        "t001": ["Some dungeon synth from my shelf."],
        "t002": ["A sad PIANO in the rain."],
        "t003": ["Guitar."],
    }
    tagged = dataclasses.replace(SPEC, texts={"tags": 1.0, "caption": 1.0})
    assert len(read_training_tracks(workspace, tagged)) == 4


def test_playlists_are_words_where_the_catalog_has_them(tmp_path: Path) -> None:
    tracks = [a_track(n, "train", title=None, playlists=["Late night"]) for n in range(2)]
    table = read_training_tracks(workspace_of(tmp_path, tracks), SPEC)
    assert table["playlists"].to_pylist() == [["Late night"]] * 2
    spec = dataclasses.replace(SPEC, texts={"tags": 1.0})
    with pytest.raises(UnusableError, match="0 with words"):
        read_training_tracks(workspace_of(tmp_path, tracks), spec)


def test_masking_by_artist_needs_two_artists() -> None:
    row = {"split": "train", "dataset": None, "artist": "Ada"}
    table = pa.Table.from_pylist([row | {"track_id": n} for n in range(4)])
    spec = dataclasses.replace(SPEC, false_negatives="masked")
    with pytest.raises(UnusableError, match="all 4 tracks to train on are by one artist"):
        check_trainable(table, spec, pa.Table.from_pylist([]))
