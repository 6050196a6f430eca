"""The retrievers of a request: the look-ups for each kind of query, with weights.

Each retriever reads its own part of the query. A title, an artist or an album gives an exact
retriever. "Similar to" uses the anchors' audio vectors, the artist graph, and the text tower, which
was trained on the sentence `similar with artist ...`. If the anchors have no vectors (a catalog
without audio), it uses the tags that distinguish them from other tracks. A description uses the
text tower, full-text search over tags and captions for its tags and its unmatched words, and search
over names for the unmatched words alone.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from raymtr import text as sentences
from raymtr.index.conditions import Condition
from raymtr.index.filters import Filter, joined
from raymtr.index.full_text import Ranked
from raymtr.index.track_table import TrackTable
from raymtr.names import name_key, spoken_name
from raymtr.search.ranking import Retrieved
from raymtr.search.request import CheckedRequest
from raymtr.search.slots import Anchor, Understood
from raymtr.vectors import unit

UNLIKE_SHARE = 0.5  # share of the unlike tracks' vector that is subtracted
DIRECTION_SHARE = 0.35  # length of the step of an example's vector along a direction
WEIGHTS = {
    "sound": 1.0,  # near an example
    "text": 1.0,  # near the text tower's vector
    "names": 0.5,  # titles, artists and albums that contain all the words
    "artist graph": 2.0,
    "profile": 1.0,  # by the tags of the anchors
    "title": 4.0,  # tracks whose title is the tag
    "filter": 0.1,  # all tracks that pass a filter
}
# The weight of full-text search over tags and captions lies between these. It grows with the share
# of the query's words that are tags of the catalog. On 200 held-out pieces of the synthetic
# catalog, tag queries went from nDCG@10 0.65 (a weight of 0.5) to 0.97 (2). Prose, which shares
# words with any text, is left to the text tower.
LEAST_WORDS_WEIGHT, MOST_WORDS_WEIGHT = 0.5, 2.0
# The weight of names if a word of the query is in no tag or caption, so that only a name can
# contain it. It equals that of all other retrievers together. With a weight of 0.5, rank 61 of a
# list by sound would precede any name.
NAMES_ALONE_WEIGHT = 4.0
PROFILE_TAGS = 8  # tags that distinguish anchors from other tracks
MOST_TITLED = 3  # tracks returned whose title equals a tag


@dataclass(frozen=True)
class QueryVector:
    """A unit vector [D] to search by, and the retriever it belongs to."""

    by: str
    vector: np.ndarray


def sentences_of(understood: Understood) -> list[str]:
    """The sentences that the text tower encodes for a query."""
    text = [understood.text] if understood.text else []
    if understood.kind == "similar":
        artists = [
            anchor.artist
            for anchor in understood.anchors
            if anchor.positive and anchor.artist and not anchor.title
        ]
        return [sentences.similar_artists_sentence([artist]) for artist in artists[:1]] + text
    return text


def example_vectors(
    table: TrackTable, request: CheckedRequest, understood: Understood
) -> list[np.ndarray]:
    """The mean vectors of the `like` tracks and of each anchor group, minus part of `unlike`."""
    away = _weighted_mean(table.vectors(list(request.unlike)), request.unlike)
    for anchor in understood.anchors:
        if not anchor.positive:
            mean = _mean_vector(table, anchor)
            away = mean if away is None or mean is None else unit(away + mean)
    liked = _weighted_mean(table.vectors(list(request.like)), request.like)
    towards = [] if liked is None else [liked]
    for group in _groups(understood):
        means = [v for v in (_mean_vector(table, anchor) for anchor in group) if v is not None]
        if means:
            towards.append(unit(np.asarray(sum(means))))
    return [toward if away is None else unit(toward - UNLIKE_SHARE * away) for toward in towards]


def steer_away(table: TrackTable, request: CheckedRequest, vector: np.ndarray) -> np.ndarray:
    """The vector of a text or recording, minus part of the `unlike` tracks' vector."""
    away = _weighted_mean(table.vectors(list(request.unlike)), request.unlike)
    return vector if away is None else unit(vector - UNLIKE_SHARE * away)


def steer_toward(vector: np.ndarray, up: np.ndarray, down: np.ndarray) -> np.ndarray:
    """A vector moved along the direction from one text's vector to another's."""
    return unit(vector + DIRECTION_SHARE * unit(up - down))


