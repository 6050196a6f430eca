"""The scan job: what it writes, what it answers, what it refuses, and that a kill harms nothing."""

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile as sf

from jobs import scan_catalog as job
from jobs.__main__ import main
from raymtr import storage
from raymtr.catalog.folder import list_audio
from raymtr.catalog.sources import real_music_tracks
from raymtr.errors import InputError, UnusableError
from raymtr.recipes import tiny
from raymtr.specs import ScanSpec
from raymtr.track import KNOWN
from raymtr.workspace import Workspace


@pytest.fixture
def workspace(tmp_path):
    return Workspace.open(str(tmp_path / "workspace"), create=True)


@pytest.fixture
def music(tmp_path):
    """Three tagged files of one second, a text file and an empty one."""
    folder = tmp_path / "music"
    (folder / "Album").mkdir(parents=True)
    for number, artist in enumerate(("Cure", "Cure", "Air"), start=1):
        with sf.SoundFile(folder / "Album" / f"0{number} - Song.flac", "w", 8_000, 1) as file:
            file.title, file.artist, file.genre = f"Title {number}", artist, "Rock;Pop"
            file.write(np.zeros(8_000))
    (folder / "notes.txt").write_text("x")
    (folder / "empty.wav").touch()
    return folder


def scan(workspace, source, **arguments):
    return job.scan_catalog(workspace, tiny(), str(source), **arguments)


def rows(workspace):
    return storage.read_tables(workspace.tracks).to_pylist()


def test_a_folder_becomes_a_catalog(workspace, music):
    answer = scan(workspace, music)
    assert answer == storage.read_json(f"{workspace.catalog}/summary.json")
    json.dumps(answer, allow_nan=False)
    wanted = {
        "kind": "folder", "tracks": 3, "with_audio": 3, "artists": 2, "hours": 0.001,
        "tags": {"Pop": 3, "Rock": 3}, "extras": {}, "errors": 1, "error_rate": 0.25,
        "skipped": {".txt": 1}, "similar_artists": None,
    }  # fmt: skip
    assert {name: answer[name] for name in wanted} == wanted
    assert sum(answer["splits"].values()) == 3
    found = rows(workspace)
    assert list(found[0]) == list(KNOWN)
    assert {row["title"] for row in found} == {"Title 1", "Title 2", "Title 3"}
    assert [row["track_id"] for row in found] == sorted(row["track_id"] for row in found)
    assert len({row["split"] for row in found if row["artist"] == "Cure"}) == 1
    (letter,) = storage.read_tables(f"{workspace.catalog}/dead_letter").to_pylist()
    assert letter["code"] == "empty" and letter["uri"].endswith("empty.wav")
    assert "3 tracks by 2 artists" in job.describe(answer)


def test_scanning_again_after_a_move_gives_the_same_ids_and_clears_old_errors(workspace, music):
    scan(workspace, music)
    before = {row["track_id"] for row in rows(workspace)}
    moved = shutil.move(music, music.parent / "moved")
    os.unlink(f"{moved}/empty.wav")
    assert scan(workspace, moved)["errors"] == 0
    assert {row["track_id"] for row in rows(workspace)} == before
    assert not storage.exists(f"{workspace.catalog}/dead_letter")


def test_a_manifest_keeps_its_ids_extras_and_splits(workspace, tmp_path):
    (tmp_path / "a.wav").touch()
    manifest = tmp_path / "m.csv"
    manifest.write_text(
        "track_id,uri,artist,split,bpm\n01,a.wav,A,test,120\n02,gone.wav,A,,90\n03,,B,,\n"
    )
    graph = tmp_path / "graph.tsv"
    graph.write_text("artist\tsimilar_artist\tscore\na\tB\t0.5\n")
    answer = scan(workspace, manifest, artists=str(graph))
    assert answer["extras"] == {"bpm": "int64"}
    assert answer["with_audio"] == 2 and answer["errors"] == 0
    assert answer["missing"] == {
        "looked_for": 2,
        "absent": 1,
        "example": str(tmp_path / "gone.wav"),
    }
    assert answer["similar_artists"] == {"artists": 2, "matched": 2}
    found = rows(workspace)
    assert [row["track_id"] for row in found] == ["01", "02", "03"]
    assert found[0]["split"] == found[1]["split"] == "test"
    assert found[0]["similar_artists"] == ["B"] and found[2]["similar_artists"] == ["a"]


def test_one_file_is_a_catalog_of_one(workspace, music):
    answer = scan(workspace, music / "Album" / "01 - Song.flac")
    assert (answer["kind"], answer["tracks"], rows(workspace)[0]["title"]) == ("file", 1, "Title 1")


