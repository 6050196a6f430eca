"""Each dataset in a tiny made sample of its published layout: words, files, and what is missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from jobs.scan_catalog import scan_catalog
from raymtr import storage
from raymtr.catalog.datasets import DATASETS, NAMES, dataset_tracks
from raymtr.errors import InputError
from raymtr.recipes import tiny
from raymtr.workspace import Workspace

ENRICHED = {"tag_list": ["rock", "Music"], "pseudo_caption": "A loud song."}
NAMED = {"title": "Amber", "artist_name": "Ada Verne", "release": "Lamps"}
DESCRIBED = "track_id,caption,is_valid_subset,artist_id,path,genre,instrument,mood/theme\n"


def sound(file: Path, seconds: float = 0.2) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    wave = 0.1 * np.sin(np.arange(int(22_050 * seconds)) / 10)
    soundfile.write(file, wave, 22_050, format="MP3" if file.suffix == ".mp3" else None)


def table(file: Path, *rows: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), file)


def msd(folder: Path) -> None:
    row = {"track_id": "TRAAA", "path": "1/2/11.clip.mp3", **NAMED, **ENRICHED}
    table(
        folder / "enrich-msd" / "data" / "train-00000-of-00001.parquet",
        row,
        row | {"track_id": "TRBBB", "path": "9/9/99.clip.mp3"},  # without a file
    )
    similar = {"track_id": "TRAAA", "sim_artist_text": "Bo[SEP]Cy"}
    table(folder / "olga-track-to-artist" / "train.parquet", similar)
    sound(folder / "audio/1/2/11.clip.mp3")


def audioset(folder: Path) -> None:
    row = {"track_id": "-0Gj", "path": "balanced_train/-0Gj", **ENRICHED}
    table(folder / "enrich-audioset-music" / "balanced_train.parquet", row)
    sound(folder / "audio/balanced_train/-0Gj.wav")


def music4all(folder: Path) -> None:
    table(folder / "enrich-music4all.parquet", {"track_id": "a1B2", **NAMED, **ENRICHED})
    sound(folder / "audio/a1B2.mp3")


def fma(folder: Path) -> None:
    table(folder / "enrich-fma-large/train.parquet", {"track_id": 2, **ENRICHED})
    table(folder / "enrich-fma-large/valid.parquet", {"track_id": 134, **ENRICHED})
    sound(folder / "audio/000/000002.mp3")
    sound(folder / "audio/000/000134.mp3")


def musiccaps(folder: Path) -> None:
    row = {"fname": "[x1]-[30-40]", "ytid": "x1", "aspect_list": ["sad"]}
    table(folder / "LP-MusicCaps-MC/test.parquet", row | {"caption_ground_truth": "It is sad."})
    sound(folder / "audio/[x1]-[30-40].wav")


def musiccaps_public(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    header = "ytid,start_s,end_s,aspect_list,caption,author_id,is_balanced_subset\n"
    row = "-x1,30,40,\"['sad', 'slow piano']\",\"It is sad, and slow.\",4,True\n"
    (folder / "musiccaps-public.csv").write_text(header + row)
    sound(folder / "audio/-x1.wav")


def song_describer(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    row = "7,A calm tune.,{},3,07/7.mp3,\"['ambient', 'folk']\",[],['calm']\n"
    rows = row.format("False") + row.format("True").replace("A calm", "Another calm")
    (folder / "song_describer.csv").write_text(DESCRIBED + rows)
    sound(folder / "audio/07/7.2min.mp3")


def mtg_jamendo(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    head = "TRACK_ID\tARTIST_ID\tALBUM_ID\tPATH\tDURATION\tTAGS\n"
    row = "track_0000214\tartist_000014\talbum_000031\t14/214.mp3\t124.6\t"
    (folder / "autotagging.tsv").write_text(f"{head}{row}genre---punk\tmood/theme---sad\n")
    meta = "TRACK_ID\tTRACK_NAME\tARTIST_NAME\tALBUM_NAME\ntrack_0000214\tIntro\tAda\tLamps\n"
    (folder / "raw.meta.tsv").write_text(meta)
    sound(folder / "audio/14/214.mp3")


def magnatagatune(folder: Path) -> None:
    """Quoted cells between tabs, in files called .csv."""
    folder.mkdir(parents=True, exist_ok=True)

    def lines(*rows: list[str]) -> str:
        return "".join("\t".join(f'"{cell}"' for cell in row) + "\n" for row in rows)

    tags = ["clip_id", "no voice", "guitar", "flute", "mp3_path"]
    annotated = lines(tags, ["2", "1", "1", "0", "f/a-song-0-29.mp3"])
    (folder / "annotations_final.csv").write_text(annotated)
    info = ["clip_id", "track_number", "title", "artist", "album", "segmentStart", "mp3_path"]
    described = lines(info, ["2", "1", "A Song", "Ada", "Lamps", "1", "f/a-song-0-29.mp3"])
    (folder / "clip_info_final.csv").write_text(described)
    sound(folder / "audio/f/a-song-0-29.mp3")


def dim_sim(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    columns = [f"{p}_{c}" for p in ("anchor", "song1", "song2") for c in ("id", "start_seconds")]
    lines = [",".join([*columns, "song1_vote"]), "A,0,B,1,C,0,1", "A,0,B,1,C,0,0"]
    (folder / "clean-dim-sim.csv").write_text("\n".join(lines) + "\n")
    meta = {"A_anchor_0": {"title": "Amber", "artist_name": "Ada", "release": "Lamps"}}
    (folder / "track_meta.json").write_text(json.dumps(meta))
    for name in "ABC":
        sound(folder / f"audio/{name}.mp3", seconds=5)


def fma_small(folder: Path) -> None:
    """A header of two lines, a line with the index's name, and a cell of two lines."""
    (folder / "fma_metadata").mkdir(parents=True)
    lines = [
        ",album,set,set,track,track",
        ",information,split,subset,genre_top,title",
        "track_id,,,,,",
        '2,"one\ntwo",training,small,Hip-Hop,Food',
        "3,,test,medium,Rock,Rain",  # of another subset
    ]
    (folder / "fma_metadata/tracks.csv").write_text("\n".join(lines) + "\n")
    sound(folder / "audio/000/000002.mp3")


