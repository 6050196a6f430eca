"""The datasets that TTMR++ trains on and is evaluated on, in their published layouts.

A dataset is a folder with its text tables and `audio/`. Nothing is downloaded: the audio of most
may not be redistributed. Text tables of the hub are in a folder or file of the hub repository's
name, as `huggingface-cli download` leaves them (Parquet, CSV or JSON lines, in `data/` or not).

    msd, audioset, music4all, fma, musiccaps                for training (Doh et al., ICASSP 2024)
    song_describer, mtg_jamendo, magnatagatune, dim_sim     for evaluation: all are split `test`
    musiccaps_public                                        likewise, of generation (MusicLM)
    fma_small, nsynth, emomusic                             for probes: likewise

The published split of a dataset that probes learn from is the column `fold`.

A track's file is found by its name without suffix, in any format. A row without a file keeps its
words. Ids carry the dataset's name, so several can be in one catalog.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from raymtr import storage
from raymtr.audio import SUFFIXES as AUDIO_SUFFIXES
from raymtr.catalog import dataset_cells as cells
from raymtr.catalog import dataset_rows as rows
from raymtr.catalog.dataset_cells import split_of
from raymtr.catalog.dataset_rows import Row, Track
from raymtr.catalog.tabular import SUFFIXES
from raymtr.errors import InputError
from raymtr.track import PUBLISHED, check_tracks

AUDIO = "audio"
MUSICCAPS_LICENCE = "MusicCaps text CC-BY-SA-4.0; the audio is YouTube's users'"


@dataclass(frozen=True)
class Dataset:
    """One dataset: its tables, the columns that it needs, its licence, and how a row is read."""

    tables: tuple[str, ...]  # names of the text tables: folders, or files without suffix
    columns: tuple[str, ...]
    licence: str
    # Row -> the track without id, and its audio's path below `audio/` without suffix.
    track: Callable[[Row], tuple[str, str, Track]]
    evaluation: bool = False
    beside: str = ""  # a second, optional table with the same key
    # File of either table -> its rows.
    rows_of: Callable[[str], list[Track]] = cells.plain_rows
    wanted: Callable[[Row], bool] = lambda row: True


DATASETS = {
    "msd": Dataset(
        tables=("enrich-msd",),
        columns=(
            *("track_id", "title", "artist_name", "release", "tag_list", "pseudo_caption", "path"),
        ),
        licence="Million Song Dataset: research; its audio is not distributed",
        track=rows.msd,
        beside="olga-track-to-artist",
    ),
    "audioset": Dataset(
        tables=("enrich-audioset-music",),
        columns=("track_id", "tag_list", "pseudo_caption", "path"),
        licence="AudioSet labels CC-BY-4.0; the audio is YouTube's users'",
        track=rows.audioset,
    ),
    "music4all": Dataset(
        tables=("enrich-music4all",),
        columns=("track_id", "title", "artist_name", "release", "tag_list", "pseudo_caption"),
        licence="Music4All: for research, by agreement with its authors",
        track=rows.music4all,
    ),
    "fma": Dataset(
        tables=("enrich-fma-large",),
        columns=("track_id", "tag_list", "pseudo_caption"),
        licence="FMA metadata CC-BY-4.0; each track has its own Creative Commons licence",
        track=rows.fma,
    ),
    "musiccaps": Dataset(
        tables=("LP-MusicCaps-MC",),
        columns=("fname", "ytid", "aspect_list", "caption_ground_truth"),
        licence=MUSICCAPS_LICENCE,
        track=rows.musiccaps,
    ),
    "musiccaps_public": Dataset(
        tables=("musiccaps-public",),
        columns=("ytid", "aspect_list", "caption", "is_balanced_subset"),
        licence=MUSICCAPS_LICENCE,
        track=rows.musiccaps_public,
        evaluation=True,
    ),
    "song_describer": Dataset(
        tables=("song_describer",),
        columns=(
            *("track_id", "caption", "is_valid_subset", "artist_id", "path", "genre"),
            *("instrument", "mood/theme"),
        ),
        licence="Song Describer text CC-BY-SA-4.0; audio_licenses.txt has each track's",
        track=rows.song_describer,
        evaluation=True,
    ),
    "mtg_jamendo": Dataset(
        tables=("autotagging",),
        columns=("TRACK_ID", "ARTIST_ID", "ALBUM_ID", "PATH", "DURATION", "TAGS"),
        licence="MTG-Jamendo metadata CC-BY-NC-SA-4.0; audio_licenses.txt has each track's",
        track=rows.mtg_jamendo,
        evaluation=True,
        beside="raw.meta",
        rows_of=cells.tagged_rows,
    ),
    "magnatagatune": Dataset(
        tables=("annotations_final",),
        columns=("clip_id", "mp3_path"),
        licence="MagnaTagATune: CC-BY-NC-SA, Magnatune's audio for research",
        track=rows.magnatagatune,
        evaluation=True,
        beside="clip_info_final",
        rows_of=cells.tabbed_rows,
    ),
    "fma_small": Dataset(
        tables=("fma_metadata/tracks",),
        columns=("track_id", "set.split", "set.subset", "track.genre_top"),
        licence="FMA metadata CC-BY-4.0; each track has its own Creative Commons licence",
        track=rows.fma_small,
        evaluation=True,
        rows_of=cells.fma_rows,
        wanted=lambda row: row["set.subset"] == "small",
    ),
    "nsynth": Dataset(
        tables=("nsynth-train", "nsynth-valid", "nsynth-test"),
        columns=("note_str", "instrument_str", "instrument_family_str", "pitch"),
        licence="NSynth CC-BY-4.0",
        track=rows.nsynth,
        evaluation=True,
        rows_of=cells.nsynth_rows,
    ),
    "emomusic": Dataset(
        tables=("annotations/static_annotations",),
        columns=("song_id", "mean_arousal", "mean_valence"),
        licence="EmoMusic: for research; each song has its own Creative Commons licence",
        track=rows.emomusic,
        evaluation=True,
        beside="annotations/songs_info",
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
    files = [file for table in dataset.tables for file in _files(folder, table)]
    if not files:
        raise InputError(
            f"{name}: {folder} has no table {dataset.tables[0]} (a folder, or a file with one of "
            f"{', '.join(SUFFIXES)})"
        )
    for file in files:
        found = dataset.rows_of(file)
        columns = found[0] if found else {}
        missing = [column for column in dataset.columns if column not in columns]
        if found and missing:
            raise InputError(
                f"{file} is another version of {dataset.tables[0]}: it lacks column "
                f"{missing[0]!r}; it has {', '.join(list(columns)[:12])}"
            )
        for row in filter(dataset.wanted, found):
            yield split_of(file), {**beside.get(str(row[key]), {}), **row}


def _files(folder: str, table: str) -> list[str]:
    """The files of a table: `table.csv` and the like, or those in the folders `table[/data]`."""
    single = [f"{folder}/{table}{suffix}" for suffix in SUFFIXES]
    found = [file for file in single if storage.exists(file)]
    for place in (f"{folder}/{table}", f"{folder}/{table}/data"):
        if storage.exists(place):
            found += [f"{place}/{n}" for n in storage.list_files(place) if n.endswith(SUFFIXES)]
    return found
