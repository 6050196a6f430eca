"""How sure an answer is: the share of a query that was understood, and what its text sounds like.

The score of a hit is its place in the fused lists times this figure, so scores of different queries
compare, and nonsense does not score 1. Where the build has a calibration, words that no slot took
count by how much nearer the text's nearest track is than that of a nonsense text.
"""

from __future__ import annotations

from collections.abc import Iterable

from raymtr.index.build import Build
from raymtr.search.ranking import Candidate, Retrieved
from raymtr.search.slots import Understood

LEAST_SURE = 0.1  # score of the best hit if no part of the query was understood


def sureness(understood: Understood, retrieved: Iterable[Retrieved], build: Build) -> float:
    """From LEAST_SURE to 1: the factor of the scores of all hits that no name makes sure."""
    known = understood.known_share
    cosines = [one.ranked[0][1] for one in retrieved if one.by == "text" and one.ranked]
    if build.calibration is not None and cosines:
        known += (1 - known) * build.calibration.confidence(max(cosines))
    return max(known, LEAST_SURE)


def is_unheard(understood: Understood, candidates: Iterable[Candidate], build: Build) -> bool:
    """Whether hits come only from a text that is no nearer to any track than nonsense is.

    Without a calibration (a build of an older version, imported vectors) this cannot be told.
    """
    slots = (understood.include, understood.filters, understood.excluded, understood.anchors)
    if build.calibration is None or understood.kind != "description" or any(slots):
        return False
    reasons = [reason for candidate in candidates for reason in candidate.why]
    if any(reason["by"] != "text" for reason in reasons):
        return False
    best = max((reason["score"] for reason in reasons), default=1.0)
    return build.calibration.confidence(best) == 0.0
