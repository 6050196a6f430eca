"""The two steps of the embedding job: files -> windows of samples -> vectors.

The steps are separate so that a GPU does not wait for decoding: `decode_tracks` runs as CPU tasks
on any free core, `EmbedTracks` as actors that keep the model loaded. Between the steps a track is
one row. Its samples are the bytes of its windows, float32 [W, S], written and read without a copy.

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
import pyarrow.compute as pc

from raymtr import audio
from raymtr.embeddings.kept_model import load_kept_model
from raymtr.embeddings.store import EMBEDDED_SCHEMA, ModelRef
from raymtr.embeddings.tables import SOURCES
from raymtr.specs import EmbedSpec
from raymtr.tower_specs import AudioSpec
from raymtr.vectors import is_unit, unit

if TYPE_CHECKING:
    from raymtr.model.model import Model

EmbedWindows = Callable[[np.ndarray, np.ndarray | None], np.ndarray]  # as Model.embed_windows
REPLICA = "replica"  # output column of EmbedTracks: host and process, which the driver counts
DECODED = pa.schema(
    [
        pa.field("track_id", pa.string()),
        pa.field("uri", pa.string()),
        pa.field("file_version", pa.string()),
        pa.field("audio_digest", pa.string()),
        pa.field("seconds", pa.float64()),
        pa.field("starts_s", pa.list_(pa.float64())),
        pa.field("samples", pa.large_binary()),  # float32 [W, S], or int16 where there are scales
        pa.field("scales", pa.list_(pa.float32())),  # [W]
        pa.field("code", pa.string()),
        pa.field("reason", pa.string()),
    ]
)


def decode_tracks(
    batch: pa.Table, *, spec: AudioSpec, embed: EmbedSpec, hung: str, packed: bool = False
) -> Iterator[pa.Table]:
    """SOURCES -> one DECODED row each, yielded one at a time so that only one track is in memory.

    `hung` is the folder `EmbeddingStore.hung`; see `audio.DecodeGuard`. Samples that are `packed`
    take half the memory and bandwidth, for a model step on another machine or device.
    """

    def cut(decoded: audio.Decoded) -> dict[str, Any]:
        starts_s, windows = audio.windows(decoded.samples, spec)
        return {"starts_s": starts_s, "samples": windows}

    rows = decode_rows(batch, cut, DECODED, spec=spec, embed=embed, hung=hung)
    yield from map(pack_samples, rows) if packed else rows


def pack_samples(row: pa.Table) -> pa.Table:
    """A row of DECODED, or of more columns, with its windows as int16."""
    if row["code"][0].is_valid:
        return row
    values = row.to_pylist()[0]
    windows = np.frombuffer(row["samples"][0].as_buffer(), np.float32)
    samples, scales = audio.packed(windows.reshape(len(values["starts_s"]), -1))
    return one_row(row.schema, values | {"samples": samples, "scales": scales})


def decode_rows(
    batch: pa.Table,
    cut: Callable[[audio.Decoded], dict[str, Any]],
    schema: pa.Schema,
    *,
    spec: AudioSpec,
    embed: EmbedSpec,
    hung: str,
    also: int | None = None,
) -> Iterator[pa.Table]:
    """One row of `schema` per row of SOURCES; `cut` makes its columns of samples.

    `also` is a further rate of `audio.decode`.
    """
    guard = audio.DecodeGuard(embed, hung)
    for row in batch.select(SOURCES).to_pylist():
        try:
            with guard(row["track_id"]):
                decoded = audio.decode(
                    row["uri"], spec, max_s=guard.max_s, max_mb=guard.max_mb, also=also
                )
            row |= cut(decoded)
            row |= {"seconds": decoded.seconds, "audio_digest": decoded.digest}
        except audio.AudioError as error:
            row |= {"code": error.code, "reason": error.reason}
        yield one_row(schema, row)


class EmbedTracks:
    """DECODED rows -> EMBEDDED rows; the model is loaded and checked once per actor."""

    def __init__(self, model_folder: str, made_by: ModelRef, *, device: str, threads: int) -> None:
        """Raises UnusableError if the folder's model is not that of `made_by`, or is damaged."""
        import torch  # imported here because the decoding tasks import this file too

        torch.set_num_threads(threads)
        self.model = load_kept_model(model_folder, made_by, device=device, audio_only=True)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """One row out per row in, in order; REPLICA names the process that computed it."""
        embedded = embed_tracks(self.model, batch)
        return with_replica(embedded)


def with_replica(rows: pa.Table) -> pa.Table:
    """`rows` with the column REPLICA, which names the process that computed them."""
    replica = pa.array([f"{os.uname().nodename} {os.getpid()}"] * len(rows), pa.string())
    return rows.append_column(REPLICA, replica)


def embed_tracks(model: Model, decoded: pa.Table, embed: EmbedWindows | None = None) -> pa.Table:
    """DECODED rows -> EMBEDDED rows, with all windows in one call of the model.

    The call is `embed`, by default the model's `embed_windows`.
    """
    rows = decoded.drop_columns(["samples", "scales"]).to_pylist()
    windows, scales = samples_of(decoded)
    vectors = (embed or model.embed_windows)(windows, scales)
    embedded, first = [], 0
    for row in rows:
        if row["code"] is None:
            count = len(row["starts_s"])
            row |= _vectors_of_track(vectors[first : first + count], model)
            row["ends_s"] = np.minimum(
                np.array(row["starts_s"]) + model.spec.audio.window_s, row["seconds"]
            )
            first += count
        embedded.append(one_row(EMBEDDED_SCHEMA, row))
    return pa.concat_tables(embedded or [EMBEDDED_SCHEMA.empty_table()])


def samples_of(decoded: pa.Table) -> tuple[np.ndarray, np.ndarray | None]:
    """The windows of all DECODED rows [W, S], where they lie, and their scales [W] if packed."""
    samples = decoded["samples"].combine_chunks()
    scales = pc.list_flatten(decoded["scales"].combine_chunks())
    packed = np.asarray(scales) if len(scales) else None
    kind = np.float32 if packed is None else np.int16
    count = len(pc.list_flatten(decoded["starts_s"].combine_chunks()))
    if not count:
        return np.empty((0, 0), kind), packed
    _, offsets, values = samples.buffers()
    places = np.frombuffer(offsets, np.int64)[samples.offset : samples.offset + len(samples) + 1]
    flat = np.frombuffer(values, np.uint8)[places[0] : places[-1]].view(kind)
    return flat.reshape(count, -1), packed


def _vectors_of_track(windows: np.ndarray, model: Model) -> dict[str, Any]:
    """Un-normalised window vectors [W, D] -> unit vectors of the windows and of the track."""
    vector, units = unit(model.pool(windows)), unit(windows)
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
