"""The candidates of one search: lists of all retrievers, fused, filtered and diversified."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from raymtr.index.track_rows import Row
from raymtr.index.track_table import TrackTable
from raymtr.names import spoken_name
from raymtr.search.confidence import query_confidence
from raymtr.search.constraints import base_filter, binds_to_tracks, filter_tiers
from raymtr.search.ranking import Candidate, Retrieved, cap_per_artist, diversify, fold_groups, fuse
from raymtr.search.request import CheckedRequest
from raymtr.search.retrievers import QueryVector, retrieve
from raymtr.search.slots import Understood
from raymtr.search.vocabulary import CatalogVocabulary

CANDIDATES = 100  # per retriever, for a page of 10


@dataclass(frozen=True, kw_only=True)
class CandidateSearch:
    """A checked and parsed request, with everything needed to find its candidates."""

    table: TrackTable
    request: CheckedRequest
    understood: Understood
    directions: list[QueryVector]
    vocabulary: CatalogVocabulary
    groups: Callable[[], Mapping[str, int]]  # the group of each track that has duplicates
    threads: ThreadPoolExecutor  # of the retrievers

    def best(self, count: int) -> tuple[list[Candidate], float]:
        """At least `count` candidates if there are as many, and the time of the last look-up.

        Reads longer lists until enough candidates remain after exclusions and the artist cap.
        Candidates found earlier keep their place, so every page is a slice of the same list.
        """
        everything = self.table.build.rows["tracks"]
        block = max(CANDIDATES, 4 * (self.request.k or everything))  # diversified at a time
        diversity = self.request.original.diversity
        if diversity:
            count = -(-count // block) * block
        base = base_filter(self.understood, self.request.where, self.table)
        found: dict[str, Candidate] = {}
        kept: list[Candidate] = []
        searched = time.perf_counter()
        for tier in filter_tiers(self.understood, base, self.vocabulary):
            limit = min(everything, block)
            while True:
                retrieved = retrieve(
                    self.table,
                    replace(self.request, where=base),
                    self.understood,
                    self.directions,
                    limit=limit,
                    threads=self.threads,
                    tier=tier,
                )
                searched = time.perf_counter()
                self._add(retrieved, found)
                kept = self._allowed(list(found.values()))
                full = any(len(one.ranked) >= limit for one in retrieved)
                if len(kept) >= count or limit >= everything or not full:
                    break
                limit = min(everything, 4 * limit)
            if len(kept) >= count or (kept and binds_to_tracks(self.understood)):
                break
        if not diversity:
            return kept, searched
        vectors = self.table.vectors([candidate.track_id for candidate in kept])
        blocks = (kept[start : start + block] for start in range(0, len(kept), block))
        return [c for b in blocks for c in diversify(b, vectors, diversity=diversity)], searched

    def _add(self, retrieved: Sequence[Retrieved], found: dict[str, Candidate]) -> None:
        """Appends the retrievers' candidates after earlier ones, with scores no higher than theirs.

        A score is multiplied by the confidence in the query, so a nonsense query does not score 1.
        """
        confidence = query_confidence(self.understood, retrieved, self.table.build)
        least = min((candidate.score for candidate in found.values()), default=1.0)
        for candidate in fuse(retrieved):
            if candidate.track_id not in found:
                score = candidate.score if candidate.exact else confidence * candidate.score
                candidate.score = min(score, least)
                found[candidate.track_id] = candidate

    def _allowed(self, candidates: list[Candidate]) -> list[Candidate]:
        """Removes the examples, excluded terms, duplicates and hits over the artist cap."""
        request, understood = self.request, self.understood
        examples = {*request.like, *request.unlike}
        if understood.kind == "similar":
            examples |= {track for anchor in understood.anchors for track in anchor.tracks}
        kept = [c for c in candidates if c.track_id not in examples]
        original, most = request.original, request.original.per_artist
        terms = [spoken_name(term) for term in (*(original.exclude or ()), *understood.exclude)]
        if terms or most:
            ids = [candidate.track_id for candidate in kept]
            rows = self.table.rows(ids, ["artist", "tags", "words"])
            kept = [c for c in kept if not _has_term(rows[c.track_id], terms)]
        if original.fold_duplicates:
            kept = fold_groups(kept, self.groups())
        if most:
            kept = cap_per_artist(kept, lambda track_id: rows[track_id]["artist"], most)
        return kept


def _has_term(row: Row, terms: Sequence[str]) -> bool:
    """Whether tags or captions contain one of the terms. "no vocals" does not contain vocals."""
    texts = spoken_name(row["words"])
    return any(
        re.search(rf"(?<!\bno )(?<!\bwithout )\b{re.escape(term.removesuffix('s'))}s?\b", texts)
        for term in terms
    )