def nsynth(folder: Path) -> None:
    for split in ("train", "valid", "test"):
        note = f"bass_{split}_000-024-075"
        facts = {"note_str": note, "instrument_str": f"bass_{split}_000", "pitch": 24}
        (folder / f"nsynth-{split}").mkdir(parents=True)
        file = folder / f"nsynth-{split}/examples.json"
        file.write_text(json.dumps({note: {**facts, "instrument_family_str": "bass"}}))
        sound(folder / f"audio/nsynth-{split}/{note}.wav")


def emomusic(folder: Path) -> None:
    """Cells end with tabs, as published."""
    (folder / "annotations").mkdir(parents=True)
    numbers = "song_id,mean_arousal,std_arousal,mean_valence,std_valence\n2,3.1,0.99,3.0,0.66\n"
    (folder / "annotations/static_annotations.csv").write_text(numbers)
    info = "song_id,file_name,Artist,Song title,Genre,Mediaeval 2013 set\n"
    info += "2,2.mp3,Ada\t,Amber\t,Blues\t,evaluation\n"
    (folder / "annotations/songs_info.csv").write_text(info)
    sound(folder / "audio/2.mp3")


SAMPLES: dict[str, Callable[[Path], None]] = {
    sample.__name__: sample
    for sample in (
        *(msd, audioset, music4all, fma, musiccaps),
        *(musiccaps_public, song_describer, mtg_jamendo, magnatagatune, dim_sim),
        *(fma_small, nsynth, emomusic),
    )
}
EXPECTED: dict[str, dict[str, Any]] = {
    "msd": {
        **{"track_id": "msd-TRAAA", "title": "Amber", "artist": "Ada Verne", "album": "Lamps"},
        **{"tags": ["rock", "Music"], "published_captions": ["A loud song."]},
        "similar_artists": ["Bo", "Cy"],
    },
    "audioset": {"track_id": "audioset--0Gj", "tags": ["rock"], "split": "train"},
    "music4all": {"track_id": "music4all-a1B2", "artist": "Ada Verne", "split": None},
    "fma": {"track_id": "fma-000002", "tags": ["rock", "Music"], "split": "train"},
    "musiccaps": {
        "track_id": "musiccaps-x1",
        **{"tags": ["sad"], "published_captions": ["It is sad."], "split": "test"},
    },
    "musiccaps_public": {
        "track_id": "musiccaps_public--x1",
        "tags": ["sad", "slow piano"],
        "published_captions": ["It is sad, and slow."],
        **{"balanced_subset": True, "split": "test"},
    },
    "song_describer": {
        "track_id": "song_describer-7",
        "tags": ["ambient", "folk", "calm"],
        "published_captions": ["A calm tune.", "Another calm tune."],
        **{"valid_subset": True, "split": "test"},
    },
    "mtg_jamendo": {
        "track_id": "mtg_jamendo-track_0000214",
        **{"title": "Intro", "artist": "Ada", "tags": ["punk", "sad"], "genre": ["punk"]},
        "split": "test",
    },
    "magnatagatune": {
        "track_id": "magnatagatune-2",
        **{"title": "A Song", "artist": "Ada", "tags": ["no voice", "guitar"], "split": "test"},
        "fold": "test",
    },
    "fma_small": {
        "track_id": "fma_small-000002",
        **{"title": "Food", "genre": "Hip-Hop", "split": "test", "fold": "train"},
    },
    "nsynth": {
        "track_id": "nsynth-bass_test_000-024-075",
        **{"instrument": "bass", "recording": "bass_test_000", "pitch": 24, "fold": "test"},
    },
    "emomusic": {
        "track_id": "emomusic-2",
        **{"title": "Amber", "artist": "Ada", "genre": "Blues", "arousal": 3.1, "valence": 3.0},
        "fold": "test",
    },
    "dim_sim": {"track_id": "dim_sim-A-0", "title": "Amber", "artist": "Ada", "split": "test"},
}


