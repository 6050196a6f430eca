"""The steps of the tokenising job: files -> samples -> what parts are fitted on, or tokens.

A track is decoded once, at the codec's rate and at the joint model's. A bad file is a row with
`code` and `reason`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from raymtr import audio
from raymtr.audio import to_mono
from raymtr.embeddings.embed_tracks import DECODED, decode_rows, one_row, samples_of, with_replica
from raymtr.embeddings.kept_model import load_kept_model
from raymtr.embeddings.store import ModelRef
from raymtr.generation.melody import MelodyTokens, TuneClip, track_starts
from raymtr.generation.parts import codec_rate, open_heard, read_parts
from raymtr.generation.semantic import SemanticTokens
from raymtr.generation.token_store import TOKENS_SCHEMA
from raymtr.generation_specs import TokensSpec
from raymtr.model.model import Model
from raymtr.specs import EmbedSpec
from raymtr.tower_specs import AudioSpec
from raymtr.vectors import is_unit, unit

WHOLE = pa.schema(
    [
        *DECODED,
        pa.field("whole", pa.large_binary()),  # float32 [n], codec's rate
        pa.field("first_s", pa.float64()),  # where it begins in the track
    ]
)
HEARD = pa.schema(  # what parts are fitted on, of one track
    [
        pa.field("track_id", pa.string()),
        pa.field("whole", pa.large_binary()),
        pa.field("first_s", pa.float64()),
        pa.field("frames", pa.list_(pa.float32())),  # of the semantic encoder, [T * width]
        pa.field("vectors", pa.list_(pa.float32())),  # of the joint model's windows, [W * D]
        pa.field("width", pa.int32()),  # of a frame
        pa.field("code", pa.string()),
        pa.field("reason", pa.string()),
    ]
)
FEWEST_S = 1.0  # a shorter track has too few tokens to learn from


def decode_twice(
    batch: pa.Table,
    *,
    spec: AudioSpec,
    rate: int,
    embed: EmbedSpec,
    hung: str,
    clip_s: float | None = None,
) -> Iterator[pa.Table]:
    """SOURCES -> one WHOLE row each: the joint model's windows, and the track at `rate`.

    With `clip_s` only the middle of the track is kept. `hung` is as of `decode_tracks`.
    """

    def cut(decoded: audio.Decoded) -> dict[str, Any]:
        if decoded.seconds < FEWEST_S:
            reason = f"its {decoded.seconds:.1f} s are too short to learn from"
            raise audio.AudioError("too_short", reason)
        also = decoded.samples if decoded.also is None else decoded.also
        samples, _ = _middle(decoded.samples, spec.sample_rate, clip_s)
        whole, first_s = _middle(also, rate, clip_s)
        starts_s, windows = audio.windows(samples, spec)
        return {
            "starts_s": starts_s,
            "samples": windows,
            "whole": np.ascontiguousarray(whole),
            "first_s": first_s,
        }

    other = None if rate == spec.sample_rate else rate
    yield from decode_rows(batch, cut, WHOLE, spec=spec, embed=embed, hung=hung, also=other)


def _middle(samples: np.ndarray, rate: int, clip_s: float | None) -> tuple[np.ndarray, float]:
    """The middle of a track, or all of it, and where that begins in seconds."""
    length = len(samples) if clip_s is None else min(len(samples), round(clip_s * rate))
    first = (len(samples) - length) // 2
    return samples[first : first + length], first / rate


class HearTracks:
    """WHOLE rows -> HEARD rows: the joint model and the semantic encoder are loaded once."""

    def __init__(
        self, model: str, joint: ModelRef, spec: TokensSpec, rate: int, *, threads: int
    ) -> None:
        """Raises UnusableError where a model cannot be loaded."""
        torch.set_num_threads(threads)
        self._model = load_kept_model(model, joint, audio_only=True)
        self._semantic = SemanticTokens(open_heard(spec), spec)
        self._rate = rate

    def __call__(self, batch: pa.Table) -> pa.Table:
        """One row out per row in, in order."""
        made = [HEARD.empty_table()]
        for n in range(len(batch)):
            row = batch.slice(n, 1)
            kept = ("track_id", "first_s", "code", "reason")
            values = {name: row[name][0].as_py() for name in kept}
            if values["code"] is None:
                whole = _samples(row)
                sound = at_rate(whole, self._rate, self._semantic.sample_rate)
                frames = self._semantic.frames(sound)
                values |= {
                    "whole": whole,
                    "frames": frames.numpy(),
                    "width": frames.shape[1],
                    "vectors": unit(_vectors(self._model, row)),
                }
            made.append(one_row(HEARD, values))
        return with_replica(pa.concat_tables(made))


class TokenizeTracks:
    """WHOLE rows -> TOKENS_SCHEMA rows: the parts and the joint model are loaded once."""

    def __init__(self, parts: str, model: str, joint: ModelRef, *, threads: int) -> None:
        """Raises UnusableError where the parts are damaged, or of another joint model."""
        torch.set_num_threads(threads)
        self._parts = read_parts(parts)
        self._model = load_kept_model(model, joint, audio_only=True)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """One row out per row in, in order."""
        made = [TOKENS_SCHEMA.empty_table()]
        for n in range(len(batch)):
            row = batch.slice(n, 1)
            values = row.drop_columns(["samples", "scales", "whole"]).to_pylist()[0]
            if values["code"] is None:
                values |= self._tokens(row, values["starts_s"])
                ends = np.array(values["starts_s"]) + self._model.spec.audio.window_s
                values["ends_s"] = np.minimum(ends, values["seconds"])
            made.append(one_row(TOKENS_SCHEMA, values))
        return with_replica(pa.concat_tables(made))

    def _tokens(self, row: pa.Table, starts_s: list[float]) -> dict[str, Any]:
        parts, whole = self._parts, _samples(row)
        windows = _vectors(self._model, row)
        vector, units = unit(windows.mean(axis=0)), unit(windows)
        if not (is_unit(units).all() and is_unit(vector)):
            return {"code": "bad_vector", "reason": "the joint model gave a vector without length"}
        rate = parts.codec.sample_rate
        semantic = parts.semantic.encode(at_rate(whole, rate, parts.semantic.sample_rate))
        made = {
            "vector": vector,
            "windows": units,
            "semantic": semantic.astype(np.int16),
            "acoustic": parts.codec.encode(whole).astype(np.int16),
            "joint": parts.joint.of_audio(units).astype(np.int16),
        }
        if parts.melody is not None:
            sound = at_rate(whole, rate, parts.melody.sample_rate)
            starts = track_starts(len(whole) / rate)
            made["melody"] = parts.melody.encode(sound, starts).astype(np.int16)
        return made


def tune_clips(heard: pa.Table, tunes: Mapping[str, str], spec: TokensSpec) -> list[TuneClip]:
    """What a melody part learns from, of HEARD rows whose tracks have a tune; [] without that part.

    Raises UnusableError where the codec, whose rate the clips have, cannot be loaded.
    """
    if not spec.melody.steps:
        return []
    rate = codec_rate(spec)
    clips = []
    for n, name in enumerate(heard["track_id"].to_pylist()):
        if name in tunes:
            sound = at_rate(_samples(heard.slice(n, 1)), rate, MelodyTokens.sample_rate)
            clips.append(TuneClip(tunes[name], heard["first_s"][n].as_py(), sound))
    return clips


def at_rate(samples: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """Samples at `rate` Hz at the rate `wanted`, of another part."""
    if rate == wanted:
        return samples
    return to_mono(samples, rate, AudioSpec(sample_rate=wanted))


def _samples(row: pa.Table) -> np.ndarray:
    return np.frombuffer(row["whole"][0].as_buffer(), np.float32)


def _vectors(model: Model, row: pa.Table) -> np.ndarray:
    windows, scales = samples_of(row)
    return model.embed_windows(windows, scales)
