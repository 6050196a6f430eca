"""Which tracks of a new scan are those of the one before."""

import pyarrow as pa
import pytest

from raymtr.catalog.continuity import count_changes, keep_ids
from raymtr.catalog.folder import path_ids


def scanned(*files, root="/music"):
    """(path, version, digest) each, with the ids that paths give."""
    paths = [path for path, _, _ in files]
    return pa.table(
        {
            "track_id": pa.array(path_ids(paths), pa.string()),
            "uri": pa.array([f"{root}/{path}" for path in paths], pa.string()),
            "file_version": pa.array([version for _, version, _ in files], pa.string()),
            "audio_digest": pa.array([digest for _, _, digest in files], pa.string()),
        }
    )


def ids(table):
    return {
        row["uri"].partition("/music/")[2] or row["uri"]: row["track_id"]
        for row in table.to_pylist()
    }


def again(before, *files, **root):
    after = keep_ids(scanned(*files, **root), before)
    counts = {name: n for name, n in count_changes(after, before).items() if n}
    return ids(after), counts


A, B = ("a.mp3", "1", "1-a"), ("b.mp3", "2", "1-b")


def test_a_first_scan_gives_ids_by_path_and_all_is_new():
    first = scanned(A, B)
    assert keep_ids(first, None).equals(first)
    assert count_changes(first, None)["new"] == 2


def test_a_move_a_rename_and_a_retag_keep_the_id():
    before = scanned(A, B)
    was = ids(before)
    now, counts = again(before, ("x/1 - a.mp3", "9", "1-a"), ("b.mp3", "8", "1-b"))
    assert now == {"x/1 - a.mp3": was["a.mp3"], "b.mp3": was["b.mp3"]}
    assert counts == {"moved": 1, "retagged": 1}


def test_names_that_change_places_follow_their_sounds():
    before = scanned(A, B, ("c.mp3", "3", "1-c"))
    was = ids(before)
    now, counts = again(before, ("a.mp3", "2", "1-b"), ("b.mp3", "3", "1-c"), ("c.mp3", "1", "1-a"))
    assert now == {"a.mp3": was["b.mp3"], "b.mp3": was["c.mp3"], "c.mp3": was["a.mp3"]}
    assert counts == {"moved": 3}


def test_a_new_file_never_gets_an_id_that_another_had():
    before = scanned(A)
    after = keep_ids(scanned(("b.mp3", "1", "1-a"), ("a.mp3", "5", "1-n")), before)
    now = ids(after)
    assert now["b.mp3"] == ids(before)["a.mp3"] != now["a.mp3"]
    third = keep_ids(scanned(("a.mp3", "5", "1-n"), ("b.mp3", "1", "1-a")), after)
    assert ids(third) == now, "and every later scan agrees"
    only = keep_ids(scanned(("a.mp3", "6", "1-z")), scanned(("b.mp3", "1", "1-a")))
    assert len(only) == 1


def test_another_sound_in_the_same_place_is_the_track_changed():
    before = scanned(A, B)
    now, counts = again(before, ("a.mp3", "7", "1-q"), B)
    assert now == ids(before) and counts == {"changed": 1}


def test_a_copy_is_a_track_of_its_own_and_known_as_such():
    before = scanned(A)
    now, counts = again(before, A, ("copy.mp3", "4", "1-a"))
    assert now["a.mp3"] == ids(before)["a.mp3"] != now["copy.mp3"]
    assert counts == {"new": 1, "copies": 1}


def test_a_folder_that_moved_as_a_whole_keeps_all_ids_copies_among_them():
    files = [("a/x.mp3", "1", "1-a"), ("b/x.mp3", "1", "1-a"), ("c.mp3", "3", None)]
    before = scanned(*files)
    after = keep_ids(scanned(*files, root="/elsewhere/music"), before)
    assert ids(after) == ids(before)


@pytest.mark.parametrize("digest", [None, "1-a"])
def test_catalogs_without_digests_are_followed_by_size_and_time(digest):
    before = scanned(("a.mp3", "10-77", None)).drop_columns("audio_digest")
    now, counts = again(before, ("new/a.mp3", "10-77", digest))
    assert list(now.values()) == before["track_id"].to_pylist() and counts == {"moved": 1}
    _, counts = again(before, ("new/a.mp3", "10-78", digest))
    assert counts == {"new": 1, "gone": 1}
