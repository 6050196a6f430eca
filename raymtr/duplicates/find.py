"""Finds groups of tracks that are one song, over the whole table, classifies and stores them.

Candidate pairs have two sources. Tracks with the same artist and title, apart from words like
"live", are compared by name. Copies under any name are pairs of nearly equal vectors, found
exactly: all tracks are sorted along the main axis of the vectors, and since near vectors are near
on every axis, only blocks whose ranges overlap are multiplied. LanceDB's index is not used: at 10^6
tracks, one query per track costs more than these products (10^6 x 128: 173 core-seconds, 0.74 GB).
Memory is the vectors as float16, one row of facts per track, and two blocks.

A group is one track to keep and the tracks that are like it, each with the class of its likeness.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raymtr import storage
from raymtr.duplicates.same_song import (
    COPY,
    COPY_S,
    KEPT,
    KINDS,
    Likeness,
    Name,
    Pair,
    group_rows,
    likeness,
    read_name,
)
from raymtr.index.track_table import TrackTable
from raymtr.vectors import unit
from raymtr.workspace import Workspace

LOG = logging.getLogger("raymtr")
SCHEMA = pa.schema(
    [
        pa.field("group", pa.int64()),
        pa.field("track_id", pa.string()),
        pa.field("class", pa.string()),  # KEPT, or the likeness to the track kept
        pa.field("cosine", pa.float32()),  # to the track kept
        pa.field("seconds", pa.float64()),
        pa.field("title", pa.string()),
        pa.field("artist", pa.string()),
    ]
)
BLOCK = 2_048  # rows of one block of the matrix product
MOST_OF_ONE_NAME = 200  # tracks; a name that more tracks share ("Track 1") is not evidence
# If at least this share of all tracks, and this number, have the same length to the second, they
# were cut to that length, as previews are.
CUT_SHARE, FEWEST_CUT = 0.05, 10
# Tracks sampled to see whether a model distinguishes tracks; fewer than FEW may all be one song.
LOOKED_AT, FEW = 512, 20


def find_duplicates(table: TrackTable) -> pa.Table:
    """Rows of SCHEMA: all tracks of `table` with a vector that have a duplicate, group by group."""
    ids, vectors = read_vectors(table)
    if len(ids) < 2:
        return SCHEMA.empty_table()
    facts = read_facts(table, ids)
    seconds = facts["seconds"].to_numpy(zero_copy_only=False)
    names = [
        read_name(title, artist)
        for title, artist in zip(
            facts["title"].to_pylist(), facts["artist"].to_pylist(), strict=True
        )
    ]
    by_vector = tells_apart(vectors)
    pairs = [*named_alike(names, vectors, seconds)]
    if by_vector:
        pairs += copies(vectors, seconds)
    else:
        LOG.warning("this model gives most tracks one vector: copies are found by name alone")
    cut = cut_to_length(seconds)

    def compare(one: int, others: list[int]) -> list[Likeness | None]:
        cosines = _cosines(vectors, one, others)
        kinds = _likenesses(one, others, names, cosines, _apart_s(one, others, seconds, cut))
        if by_vector:
            copied = (cosines >= COPY) & (np.abs(seconds[others] - seconds[one]) <= COPY_S)
            kinds = [KINDS[0] if is_copy else k for is_copy, k in zip(copied, kinds, strict=True)]
        return kinds

    rows = group_rows(pairs, names, ids, compare)
    of_track = facts.take(pa.array([row for _, row, _ in rows], pa.int64()))
    kept = {group: row for group, row, kind in rows if kind == KEPT}
    cosines = [float(_cosines(vectors, kept[group], [row])[0]) for group, row, _ in rows]
    columns = {
        "group": [group for group, _, _ in rows],
        "track_id": [ids[row] for _, row, _ in rows],
        "class": [kind for _, _, kind in rows],
        "cosine": cosines,
    } | {name: of_track[name] for name in ("seconds", "title", "artist")}
    return pa.table(columns, schema=SCHEMA)


def write_duplicates(workspace: Workspace, rows: pa.Table) -> None:
    """Store rows of SCHEMA; they replace the earlier result."""
    storage.write_table(f"{workspace.duplicates}/part-00000.parquet", rows)


def read_groups(workspace: Workspace) -> dict[str, int] | None:
    """The group of each track that has duplicates; None if the duplicates job has not run."""
    rows = storage.read_tables(workspace.duplicates, ["track_id", "group"])
    if rows is None:
        return None
    return dict(zip(rows["track_id"].to_pylist(), rows["group"].to_pylist(), strict=True))


def read_vectors(table: TrackTable) -> tuple[list[str], np.ndarray]:
    """All ids, and their unit vectors as float16 [N, D], which is half the memory of float32."""
    ids: list[str] = []
    parts = [np.empty((0, 1), np.float16)]
    for some, matrix in table.stream_vectors():
        ids += some
        parts.append(matrix.astype(np.float16))
    return ids, np.concatenate(parts[1:] or parts)


def read_facts(table: TrackTable, ids: list[str]) -> pa.Table:
    """`title, artist, seconds` of these tracks, in their order.

    A track's duration is the catalog's; if that is unknown, the end of its last window.
    """
    columns = ["track_id", "title", "artist", "duration"]
    rows = pa.Table.from_batches(table.stream("tracks", columns))
    rows = rows.take(pc.index_in(pa.array(ids, pa.string()), value_set=rows["track_id"]))
    seconds = rows["duration"]
    if seconds.null_count:
        ends = [
            pa.table(batch).group_by("track_id").aggregate([("end_s", "max")])
            for batch in table.stream("windows", ["track_id", "end_s"])
        ]
        last = pa.concat_tables(ends).group_by("track_id").aggregate([("end_s_max", "max")])
        heard = last["end_s_max_max"].take(pc.index_in(rows["track_id"], last["track_id"]))
        seconds = pc.coalesce(seconds, heard)
    return rows.select(["title", "artist"]).append_column("seconds", pc.cast(seconds, pa.float64()))


def tells_apart(vectors: np.ndarray) -> bool:
    """Whether most vectors are distinct; if not, near vectors are not evidence.

    Equal vectors are counted once, because a small catalog may consist of copies.
    """
    some = np.unique(vectors[:: max(1, len(vectors) // LOOKED_AT)], axis=0)
    if len(some) < 3:
        return len(vectors) < FEW
    cosines = unit(some) @ unit(some).T
    return bool(np.median(cosines[~np.eye(len(some), dtype=bool)]) < COPY)


def named_alike(names: list[Name], vectors: np.ndarray, seconds: np.ndarray) -> Iterator[Pair]:
    """Pairs of tracks with the same artist and title that are alike.

    Equal durations of two 30 s previews are not evidence: they may be parts of one piece.
    """
    cut = cut_to_length(seconds)
    songs: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        if name.song is not None:
            songs.setdefault(name.song, []).append(row)
    for rows in songs.values():
        if len(rows) > MOST_OF_ONE_NAME:
            LOG.warning(
                "%d tracks are called %s: not treated as one song", len(rows), names[rows[0]].song
            )
            continue
        for place, one in enumerate(rows[:-1]):
            others = rows[place + 1 :]
            apart_s = _apart_s(one, others, seconds, cut)
            kinds = _likenesses(one, others, names, _cosines(vectors, one, others), apart_s)
            for other, kind in zip(others, kinds, strict=True):
                if kind is not None:
                    yield one, other, KINDS.index(kind)


def _likenesses(
    one: int, others: list[int], names: list[Name], cosines: np.ndarray, apart_s: np.ndarray
) -> list[Likeness | None]:
    return [
        likeness(names[one], names[other], cosine=float(cosine), apart_s=float(seconds))
        for other, cosine, seconds in zip(others, cosines, apart_s, strict=True)
    ]


def _apart_s(one: int, others: list[int], seconds: np.ndarray, cut: np.ndarray) -> np.ndarray:
    """Differences of durations [n] in s; NaN if both tracks were cut to a common length."""
    apart = np.abs(seconds[others] - seconds[one])
    return np.where(cut[others] & cut[one], np.nan, apart)


def copies(vectors: np.ndarray, seconds: np.ndarray) -> Iterator[Pair]:
    """Pairs of each track and the next track along the main axis that is a copy of it.

    This chains all copies of a track together, with at most one pair per track.
    """
    axis = main_axis(vectors)
    places = np.concatenate([block @ axis for block in _blocks(vectors)])
    order = np.argsort(places, kind="stable")
    places, reach = (
        places[order],
        np.sqrt(2 * (1 - COPY)) + 1e-6,
    )  # the distance at cosine COPY, plus float32 rounding
    for start in range(0, len(order), BLOCK):
        rows = order[start : start + BLOCK]
        left, unpaired = unit(vectors[rows]), np.ones(len(rows), bool)
        end = int(np.searchsorted(places, places[start + len(rows) - 1] + reach, side="right"))
        for other in range(start, end, BLOCK):
            columns = order[other : min(other + BLOCK, end)]
            cosines = left @ unit(vectors[columns]).T
            near = cosines >= COPY
            near &= unpaired[:, None]
            if other == start:
                near = np.triu(near, 1)
            for row in np.flatnonzero(near.any(axis=1)):
                found = columns[near[row]]
                found = found[np.abs(seconds[found] - seconds[rows[row]]) <= COPY_S]
                if len(found):
                    unpaired[row] = False
                    yield int(rows[row]), int(found[0]), KINDS.index("same recording")


def cut_to_length(seconds: np.ndarray) -> np.ndarray:
    """Which tracks [N] have a duration so common that they were cut to it."""
    _, length, count = np.unique(np.rint(seconds), return_inverse=True, return_counts=True)
    return np.asarray(count >= max(FEWEST_CUT, CUT_SHARE * len(seconds)))[length]


def main_axis(vectors: np.ndarray) -> np.ndarray:
    """The unit direction [D] of the largest variance of the rows."""
    mean = sum(block.sum(axis=0) for block in _blocks(vectors)) / len(vectors)
    spread = np.zeros((vectors.shape[1], vectors.shape[1]), np.float32)
    for block in _blocks(vectors):
        centred = block - mean
        spread += centred.T @ centred
    return np.asarray(np.linalg.eigh(spread)[1][:, -1], np.float32)


def count_classes(rows: pa.Table) -> dict[str, int]:
    """How many tracks are of each class, without the tracks kept."""
    counts = Counter(rows["class"].to_pylist())
    return {kind: counts[kind] for kind in KINDS}


def _blocks(vectors: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(vectors), BLOCK):
        yield unit(vectors[start : start + BLOCK])


def _cosines(vectors: np.ndarray, one: int, others: list[int]) -> np.ndarray:
    """Cosines [n] of one row to others."""
    return np.asarray(unit(vectors[others]) @ unit(vectors[[one]])[0])
