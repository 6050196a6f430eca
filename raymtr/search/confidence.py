"""The confidence in a query: how much of it was understood, and how near its text is to a track.

The score of a hit is its fused score times the confidence. So scores of different queries are
comparable, and nonsense does not score 1. If the build has a calibration, words that no slot
matched count by the cosine of the text's nearest track, scaled between nonsense and tags.
"""

from __future__ import annotations

from collections.abc import Iterable

from raymtr.index.build import Build
from raymtr.search.ranking import Candidate, Retrieved
from raymtr.search.slots import Understood

LEAST_CONFIDENCE = 0.1  # score of the best hit if no part of the query was understood


def query_confidence(understood: Understood, retrieved: Iterable[Retrieved], build: Build) -> float:
    """From LEAST_CONFIDENCE to 1: the factor of the scores of all hits except exact names."""
    known = understood.known_share
    cosines = [one.ranked[0][1] for one in retrieved if one.by == "text" and one.ranked]
    if build.calibration is not None and cosines:
        known += (1 - known) * build.calibration.confidence(max(cosines))
    return max(known, LEAST_CONFIDENCE)


def is_nonsense(understood: Understood, candidates: Iterable[Candidate], build: Build) -> bool:
    """Whether all hits are by a text that is no nearer to any track than nonsense texts are.

    False without a calibration (a build of an older version, imported vectors).
    """
    slots = (understood.include, understood.filters, understood.excluded, understood.anchors)
    if build.calibration is None or understood.kind != "description" or any(slots):
        return False
    reasons = [reason for candidate in candidates for reason in candidate.why]
    if any(reason["by"] != "text" for reason in reasons):
        return False
    best = max((reason["score"] for reason in reasons), default=1.0)
    return build.calibration.confidence(best) == 0.0
