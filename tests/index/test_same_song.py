from __future__ import annotations

import pytest

from raymtr.index.same_song import KINDS, Likeness, group_rows, likeness, read_name


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
        ("Song", "Song", 0.40, 0.5, "different master"),
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


def test_a_track_is_as_alike_as_the_loosest_link_to_the_one_kept() -> None:
    same, master, version = range(len(KINDS))
    names = [read_name(title, "A") for title in ("Song (Live)", "Song", "Song", "Song", "x", "y")]
    pairs = [(0, 1, version), (0, 2, version), (1, 3, master), (2, 3, same), (4, 5, same)]
    assert group_rows(pairs, names, ["l", "b", "c", "d", "y", "x"]) == [
        (0, 1, "kept"),
        (0, 2, "different master"),
        (0, 3, "different master"),
        (0, 0, "other version"),
        (1, 5, "kept"),
        (1, 4, "same recording"),
    ]
