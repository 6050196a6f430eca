"""Whether "similar to X, but calmer" is calmer: faster and brighter likewise.

    python benchmarks/directions.py --workspace demo-workspace [--anchors 20] [--half report|tune]

The workspace is copied, and its tracks get the columns that `raymtr tag` measures (loudness,
energy, brightness), so that directions have columns to follow and to be judged by. For each of some
artists, drawn once, the first ten hits of "similar to X, but calmer" are compared with the
artist's own tracks and with the first ten of "similar to X": the mean tempo and loudness have to
be below both. `--half tune` shows other artists, to choose weights on.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from figures import Figures

from raymtr import audio, storage
from raymtr.audio.attributes import measure
from raymtr.embeddings.store import find_embeddings
from raymtr.errors import InputError
from raymtr.index.build_tables import tracks_table
from raymtr.index.publish import publish
from raymtr.names import name_key
from raymtr.search.searcher import Searcher
from raymtr.specs import SearchSpec
from raymtr.tower_specs import AudioSpec
from raymtr.workspace import Workspace

MEASURED = ("loudness_lufs", "energy", "brightness")
TEMPI = ("bpm", "tempo_bpm", "tempo")
RATE = 16_000
DIRECTIONS = {  # words -> columns and the side on which their means should lie
    "calmer": {"tempo": -1, "loudness_lufs": -1},
    "faster": {"tempo": 1},
    "brighter": {"brightness": 1},
}
TARGET = 0.9  # of the anchors
LEAST_TRACKS = 5  # of an artist that is an anchor


def measured(workspace: Workspace, folder: Path) -> Workspace:
    """A copy of `workspace` in `folder`, published with the MEASURED columns."""
    shutil.copytree(workspace.root, folder, ignore=shutil.ignore_patterns("music", "cache"))
    copy = Workspace.open(str(folder))
    catalog = storage.read_tables(copy.tracks)
    if catalog is None:
        raise InputError(f"no catalog in {workspace.root}; expected a finished workspace")
    rows = []
    for uri in catalog["uri"].to_pylist():
        found = measure(audio.decode(uri, AudioSpec(sample_rate=RATE)).samples, RATE)
        rows.append([getattr(found, name) for name in MEASURED])
    for name, values in zip(MEASURED, zip(*rows, strict=True), strict=True):
        catalog = catalog.append_column(name, pa.array(values, pa.float64()))
    publish(copy, [tracks_table(catalog, None)], find_embeddings(copy), search=SearchSpec())
    return copy


def anchors(searcher: Searcher, count: int, half: str) -> list[str]:
    """Artists with enough tracks: every second of `count`, drawn once."""
    counts: Counter[str] = Counter()
    for batch in searcher.table.stream("tracks", ["artist"]):
        counts.update(name for name in batch["artist"].to_pylist() if name)
    names = sorted(name for name, tracks in counts.items() if tracks >= LEAST_TRACKS)
    drawn = np.random.default_rng(19).permutation(names)[: 2 * count]
    return [str(name) for name in drawn[half == "report" :: 2]]


def means(searcher: Searcher, ids: Sequence[str], columns: Mapping[str, str]) -> dict[str, float]:
    """The mean of each column over some tracks."""
    rows = searcher.table.rows(ids, list(columns.values())).values()
    return {
        name: float(np.mean([row[column] for row in rows if row[column] is not None]))
        for name, column in columns.items()
    }


def judge(searcher: Searcher, artist: str, way: str, columns: Mapping[str, str]) -> bool:
    """Prints the means of one anchor, and whether each lies beyond both references."""
    answer = searcher.search(f"similar to {artist}")
    moved = searcher.search(f"similar to {artist}, but {way}")
    key = answer["query"]["anchors"][0]["artist"]
    own_tracks = [row["track_id"] for row in searcher.table.named([name_key(key) or ""])]
    lists = {
        "own": own_tracks,
        "similar": [hit["track_id"] for hit in answer["hits"]],
        "moved": [hit["track_id"] for hit in moved["hits"]],
    }
    found = {name: means(searcher, ids, columns) for name, ids in lists.items()}
    beyond = all(
        sign * found["moved"][name] > sign * found[other][name]
        for name, sign in DIRECTIONS[way].items()
        for other in ("own", "similar")
    )
    shown = "  ".join(
        f"{name} {found['own'][name]:.2f} {found['similar'][name]:.2f} {found['moved'][name]:.2f}"
        for name in DIRECTIONS[way]
    )
    print(f"  {way:9} {artist[:28]:28} {shown}  {'' if beyond else 'MISS'}")
    return beyond and len(moved["hits"]) == 10


def main() -> None:
    """Prints each anchor's means (own tracks, similar, moved), then the share of each direction."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workspace", default="demo-workspace")
    parser.add_argument("--anchors", type=int, default=20)
    parser.add_argument("--half", choices=("report", "tune"), default="report")
    arguments = parser.parse_args()
    figures = Figures()
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace.open(arguments.workspace)
        searcher = Searcher(workspace)
        if not set(MEASURED) <= set(searcher.vocabulary.columns):
            searcher = Searcher(measured(workspace, Path(folder) / "workspace"))
        tempo = searcher.vocabulary.column(TEMPI) or TEMPI[0]
        columns = {"tempo": tempo} | {name: name for name in MEASURED}
        for way in DIRECTIONS:
            chosen = anchors(searcher, arguments.anchors, arguments.half)
            right = sum(judge(searcher, artist, way, columns) for artist in chosen)
            share = right / len(chosen)
            unit = f"of {len(chosen)} anchors"
            figures.add(way, share, unit=unit, asked=f">= {TARGET}", met=share >= TARGET)
    figures.save()


if __name__ == "__main__":
    main()
