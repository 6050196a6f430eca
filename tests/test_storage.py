"""Files under a URI: whole or absent, whatever their names."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import fs

from raymtr import storage
from raymtr.errors import InputError, UnusableError


@pytest.mark.parametrize(
    "name", ["plain.wav", "50% #1?.wav", "new\nline.wav", "日本.wav", "%41.wav"]
)
def test_plain_paths_are_taken_as_they_are(tmp_path, name):
    uri = str(tmp_path / name)
    storage.write_bytes(uri, b"x")
    assert os.listdir(tmp_path) == [name]
    assert storage.exists(uri) and storage.read_bytes(uri) == b"x"


def test_file_uris_are_percent_decoded_to_any_bytes(tmp_path):
    (tmp_path / "a b%.txt").write_bytes(b"x")
    assert storage.read_bytes(f"file://{tmp_path}/a%20b%25.txt") == b"x"
    assert storage.local_path("file:///caf%E9") == os.fsdecode(b"/caf\xe9")


def test_what_is_remote():
    assert storage.is_remote("s3://bucket/key") and storage.is_remote("gs://b")
    assert not storage.is_remote("/a/b") and not storage.is_remote("file:///a")
    with pytest.raises(InputError, match="not a folder or a known object store"):
        storage.open_filesystem("nope://x")


def test_a_write_that_fails_leaves_the_old_file_and_no_rest(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(UnusableError, match="cannot write"):
        storage.write_bytes(str(tmp_path / "folder"), b"x")  # a folder stands there
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(UnusableError, match="cannot write"):
        storage.write_bytes(str(tmp_path / "file" / "below"), b"x")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]
    assert (tmp_path / "file").read_bytes() == b"old"


def test_json_is_readable_and_strict(tmp_path):
    uri = str(tmp_path / "deep" / "er" / "x.json")
    storage.write_json(uri, {"name": "Björk", "n": [1, 2.5, None]})
    assert storage.read_json(uri) == {"name": "Björk", "n": [1, 2.5, None]}
    assert "Björk" in (tmp_path / "deep/er/x.json").read_text()
    with pytest.raises(ValueError, match="not JSON compliant"):
        storage.write_json(uri, {"x": float("nan")})
    assert json.loads((tmp_path / "deep/er/x.json").read_text())["n"] == [1, 2.5, None]


def test_listings_are_sorted_and_absent_folders_empty(tmp_path):
    for name in ("b.parquet", "a.parquet", "c.json"):
        storage.write_bytes(str(tmp_path / name), b"")
    (tmp_path / "sub").mkdir()
    assert storage.list_files(str(tmp_path), suffix=".parquet") == ["a.parquet", "b.parquet"]
    assert storage.list_folders(str(tmp_path)) == ["sub"]
    assert storage.list_files(str(tmp_path / "absent")) == []


def test_tables_of_different_columns_are_read_as_one(tmp_path):
    storage.write_table(str(tmp_path / "0.parquet"), pa.table({"id": ["a", "b"], "x": [1, 2]}))
    storage.write_table(str(tmp_path / "1.parquet"), pa.table({"id": ["c"], "y": ["z"]}))
    read = storage.read_tables(str(tmp_path))
    assert read.to_pydict() == {"id": ["a", "b", "c"], "x": [1, 2, None], "y": [None, None, "z"]}
    assert storage.read_tables(str(tmp_path), ["y", "id", "no"]).to_pydict() == {
        "y": [None, None, "z"], "id": ["a", "b", "c"],
    }  # fmt: skip
    assert storage.read_tables(str(tmp_path), ["x"])["x"].to_pylist() == [1, 2, None]
    assert storage.read_tables(str(tmp_path / "absent")) is None


def test_replace_files_leaves_exactly_the_new_ones(tmp_path):
    old, new = str(tmp_path / "old"), str(tmp_path / "new")
    for name in ("1", "2", "3"):
        storage.write_bytes(f"{old}/{name}", b"old")
    storage.write_bytes(f"{new}/1", b"new")
    storage.replace_files(new, old)
    assert storage.list_files(old) == ["1"] and storage.read_bytes(f"{old}/1") == b"new"
    assert not storage.exists(new)
    storage.write_bytes(f"{new}/4", b"new")
    storage.replace_files(new, str(tmp_path / "first"))
    assert storage.list_files(str(tmp_path / "first")) == ["4"]


def test_delete_takes_files_folders_and_nothing(tmp_path):
    storage.write_bytes(str(tmp_path / "d" / "x"), b"")
    for uri in ("d/x", "d", "never"):
        storage.delete(str(tmp_path / uri))
    assert os.listdir(tmp_path) == []


def test_the_local_file_system_is_opened_at_absolute_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    filesystem, path = storage.open_filesystem("x/y")
    assert isinstance(filesystem, fs.LocalFileSystem) and path == str(tmp_path / "x/y")


def test_a_local_folder_is_its_own_copy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for uri in (str(tmp_path / "a b"), f"file://{tmp_path}/a%20b", "a b"):
        assert storage.local_copy(uri, last="config.json") == str(tmp_path / "a b")


@pytest.fixture
def on_a_node(object_store, tmp_path, monkeypatch):
    """This process reaches the object store, and has a temporary folder of its own."""
    for key, value in object_store.items():
        monkeypatch.setenv(key, value)
    (tmp_path / "node").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "node"))
    monkeypatch.setattr(tempfile, "tempdir", None)


@pytest.mark.slow
@pytest.mark.usefixtures("on_a_node")
def test_a_remote_folder_is_copied_once_and_anew_when_it_was_replaced(tmp_path):
    uri = f"s3://music/{tmp_path.name}"
    with pytest.raises(UnusableError, match=r"no config\.json"):
        storage.local_copy(uri, last="config.json")
    storage.write_bytes(f"{uri}/deep/er/weights", b"x" * 100)
    storage.write_bytes(f"{uri}/config.json", b"1")
    first = storage.local_copy(uri, last="config.json")
    assert Path(first).is_relative_to(tmp_path / "node")
    assert Path(first, "deep/er/weights").read_bytes() == b"x" * 100
    Path(first, "config.json").write_bytes(b"kept")
    assert storage.local_copy(uri, last="config.json") == first
    assert Path(first, "config.json").read_bytes() == b"kept", "it was fetched once more"

    storage.write_bytes(f"{uri}/config.json", b"22")
    second = storage.local_copy(uri, last="config.json")
    assert second != first and Path(second, "config.json").read_bytes() == b"22"
    assert Path(first, "config.json").exists(), "who had the old one may still read it"


@pytest.mark.usefixtures("on_a_node")
def test_of_a_remote_folder_only_what_is_wanted_is_copied(tmp_path):
    uri = f"s3://music/{tmp_path.name}"
    for name in ("weights", "config.json", "runs/1/weights"):
        storage.write_bytes(f"{uri}/{name}", b"1")
    some = storage.local_copy(uri, last="config.json", wanted=lambda name: "weights" not in name)
    assert os.listdir(some) == ["config.json"]
    whole = storage.local_copy(uri, last="config.json")
    assert sorted(os.listdir(whole)) == ["config.json", "runs", "weights"]


@pytest.mark.usefixtures("on_a_node")
def test_a_copy_that_was_cut_is_begun_again(tmp_path, monkeypatch):
    uri = f"s3://music/{tmp_path.name}"
    for name in ("a", "b", "config.json"):
        storage.write_bytes(f"{uri}/{name}", name.encode())

    fetch = storage._copy_file

    def cut(source, target):
        if source.endswith("b"):
            raise OSError("the line is cut")
        fetch(source, target)

    monkeypatch.setattr(storage, "_copy_file", cut)
    with pytest.raises(UnusableError, match="the line is cut"):
        storage.local_copy(uri, last="config.json")

    def replaced(source, target):
        fetch(source, target)
        storage.write_bytes(f"{uri}/b", b"of another model")

    monkeypatch.setattr(storage, "_copy_file", replaced)
    with pytest.raises(UnusableError, match="was changed"):
        storage.local_copy(uri, last="config.json")
    monkeypatch.setattr(storage, "_copy_file", fetch)
    copy = storage.local_copy(uri, last="config.json")
    assert sorted(os.listdir(copy)) == ["a", "b", "config.json"]
    assert Path(copy, "b").read_bytes() == b"of another model"


COPY = """
import sys
from raymtr import storage
fetch = storage._copy_file
def told(source, target):
    print("fetched", flush=True)
    fetch(source, target)
storage._copy_file = told
print(storage.local_copy(sys.argv[1], last="config.json"))
"""


@pytest.mark.slow
@pytest.mark.usefixtures("on_a_node")
def test_of_processes_that_ask_at_once_one_fetches(tmp_path):
    uri = f"s3://music/{tmp_path.name}"
    storage.write_bytes(f"{uri}/weights", os.urandom(40 << 20))
    storage.write_bytes(f"{uri}/config.json", b"1")
    asking = [
        subprocess.Popen([sys.executable, "-c", COPY, uri], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    said = [line for one in asking for line in one.communicate(timeout=600)[0].splitlines()]
    copies = {line for line in said if line != "fetched"}
    assert said.count("fetched") == 2 and len(copies) == 1 and len(said) == 2 + 3
    assert Path(copies.pop(), "weights").stat().st_size == 40 << 20
