"""Storage of tags and attributes: `heard/`, one row per track, and its windows beside it.

    heard/tracks/*.parquet    track_id, seconds, a column for each label, vocal, bpm, key, ...,
                              heard (labels that count), provenance (tagger versions)
    heard/windows/*.parquet   track_id, start_s, end_s, a column for each label

The shards are those of embeddings (embeddings.store) with other columns. They are separate from the
owner's tags, which no job changes. tagging.columns joins the filterable columns to a catalog.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raymtr import audio, storage
from raymtr.embeddings.embed_tracks import DECODED, decode_rows, one_row, with_replica
from raymtr.embeddings.store import EMBEDDED_SCHEMA, EmbeddingStore, ModelRef
from raymtr.specs import EmbedSpec
from raymtr.tagging.analysis import LABELS, TAGGED_AUDIO, VERSION, Analysis, Analyzer
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

    JOB = "tag"

    def __init__(self, workspace: Workspace) -> None:
        super().__init__(workspace.heard, MADE_BY)

    def claim(self) -> None:
        """Become the owner; results of another version are removed."""
        self.drop_other_version()
        super().claim()

    def drop_other_version(self) -> None:
        """Remove results of another version of the taggers."""
        if (before := self.run) and not self.partition:
            version = before["made_by"]["fingerprint"]
            if version != VERSION:
                LOG.info("the results of %s are computed again by %s", version, VERSION)
                storage.delete(self.folder)

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


def decode_whole(batch: pa.Table, *, embed: EmbedSpec, hung: str) -> Iterator[pa.Table]:
    """SOURCES -> one DECODED row each at the taggers' rate and not cut: `samples` float32 [n]."""

    def uncut(decoded: audio.Decoded) -> dict[str, np.ndarray]:
        return {"starts_s": np.zeros(1), "samples": decoded.samples}

    yield from decode_rows(batch, uncut, DECODED, spec=TAGGED_AUDIO, embed=embed, hung=hung)


class TagTracks:
    """DECODED rows at 16 kHz, each window a whole track -> TAGGED_SCHEMA rows."""

    def __init__(self, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self._analyzer = Analyzer()

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return one row for each input row, in order."""
        rows = batch.drop_columns(["samples", "scales"]).to_pylist()
        results = [
            tagged_row(self._analyzer, row, samples)
            for row, samples in zip(rows, batch["samples"], strict=True)
        ]
        return with_replica(pa.concat_tables([TAGGED_SCHEMA.empty_table(), *results]))


def tagged_row(
    analyzer: Analyzer,
    row: dict[str, Any],
    samples: pa.LargeBinaryScalar,
    known: Mapping[str, np.ndarray] | None = None,
) -> pa.Table:
    """The TAGGED_SCHEMA row of one track, from its columns of DECODED.

    `known` is as of `Analyzer.analyze`.
    """
    if row["code"] is None:
        try:
            heard = analyzer.analyze(np.frombuffer(samples.as_buffer(), np.float32), known)
            row = row | _columns_of(heard)
            row["ends_s"] = np.minimum(heard.starts_s + TAGGED_AUDIO.window_s, row["seconds"])
        except audio.AudioError as error:
            row = row | {"code": error.code, "reason": error.reason}
    return one_row(TAGGED_SCHEMA, row)


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
