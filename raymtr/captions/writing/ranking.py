"""Ranking of the realiser's captions by a language model: the likeliest, given the tags, is kept.

The model chooses and never writes, so a ranked caption is as faithful as any other.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from raymtr.captions.judging.likelihood import Likelihood
from raymtr.captions.writing.realised_rows import Candidate, caption_tracks

CANDIDATES = 3  # realised captions for each one that is kept


class Ranker:
    """The captions of tracks, ranked by a base; an actor of Ray Data that also works without."""

    def __init__(self, base: str, *, per_track: int, seed: int) -> None:
        """Raises as `Likelihood`."""
        self._likelihood = Likelihood(base)
        self._per_track, self._seed = per_track, seed

    def __call__(self, tracks: pa.Table) -> pa.Table:
        """Rows of `track_id, caption, provenance`, as by `realised_rows.caption_tracks`."""
        return caption_tracks(
            tracks,
            per_track=self._per_track,
            seed=self._seed,
            candidates=CANDIDATES * self._per_track,
            order=self.order,
        )

    def order(self, tags: Sequence[str], candidates: Sequence[Candidate]) -> list[Candidate]:
        """`candidates` of the same tags, the likeliest (fewest nats per token) first."""
        texts = [caption.text for _, caption in candidates]
        nats = self._likelihood.given_tags(texts, [tags] * len(texts))
        places = sorted(range(len(texts)), key=lambda i: (float(nats[i]), i))
        return [candidates[i] for i in places]
