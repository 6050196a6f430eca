"""The datasets that TTMR++ trains on and is evaluated on, in their published layouts.

A dataset is a folder with its text tables and `audio/`. Nothing is downloaded: the audio of most
may not be redistributed. Text tables of the hub are in a folder or file of the hub repository's
name, as `huggingface-cli download` leaves them (Parquet, CSV or JSON lines, in `data/` or not).

    msd, audioset, music4all, fma, musiccaps                for training (Doh et al., ICASSP 2024)
    song_describer, mtg_jamendo, magnatagatune, dim_sim     for evaluation: all are split `test`

A track's file is found by its name without suffix, in any format. A row without a file keeps its
words. Ids carry the dataset's name, so several can be in one catalog.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from raymtr import storage
from raymtr.audio import SUFFIXES as AUDIO_SUFFIXES
from raymtr.catalog import dataset_cells as cells
from raymtr.catalog.dataset_cells import listed, split_of, text
from raymtr.catalog.tabular import SUFFIXES
from raymtr.errors import InputError
from raymtr.track import PUBLISHED, check_tracks

Row = Mapping[str, Any]
Track = dict[str, Any]
AUDIO = "audio"
BLACKLIST = {"music", "instrument"}  # tags of AudioSet that TTMR++ drops

CLIP_INFO = frozenset(  # columns of MagnaTagATune's tables that are not tags
    (
        *("clip_id", "track_number", "title", "artist", "album", "url", "segmentStart"),
        *("segmentEnd", "original_url", "mp3_path"),
    )
)


@dataclass(frozen=True)
class Dataset:
    """One dataset: its tables, the columns that it needs, its licence, and how a row is read."""

    table: str  # name of the text table: a folder, or a file without suffix
    columns: tuple[str, ...]
    licence: str
    # Row -> the track without id, and its audio's path below `audio/` without suffix.
    track: Callable[[Row], tuple[str, str, Track]]
    evaluation: bool = False
    beside: str = ""  # a second, optional table with the same key
    # File of either table -> its rows.
    rows_of: Callable[[str], list[Track]] = cells.plain_rows


def _metadata(row: Row) -> Track:
    return {
        "title": text(row["title"]),
        "artist": text(row["artist_name"]),
        "album": text(row["release"]),
    }


def _words(row: Row) -> Track:
    caption = text(row["pseudo_caption"])
    return {"tags": listed(row["tag_list"]), PUBLISHED: [caption] if caption else None}


def _msd(row: Row) -> tuple[str, str, Track]:
    similar = [name for name in (text(row.get("sim_artist_text")) or "").split("[SEP]") if name]
    track = {**_metadata(row), **_words(row), "similar_artists": similar or None}
    return str(row["track_id"]), str(row["path"] or ""), track


def _audioset(row: Row) -> tuple[str, str, Track]:
    words = _words(row)
    kept = [tag for tag in words["tags"] or () if tag.lower() not in BLACKLIST]
    return str(row["track_id"]), str(row["path"] or ""), {**words, "tags": kept or None}


def _music4all(row: Row) -> tuple[str, str, Track]:
    return str(row["track_id"]), str(row["track_id"]), {**_metadata(row), **_words(row)}


def _fma(row: Row) -> tuple[str, str, Track]:
    name = f"{int(row['track_id']):06d}"
    return name, f"{name[:3]}/{name}", _words(row)


def _musiccaps(row: Row) -> tuple[str, str, Track]:
    caption = text(row["caption_ground_truth"])
    track = {"tags": listed(row["aspect_list"]), PUBLISHED: [caption] if caption else None}
    return str(row["ytid"]), str(row["fname"]), track


def _song_describer(row: Row) -> tuple[str, str, Track]:
    tags = [
        tag for name in ("genre", "instrument", "mood/theme") for tag in listed(row[name]) or ()
    ]
    path = str(row["path"]).removesuffix(".mp3") + ".2min"
    track = {
        "artist": f"jamendo artist {row['artist_id']}",
        "tags": tags or None,
        PUBLISHED: [str(row["caption"])],
        "valid_subset": str(row["is_valid_subset"]).lower() == "true",
    }
    return str(row["track_id"]), path, track


def _mtg_jamendo(row: Row) -> tuple[str, str, Track]:
    kinds: dict[str, list[str]] = {"genre": [], "instrument": [], "mood/theme": []}
    for tag in row["TAGS"]:
        kind, _, name = tag.partition("---")
        kinds.setdefault(kind, []).append(name)
    track = {
        "title": text(row.get("TRACK_NAME")),
        "artist": text(row.get("ARTIST_NAME")) or row["ARTIST_ID"],
        "album": text(row.get("ALBUM_NAME")),
        "tags": [tag for tags in kinds.values() for tag in tags] or None,
        "genre": kinds["genre"] or None,
        "instrument": kinds["instrument"] or None,
        "mood": kinds["mood/theme"] or None,
    }
    return row["TRACK_ID"], row["PATH"].removesuffix(".mp3"), track


def _magnatagatune(row: Row) -> tuple[str, str, Track]:
    tags = [name for name, cell in row.items() if name not in CLIP_INFO and str(cell) == "1"]
    track = {name: text(row.get(name)) for name in ("title", "artist", "album")}
    return str(row["clip_id"]), str(row["mp3_path"]), {**track, "tags": tags or None}


DATASETS = {
    "msd": Dataset(
        table="enrich-msd",
        columns=(
            *("track_id", "title", "artist_name", "release", "tag_list", "pseudo_caption", "path"),
        ),
        licence="Million Song Dataset: research; its audio is not distributed",
        track=_msd,
        beside="olga-track-to-artist",
    ),
    "audioset": Dataset(
        table="enrich-audioset-music",
        columns=("track_id", "tag_list", "pseudo_caption", "path"),
        licence="AudioSet labels CC-BY-4.0; the audio is YouTube's users'",
        track=_audioset,
    ),
    "music4all": Dataset(
        table="enrich-music4all",
        columns=("track_id", "title", "artist_name", "release", "tag_list", "pseudo_caption"),
        licence="Music4All: for research, by agreement with its authors",
        track=_music4all,
    ),
    "fma": Dataset(
        table="enrich-fma-large",
        columns=("track_id", "tag_list", "pseudo_caption"),
        licence="FMA metadata CC-BY-4.0; each track has its own Creative Commons licence",
        track=_fma,
    ),
    "musiccaps": Dataset(
        table="LP-MusicCaps-MC",
        columns=("fname", "ytid", "aspect_list", "caption_ground_truth"),
        licence="MusicCaps text CC-BY-SA-4.0; the audio is YouTube's users'",
        track=_musiccaps,
    ),
    "song_describer": Dataset(
        table="song_describer",
        columns=(
            *("track_id", "caption", "is_valid_subset", "artist_id", "path", "genre"),
            *("instrument", "mood/theme"),
        ),
        licence="Song Describer text CC-BY-SA-4.0; audio_licenses.txt has each track's",
        track=_song_describer,
        evaluation=True,
    ),
    "mtg_jamendo": Dataset(
        table="autotagging",
        columns=("TRACK_ID", "ARTIST_ID", "ALBUM_ID", "PATH", "DURATION", "TAGS"),
        licence="MTG-Jamendo metadata CC-BY-NC-SA-4.0; audio_licenses.txt has each track's",
        track=_mtg_jamendo,
        evaluation=True,
        beside="raw.meta",
        rows_of=cells.tagged_rows,
    ),
    "magnatagatune": Dataset(
        table="annotations_final",
        columns=("clip_id", "mp3_path"),
        licence="MagnaTagATune: CC-BY-NC-SA, Magnatune's audio for research",
        track=_magnatagatune,
        evaluation=True,
        beside="clip_info_final",
        rows_of=cells.tabbed_rows,
    ),
}
DIM_SIM = "dim_sim"  # raymtr.catalog.dim_sim: triplets of spans, not tracks
NAMES = (*DATASETS, DIM_SIM)


def dataset_tracks(name: str, folder: str) -> tuple[pa.Table, str, int]:
    """The tracks of dataset `name` in `folder`, its licence, and how many rows have no audio file.

    Raises InputError where the table or the audio is absent, or the table is another version.
    """
    if name == DIM_SIM:
        from raymtr.catalog.dim_sim import LICENCE, dim_sim_tracks

        return dim_sim_tracks(folder), LICENCE, 0
    if name not in DATASETS:
        raise InputError(f"unknown dataset {name!r}; accepted: {', '.join(NAMES)}")
    dataset = DATASETS[name]
    files = audio_files(folder, name)
    tracks: dict[str, Track] = {}
    absent = 0
    for split, row in _rows(dataset, name, folder):
        key, path, track = dataset.track(row)
        uri = files.get(os.path.splitext(path)[0] if _has_suffix(path) else path)
        if key in tracks:  # a caption each: one track
            tracks[key][PUBLISHED] = [*(tracks[key].get(PUBLISHED) or ()), *track[PUBLISHED]]
            tracks[key]["valid_subset"] |= track.get("valid_subset", False)
            continue
        absent += uri is None
        tracks[key] = {
            **{
                "track_id": f"{name}-{key}",
                "uri": uri,
                "dataset": name,
                "licence": dataset.licence,
            },
            "split": "test" if dataset.evaluation else None if track.get("artist") else split,
            **track,
        }
    if not tracks:
        raise InputError(f"{folder}: the table of {name} has no rows")
    if absent == len(tracks):
        raise InputError(
            f"none of {absent} tracks of {name} has its file in {folder}/{AUDIO}, which has "
            f"{len(files)} audio files; the first is expected as {path}"
        )
    return check_tracks(pa.Table.from_pylist(list(tracks.values()))), dataset.licence, absent


def audio_files(folder: str, name: str) -> dict[str, str]:
    """Path below `folder`/audio without suffix -> the file. Raises InputError without a folder."""
    root = os.path.join(folder, AUDIO)
    if not os.path.isdir(root):
        raise InputError(
            f"{name}: there is no folder {root}; put or link the audio there (the tables have none)"
        )
    found = {}
    for place, _, names in os.walk(root, followlinks=True):
        for file in names:
            if _has_suffix(file):
                path = os.path.join(place, file)
                found[os.path.splitext(os.path.relpath(path, root))[0]] = path
    return found


def _has_suffix(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in AUDIO_SUFFIXES


def _rows(dataset: Dataset, name: str, folder: str) -> Iterator[tuple[str | None, Row]]:
    """Each row of the dataset's table with its split, joined with the optional second table."""
    beside: dict[str, Row] = {}
    key = dataset.columns[0]
    if dataset.beside:
        for file in _files(folder, dataset.beside):
            beside |= {str(row[key]): row for row in dataset.rows_of(file)}
    files = _files(folder, dataset.table)
    if not files:
        raise InputError(
            f"{name}: {folder} has no table {dataset.table} (a folder, or a file with one of "
            f"{', '.join(SUFFIXES)})"
        )
    for file in files:
        rows = dataset.rows_of(file)
        columns = rows[0] if rows else {}
        missing = [column for column in dataset.columns if column not in columns]
        if rows and missing:
            raise InputError(
                f"{file} is another version of {dataset.table}: it lacks column {missing[0]!r}; it "
                f"has {', '.join(list(columns)[:12])}"
            )
        for row in rows:
            yield split_of(file), {**beside.get(str(row[key]), {}), **row}


def _files(folder: str, table: str) -> list[str]:
    """The files of a table: `table.csv` and the like, or those in the folders `table[/data]`."""
    single = [f"{folder}/{table}{suffix}" for suffix in SUFFIXES]
    found = [file for file in single if storage.exists(file)]
    for place in (f"{folder}/{table}", f"{folder}/{table}/data"):
        if storage.exists(place):
            found += [f"{place}/{n}" for n in storage.list_files(place) if n.endswith(SUFFIXES)]
    return found