def retrieve(
    table: TrackTable,
    request: CheckedRequest,
    understood: Understood,
    directions: Iterable[QueryVector],
    *,
    limit: int,
    threads: Executor,
    tier: Filter | None = None,
) -> list[Retrieved]:
    """The results of every applicable retriever, up to `limit` tracks each, run in parallel.

    `tier` replaces the request's own filter for all tracks except those that a title names.
    """
    base, where = request.where, tier or request.where
    pending: list[tuple[Retrieved, Future[Ranked]]] = []

    def submit(one: Retrieved, look_up: Callable[..., Ranked], *args: Any, **kwargs: Any) -> None:
        pending.append((one, threads.submit(look_up, *args, **kwargs)))

    exact = understood.kind in ("title", "artist", "album")
    if exact:
        one = Retrieved(by=understood.kind, exact=True)
        allowed = base if understood.kind == "title" else where
        submit(one, _typical_first, table, understood.tracks, allowed)
    names_only = exact and (
        understood.kind == "album" or bool(understood.include and understood.kind == "artist")
    )
    if understood.kind == "description" and understood.tracks:
        submit(_weighted("title"), _titled, table, understood.tracks, base)
    for group in _groups(understood):
        for anchor in group:
            if anchor.artist and not anchor.title:
                submit(_weighted("artist graph"), _artist_graph, table, anchor, where)
        profile = profile_of(table, group, _negative(understood))
        if profile and not table.vectors(group[0].tracks[:1]):
            submit(_weighted("profile"), table.match_weighted, profile, limit=limit, where=where)
    for direction in directions:
        submit(_weighted(direction.by), table.nearest, direction.vector, limit=limit, where=where)
    words, names = lexical_texts(understood)
    if request.mode != "semantic" and not names_only:
        if words:
            one = Retrieved(by="words", weight=_words_weight(table, words))
            submit(one, table.match_words, words, limit=limit, where=where)
        if names:
            submit(_weighted("names"), _by_names, table, names, limit=limit, where=where)
    if not pending and where is not None:
        submit(_weighted("filter"), _all_matching, table, where, limit)
    retrieved = [replace(one, ranked=found.result()) for one, found in pending]
    retrieved = [one for one in retrieved if one.ranked]
    narrowed = understood.filters or understood.excluded  # apply even next to unknown words
    if not retrieved and where is not None and (narrowed or not understood.text):
        everything = _all_matching(table, where, limit)
        retrieved = [replace(_weighted("filter"), ranked=everything)] if everything else []
    by_names = any(one.by == "names" for one in retrieved)
    if by_names and _has_word_only_in_names(table, names[-1], where):
        retrieved = [
            replace(one, weight=NAMES_ALONE_WEIGHT) if one.by == "names" else one
            for one in retrieved
        ]
    return retrieved


def lexical_texts(understood: Understood) -> tuple[str, list[str]]:
    """The text for tags and captions, and the texts for names in the order to try them."""
    tags = [
        tag.value
        for slot in understood.include
        for tag in (slot.wider if slot.few else slot.tags or slot.wider)
    ]
    unmatched = understood.unmatched
    if not understood.include and not understood.anchors and not understood.filters:
        return unmatched, list(dict.fromkeys(part for part in (understood.text, unmatched) if part))
    parts = [unmatched] if unmatched else []
    return " ".join(dict.fromkeys([*tags, *parts])), parts


def profile_of(
    table: TrackTable, group: Sequence[Anchor], away: Sequence[Anchor]
) -> dict[str, float]:
    """The tags that distinguish anchors from other tracks, by tf-idf, minus part of `away`'s."""
    weights = _tag_weights(table, group)
    for tag, weight in _tag_weights(table, away).items():
        weights[tag] = weights.get(tag, 0.0) - UNLIKE_SHARE * weight
    best = sorted(weights, key=lambda tag: (-weights[tag], tag))[:PROFILE_TAGS]
    return {tag: round(weights[tag], 4) for tag in best if weights[tag] > 0}


def _tag_weights(table: TrackTable, anchors: Sequence[Anchor]) -> dict[str, float]:
    total, counted = table.build.rows["tracks"], table.column_values.tags
    weights: dict[str, float] = {}
    for anchor in anchors:
        rows = table.rows(anchor.tracks, list(counted)).values()
        for row in rows:
            for column, counts in counted.items():
                for tag in set(row[column] or ()):
                    rarity = math.log(1 + total / max(counts.get(tag, 1), 1))
                    weights[tag] = weights.get(tag, 0.0) + rarity / len(rows)
    return weights


