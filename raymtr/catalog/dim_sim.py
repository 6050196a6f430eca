"""Dim-Sim: triplets of three-second spans that people judged (Lee et al., ICASSP 2020).

A folder with `clean-dim-sim.csv`, `audio/<id>.mp3`, and `track_meta.json` where it is known: title,
release and artist_name by `<id>_<position>_<start>`. A track here is one span. It is cut to
`clips/` in that folder, since a catalog's tracks are whole files. `triplets.csv` beside it has
columns anchor, nearer, farther, for `raymtr evaluate triplets`.
"""

from __future__ import annotations

import os
from typing import Any

import pyarrow as pa

from raymtr import storage
from raymtr.audio import decode_span
from raymtr.catalog.tabular import read_rows
from raymtr.errors import InputError
from raymtr.tower_specs import AudioSpec
from raymtr.track import check_tracks

LICENCE = "Dim-Sim: judgements CC-BY-NC-SA-4.0; its audio is the Million Song Dataset's previews"
TABLE, META, TRIPLETS = "clean-dim-sim.csv", "track_meta.json", "triplets.csv"
POSITIONS = ("anchor", "song1", "song2")
SPAN_S = 3.0
SPEC = AudioSpec(sample_rate=44_100, window_s=SPAN_S)


def dim_sim_tracks(folder: str) -> pa.Table:
    """One track for each judged span, cut on first use. Raises InputError on what is missing."""
    if not storage.exists(f"{folder}/{TABLE}"):
        raise InputError(f"dim_sim: {folder} has no {TABLE}")
    rows = read_rows(f"{folder}/{TABLE}").table.to_pylist()
    wanted = [f"{p}_{part}" for p in POSITIONS for part in ("id", "start_seconds")]
    for column in (*wanted, "song1_vote"):
        if not rows or column not in rows[0]:
            raise InputError(f"{folder}/{TABLE} is another version: it lacks column {column!r}")
    meta = storage.read_json(f"{folder}/{META}") if storage.exists(f"{folder}/{META}") else {}
    tracks: dict[str, dict[str, Any]] = {}
    lines = ["anchor,nearer,farther"]
    for row in rows:
        spans = [_span(row, position) for position in POSITIONS]
        for name, (track, start) in zip([_name(s) for s in spans], spans, strict=True):
            tracks.setdefault(name, _track(folder, name, track, start, meta, row))
        anchor, one, two = (_name(span) for span in spans)
        nearer, farther = (one, two) if str(row["song1_vote"]) in ("1", "1.0") else (two, one)
        lines.append(f"{anchor},{nearer},{farther}")
    storage.write_bytes(f"{folder}/{TRIPLETS}", "".join(f"{n}\n" for n in lines).encode())
    return check_tracks(pa.Table.from_pylist(list(tracks.values())))


def _span(row: dict[str, Any], position: str) -> tuple[str, str]:
    return str(row[f"{position}_id"]), str(row[f"{position}_start_seconds"])


def _name(span: tuple[str, str]) -> str:
    return f"dim_sim-{span[0]}-{span[1]}"


def _track(
    folder: str, name: str, track: str, start: str, meta: dict[str, Any], row: dict[str, Any]
) -> dict[str, Any]:
    known: dict[str, Any] = next(
        (meta[k] for p in POSITIONS if (k := f"{track}_{p}_{start}") in meta), {}
    )
    return {
        "track_id": name,
        "uri": _cut(folder, name, track, float(start)),
        "title": known.get("title"),
        "artist": known.get("artist_name"),
        "album": known.get("release"),
        "duration": SPAN_S,
        "dataset": "dim_sim",
        "split": "test",
        "licence": LICENCE,
    }


def _cut(folder: str, name: str, track: str, start_s: float) -> str:
    """The span as a FLAC file, which is written if it does not exist yet."""
    import soundfile

    source, file = f"{folder}/audio/{track}.mp3", f"{folder}/clips/{name}.flac"
    if os.path.exists(file):
        return file
    if not os.path.exists(source):
        raise InputError(f"dim_sim: {source} is missing; put or link Dim-Sim's audio in audio/")
    samples = decode_span(source, SPEC, start_s=start_s, length_s=SPAN_S)
    if len(samples) < SPEC.window_samples // 2:
        raise InputError(
            f"dim_sim: {source} is too short: {SPAN_S:g} s from {start_s:g} s are needed, it has "
            f"{len(samples) / SPEC.sample_rate:.1f} s from there"
        )
    os.makedirs(os.path.dirname(file), exist_ok=True)
    soundfile.write(f"{file}.partial", samples, SPEC.sample_rate, format="FLAC")
    os.replace(f"{file}.partial", file)
    return file
