"""The shared datasets as tracks: right files, right words, nobody's broken cells."""

import os

from raymtr.catalog.sources import key_words, midi_tracks, mtg_jamendo_tracks, real_music_tracks


def row(table, track_id):
    (found,) = (row for row in table.to_pylist() if row["track_id"] == track_id)
    return {name: value for name, value in found.items() if value is not None}


def test_real_music_is_one_track_a_clip(large_data):
    table = real_music_tracks(str(large_data / "data" / "real_music"))
    assert len(table) == 395
    assert all(os.path.isfile(uri) for uri in table["uri"].to_pylist())
    assert len(set(table["artist"].to_pylist())) == 29
    assert row(table, "rm0001_3") == {
        "track_id": "rm0001_3",
        "uri": str(large_data / "data" / "real_music/clips/rm0001_3.ogg"),
        "title": "A Night Of Dizzy Spells",
        "artist": "Eric Skiff",
        "artists": ["Eric Skiff"],
        "album": "Resistor Anthems",
        "year": 2008,
        "duration": 10.0,
        "tags": ["chiptune", "electronic", "8-bit", "video game", "upbeat", "instrumental"],
        "dataset": "real_music",
        "clip": 3,
        "recording": "rm0001",
        "genre": "chiptune",
        "vocal": "instrumental",
        "licence": "CC-BY-SA-4.0",
    }


def test_midi_knows_key_metre_tempo_and_instruments_exactly(large_data):
    table = midi_tracks(str(large_data / "data" / "midi"))
    assert len(table) == 441
    assert all(os.path.isfile(uri) for uri in table["uri"].to_pylist())
    tunes = table.filter(table["key"].is_valid())
    assert len(tunes) == 185
    assert not any(tunes["artist"].to_pylist())  # collectors' notes are no artists
    clip = row(table, tunes["track_id"][0].as_py())
    assert key_words(clip["key"]) in clip["tags"] and clip["meter"] in clip["tags"]
    assert set(clip["instruments"]) < set(clip["tags"])
    assert clip["bpm"] > 0 and os.path.isfile(large_data / "data" / "midi" / clip["midi"])


def test_keys_in_words():
    assert [key_words(key) for key in ("G", "Em", "Bb", "")] == [
        "G major",
        "E minor",
        "Bb major",
        "",
    ]


def test_mtg_jamendo_is_words_alone(large_data):
    table = mtg_jamendo_tracks(str(large_data / "data" / "mtg-jamendo"))
    assert len(table) == 9_316
    assert table["uri"].null_count == len(table)
    first = row(table, "track_0000214")
    assert first["title"] == "Intro chiante" and first["album"] == "album_000031"
    assert first["tags"] == ["punkrock"] and first["duration"] == 124.6
    broken = row(table, "track_0143951")  # two cells under one pair of quotes, upstream
    assert broken["title"] == "no limite dreams"
    assert broken["artist"] == 'Noblemo "piano,sountrack,lounge"'
    assert row(table, "track_0180531")["title"] == 'Disoriented (12" Club Mix) by WEXIN'