@pytest.mark.parametrize("name", NAMES)
def test_a_dataset_in_its_published_layout(name: str, tmp_path: Path) -> None:
    SAMPLES[name](tmp_path)
    tracks, licence, absent = dataset_tracks(name, str(tmp_path))
    row = tracks.to_pylist()[0]
    assert {key: row[key] for key in EXPECTED[name]} == EXPECTED[name]
    assert row["dataset"] == name and row["licence"] == licence and len(licence) > 10
    assert Path(row["uri"]).is_file()
    assert absent == (1 if name == "msd" else 0)


def test_the_published_folds_of_mtg_jamendo_are_those_of_its_split_files(tmp_path: Path) -> None:
    mtg_jamendo(tmp_path)
    head, row = (tmp_path / "autotagging.tsv").read_text().splitlines()
    (tmp_path / "autotagging.tsv").unlink()
    (tmp_path / "autotagging").mkdir()
    for number, split in enumerate(("train", "validation", "test")):
        own = row.replace("0000214", f"000021{number}")
        (tmp_path / f"autotagging/autotagging-{split}.tsv").write_text(f"{head}\n{own}\n")
    tracks = dataset_tracks("mtg_jamendo", str(tmp_path))[0]
    folds = dict(zip(tracks["track_id"].to_pylist(), tracks["fold"].to_pylist(), strict=True))
    assert [folds[f"mtg_jamendo-track_000021{n}"] for n in range(3)] == ["train", "valid", "test"]
    assert set(tracks["split"].to_pylist()) == {"test"}


