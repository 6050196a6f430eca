"""Quick retrieval check during training: one fixed sentence and clip for each valid track.

The evaluation job gives the figures to report; these only show whether a run is learning. Nothing
is drawn at random, so two runs, or a run and its resumption, are compared on the same queries.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch.nn import functional

from raymtr import metrics
from raymtr.audio import decode_span, loop_to
from raymtr.text import metadata_sentence, similar_artists_sentence, tags_sentence
from raymtr.tower_specs import AudioSpec
from raymtr.training.batches import Tokenize
from raymtr.training.step import Batch, TrainStep

ROWS_AT_ONCE = 32
K = 10


class Validation:
    """Fixed batches of first windows and sentences, built once."""

    def __init__(self, tracks: pa.Table, tokenize: Tokenize, spec: AudioSpec) -> None:
        rows = tracks.to_pylist()
        self.pool = len(rows)
        self._batches = [
            _questions(rows[first : first + ROWS_AT_ONCE], tokenize, spec)
            for first in range(0, len(rows), ROWS_AT_ONCE)
        ]

    def __call__(self, step: TrainStep) -> dict[str, float]:
        """Metrics of the current towers; {} with fewer than two tracks."""
        if self.pool < 2:
            return {}
        audio, text = zip(*(step.embed(batch) for batch in self._batches), strict=True)
        unit = [
            functional.normalize(torch.cat(side).float(), dim=-1).cpu() for side in (audio, text)
        ]
        scores = (unit[1] @ unit[0].T).numpy()  # [sentences, tracks]
        right = np.eye(self.pool, dtype=bool)
        return {
            "valid_text_to_audio_r_at_10": metrics.text_to_audio_recall_at(scores, right, k=K),
            "valid_chance_r_at_10": float(metrics.chance_recall_at(self.pool, [1], k=K)[0]),
            "valid_median_rank": metrics.median_rank(scores, right),
            "valid_pool": self.pool,
        }


def fixed_sentence(track: dict[str, Any]) -> str:
    """The first caption, or all tags, or title and artist, or similar artists."""
    if track["captions"]:
        return str(track["captions"][0])
    if track["tags"]:
        return tags_sentence(track["tags"])
    if track["title"] or track["artist"]:
        return metadata_sentence(track["title"], track["artist"], track["album"])
    return similar_artists_sentence(track["similar_artists"])


def _questions(rows: list[dict[str, Any]], tokenize: Tokenize, spec: AudioSpec) -> Batch:
    first = [
        loop_to(
            decode_span(row["uri"], spec, start_s=0.0, length_s=spec.window_s), spec.window_samples
        )
        for row in rows
    ]
    texts = [tokenize([fixed_sentence(row) for row in rows])]
    return Batch(waves=torch.from_numpy(np.stack(first)), texts=texts)