def _groups(understood: Understood) -> list[list[Anchor]]:
    """The positive anchors, grouped by the vectors to average."""
    groups: dict[int, list[Anchor]] = {}
    for anchor in understood.anchors:
        if anchor.positive:
            groups.setdefault(anchor.group, []).append(anchor)
    return list(groups.values())


def _negative(understood: Understood) -> list[Anchor]:
    return [anchor for anchor in understood.anchors if not anchor.positive]


def _mean_vector(table: TrackTable, anchor: Anchor) -> np.ndarray | None:
    return _weighted_mean(table.vectors(anchor.tracks), dict.fromkeys(anchor.tracks, 1.0))


def _weighted(by: str) -> Retrieved:
    return Retrieved(by=by, weight=WEIGHTS[by])


def _typical_first(table: TrackTable, tracks: Sequence[str], where: Filter | None) -> Ranked:
    """The tracks that a name refers to, most typical first."""
    among = Condition("track_id", "in", tuple(tracks))
    both = among if where is None else joined("and", among, where)
    allowed = table.matching(both)
    vectors = table.vectors(sorted(allowed))
    centre = _weighted_mean(vectors, dict.fromkeys(vectors, 1.0))
    ranked = [] if centre is None else table.nearest(centre, limit=len(allowed), where=both)
    without_vector = allowed - {track_id for track_id, _ in ranked}
    return ranked + [(track_id, 0.0) for track_id in sorted(without_vector)]


def _titled(table: TrackTable, tracks: Sequence[str], where: Filter | None) -> Ranked:
    """At most MOST_TITLED tracks whose title equals the tag."""
    return _typical_first(table, tracks, where)[:MOST_TITLED]


def _all_matching(table: TrackTable, where: Filter, limit: int) -> Ranked:
    """Tracks that pass a filter, up to `limit`, in an arbitrary but fixed order."""
    ids = sorted(
        table.matching(where), key=lambda track_id: (zlib.crc32(track_id.encode()), track_id)
    )
    return [(track_id, 1.0) for track_id in ids[:limit]]


def _by_names(
    table: TrackTable, texts: Sequence[str], *, limit: int, where: Filter | None
) -> Ranked:
    """Tracks whose names contain all words of the first of `texts` that has such tracks."""
    return next((r for t in texts if (r := table.match_names(t, limit=limit, where=where))), [])


def _words_weight(table: TrackTable, text: str) -> float:
    words = spoken_name(text).split()
    share = sum(word in table.tag_words for word in words) / max(len(words), 1)
    return LEAST_WORDS_WEIGHT + (MOST_WORDS_WEIGHT - LEAST_WORDS_WEIGHT) * share


def _has_word_only_in_names(table: TrackTable, text: str, where: Filter | None) -> bool:
    """Whether a word of the text is in no tag or caption of the tracks that pass the filter."""
    words = dict.fromkeys(spoken_name(text).split())
    return any(not table.match_words(word, limit=1, where=where) for word in words)


def _artist_graph(table: TrackTable, anchor: Anchor, where: Filter | None) -> Ranked:
    """Tracks by artists linked to this one in the artist graph, either way, nearest first."""
    positions = dict(table.similar_to(name_key(anchor.artist) or ""))
    artist_rows = table.rows(anchor.tracks[:1], ["similar_artists"])
    named = [name for row in artist_rows.values() for name in row["similar_artists"] or ()]
    position_of = {name_key(name): position for position, name in reversed(list(enumerate(named)))}
    for row in table.named([key for key in position_of if key]):
        position = position_of.get(name_key(row["artist"]))
        if position is not None:
            positions[row["track_id"]] = min(position, positions.get(row["track_id"], position))
    allowed = positions.keys() & table.matching(where) if where and positions else positions.keys()
    ordered = sorted(allowed, key=lambda track_id: (positions[track_id], track_id))
    return [(track_id, 1.0 / (1 + positions[track_id])) for track_id in ordered]


def _weighted_mean(
    vectors: Mapping[str, np.ndarray], weights: Mapping[str, float]
) -> np.ndarray | None:
    if not vectors:
        return None
    total = sum(weights[track_id] * vector for track_id, vector in vectors.items())
    return unit(np.asarray(total))