def test_only_the_small_subset_of_fma_is_read_and_all_three_parts_of_nsynth(tmp_path: Path) -> None:
    fma_small(tmp_path / "fma")
    nsynth(tmp_path / "nsynth")
    assert len(dataset_tracks("fma_small", str(tmp_path / "fma"))[0]) == 1
    folds = dataset_tracks("nsynth", str(tmp_path / "nsynth"))[0]["fold"].to_pylist()
    assert sorted(folds) == ["test", "train", "valid"]


def test_a_split_is_that_of_its_file_where_no_artist_decides(tmp_path: Path) -> None:
    fma(tmp_path)
    assert dataset_tracks("fma", str(tmp_path))[0]["split"].to_pylist() == ["train", "valid"]


def test_dim_sim_cuts_its_spans_and_writes_the_triplets(tmp_path: Path) -> None:
    dim_sim(tmp_path)
    tracks = dataset_tracks("dim_sim", str(tmp_path))[0]
    assert [soundfile.info(uri).duration for uri in tracks["uri"].to_pylist()] == [3.0] * 3
    lines = (tmp_path / "triplets.csv").read_text().split()
    a, b, c = "dim_sim-A-0", "dim_sim-B-1", "dim_sim-C-0"
    assert lines == ["anchor,nearer,farther", f"{a},{b},{c}", f"{a},{c},{b}"]


@pytest.mark.parametrize("name", [name for name in NAMES if name != "dim_sim"])
def test_without_audio_or_table_the_message_says_what_is_expected(
    name: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=rf"{name}: there is no folder .*audio"):
        dataset_tracks(name, str(tmp_path))
    (tmp_path / "audio").mkdir()
    with pytest.raises(InputError, match=f"has no table {DATASETS[name].tables[0]}"):
        dataset_tracks(name, str(tmp_path))
    SAMPLES[name](tmp_path)
    for file in sorted((tmp_path / "audio").rglob("*.*")):
        file.unlink()
    with pytest.raises(InputError, match=r"none of \d tracks .* has its file in"):
        dataset_tracks(name, str(tmp_path))


def test_a_table_of_another_version_is_named_with_its_columns(tmp_path: Path) -> None:
    sound(tmp_path / "audio/a.mp3")
    table(tmp_path / "enrich-fma-large.parquet", {"track_id": 2, "tags": ["rock"]})
    with pytest.raises(
        InputError, match=r"another version of enrich-fma-large: it lacks column 'tag_list'.*tags"
    ):
        dataset_tracks("fma", str(tmp_path))
    with pytest.raises(InputError, match="unknown dataset 'gtzan'; accepted: msd, audioset"):
        dataset_tracks("gtzan", str(tmp_path))


def test_what_dim_sim_lacks_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no clean-dim-sim\.csv"):
        dataset_tracks("dim_sim", str(tmp_path))
    dim_sim(tmp_path)
    sound(tmp_path / "audio/B.mp3", seconds=1)
    with pytest.raises(InputError, match="is too short: 3 s from 1 s are needed"):
        dataset_tracks("dim_sim", str(tmp_path))
    (tmp_path / "audio/B.mp3").unlink()
    with pytest.raises(InputError, match=r"audio/B\.mp3 is missing"):
        dataset_tracks("dim_sim", str(tmp_path))


def test_scan_puts_several_datasets_into_one_catalog(tmp_path: Path) -> None:
    for name in ("msd", "audioset", "musiccaps"):
        SAMPLES[name](tmp_path / "data" / name)
    workspace = Workspace.open(str(tmp_path / "w"), create=True)
    source = str(tmp_path / "data")
    answer = scan_catalog(workspace, tiny(), source, datasets="msd,audioset,musiccaps")
    assert answer["tracks"] == 4 and answer["with_audio"] == 3
    rows = storage.read_tables(workspace.tracks)
    assert rows is not None and set(rows["dataset"].to_pylist()) == {"msd", "audioset", "musiccaps"}
    with pytest.raises(InputError, match="--dataset names one or more of msd"):
        scan_catalog(workspace, tiny(), source, datasets=" , ")
