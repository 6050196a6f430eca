"""The two steps of the embedding job: files -> windows of samples -> vectors.

The steps are separate so that decoding does not hold up a GPU: `decode_tracks` runs as CPU tasks on
any free core, `EmbedTracks` as actors that keep the model loaded. Between the steps a track is one
row. Its samples are the bytes of its windows, float32 [W, S], written and read without a copy.

A bad file is a row with `code` and `reason` and without samples; the model step passes it through.
A window's vector depends only on its own samples (raymtr.model.audio_forward). So the windows of
all tracks of a batch go through the model in one call, and a track gets the same vector whichever
tracks share its batch, also after a killed run is resumed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from raymtr import audio
from raymtr.embeddings.kept_model import load_kept_model
from raymtr.embeddings.store import EMBEDDED_SCHEMA, ModelRef
from raymtr.embeddings.tables import SOURCES
from raymtr.specs import MUSICNN_AUDIO, AudioSpec, EmbedSpec
from raymtr.vectors import is_unit, unit

if TYPE_CHECKING:
    from raymtr.model.model import Model

REPLICA = "replica"  # output column of EmbedTracks: host and process, which the driver counts
DECODED = pa.schema(
    [
        pa.field("track_id", pa.string()),
        pa.field("uri", pa.string()),
        pa.field("file_version", pa.string()),
        pa.field("audio_digest", pa.string()),
        pa.field("seconds", pa.float64()),
        pa.field("starts_s", pa.list_(pa.float64())),
        pa.field("samples", pa.large_binary()),  # float32 [W, S]
        pa.field("code", pa.string()),
        pa.field("reason", pa.string()),
    ]
)


def decode_tracks(
    batch: pa.Table, *, spec: AudioSpec, embed: EmbedSpec, hung: str
) -> Iterator[pa.Table]:
    """SOURCES -> one DECODED row each, yielded one at a time so that memory holds one track.

    `hung` is the folder `EmbeddingStore.hung`; see `audio.DecodeGuard`.
    """
    yield from _decoded(batch, lambda samples: audio.windows(samples, spec), spec, embed, hung)


def decode_whole(batch: pa.Table, *, embed: EmbedSpec, hung: str) -> Iterator[pa.Table]:
    """Like `decode_tracks`, but at the taggers' rate and not cut: `samples` is float32 [n]."""

    def uncut(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if audio.is_silent(samples):
            raise audio.AudioError("silent", "it is silent")
        return np.zeros(1), samples

    yield from _decoded(batch, uncut, AudioSpec(**MUSICNN_AUDIO), embed, hung)


def _decoded(
    batch: pa.Table,
    cut: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    spec: AudioSpec,
    embed: EmbedSpec,
    hung: str,
) -> Iterator[pa.Table]:
    """One DECODED row per row of SOURCES; `cut` maps samples to (starts in s, float32 samples)."""
    guard = audio.DecodeGuard(embed, hung)
    for row in batch.select(SOURCES).to_pylist():
        try:
            with guard(row["track_id"]):
                decoded = audio.decode(row["uri"], spec, max_s=guard.max_s, max_mb=guard.max_mb)
            starts_s, windows = cut(decoded.samples)
            row |= {"seconds": decoded.seconds, "starts_s": starts_s, "samples": windows}
            row["audio_digest"] = decoded.digest
        except audio.AudioError as error:
            row |= {"code": error.code, "reason": error.reason}
        yield one_row(DECODED, row)


class EmbedTracks:
    """DECODED rows -> EMBEDDED rows; the model is loaded and checked once per actor."""

    def __init__(self, model_folder: str, made_by: ModelRef, *, device: str, threads: int) -> None:
        """Raises UnusableError if the folder's model is not that of `made_by`, or is damaged."""
        import torch  # imported here because the decoding tasks import this file too

        torch.set_num_threads(threads)
        self._model = load_kept_model(model_folder, made_by, device=device, audio_only=True)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """One row out per row in, in order; REPLICA names the process that computed it."""
        embedded = embed_tracks(self._model, batch)
        return with_replica(embedded)


def with_replica(rows: pa.Table) -> pa.Table:
    """`rows` with the column REPLICA, which names the process that computed them."""
    own = pa.array([f"{os.uname().nodename} {os.getpid()}"] * len(rows), pa.string())
    return rows.append_column(REPLICA, own)


def embed_tracks(model: Model, decoded: pa.Table) -> pa.Table:
    """DECODED rows -> EMBEDDED rows, with all windows in one call of the model."""
    rows = decoded.drop_columns("samples").to_pylist()
    waves = [
        np.frombuffer(samples.as_buffer(), np.float32).reshape(len(row["starts_s"]), -1)
        for row, samples in zip(rows, decoded["samples"], strict=True)
        if row["code"] is None
    ]
    # Concatenating also copies: the rows are in Ray's read-only store, torch needs writable memory.
    vectors = model.embed_windows(np.concatenate(waves)) if waves else np.empty((0, model.spec.dim))
    embedded, first = [], 0
    for row in rows:
        if row["code"] is None:
            count = len(row["starts_s"])
            row |= _vectors_of_track(vectors[first : first + count])
            row["ends_s"] = np.minimum(
                np.array(row["starts_s"]) + model.spec.audio.window_s, row["seconds"]
            )
            first += count
        embedded.append(one_row(EMBEDDED_SCHEMA, row))
    return pa.concat_tables(embedded or [EMBEDDED_SCHEMA.empty_table()])


def _vectors_of_track(windows: np.ndarray) -> dict[str, Any]:
    """Unnormalised window vectors [W, D] -> unit vectors of the windows and of their mean."""
    vector, units = unit(windows.mean(axis=0)), unit(windows)
    if is_unit(units).all() and is_unit(vector):
        return {"vector": vector, "windows": units}
    return {"code": "bad_vector", "reason": "the model gave a vector that is zero or not finite"}


def one_row(schema: pa.Schema, values: dict[str, Any]) -> pa.Table:
    """A table of one row; arrays become lists, or bytes, without a copy."""
    columns = [_one_value(field.type, values.get(field.name)) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def _one_value(kind: pa.DataType, value: Any) -> pa.Array:
    if not isinstance(value, np.ndarray):
        return pa.array([value], kind)
    flat = np.ascontiguousarray(value).reshape(-1)
    if pa.types.is_large_binary(kind):
        offsets = pa.py_buffer(np.array([0, flat.nbytes], np.int64))
        return pa.LargeBinaryArray.from_buffers(kind, 1, [None, offsets, pa.py_buffer(flat)])
    values = pa.array(flat, kind.value_type)
    return pa.ListArray.from_arrays(pa.array([0, len(flat)], pa.int32()), values)
