"""Data passed between the two halves of a search: a parsed request, its vectors, their times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raymtr.audio import Sound
from raymtr.search.answer_parts import StageTimes
from raymtr.search.request import CheckedRequest
from raymtr.search.understand import Understood


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A parsed request, and the inputs that a model has to encode before it can be answered.

    `sentences` are for the text tower: first `query_count` texts to search by, then those of
    `steering.steering_sentences`.
    """

    request: CheckedRequest
    understood: Understood
    sentences: list[str]
    query_count: int
    took_s: float

    @property
    def recording(self) -> Sound | None:
        """The recording for the audio tower."""
        return self.request.original.audio


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """The unit vectors of a plan: text [N, D], one row per sentence, and the recording's [D]."""

    text: np.ndarray | Sequence[np.ndarray] = ()
    recording: np.ndarray | None = None
    took_s: float = 0.0
    notes: tuple[str, ...] = ()  # messages about the encoding


def stage_times(
    encode_s: float, search_s: float, rank_s: float, rerank_s: float | None
) -> StageTimes:
    """The stages in milliseconds; `rank_s` covers `rerank_s`, which is None without re-ranking."""
    times: StageTimes = {
        "encode": round(1e3 * encode_s, 3),
        "search": round(1e3 * search_s, 3),
        "rank": round(1e3 * rank_s, 3),
        "total": round(1e3 * (encode_s + search_s + rank_s), 3),
    }
    if rerank_s is not None:
        times["rerank"] = round(1e3 * rerank_s, 3)
    return times
