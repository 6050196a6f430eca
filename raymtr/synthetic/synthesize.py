"""Generates a small playable synthetic catalog with known ground truth.

Everything is decided first, in one cheap pass with one rng: artists, titles, and for each piece the
style, instruments, tempo, mode, phrasing and production that its tags name. No two pieces have the
same tags, so a caption with all of them has one right answer. Then each piece is rendered with its
own rng, so any number of processes writes the same bytes. The marker `made.json` is written first
as a claim and last as a receipt: a finished catalog is used again, an unfinished one is generated
again, and a folder with other audio is refused.

Limitations: no 44.1 kHz (three times the time and the disk), no singing, no pieces that develop.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import soundfile

from raymtr import storage
from raymtr.errors import InputError, UnusableError
from raymtr.progress import Progress
from raymtr.synthetic.cast import Artist, similar_artists, split_sizes
from raymtr.synthetic.plan import Piece, plan
from raymtr.synthetic.render import PEAK, SAMPLE_RATE, Renderer, find_soundfont, frames_of

VERSION = 1  # raised whenever the same seed would give different bytes
FEWEST, MOST = 3, 10_000  # pieces
CROSSFADE = SAMPLE_RATE // 5  # frames that neighbouring sections share
MARKER = "made.json"
FILES = {
    "manifest": "manifest.parquet",
    "similar_artists": "similar_artists.tsv",
    "sections": "sections.json",
}


def synthesize(
    folder: str, *, pieces: int = 600, seed: int = 0, processes: int = 2
) -> dict[str, Any]:
    """Generate the catalog in `folder`, or reuse a finished one there. Returns a summary of it.

    Writes `audio/`, `manifest.parquet`, `similar_artists.tsv`, `sections.json` and `made.json`.
    The same `pieces` and `seed` give the same bytes. Raises InputError for a size out of range or
    a folder with other audio, UnusableError if the synthesiser or disk space is missing.
    """
    if not FEWEST <= pieces <= MOST or processes < 1:
        raise InputError(
            f"a synthetic catalog has {FEWEST} to {MOST} pieces, from one process or more; "
            f"got {pieces} pieces, {processes} processes"
        )
    if storage.is_remote(folder):
        raise InputError(f"a synthetic catalog is written to a local folder, got {folder!r}")
    folder = os.path.abspath(storage.local_path(folder))
    claim = {"version": VERSION, "pieces": pieces, "seed": seed}
    summary = _claim(folder, claim)
    reused = summary is not None
    if summary is None:
        planned, artists = plan(pieces, seed)
        _render_all(folder, planned, seed=seed, processes=processes)
        _write_tables(folder, planned, artists)
        summary = {
            "pieces": pieces,
            "artists": len(artists),
            "splits": split_sizes(pieces),
            "hours": round(sum(_times_s(piece)[-1] for piece in planned) / 3600, 3),
            "tags": len({tag for piece in planned for tag in piece.tags}),
        }
        storage.write_json(os.path.join(folder, MARKER), claim | {"finished": summary})
    paths = {name: os.path.join(folder, file) for name, file in FILES.items()}
    return {"folder": folder, **paths, **summary, "reused": reused}


def _claim(folder: str, claim: dict[str, int]) -> dict[str, Any] | None:
    """The summary of the finished catalog in `folder`; else claims the folder and returns None."""
    marker, audio = os.path.join(folder, MARKER), os.path.join(folder, "audio")
    if storage.exists(marker):
        try:
            found = dict(storage.read_json(marker))
        except (ValueError, TypeError):
            found = {}
        if claim.items() <= found.items() and "finished" in found:
            return dict(found["finished"])
    elif storage.exists(audio):
        raise InputError(
            f"{audio} exists already and was not generated here; choose an empty folder"
        )
    storage.write_json(marker, claim)
    storage.delete(audio)
    return None


def _render_all(folder: str, planned: Sequence[Piece], *, seed: int, processes: int) -> None:
    """Write every piece's audio."""
    progress = Progress("synthesize", len(planned), unit="pieces")
    work = functools.partial(_render_piece, folder, seed)
    find_soundfont()  # fails here with one clear error, not in every process
    if processes == 1:
        _count(map(work, planned), progress)
        return
    # Spawned, because a fork would copy the state of the caller's threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        _count(pool.map(work, planned, chunksize=4), progress)


