"""The steps of the tokenising job: files -> samples -> inputs of the fit, or tokens.

A track is decoded once, to the sample rates of the codec and of the joint model. A bad file becomes
a row with `code` and `reason`.
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
from raymtr.generation.parts import codec_rate, open_frame_encoder, read_parts
from raymtr.generation.semantic import SemanticTokens
from raymtr.generation.token_store import TOKENS_SCHEMA
from raymtr.generation_specs import TokensSpec
from raymtr.model.model import Model
from raymtr.specs import EmbedSpec
from raymtr.tower_specs import AudioSpec
from raymtr.vectors import is_unit, unit

DECODED_TRACKS = pa.schema(
    [
        *DECODED,
        pa.field("whole", pa.large_binary()),  # the clip or track, float32 [n] at the codec's rate
        pa.field("first_s", pa.float64()),  # its start in the track
    ]
)
FIT_INPUTS = pa.schema(  # what the parts are fitted on; one row per track
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
    """SOURCES -> one DECODED_TRACKS row each: the joint model's windows, and the track at `rate`.

    With `clip_s`, only the middle of the track is kept. `hung` is as in `decode_tracks`.
    """

    def cut(decoded: audio.Decoded) -> dict[str, Any]:
        if decoded.seconds < FEWEST_S:
            reason = f"its {decoded.seconds:.1f} s are too short, at least {FEWEST_S:g} are needed"
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
    yield from decode_rows(
        batch, cut, DECODED_TRACKS, spec=spec, embed=embed, hung=hung, also=other
    )


def _middle(samples: np.ndarray, rate: int, clip_s: float | None) -> tuple[np.ndarray, float]:
    """The middle `clip_s` of a track, or all of it, and its start in seconds."""
    length = len(samples) if clip_s is None else min(len(samples), round(clip_s * rate))
    first = (len(samples) - length) // 2
    return samples[first : first + length], first / rate


class ExtractFitInputs:
    """DECODED_TRACKS rows -> FIT_INPUTS rows; the models are loaded once per replica."""

    def __init__(
        self, model: str, joint: ModelRef, spec: TokensSpec, rate: int, *, threads: int
    ) -> None:
        """Raises UnusableError if a model cannot be loaded."""
        torch.set_num_threads(threads)
        self._model = load_kept_model(model, joint, audio_only=True)
        self._semantic = SemanticTokens(open_frame_encoder(spec), spec)
        self._rate = rate

    def __call__(self, batch: pa.Table) -> pa.Table:
        """One row out per row in, in order."""
        rows = [FIT_INPUTS.empty_table()]
        for n in range(len(batch)):
            row = batch.slice(n, 1)
            copied = ("track_id", "first_s", "code", "reason")
            values = {name: row[name][0].as_py() for name in copied}
            if values["code"] is None:
                samples = _samples(row)
                resampled = at_rate(samples, self._rate, self._semantic.sample_rate)
                frames = self._semantic.frames(resampled)
                values |= {
                    "whole": samples,
                    "frames": frames.numpy(),
                    "width": frames.shape[1],
                    "vectors": unit(_vectors(self._model, row)),
                }
            rows.append(one_row(FIT_INPUTS, values))
        return with_replica(pa.concat_tables(rows))


class TokenizeTracks:
    """DECODED_TRACKS rows -> TOKENS_SCHEMA rows; the models are loaded once per replica."""

    def __init__(self, parts: str, model: str, joint: ModelRef, *, threads: int) -> None:
        """Raises UnusableError if the parts are damaged, or of another joint model."""
        torch.set_num_threads(threads)
        self._parts = read_parts(parts)
        self._model = load_kept_model(model, joint, audio_only=True)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """One row out per row in, in order."""
        rows = [TOKENS_SCHEMA.empty_table()]
        for n in range(len(batch)):
            row = batch.slice(n, 1)
            values = row.drop_columns(["samples", "scales", "whole"]).to_pylist()[0]
            if values["code"] is None:
                values |= self._tokens(row, values["starts_s"])
                ends = np.array(values["starts_s"]) + self._model.spec.audio.window_s
                values["ends_s"] = np.minimum(ends, values["seconds"])
            rows.append(one_row(TOKENS_SCHEMA, values))
        return with_replica(pa.concat_tables(rows))

    def _tokens(self, row: pa.Table, starts_s: list[float]) -> dict[str, Any]:
        parts, samples = self._parts, _samples(row)
        vectors = _vectors(self._model, row)
        vector, windows = unit(vectors.mean(axis=0)), unit(vectors)
        if not (is_unit(windows).all() and is_unit(vector)):
            reason = "the joint model gave a vector that is zero or not finite"
            return {"code": "bad_vector", "reason": reason}
        rate = parts.codec.sample_rate
        semantic = parts.semantic.encode(at_rate(samples, rate, parts.semantic.sample_rate))
        tokens = {
            "vector": vector,
            "windows": windows,
            "semantic": semantic.astype(np.int16),
            "acoustic": parts.codec.encode(samples).astype(np.int16),
            "joint": parts.joint.of_audio(windows).astype(np.int16),
        }
        if parts.melody is not None:
            resampled = at_rate(samples, rate, parts.melody.sample_rate)
            starts = track_starts(len(samples) / rate)
            tokens["melody"] = parts.melody.encode(resampled, starts).astype(np.int16)
        return tokens


def tune_clips(inputs: pa.Table, tunes: Mapping[str, str], spec: TokensSpec) -> list[TuneClip]:
    """The training clips of the melody part: the FIT_INPUTS rows with a tune; [] without the part.

    Raises UnusableError if the codec cannot be loaded; the clips have its sample rate.
    """
    if not spec.melody.steps:
        return []
    rate = codec_rate(spec)
    clips = []
    for n, name in enumerate(inputs["track_id"].to_pylist()):
        if name in tunes:
            samples = at_rate(_samples(inputs.slice(n, 1)), rate, MelodyTokens.sample_rate)
            clips.append(TuneClip(tunes[name], inputs["first_s"][n].as_py(), samples))
    return clips


def at_rate(samples: np.ndarray, rate: int, target_rate: int) -> np.ndarray:
    """Samples [S] at `rate` Hz, resampled to `target_rate` Hz."""
    if rate == target_rate:
        return samples
    return to_mono(samples, rate, AudioSpec(sample_rate=target_rate))


def _samples(row: pa.Table) -> np.ndarray:
    return np.frombuffer(row["whole"][0].as_buffer(), np.float32)


def _vectors(model: Model, row: pa.Table) -> np.ndarray:
    windows, scales = samples_of(row)
    return model.embed_windows(windows, scales)