def test_a_folder_of_parquet_is_a_manifest(workspace, tmp_path):
    (tmp_path / "parts").mkdir()
    for name in ("a", "b"):
        pq.write_table(pa.table({"track_id": [name]}), tmp_path / "parts" / f"{name}.parquet")
    assert scan(workspace, tmp_path / "parts")["kind"] == "manifest"
    assert len(rows(workspace)) == 2
    for year in (1999, 2001):
        (tmp_path / f"hive/year={year}").mkdir(parents=True)
        part = pa.table({"track_id": [f"of{year}"]})
        pq.write_table(part, tmp_path / f"hive/year={year}/0.parquet")
    assert scan(workspace, tmp_path / "hive")["kind"] == "manifest"
    assert [row["year"] for row in rows(workspace)] == [1999, 2001]


@pytest.mark.slow
def test_a_big_catalog_is_in_parts_and_a_smaller_one_leaves_none_behind(workspace, tmp_path):
    ids = [f"t{i:06}" for i in range(210_000)]
    pq.write_table(pa.table({"track_id": ids[::-1]}), tmp_path / "m.parquet")
    scan(workspace, tmp_path / "m.parquet")
    names = storage.list_files(workspace.tracks)
    assert names == ["part-00000.parquet", "part-00001.parquet", "part-00002.parquet"]
    assert storage.read_tables(workspace.tracks, ["track_id"])["track_id"].to_pylist() == ids
    pq.write_table(pa.table({"track_id": ["only"]}), tmp_path / "m.parquet")
    scan(workspace, tmp_path / "m.parquet")
    assert [row["track_id"] for row in rows(workspace)] == ["only"]


def test_an_unknown_graph_is_said_aloud(workspace, music, tmp_path, caplog):
    (tmp_path / "g.tsv").write_text("artist\tsimilar_artist\nX\tY\n")
    answer = scan(workspace, music, artists=str(tmp_path / "g.tsv"))
    assert answer["similar_artists"] == {"artists": 2, "matched": 0}
    assert "none of the catalog's 2 artists" in caplog.text
    assert "has 0 of 2 artists" in job.describe(answer)


def test_rejections_leave_the_old_catalog(workspace, music, tmp_path):
    scan(workspace, music)
    before = rows(workspace)
    (tmp_path / "empty").mkdir()
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "x.jpg").touch()
    (tmp_path / "x.docx").touch()
    (tmp_path / "leak.csv").write_text("track_id,artist,split\na,X,train\nb,x,test\n")
    with pytest.raises(UnusableError, match=r"no audio files in .*empty: it has nothing at all"):
        scan(workspace, tmp_path / "empty")
    with pytest.raises(UnusableError, match=r"it has 1 .jpg; audio is .aac"):
        scan(workspace, tmp_path / "odd")
    with pytest.raises(InputError, match="there is nothing at"):
        scan(workspace, tmp_path / "absent")
    with pytest.raises(InputError, match=r"neither audio .* nor a manifest"):
        scan(workspace, tmp_path / "x.docx")
    with pytest.raises(InputError, match="in two splits"):
        scan(workspace, tmp_path / "leak.csv")
    with pytest.raises(InputError, match="no rows at"):
        scan(workspace, music, artists=str(tmp_path / "absent.tsv"))
    assert rows(workspace) == before


def test_a_folder_of_empty_files_is_all_errors(workspace, tmp_path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "x.mp3").touch()
    answer = scan(workspace, tmp_path / "broken")
    assert (answer["tracks"], answer["errors"], answer["error_rate"]) == (0, 1, 1.0)
    assert rows(workspace) == []
    job.describe(answer)


