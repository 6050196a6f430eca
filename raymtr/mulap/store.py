"""Stored features: `features/<fingerprint>/`, the shards of embeddings with float16 windows.

    features/<fingerprint>/tracks/*.parquet    track_id, vector (the mean), seconds
    features/<fingerprint>/windows/*.parquet   track_id, start_s, end_s, vector (float16 [D])

They are an audio tower's output before its head, so they depend on the audio alone. A re-ranker
reads them instead of the audio.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from raymtr import storage
from raymtr.embeddings.embed_tracks import one_row, with_replica
from raymtr.embeddings.store import EMBEDDED_SCHEMA, EmbeddingStore, ModelRef
from raymtr.errors import InputError, UnusableError
from raymtr.mulap.backbone import Backbone, open_backbone
from raymtr.mulap.feature_reader import FeatureReader
from raymtr.ownership import RUN
from raymtr.workspace import Workspace


class FeatureStore(EmbeddingStore):
    """The shards of one backbone's features."""

    window_rows = 1_024  # about a megabyte, read to re-rank one hit

    @classmethod
    def of_model(cls, workspace: Workspace, made_by: ModelRef) -> FeatureStore:
        """The store of one backbone's features; its folder need not exist yet."""
        return cls(workspace.features(made_by.fingerprint), made_by)

    def _windows_of(self, good: pa.Table) -> pa.Table:
        table = super()._windows_of(good)
        place = table.column_names.index("vector")
        half = table["vector"].cast(pa.list_(pa.float16(), self.made_by.dim))
        return table.set_column(place, "vector", half)

    def reader(self) -> FeatureReader:
        """A reader of the features that are stored now."""
        return FeatureReader(self)


def open_features(workspace: Workspace, backbone: Backbone) -> FeatureStore:
    """The store of this backbone's features; its folder need not exist yet."""
    made_by = ModelRef(fingerprint=backbone.fingerprint, precision="fp32", dim=backbone.spec.dim)
    return FeatureStore.of_model(workspace, made_by)


def find_features(workspace: Workspace, run: str, fingerprint: str, dim: int) -> FeatureStore:
    """The finished features of the run whose model has this fingerprint.

    Raises InputError if there are none, or only another run's: those are not mixed.
    """
    made_by = ModelRef(fingerprint=fingerprint, precision="fp32", dim=dim)
    store = FeatureStore.of_model(workspace, made_by)
    cure = f"run `raymtr embed --model {run} --output features` first"
    others = [n for n in storage.list_folders(workspace.path("features")) if n != fingerprint]
    if not storage.exists(f"{store.folder}/{RUN}"):
        seen = f" (there are features of {', '.join(others)}, other models)" if others else ""
        raise InputError(f"no features of run {run}, model {fingerprint}{seen}; {cure}")
    stored = FeatureStore.open(store.folder).made_by
    if stored != made_by:
        raise InputError(
            f"{store.folder} has features of model {stored.fingerprint}, not of run {run}, model "
            f"{fingerprint}; {cure}"
        )
    return store


class FeatureTracks:
    """DECODED rows -> EMBEDDED rows with features as windows; the backbone is loaded once."""

    def __init__(self, source: str, made_by: ModelRef, *, threads: int) -> None:
        """Raises UnusableError if `source` is no longer the backbone of `made_by`."""
        import torch

        torch.set_num_threads(threads)
        self._backbone = open_backbone(source)
        if self._backbone.fingerprint != made_by.fingerprint:
            raise UnusableError(
                f"{source} has model {self._backbone.fingerprint}, not {made_by.fingerprint}"
            )

    def __call__(self, batch: pa.Table) -> pa.Table:
        """One row out per row in, in order."""
        rows = batch.drop_columns(["samples", "scales"]).to_pylist()
        tables = [EMBEDDED_SCHEMA.empty_table()]
        for row, samples in zip(rows, batch["samples"], strict=True):
            if row["code"] is None:
                waves = np.frombuffer(samples.as_buffer(), np.float32)
                features = self._backbone.embed_windows(
                    waves.reshape(len(row["starts_s"]), -1).copy()
                )
                row |= _features_of_track(features)
                length = self._backbone.spec.audio.window_s
                row["ends_s"] = np.minimum(np.array(row["starts_s"]) + length, row["seconds"])
            tables.append(one_row(EMBEDDED_SCHEMA, row))
        return with_replica(pa.concat_tables(tables))


def _features_of_track(features: np.ndarray) -> dict[str, object]:
    if np.isfinite(features).all() and np.abs(features).max() < np.finfo(np.float16).max:
        return {"vector": features.mean(axis=0), "windows": features}
    return {
        "code": "bad_vector",
        "reason": "the model gave features that are not finite in float16",
    }
