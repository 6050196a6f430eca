"""The arena's catalog and its test queries: rendered tunes, synthetic pieces, real recordings.

Splits are by artist, and by title where a tune has no artist, so no query is about a training
track. Rendered files have exact labels; tags of real recordings are weak.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from real_input import TEST_BYTE, midi_catalog, title_hash

from raymtr import storage
from raymtr.audio import decode_span
from raymtr.captions.writing.realised_rows import caption_tracks
from raymtr.catalog.manifest import read_manifest
from raymtr.catalog.similar_artists import join_similar_artists, read_graph
from raymtr.catalog.sources import midi_tracks, real_music_tracks
from raymtr.catalog.splits import assign_splits
from raymtr.errors import InputError
from raymtr.evaluation.benchmarks import Benchmark
from raymtr.evaluation.catalog_benchmark import catalog_benchmark
from raymtr.synthetic.synthesize import synthesize
from raymtr.tower_specs import AudioSpec
from raymtr.track import KNOWN, check_tracks
from raymtr.workspace import Workspace

VALID_BYTE = 90  # of a title's hash, as real_input's TEST_BYTE: a tenth is for validation
LONGEST_S = 600.0  # of a test file
Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def _at_random(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.float32(10 ** (rng.uniform(-18.0, 0.0) / 20)) * samples


def _limited(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """12 dB louder than full scale, cut at full scale."""
    return np.clip(4.0 * samples / max(float(np.abs(samples).max()), 1e-6), -1.0, 1.0)


LEVELS: dict[str, Change] = {
    "as made": lambda samples, rng: samples,
    "12 dB quieter": lambda samples, rng: np.float32(10 ** (-12 / 20)) * samples,
    "-18 to 0 dB": _at_random,
    "limited hard": _limited,
}


@dataclass(frozen=True)
class Size:
    """The sizes of the catalog and of training."""

    pieces: int = 400
    tunes: int = 800  # of the Nottingham set, two clips each
    whole_test: bool = True  # also all other tunes of that set that are held out for testing
    clips: int = 10_000  # of other MIDI files, and of recordings
    steps: int = 400
    batch: int = 64
    threads: int = 2
    seeds: tuple[int, ...] = (0, 1, 2)
    rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3)


SIZES = {
    "full": Size(),
    "small": Size(
        pieces=60,
        tunes=240,
        clips=120,
        steps=160,
        batch=32,
        threads=1,
        rates=(3e-4, 1e-3),
    ),
    "toy": Size(
        pieces=12,
        tunes=12,
        whole_test=False,
        clips=12,
        steps=2,
        batch=8,
        threads=1,
        seeds=(0, 1),
        rates=(1e-3,),
    ),
}


def make_catalog(workspace: Workspace, data: str, size: Size) -> pa.Table:
    """The sources as one catalog with splits, two captions per track; an existing one is reused.

    Raises InputError if the workspace has a catalog of another size.
    """
    kept = ("pieces", "tunes", "whole_test", "clips")
    sizes = {name: getattr(size, name) for name in kept}
    receipt = workspace.path("arena.json")
    if storage.exists(receipt):
        if (seen := storage.read_json(receipt)) != sizes:
            raise InputError(
                f"{workspace.root} holds an arena of {seen}, this size wants {sizes}; "
                "give another --workspace"
            )
        catalog = storage.read_tables(workspace.tracks)
        assert catalog is not None
        return catalog
    rng = np.random.default_rng(0)
    folder = Path(workspace.path("midi"))
    rendered = midi_catalog(Path(data, "midi"), folder, size.tunes, whole_test=size.whole_test)
    others = midi_tracks(f"{data}/midi")
    others = others.filter(pc.not_equal(others["set"], "nottingham"))
    real = real_music_tracks(f"{data}/real_music")
    parts = [_synthetic(workspace, size.pieces), check_tracks(_with_valid(rendered))]
    parts += [
        part.take(np.sort(rng.permutation(len(part))[: size.clips])) for part in (others, real)
    ]
    joined = pa.concat_tables([part.select(KNOWN) for part in parts], promote_options="permissive")
    catalog = assign_splits(joined)
    storage.replace_tables(workspace.tracks, catalog)
    storage.replace_tables(workspace.captions, caption_tracks(catalog, per_track=2, seed=0))
    storage.write_json(receipt, sizes)
    return catalog


def _synthetic(workspace: Workspace, pieces: int) -> pa.Table:
    """The synthetic pieces with their artist graph."""
    synthetic = synthesize(workspace.path("music"), pieces=pieces, seed=0, processes=1)
    graph = read_graph(workspace.path("music/similar_artists.tsv"))
    tracks, _ = join_similar_artists(read_manifest(synthetic["manifest"]), graph)
    named = pa.array(["synthetic"] * len(tracks))
    return tracks.set_column(tracks.column_names.index("dataset"), "dataset", named)


def _with_valid(tunes: pa.Table) -> pa.Table:
    """Rendered tunes, some of those to train on moved to `valid` by a hash of the title."""
    first = [title_hash(tune)[0] for tune in tunes.select(["title"]).to_pylist()]
    split = ["test" if b < TEST_BYTE else "valid" if b < VALID_BYTE else "train" for b in first]
    return tunes.set_column(tunes.column_names.index("split"), "split", pa.array(split))


def questions(catalog: pa.Table) -> tuple[pa.Table, dict[str, Benchmark]]:
    """The test tracks, and a benchmark over those that were rendered and those that are real."""
    test = catalog.filter(pc.equal(catalog["split"], "test"))
    real = pc.equal(test["dataset"], "real_music")
    pools = {"rendered": test.filter(pc.invert(real)), "real": test.filter(real)}
    return test, {
        name: catalog_benchmark(catalog, seed=0, pool=part["track_id"].to_pylist())
        for name, part in pools.items()
        if len(part) > 1
    }


def decoded(test: pa.Table, spec: AudioSpec) -> dict[str, np.ndarray]:
    """Track -> its file's samples at the spec's rate."""
    return {
        row["track_id"]: decode_span(row["uri"], spec, start_s=0.0, length_s=LONGEST_S)
        for row in test.select(["track_id", "uri"]).to_pylist()
    }


def described(size: Size) -> str:
    """The size as text."""
    return ", ".join(f"{name} {value}" for name, value in asdict(size).items())
