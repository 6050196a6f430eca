"""The retrievers of a request: what is looked up for each kind of query, with weights.

Each retriever reads its own part of the query. A title or an artist is certain, so it makes a sure
retriever. "Similar to" uses the anchors' audio vectors, the artist graph, and the text tower, which
was trained on the sentence `similar with artist ...`. If the anchors have no vectors (a catalog
without audio), it uses the tags that distinguish them from other tracks. A description uses the
text tower, full-text search over tags and captions with its tags and the words that no slot took,
and search over names with those unused words alone.
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
from raymtr.search.vocabulary import tag_counts
from raymtr.vectors import unit

UNLIKE = 0.5  # share of the unlike tracks' vector that is subtracted
TOWARD = 0.35  # how far an example's vector moves along a direction
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
# contain it: as much as all other retrievers together. At 0.5 the 61st of a list by sound precedes
# any name.
NAMES_ALONE_WEIGHT = 4.0
PROFILE_TAGS = 8  # tags that distinguish anchors from other tracks
CALLED_SO = 3  # tracks shown whose title is a tag


@dataclass(frozen=True)
class QueryVector:
    """A unit vector [D] to search along, and the retriever it belongs to."""

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
    """The vectors of the liked tracks and of each anchor group, minus part of the unliked."""
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
    return [toward if away is None else unit(toward - UNLIKE * away) for toward in towards]


def steer_away(table: TrackTable, request: CheckedRequest, vector: np.ndarray) -> np.ndarray:
    """The vector of a text or recording, minus part of the unliked tracks' vector."""
    away = _weighted_mean(table.vectors(list(request.unlike)), request.unlike)
    return vector if away is None else unit(vector - UNLIKE * away)


def steer_toward(vector: np.ndarray, up: np.ndarray, down: np.ndarray) -> np.ndarray:
    """A vector moved along the direction from one text's vector to another's."""
    return unit(vector + TOWARD * unit(up - down))


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

    def ask(one: Retrieved, look_up: Callable[..., Ranked], *about: Any, **how: Any) -> None:
        pending.append((one, threads.submit(look_up, *about, **how)))

    sure = understood.kind in ("title", "artist", "album")
    if sure:
        named = base if understood.kind == "title" else where
        ask(Retrieved(by=understood.kind, sure=True), _named, table, understood.tracks, named)
    alone = sure and (
        understood.kind == "album" or bool(understood.include and understood.kind == "artist")
    )
    if understood.kind == "description" and understood.tracks:
        ask(_weighted("title"), _called_so, table, understood.tracks, base)
    for group in _groups(understood):
        for anchor in group:
            if anchor.artist and not anchor.title:
                ask(_weighted("artist graph"), _artist_graph, table, anchor, where)
        profile = profile_of(table, group, _negative(understood))
        if profile and not table.vectors(group[0].tracks[:1]):
            ask(_weighted("profile"), table.match_weighted, profile, limit=limit, where=where)
    for direction in directions:
        ask(_weighted(direction.by), table.nearest, direction.vector, limit=limit, where=where)
    words, names = lexical_texts(understood)
    if request.mode != "semantic" and not alone:
        if words:
            one = Retrieved(by="words", weight=_words_weight(table, words))
            ask(one, table.match_words, words, limit=limit, where=where)
        if names:
            ask(_weighted("names"), _names, table, names, limit=limit, where=where)
    if not pending and where is not None:
        ask(_weighted("filter"), _all_of, table, where, limit)
    retrieved = [replace(one, ranked=found.result()) for one, found in pending]
    retrieved = [one for one in retrieved if one.ranked]
    narrowed = understood.filters or understood.excluded  # obeyed even beside unknown words
    if not retrieved and where is not None and (narrowed or not understood.text):
        everything = _all_of(table, where, limit)
        retrieved = [replace(_weighted("filter"), ranked=everything)] if everything else []
    if any(one.by == "names" for one in retrieved) and _only_a_name(table, names[-1], where):
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
    unsaid = understood.unsaid
    if not understood.include and not understood.anchors and not understood.filters:
        return unsaid, list(dict.fromkeys(part for part in (understood.text, unsaid) if part))
    parts = [unsaid] if unsaid else []
    return " ".join(dict.fromkeys([*tags, *parts])), parts


