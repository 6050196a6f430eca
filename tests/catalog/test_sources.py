"""The shared datasets as tracks: right files, right words, nobody's broken cells."""

import os
from pathlib import Path

import pytest

from raymtr.catalog.similar_artists import join_similar_artists, read_graph
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


@pytest.mark.slow
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


SMALL = str(Path(__file__).resolve().parents[1] / "data" / "sources")


def test_a_recording_of_two_clips_is_two_tracks():
    table = real_music_tracks(SMALL)
    assert table["track_id"].to_pylist() == ["rm1_0", "rm1_1", "rm2_0"]
    clip = row(table, "rm2_0")
    assert clip["uri"] == f"{SMALL}/clips/rm2_0.ogg" and clip["recording"] == "rm2"
    assert clip["tags"] == ["folk", "guitar", "vocal", "Estonian"]
    assert not {"year", "album"} & set(clip)


def test_a_collectors_note_is_no_artist_and_a_key_becomes_words():
    table = midi_tracks(SMALL)
    tune, game = row(table, "md1_1"), row(table, "md2_0")
    assert "artist" not in tune and tune["composer"] == "via TR"
    assert tune["tags"] == ["jig", "bagpipe", "E minor", "6/8"]
    assert game["artist"] == "Ada Verne" and game["instruments"] == ["drums", "slap bass"]
    assert table.schema.field("bpm").type == "int64"


def test_a_catalogue_without_audio_joins_the_graph():
    table, matched = join_similar_artists(
        mtg_jamendo_tracks(SMALL), read_graph(f"{SMALL}/artist_similarity.tsv")
    )
    assert table["uri"].null_count == len(table) == 2 and matched.found == 2
    assert row(table, "track_2")["similar_artists"] == ["Tomas Reyl", "Ada Verne"]
    assert row(table, "track_1")["tags"] == ["ambient", "piano", "synthesizer", "calm"]
