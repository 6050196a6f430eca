"""One pass over the audio for both: vectors for search, and predicted tags with attributes.

A track is decoded once and resampled once for each rate. A model whose tower is the taggers
themselves has computed their logits too, so those are not computed again. The rows of both results
stay together until they are committed to their two stores. A kill between the two commits leaves
tracks in one of them; the next run computes only what is missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from raymtr import audio
from raymtr.embeddings.embed_tracks import (
    DECODED,
    EmbedTracks,
    decode_rows,
    embed_tracks,
    pack_samples,
    with_replica,
)
from raymtr.embeddings.store import EmbeddingStore, ModelRef
from raymtr.specs import EmbedSpec
from raymtr.tagging.analysis import TAGGED_AUDIO, Analyzer, shared_logits, shares_taggers
from raymtr.tagging.store import TagStore, tagged_row
from raymtr.tower_specs import AudioSpec

DECODED_TWICE = pa.schema([*DECODED, pa.field("whole", pa.large_binary())])  # float32 [n], 16 kHz
PREFIX = "heard."  # of the columns of TAGGED_SCHEMA beside those of EMBEDDED


def decode_for_both(
    batch: pa.Table, *, spec: AudioSpec, embed: EmbedSpec, hung: str, packed: bool = False
) -> Iterator[pa.Table]:
    """SOURCES -> one DECODED_TWICE row each: the model's windows, and the track for the taggers.

    `hung` and `packed` are as of `decode_tracks`.
    """

    def cut(decoded: audio.Decoded) -> dict[str, Any]:
        starts_s, windows = audio.windows(decoded.samples, spec)
        return {"starts_s": starts_s, "samples": windows, "whole": decoded.also}

    rate = TAGGED_AUDIO.sample_rate
    rows = decode_rows(batch, cut, DECODED_TWICE, spec=spec, embed=embed, hung=hung, also=rate)
    yield from map(pack_samples, rows) if packed else rows


class EmbedAndTag(EmbedTracks):
    """DECODED_TWICE rows -> EMBEDDED rows, with the columns of TAGGED_SCHEMA under PREFIX."""

    def __init__(self, model_folder: str, made_by: ModelRef, *, device: str, threads: int) -> None:
        """Raises UnusableError as EmbedTracks does, and where the taggers are not installed."""
        super().__init__(model_folder, made_by, device=device, threads=threads)
        self._analyzer = Analyzer()
        self._shares = shares_taggers(self.model.spec) and made_by.precision == "fp32"

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return one row for each input row, in order."""
        return with_replica(
            pa.concat_tables([self._both(batch.slice(n, 1)) for n in range(len(batch))])
        )

    def _both(self, one: pa.Table) -> pa.Table:
        """The row of one track."""
        logits: dict[str, np.ndarray] = {}

        def embed(windows: np.ndarray, scales: np.ndarray | None) -> np.ndarray:
            if not windows.size:
                return self.model.embed_windows(windows, scales)
            vectors, features = self.model.embed_with_features(windows, scales)
            logits.update(shared_logits(self.model.spec, features))
            return vectors

        decoded = one.drop_columns("whole")
        embedded = embed_tracks(self.model, decoded, embed if self._shares else None)
        row = decoded.drop_columns(["samples", "scales"]).to_pylist()[0]
        heard = tagged_row(self._analyzer, row, one["whole"][0], logits)
        for name in heard.column_names:
            embedded = embedded.append_column(PREFIX + name, heard[name])
        return embedded


class BothStores:
    """The stores of one pass, committed together; see the file's docstring about kills."""

    def __init__(self, embeddings: EmbeddingStore, heard: TagStore) -> None:
        self._embeddings, self._heard = embeddings, heard

    def commit(self, rows: pa.Table) -> None:
        """Write one shard of EmbedAndTag's rows into each store. Raises as each does."""
        names = [name for name in rows.column_names if name.startswith(PREFIX)]
        heard = rows.select(names).rename_columns([name.removeprefix(PREFIX) for name in names])
        self._heard.commit(heard)
        self._embeddings.commit(rows.drop_columns(names))
