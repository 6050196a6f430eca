"""Storage of tags and attributes: `heard/`, one row per track, and its windows beside it.

    heard/tracks/*.parquet    track_id, seconds, a column for each label, vocal, bpm, key, ...,
                              heard (labels that count), provenance (tagger versions)
    heard/windows/*.parquet   track_id, start_s, end_s, a column for each label

The shards are those of embeddings (embeddings.store) with other columns. They are separate from the
owner's tags, which no job changes. tagging.columns joins the filterable columns to a catalog.
"""

from __future__ import annotations

import logging

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raymtr import storage
from raymtr.embeddings.embed_tracks import one_row, with_replica
from raymtr.embeddings.store import EMBEDDED_SCHEMA, EmbeddingStore, ModelRef
from raymtr.ownership import RUN
from raymtr.tagging.analysis import LABELS, VERSION, WINDOW_S, Analysis, Analyzer
from raymtr.workspace import Workspace

LOG = logging.getLogger("raymtr")
MEASURED = pa.schema(
    [
        *(pa.field(name, pa.float32()) for name in ("bpm", "bpm_confidence")),
        pa.field("bpm_alternatives", pa.list_(pa.float32())),
        *(pa.field(name, pa.string()) for name in ("key", "mode")),
        *(pa.field(name, pa.float32()) for name in ("key_confidence", "loudness_lufs")),
        *(pa.field(name, pa.float32()) for name in ("energy", "brightness", "vocal")),
        pa.field("heard", pa.list_(pa.string())),
    ]
)
# As EMBEDDED, with label probabilities in place of the vector; a failed track has nulls.
TAGGED_SCHEMA = pa.schema([*EMBEDDED_SCHEMA, *MEASURED])
MADE_BY = ModelRef(fingerprint=VERSION, precision="fp32", dim=len(LABELS))


class TagStore(EmbeddingStore):
    """The shards under `heard/`; results of an older version are computed again."""

    def __init__(self, workspace: Workspace) -> None:
        super().__init__(workspace.heard, MADE_BY)

    def take(self) -> None:
        """Become the owner; results of another version are removed."""
        if storage.exists(f"{self.folder}/{RUN}"):
            before = storage.read_json(f"{self.folder}/{RUN}")["made_by"]["fingerprint"]
            if before != VERSION:
                LOG.info("what %s heard is heard anew by %s", before, VERSION)
                storage.delete(self.folder)
        super().take()

    def read(self) -> pa.Table | None:
        """All tracks' rows; None where nothing is stored yet."""
        return storage.read_tables(f"{self.folder}/tracks")

    def _tracks_of(self, good: pa.Table) -> pa.Table:
        columns = {name: good[name] for name in ("track_id", "seconds")}
        columns |= self._labels(good["vector"]) | {name: good[name] for name in MEASURED.names}
        return pa.table(columns | {"provenance": pa.array([VERSION] * len(good), pa.string())})

    def _windows_of(self, good: pa.Table) -> pa.Table:
        starts = good["starts_s"].combine_chunks()
        times = {
            "track_id": good["track_id"].take(pc.list_parent_indices(starts)),
            "start_s": pc.list_flatten(starts),
            "end_s": pc.list_flatten(good["ends_s"].combine_chunks()),
        }
        return pa.table(times | self._labels(good["windows"]))

    def _labels(self, lists: pa.ChunkedArray) -> dict[str, np.ndarray]:
        flat = pc.list_flatten(lists.combine_chunks()).to_numpy(zero_copy_only=False)
        rows = np.asarray(flat, np.float32).reshape(-1, len(LABELS))
        return {label: rows[:, place] for place, label in enumerate(LABELS)}


class TagTracks:
    """DECODED rows at 16 kHz, each window a whole track -> TAGGED_SCHEMA rows."""

    def __init__(self, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self._analyzer = Analyzer()

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return one row for each input row, in order."""
        rows = batch.drop_columns("samples").to_pylist()
        tables = [TAGGED_SCHEMA.empty_table()]
        for row, samples in zip(rows, batch["samples"], strict=True):
            if row["code"] is None:
                sound = np.frombuffer(samples.as_buffer(), np.float32)
                row |= _columns_of(self._analyzer.analyze(sound))
                row["ends_s"] = np.minimum(row["starts_s"] + WINDOW_S, row["seconds"])
            tables.append(one_row(TAGGED_SCHEMA, row))
        return with_replica(pa.concat_tables(tables))


def _columns_of(heard: Analysis) -> dict[str, object]:
    measured = vars(heard.attributes)
    return {
        **{name: measured[name] for name in MEASURED.names if name in measured},
        "starts_s": heard.starts_s,
        "vector": heard.labels,
        "windows": heard.windows,
        "vocal": heard.vocal,
        "heard": heard.named,
    }
