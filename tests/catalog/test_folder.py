"""Folders as people have them: deep, linked in circles, with names of every kind."""

import os
import shutil
import unicodedata
from pathlib import Path

import pytest
from pyarrow import fs

from raymtr import storage
from raymtr.catalog.folder import Listing, _walk_store, list_audio, one_file, path_ids, title_of
from raymtr.errors import UnusableError

NFC, NFD = (unicodedata.normalize(form, "Café.wav") for form in ("NFC", "NFD"))


def put(root, *paths):
    for path in paths:
        file = (
            os.path.join(root, path) if isinstance(path, str) else os.fsencode(root) + b"/" + path
        )
        os.makedirs(os.path.dirname(file), exist_ok=True)
        with open(file, "wb") as stream:
            stream.write(b"x")


def listed(root) -> dict[str, str]:
    """Title by URI."""
    rows = list_audio(str(root)).files.to_pylist()
    return {row["uri"]: row["title"] for row in rows}


def test_walks_deep_takes_audio_and_counts_the_rest(tmp_path):
    put(tmp_path, "a/b/c/d/e/f.flac", "UPPER.MP3", "x.OpUs", "cover.JPG", "cover.jpg", "notes")
    listing = list_audio(str(tmp_path))
    names = [os.path.basename(uri) for uri in listing.files["uri"].to_pylist()]
    assert names == ["UPPER.MP3", "f.flac", "x.OpUs"]
    assert listing.skipped == {".jpg": 2, "no suffix": 1}


def test_hidden_is_one_dot_not_three(tmp_path):
    put(tmp_path, ".a.mp3", "._b.mp3", ".git/c.mp3", "...And Justice/...Baby.mp3")
    listing = list_audio(str(tmp_path))
    assert listing.files["title"].to_pylist() == ["...Baby"]
    assert listing.skipped == {"hidden": 3}


@pytest.mark.parametrize(
    "name", ["new\nline.wav", "100% #1?.wav", "a&b=c;d.wav", "日本 語.wav", "%41.wav", "x\\y.wav"]
)
def test_odd_names_are_plain_paths_that_open(tmp_path, name):
    put(tmp_path, name)
    (uri,) = listed(tmp_path)
    assert uri == str(tmp_path / name)
    assert Path(storage.local_path(uri)).read_bytes() == b"x"


def test_names_that_are_not_utf8_become_file_uris_that_open(tmp_path):
    put(tmp_path, b"caf\xe9 50%.wav")
    ((uri, title),) = listed(tmp_path).items()
    assert uri.startswith("file:///") and uri.endswith("/caf%E9%2050%25.wav")
    assert title == "café 50%"
    assert Path(storage.local_path(uri)).read_bytes() == b"x"


def test_loops_and_links_beside_their_targets_give_nothing_twice(tmp_path):
    put(tmp_path, "root/a/one.wav", "root/z/two.wav", "elsewhere/three.wav")
    root = tmp_path / "root"
    (root / "a" / "up").symlink_to("..")
    (root / "a" / "whole disk").symlink_to("/")
    (root / "0 same").symlink_to("z")
    (root / "same.wav").symlink_to("z/two.wav")
    (root / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(root)
    below = [os.path.relpath(uri, root) for uri in listed(root)]
    assert below == ["a/one.wav", "more/three.wav", "z/two.wav"]


def test_links_to_hidden_stores_are_tracks_and_dangling_ones_are_kept_to_be_reported(tmp_path):
    put(tmp_path, ".git/annex/abc.mp3")
    (tmp_path / "song.mp3").symlink_to(".git/annex/abc.mp3")
    (tmp_path / "gone.mp3").symlink_to("nowhere.mp3")
    (tmp_path / "gone.txt").symlink_to("nowhere.txt")
    assert list(listed(tmp_path).values()) == ["gone", "song"]


def test_ids_survive_a_move_and_copies_are_tracks_of_their_own(tmp_path):
    put(tmp_path, "one/a/x.wav", "one/a/y.wav")
    shutil.copytree(tmp_path / "one", tmp_path / "moved" / "elsewhere")
    ids = list_audio(str(tmp_path / "one")).files["track_id"].to_pylist()
    assert ids == list_audio(str(tmp_path / "moved/elsewhere")).files["track_id"].to_pylist()
    assert len(set(ids)) == 2
    assert all(len(i) == 20 and i.isalnum() and i.isascii() for i in ids)


def test_ids_do_not_depend_on_the_start_of_the_walk_or_its_spelling(tmp_path):
    put(tmp_path, "a/x.wav")
    ids = list_audio(str(tmp_path)).files["track_id"].to_pylist()
    assert ids == list_audio(f"{tmp_path}/./a/..//").files["track_id"].to_pylist()
    assert ids == list_audio(f"file://{tmp_path}").files["track_id"].to_pylist()


def test_normal_forms_share_an_id_unless_both_are_there(tmp_path):
    (composed,), (decomposed,) = path_ids([NFC]), path_ids([NFD])
    assert composed == decomposed
    both = dict(zip([NFC, NFD], path_ids([NFC, NFD]), strict=True))
    assert both[NFC] == composed != both[NFD]
    put(tmp_path, NFC, NFD)
    assert len(set(list_audio(str(tmp_path)).files["track_id"].to_pylist())) == 2


def test_the_id_of_a_path_is_pinned():
    assert path_ids(["Album/01 Song.mp3"]) == ["82be7bf8692cbf5b541c"]


def test_one_file_has_the_id_its_folder_gives_it(tmp_path):
    put(tmp_path, "x.wav")
    assert one_file(str(tmp_path / "x.wav")).files.equals(list_audio(str(tmp_path)).files)


def test_a_store_is_listed_like_a_folder(tmp_path):
    put(tmp_path, "a/b.wav", ".hid/c.wav", "d.txt", "...e.mp3")
    listing = Listing(files=None)
    found = _walk_store(fs.LocalFileSystem(), str(tmp_path), listing)
    assert found == ["...e.mp3", "a/b.wav"]
    assert listing.skipped == {"hidden": 1, ".txt": 1}


def test_a_folder_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "file.wav").write_bytes(b"x")
    with pytest.raises(UnusableError, match=r"file.wav cannot be read: Not a directory"):
        list_audio(str(tmp_path / "file.wav"))


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("01_my_song.wav", "my song"),
        ("07 - Blue_Moon.flac", "Blue Moon"),
        ("1-01 Overture.mp3", "Overture"),
        ("7. Seven.mp3", "Seven"),
        ("12 - 12 Steps.mp3", "12 Steps"),
        ("99 Luftballons.mp3", "99 Luftballons"),
        ("50_Cent - In da Club.mp3", "50 Cent - In da Club"),
        ("24-7.mp3", "24-7"),
        ("1999.mp3", "1999"),
        ("01.mp3", "01"),
        ("01 - .mp3", "01 -"),
        ("3.14.mp3", "3.14"),
        ("deep/er/Ünïcode.tar.ogg", "Ünïcode.tar"),
        ("___.wav", "___"),
        ("new\nline.wav", "new line"),
        (NFD, "Café"),
    ],
)
def test_titles_by_name(name, title):
    assert title_of(name) == title