def _count(done: Iterable[None], progress: Progress) -> None:
    for _ in done:
        progress.advance(1)


@functools.cache
def _renderer() -> Renderer:
    """This process's synthesiser, cached: loading the soundfont takes as long as a piece."""
    return Renderer(find_soundfont())


def _render_piece(folder: str, seed: int, piece: Piece) -> None:
    """Write one piece as a tagged FLAC file. Raises UnusableError if it cannot be written."""
    rng = np.random.default_rng([seed, 1 + piece.index])
    sound = _joined([_renderer().render(section, rng) for section in piece.sections])
    path = os.path.join(folder, piece.uri)
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with soundfile.SoundFile(path, "w", SAMPLE_RATE, 2, "PCM_16", format="FLAC") as file:
            file.title, file.artist, file.album = piece.title, piece.artist, piece.album
            file.date, file.genre = str(piece.year), piece.sections[0].style
            file.write(sound)
    except (OSError, soundfile.LibsndfileError) as error:
        raise UnusableError(f"cannot write {path}: {error}") from error


def _joined(sounds: Sequence[np.ndarray]) -> np.ndarray:
    """Sections [frames, 2] concatenated, with a crossfade between neighbours."""
    if len(sounds) == 1:
        return sounds[0]
    starts = _starts([len(sound) for sound in sounds])
    mix = np.zeros((starts[-1], 2), np.float32)
    for start, sound in zip(starts, sounds, strict=False):
        mix[start : start + len(sound)] += sound
    mix *= PEAK / np.abs(mix).max()
    return mix


def _starts(lengths: Sequence[int]) -> list[int]:
    """First frame of each section, then the total length in frames."""
    starts = [0]
    for length in lengths:
        starts.append(starts[-1] + length - CROSSFADE)
    return [*starts[:-1], starts[-1] + CROSSFADE]


def _times_s(piece: Piece) -> list[float]:
    """Seconds at which each section starts, then the piece's duration."""
    frames = [frames_of(section) for section in piece.sections]
    return [start / SAMPLE_RATE for start in _starts(frames)]


def _row(piece: Piece) -> dict[str, Any]:
    """The manifest's row; tempo, key and mode are null if they change within the piece."""
    first = piece.sections[0]
    uniform = len(piece.sections) == 1
    return {
        "track_id": piece.track_id,
        "uri": piece.uri,
        "title": piece.title,
        "artist": piece.artist,
        "album": piece.album,
        "year": piece.year,
        "duration": _times_s(piece)[-1],
        "tags": piece.tags,
        "split": piece.split,
        "dataset": "made",
        "tempo_bpm": float(first.bpm) if uniform else None,
        "key": first.key if uniform else None,
        "mode": first.mode if uniform else None,
    }


def _write_tables(folder: str, planned: Sequence[Piece], artists: Sequence[Artist]) -> None:
    """Write the manifest, the artist graph, and the sections of the long pieces."""
    rows = [_row(piece) for piece in planned]
    storage.write_table(os.path.join(folder, FILES["manifest"]), pa.Table.from_pylist(rows))
    graph = ["artist\tsimilar_artist\tscore"]
    graph += [f"{one}\t{other}\t{score}" for one, other, score in similar_artists(artists)]
    text = "\n".join(graph) + "\n"
    storage.write_bytes(os.path.join(folder, FILES["similar_artists"]), text.encode())
    sections = {piece.track_id: _sections(piece) for piece in planned if len(piece.sections) > 1}
    storage.write_json(os.path.join(folder, FILES["sections"]), sections)


def _sections(piece: Piece) -> list[dict[str, Any]]:
    times = _times_s(piece)
    return [
        {"start_s": start, "end_s": end, "tags": list(section.tags)}
        for section, start, end in zip(piece.sections, times, times[1:], strict=False)
    ]