def profile_of(
    table: TrackTable, group: Sequence[Anchor], away: Sequence[Anchor]
) -> dict[str, float]:
    """The tags that set anchors apart from other tracks, by tf-idf, minus half of the unlike's."""
    weights = _tag_weights(table, group)
    for tag, weight in _tag_weights(table, away).items():
        weights[tag] = weights.get(tag, 0.0) - UNLIKE * weight
    best = sorted(weights, key=lambda tag: (-weights[tag], tag))[:PROFILE_TAGS]
    return {tag: round(weights[tag], 4) for tag in best if weights[tag] > 0}


def _tag_weights(table: TrackTable, anchors: Sequence[Anchor]) -> dict[str, float]:
    total, counted = table.build.rows["tracks"], tag_counts(table)
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
    """The anchors to be near to, grouped by what is averaged together."""
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


def _named(table: TrackTable, tracks: Sequence[str], where: Filter | None) -> Ranked:
    """The tracks that a name refers to, most typical first."""
    among = Condition("track_id", "in", tuple(tracks))
    both = among if where is None else joined("and", among, where)
    allowed = table.matching(both)
    vectors = table.vectors(sorted(allowed))
    centre = _weighted_mean(vectors, dict.fromkeys(vectors, 1.0))
    ranked = [] if centre is None else table.nearest(centre, limit=len(allowed), where=both)
    silent = allowed - {track_id for track_id, _ in ranked}
    return ranked + [(track_id, 0.0) for track_id in sorted(silent)]


def _called_so(table: TrackTable, tracks: Sequence[str], where: Filter | None) -> Ranked:
    """A few tracks whose title is the tag."""
    return _named(table, tracks, where)[:CALLED_SO]


def _all_of(table: TrackTable, where: Filter, limit: int) -> Ranked:
    """All tracks that pass a filter, in a fixed arbitrary order."""
    ids = sorted(
        table.matching(where), key=lambda track_id: (zlib.crc32(track_id.encode()), track_id)
    )
    return [(track_id, 1.0) for track_id in ids[:limit]]


def _names(table: TrackTable, texts: Sequence[str], *, limit: int, where: Filter | None) -> Ranked:
    """Tracks whose names contain all words of a text, for the first of `texts` with a match."""
    return next((r for t in texts if (r := table.match_names(t, limit=limit, where=where))), [])


def _words_weight(table: TrackTable, text: str) -> float:
    words = spoken_name(text).split()
    share = sum(word in table.tag_words for word in words) / max(len(words), 1)
    return LEAST_WORDS_WEIGHT + (MOST_WORDS_WEIGHT - LEAST_WORDS_WEIGHT) * share


def _only_a_name(table: TrackTable, text: str, where: Filter | None) -> bool:
    """Whether a word of the text is in no tag or caption of the tracks that pass the filter."""
    words = dict.fromkeys(spoken_name(text).split())
    return any(not table.match_words(word, limit=1, where=where) for word in words)


def _artist_graph(table: TrackTable, anchor: Anchor, where: Filter | None) -> Ranked:
    """Tracks by artists linked to this one in the artist graph, either way, nearest first."""
    places = dict(table.similar_to(name_key(anchor.artist) or ""))
    own = table.rows(anchor.tracks[:1], ["similar_artists"])
    named = [name for row in own.values() for name in row["similar_artists"] or ()]
    rank = {name_key(name): place for place, name in reversed(list(enumerate(named)))}
    for row in table.named([key for key in rank if key]):
        place = rank.get(name_key(row["artist"]))
        if place is not None:
            places[row["track_id"]] = min(place, places.get(row["track_id"], place))
    allowed = places.keys() & table.matching(where) if where and places else places.keys()
    ordered = sorted(allowed, key=lambda track_id: (places[track_id], track_id))
    return [(track_id, 1.0 / (1 + places[track_id])) for track_id in ordered]


def _weighted_mean(
    vectors: Mapping[str, np.ndarray], weights: Mapping[str, float]
) -> np.ndarray | None:
    if not vectors:
        return None
    total = sum(weights[track_id] * vector for track_id, vector in vectors.items())
    return unit(np.asarray(total))
