"""A workspace is made once, known again, and refused where it is another version's."""

import os

import pytest

from raymtr import storage
from raymtr.errors import InputError, UnusableError
from raymtr.workspace import LAYOUT, Workspace


def test_made_once_and_opened_again(tmp_path):
    with pytest.raises(InputError, match=r"no workspace at .*w; `raymtr scan` makes one"):
        Workspace.open(str(tmp_path / "w"))
    made = Workspace.open(str(tmp_path / "w"), create=True)
    assert storage.read_json(made.marker) == {"layout": LAYOUT}
    assert Workspace.open(str(tmp_path / "w")) == Workspace.open(made.root, create=True) == made


@pytest.mark.parametrize("spelling", ["w", "./w", "w/", "file://{}/w", "x/../w"])
def test_one_root_however_it_is_spelled(tmp_path, monkeypatch, spelling):
    monkeypatch.chdir(tmp_path)
    made = Workspace.open(spelling.format(tmp_path), create=True)
    assert made.root == str(tmp_path / "w")
    assert os.path.isfile(tmp_path / "w" / "workspace.json")


def test_another_layout_is_rejected_and_left_alone(tmp_path):
    storage.write_json(str(tmp_path / "workspace.json"), {"layout": LAYOUT + 1})
    with pytest.raises(UnusableError, match=f"has layout {LAYOUT + 1}, this raymtr reads"):
        Workspace.open(str(tmp_path), create=True)
    assert storage.read_json(str(tmp_path / "workspace.json")) == {"layout": LAYOUT + 1}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff"])
def test_a_damaged_marker_is_said(tmp_path, content):
    (tmp_path / "workspace.json").write_bytes(content)
    with pytest.raises(UnusableError, match="is damaged"):
        Workspace.open(str(tmp_path))


def test_a_file_is_no_workspace(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UnusableError, match="cannot write"):
        Workspace.open(str(tmp_path / "file"), create=True)


def test_the_contracts_paths():
    here = Workspace("/w")
    paths = [here.catalog, here.tracks, here.captions, here.run("r"), here.embeddings("f"), here.db]
    assert paths == [
        "/w/catalog", "/w/catalog/tracks", "/w/captions", "/w/towers/r", "/w/embeddings/f", "/w/db",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden"])
def test_a_run_is_one_folder(name):
    with pytest.raises(InputError, match="one folder name"):
        Workspace("/w").run(name)
