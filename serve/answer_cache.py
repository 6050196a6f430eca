"""A cache of search answers, valid while the same tables are live."""

from __future__ import annotations

import time
from collections.abc import Hashable

from cachetools import TTLCache

from raymtr.index.build import Build
from raymtr.search.answer_parts import StageTimes
from raymtr.search.contract import SearchAnswer, SearchRequest
from raymtr.search.cursor import TTL_S
from serve.messages import Searched

ANSWERS_KEPT = 1_024
ANSWER_TTL_S = TTL_S / 3  # a third of the lifetime of the cursor in the answer


class AnswerCache:
    """Answers by request, table version and fingerprint. Recordings are not cached."""

    def __init__(self) -> None:
        self._answers = TTLCache[Hashable, Searched[SearchAnswer]](ANSWERS_KEPT, ttl=ANSWER_TTL_S)

    def get(self, request: SearchRequest, build: Build) -> Searched[SearchAnswer] | None:
        """The cached answer, with the time of this look-up as `took_ms`; None on a miss."""
        started = time.perf_counter()
        cached = self._answers.get(_key_of(request, build))
        if cached is None:
            return None
        total = round(1e3 * (time.perf_counter() - started), 3)
        took_ms = StageTimes(encode=0.0, search=0.0, rank=0.0, total=total)
        return Searched({**cached.answer, "took_ms": took_ms}, None, remembered=True)

    def put(self, request: SearchRequest, build: Build, found: Searched[SearchAnswer]) -> None:
        """Cache an answer, unless the next one to the same request may be better.

        That is so where a table shard or the re-ranker did not answer. A request with a recording
        is unlikely to repeat.
        """
        answer = found.answer
        complete = not answer["partial"] and (not request.rerank or "rerank" in answer["took_ms"])
        if request.audio is None and complete:
            self._answers[_key_of(request, build)] = found

    def clear(self) -> None:
        """Remove all answers."""
        self._answers.clear()


def _key_of(request: SearchRequest, build: Build) -> Hashable | None:
    if request.audio is not None:
        return None
    return build.table_version, build.fingerprint, request.model_dump_json(exclude={"audio"})
