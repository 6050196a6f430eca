from __future__ import annotations

import pytest

from raymtr.duplicates.same_song import KINDS, Likeness, group_rows, likeness, read_name


@pytest.mark.parametrize(
    ("title", "version", "master"),
    [
        ("Song", "", ""),
        ("Song (Live at Wembley)", "live at wembley", ""),
        ("Song - Live", "live", ""),
        ("Song - Remastered 2011", "", "remastered 2011"),
        ("song [2009 Remaster] (Acoustic)", "acoustic", "2009 remaster"),
        ("The Song (feat. B) - Radio Edit", "radio edit", ""),
        ("Song (Album Version)", "", "album version"),
    ],
)
def test_versions_of_a_song_share_its_name(title: str, version: str, master: str) -> None:
    name = read_name(title, "The Ärtist")
    assert (name.song, name.version, name.master) == ("artist/song", version, master)


@pytest.mark.parametrize(
    "title", ["Live and Let Die", "Song (Part 2)", "(I Can't Get No) Song", "Song - Reply", "Demo"]
)
def test_a_titles_own_words_are_kept(title: str) -> None:
    name = read_name(title, "A")
    assert name.song != read_name("Song", "A").song and not name.version and not name.master


def test_a_song_has_title_and_artist() -> None:
    assert read_name(None, "A").song is None
    assert read_name("Song", None).song is None
    assert read_name("(Live)", "A").song is None  # nothing is left of it
    assert read_name("Song", "A").song != read_name("Song", "B").song


@pytest.mark.parametrize(
    ("one", "other", "cosine", "apart_s", "expected"),
    [
        ("Song", "Song", 0.95, 0.4, "same recording"),
        ("Song", "Quite Another", 0.99995, 0.0, "same recording"),
        ("Song", "Quite Another", 0.998, 0.0, None),  # as alike as two pieces on one instrument
        ("Song", "Song", 0.95, 2.0, "different master"),
        ("Song", "Song", 0.80, 0.5, "different master"),
        ("Song", "Song", 0.60, 0.5, None),
        ("Song", "Song - 2011 Remaster", 0.97, 0.1, "different master"),
        ("Song", "Song (Live)", 0.98, 0.2, "other version"),
        ("Song", "Song (Live)", 0.10, 60.0, "other version"),
        ("Song", "Song", 0.80, 40.0, "other version"),
        ("Intro", "Intro", 0.20, 40.0, None),
        ("Song", "Song", 0.99995, float("nan"), "other version"),
        ("Song", "Song", 0.20, float("nan"), None),
    ],
)
def test_thresholds_tell_classes_apart(
    one: str, other: str, cosine: float, apart_s: float, expected: Likeness | None
) -> None:
    names = read_name(one, "A"), read_name(other, "A")
    assert likeness(*names, cosine=cosine, apart_s=apart_s) == expected
    assert likeness(*reversed(names), cosine=cosine, apart_s=apart_s) == expected


def test_each_track_of_a_group_is_like_the_one_kept() -> None:
    """Not only like its neighbour in a chain: the far end of one starts a group of its own."""
    same, master, version = range(len(KINDS))
    names = [read_name(title, "A") for title in ("Song (Live)", "Song", "Song", "Song", "x", "y")]
    pairs = [(0, 1, version), (0, 2, version), (1, 3, master), (2, 3, same), (4, 5, same)]
    assert group_rows(pairs, names, ["l", "b", "c", "d", "y", "x"]) == [
        (0, 1, "kept"),
        (0, 3, "different master"),
        (0, 0, "other version"),
        (1, 5, "kept"),
        (1, 4, "same recording"),
    ]
    chain = [(0, 1, same), (1, 2, same), (2, 3, same)]
    assert group_rows(chain, names[1:2] * 4, ["a", "b", "c", "d"]) == [
        (0, 0, "kept"),
        (0, 1, "same recording"),
        (1, 2, "kept"),
        (1, 3, "same recording"),
    ]


@pytest.mark.parametrize(
    ("title", "artist"),
    [
        ("Song", "Unknown Artist"),
        ("Song", "<unknown>"),
        ("Song", "Various Artists"),
        ("Song", "V/A"),
        ("Song", "VA"),
        ("Song", "Unbekannter Künstler"),
        ("Song", "Artista desconocido"),
        ("Song", "Неизвестный исполнитель"),
        ("Track 01", "A"),
        ("Track 1 (Live)", "A"),
        ("Audio Track 12", "A"),
        ("Titel 3", "A"),
        ("Pista 04", "A"),
        ("Untitled", "A"),
        ("[untitled]", "A"),
        ("Unknown title 2", "A"),
        ("07", "A"),
    ],
)
def test_a_placeholder_is_no_evidence(title: str, artist: str) -> None:
    assert read_name(title, artist).song is None


@pytest.mark.parametrize("title", ["1979", "22", "Track of Time", "Song 2", "Unknown Pleasures"])
@pytest.mark.parametrize("artist", ["A", "The Artist", "Unknown Mortal Orchestra"])
def test_a_name_that_looks_like_a_placeholder_is_a_name(title: str, artist: str) -> None:
    assert read_name(title, artist).song is not None


def test_pieces_called_intro_are_one_only_where_they_sound_alike() -> None:
    intro = read_name("Intro", "A")
    assert likeness(intro, intro, cosine=0.95, apart_s=0.4) == "same recording"
    assert likeness(intro, intro, cosine=0.95, apart_s=20.0) is None
    assert likeness(intro, intro, cosine=0.6, apart_s=0.4) is None


@pytest.mark.parametrize("artist", ["B feat. C", "B ft. C", "B (featuring C)", "B, feat C"])
def test_guests_do_not_make_another_song(artist: str) -> None:
    assert read_name("Song", artist).song == read_name("Song (feat. C)", "B").song == "b/song"