@pytest.mark.slow
def test_a_small_scan_needs_neither_ray_nor_torch(workspace, music):
    code = (
        "import sys; from jobs.scan_catalog import scan_catalog; from raymtr.recipes import tiny\n"
        "from raymtr.workspace import Workspace\n"
        f"scan_catalog(Workspace({workspace.root!r}), tiny(), {str(music)!r})\n"
        "assert not {'ray', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


@pytest.mark.slow
def test_a_killed_scan_leaves_the_old_catalog_and_the_next_one_works(workspace, music, tmp_path):
    scan(workspace, music)
    before = rows(workspace)
    pq.write_table(
        pa.table({"track_id": [f"t{i}" for i in range(150_000)]}), tmp_path / "m.parquet"
    )
    code = (
        "import os, signal; from raymtr import storage\n"
        "from jobs.scan_catalog import scan_catalog\n"
        "from raymtr.recipes import tiny; from raymtr.workspace import Workspace\n"
        "write = storage.write_table\n"
        "def killed(uri, table):\n"
        "    write(uri, table)\n"
        "    if uri.endswith('part-00001.parquet'): os.kill(os.getpid(), signal.SIGKILL)\n"
        "storage.write_table = killed\n"
        f"scan_catalog(Workspace({workspace.root!r}), tiny(), {str(tmp_path / 'm.parquet')!r})"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
    assert run.returncode == -signal.SIGKILL
    assert rows(workspace) == before
    scan(workspace, music)
    assert storage.list_folders(workspace.catalog) == ["dead_letter", "tracks"]


def test_the_cluster_reads_what_this_process_reads(ray_cluster, music):
    files = list_audio(str(music)).files
    spread = pa.concat_tables(job.on_cluster(files)).sort_by("track_id")
    assert spread.equals(pa.concat_tables(job.in_process(files)).sort_by("track_id"))


def test_real_music_through_its_manifest(workspace, tmp_path, large_data):
    pq.write_table(
        real_music_tracks(str(large_data / "data" / "real_music")), tmp_path / "m.parquet"
    )
    answer = scan(workspace, tmp_path / "m.parquet")
    assert answer["tracks"] == 395 and answer["missing"]["absent"] == 0
    assert answer["hours"] == pytest.approx(395 * 10 / 3600, abs=1e-3)
    assert {"genre", "vocal", "licence"} <= set(answer["extras"])


def test_real_music_as_a_folder_of_files(workspace, large_data):
    answer = scan(workspace, large_data / "data" / "real_music")
    assert answer["tracks"] == 395 and answer["errors"] == 0
    assert answer["hours"] == pytest.approx(395 * 10 / 3600, rel=1e-3)


def test_scan_says_what_became_of_the_files_and_keeps_ids(workspace, tmp_path):
    music = tmp_path / "library"
    music.mkdir()
    rng = np.random.default_rng(0)
    for name in ("moved", "retagged", "edited", "gone", "same"):
        sf.write(music / f"{name}.flac", rng.uniform(-0.1, 0.1, 4_000), 8_000)
    first = scan(workspace, music)
    assert first["files"]["new"] == 5 and first["files"]["gone"] == 0
    was = {row["title"]: row["track_id"] for row in rows(workspace)}
    (music / "sub").mkdir()
    (music / "moved.flac").rename(music / "sub" / "renamed.flac")
    tagged = (music / "retagged.flac").read_bytes()
    comments = struct.pack("<II", 0, 1) + struct.pack("<I", 9) + b"TITLE=New"
    block = b"\4" + len(comments).to_bytes(3, "big") + comments
    (music / "retagged.flac").write_bytes(tagged[:42] + block + tagged[42:])
    sf.write(music / "edited.flac", rng.uniform(-0.1, 0.1, 4_000), 8_000)
    (music / "gone.flac").unlink()
    shutil.copy(music / "same.flac", music / "copy.flac")
    again = scan(workspace, music)
    assert again["files"] == {
        "new": 1,
        "changed": 1,
        "retagged": 1,
        "moved": 1,
        "gone": 1,
        "copies": 1,
    }
    now = {row["title"]: row["track_id"] for row in rows(workspace)}
    assert now["renamed"] == was["moved"] and now["New"] == was["retagged"]
    assert now["edited"] == was["edited"] and now["same"] == was["same"]
    said = job.describe(again)
    assert "moved 1" in said and "retagged 1" in said and "new 1" in said
    assert again["by_name"] == 4 and "by name" in said


def test_folders_of_deleted_files_are_left_out_by_a_list_that_a_setting_changes(
    workspace, tmp_path
):
    for folder in ("$RECYCLE.BIN", "@eaDir", "#Recycle", "Live", "a/lost+found"):
        (tmp_path / "m" / folder).mkdir(parents=True)
        sf.write(tmp_path / "m" / folder / "x.wav", np.ones(100) / 2, 8_000)
    answer = scan(workspace, tmp_path / "m")
    assert answer["tracks"] == 1
    assert {name for name in answer["skipped"] if name.startswith("folder ")} == {
        "folder $RECYCLE.BIN",
        "folder @eaDir",
        "folder #Recycle",
        "folder lost+found",
    }
    settings = replace(tiny(), scan=ScanSpec(skip_folders=("live",)))
    other = job.scan_catalog(workspace, settings, str(tmp_path / "m"))
    assert other["tracks"] == 4


def test_a_printed_line_does_not_steer_the_terminal(tmp_path, capfd):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "x.\x1b]0;owned\x07odd").write_bytes(b"x")
    (tmp_path / "m" / "a\x1b[31m.wav").write_bytes(b"")
    assert main(["scan", str(tmp_path / "m"), "--workspace", str(tmp_path / "w")]) in (0, 3)
    assert main(["scan", f"{tmp_path}/\x1b[31mnowhere", "--workspace", str(tmp_path / "w")]) == 2
    out, err = capfd.readouterr()
    assert "\x1b" not in out + err and "\x07" not in out + err
    assert "nowhere" in err
