"""Turns ranked candidates into hits, and a request with its parsed text into the answer's query."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from raymtr.embeddings.store import matrix_of
from raymtr.index.track_table import TrackTable
from raymtr.names import spoken_name
from raymtr.search.answer_parts import ExcludePart, QueryEcho
from raymtr.search.contract import Hit, Reason, Segment, TrackFields
from raymtr.search.ranking import Candidate
from raymtr.search.request import CheckedRequest
from raymtr.search.retrievers import QueryVector
from raymtr.search.slots import Understood
from raymtr.search.steering import reasons_along
from raymtr.search.suggest import suggestions, unused
from raymtr.search.vocabulary import CatalogVocabulary

HIT_COLUMNS = tuple(name for name in TrackFields.__annotations__ if name != "track_id")


def hits_of(
    candidates: Sequence[Candidate],
    understood: Understood,
    directions: Sequence[QueryVector],
    vocabulary: CatalogVocabulary,
    *,
    folds: bool,
) -> list[Hit]:
    """The candidates as hits, with segments and reasons; with `folds` also their duplicates."""
    table = vocabulary.table
    ids = [candidate.track_id for candidate in candidates]
    rows = table.rows(ids, HIT_COLUMNS)
    segments = _segments(table, candidates, directions)
    words = set(spoken_name(understood.text).split())
    included = {tag.value for slot in understood.include for tag in (*slot.tags, *slot.wider)}
    direction_reasons = reasons_along(understood, ids, vocabulary)
    unknown = _unknown(understood, ids, table)
    hits: list[Hit] = []
    for candidate in candidates:
        row = rows[candidate.track_id]
        tags = [
            t for t in row["tags"] or () if t in included or set(spoken_name(t).split()) & words
        ]
        by_tags: list[Reason] = [{"by": "tags", "matched": tags}] if tags else []
        hit: Hit = {
            "track_id": candidate.track_id,
            "title": row["title"],
            "artist": row["artist"],
            "artists": row["artists"],
            "album": row["album"],
            "year": row["year"],
            "duration": row["duration"],
            "tags": row["tags"],
            "uri": row["uri"],
            "score": round(candidate.score, 6),
            "segment": segments.get(candidate.track_id),
            "why": [
                *(candidate.why + by_tags),
                *direction_reasons.get(candidate.track_id, []),
                *unknown.get(candidate.track_id, []),
            ],
        }
        if folds:
            hit["duplicates"] = candidate.folded
        hits.append(hit)
    return hits


def _unknown(
    understood: Understood, ids: Sequence[str], table: TrackTable
) -> dict[str, list[Reason]]:
    """For each hit, the columns of exclusions that it has no value for."""
    columns = list(dict.fromkeys(slot.column for slot in understood.filters if slot.known))
    if not columns:
        return {}
    rows = table.rows(ids, columns)
    return {
        track_id: [
            {"by": "unknown", "columns": {name: None}}
            for name in columns
            if rows[track_id][name] is None
        ]
        for track_id in ids
    }


def _segments(
    table: TrackTable, candidates: Sequence[Candidate], directions: Sequence[QueryVector]
) -> dict[str, Segment]:
    """For each track the window nearest to the query; for exact hits, to the track's vector."""
    ids = [candidate.track_id for candidate in candidates]
    windows = table.windows(ids)
    if not len(windows):
        return {}
    exact = {candidate.track_id for candidate in candidates if candidate.exact}
    track_vectors = table.vectors([i for i in ids if i in exact or not directions])
    vectors = matrix_of(windows["vector"]).astype(np.float32)
    best: dict[str, tuple[float, Segment]] = {}
    times = windows.select(["track_id", "start_s", "end_s"]).to_pylist()
    for row, vector in zip(times, vectors, strict=True):
        track_id = row["track_id"]
        by_track = track_id in exact or not directions
        query = track_vectors[track_id] if by_track else directions[0].vector
        cosine = float(vector @ query)
        if track_id not in best or cosine > best[track_id][0]:
            best[track_id] = cosine, Segment(start_s=row["start_s"], end_s=row["end_s"])
    return {track_id: row for track_id, (_, row) in best.items()}


def query_of(
    request: CheckedRequest,
    understood: Understood,
    vocabulary: CatalogVocabulary,
    candidates: Sequence[Candidate],
) -> QueryEcho:
    """The request, how its text was understood, and suggestions if few tracks were found."""
    original = request.original
    requested: list[ExcludePart] = [
        {"term": term, "words": term} for term in original.exclude or ()
    ]
    parts = understood.echo()
    parts["exclude"] = requested + parts["exclude"]
    if original.text and request.mode == "auto" and not parts["ignored"]:
        parts["ignored"] = unused(understood, candidates, vocabulary)
    found = len(candidates)
    advice = suggestions(understood, request.where, vocabulary, found) if original.text else []
    if original.similar_artist:
        parts["similar_artist"] = original.similar_artist
    return {
        "text": original.text,
        "like": dict(request.like),
        "unlike": dict(request.unlike),
        "audio": original.audio is not None,
        "where": original.where,
        "mode": request.mode,
        "k": request.k,
        "per_artist": original.per_artist,
        "diversity": original.diversity or 0.0,
        "fold_duplicates": bool(original.fold_duplicates),
        **parts,
        "suggestions": advice,
    }
