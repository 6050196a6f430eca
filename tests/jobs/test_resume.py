"""What `embed` takes to find that nothing is left to do, at a twentieth of a million tracks."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from jobs.embed_catalog import SHARD_TRACKS, embed_catalog
from jobs.memory_watch import MemoryWatch, tree_bytes
from raymtr import storage
from raymtr.index.shards import EMBEDDED, SOURCES, MadeBy, Shards
from raymtr.model.pretrained import load_model
from raymtr.recipes import tiny
from raymtr.track import check_tracks
from raymtr.workspace import Workspace

TRACKS, OF_A_MILLION = 50_000, 0.05
ASKED_S, ASKED_GIB = 60.0, 4.0  # at a million


def test_nothing_left_to_do_is_found_fast(tmp_path: Path, tiny_model: str) -> None:
    workspace = Workspace.open(str(tmp_path / "w"), create=True)
    ids = [f"t{n:07}" for n in range(TRACKS)]
    uris = [f"/music/Artist {n // 97}/Album {n // 11}/Song {n}.mp3" for n in range(TRACKS)]
    catalog = check_tracks(pa.table({"track_id": ids, "uri": uris, "file_version": ids}))
    storage.replace_tables(workspace.tracks, catalog)
    commit_all(workspace, catalog.select(SOURCES), tiny_model)

    before, busy = tree_bytes(), time.process_time()
    with MemoryWatch(every_s=0.05) as watch:
        answer = embed_catalog(workspace, tiny(), model=tiny_model)
    busy = time.process_time() - busy
    assert (answer["embedded"], answer["failed"], answer["new"]) == (TRACKS, 0, 0)
    assert busy < ASKED_S * OF_A_MILLION
    assert watch.peak_gib - before / 2**30 < ASKED_GIB * OF_A_MILLION


def commit_all(workspace: Workspace, sources: pa.Table, model_folder: str) -> None:
    """Shards of the job's size, each track with a window of noise."""
    model = load_model(model_folder)
    dim = model.spec.dim
    made_by = MadeBy(fingerprint=model.fingerprint, precision=model.precision, dim=dim)
    shards = Shards(workspace.embeddings(model.fingerprint), made_by)
    shutil.copytree(model_folder, shards.model_folder)
    shards.take()
    rng = np.random.default_rng(0)
    for start in range(0, len(sources), SHARD_TRACKS):
        some = sources.slice(start, SHARD_TRACKS).combine_chunks()
        count = len(some)
        places = np.arange(count + 1, dtype=np.int32)
        vectors = rng.standard_normal(count * dim, dtype=np.float32)
        lists = pa.ListArray.from_arrays(places * dim, vectors)
        columns = {name: some[name].combine_chunks() for name in SOURCES}
        columns["starts_s"] = columns["ends_s"] = pa.ListArray.from_arrays(places, np.zeros(count))
        columns["vector"] = columns["windows"] = lists
        columns["code"] = columns["reason"] = pa.nulls(count, pa.string())
        shards.commit(pa.table(columns, schema=EMBEDDED))
    shards.release()
