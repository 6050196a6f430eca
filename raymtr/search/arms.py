"""What is looked up for a request: the arms of each kind of query, with their weights.

A title or an artist is certain, so it is a sure arm and the others only fill the page. "Similar to"
asks three witnesses: the artist's own sound, the artist graph, and the text tower, which was
trained on the sentence `similar with artist ...`. A description asks the text tower, and the words
of tags and captions as far as it is made of the catalog's own tags.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from raymtr import text as sentences
from raymtr.index.conditions import Condition
from raymtr.index.filters import Filter, joined
from raymtr.index.names import name_key, spoken_name
from raymtr.index.track_table import Ranked, TrackTable
from raymtr.search.ranking import Arm
from raymtr.search.request import SearchRequest
from raymtr.search.understand import Understood

UNLIKE = 0.5  # how much of the unlike tracks' vector is taken away
WEIGHTS = {
    "sound": 1.0,  # near an example
    "text": 1.0,  # near the text tower's vector
    "names": 0.5,  # titles, artists and albums that hold all the words
    "artist graph": 2.0,
}
# Of tags and captions that share words: between these, the more of a query's words are tags of the
# catalog. On 200 held-out pieces of the made catalog, tag queries went from nDCG@10 0.65 (a weight
# of 0.5) to 0.97 (2); prose that shares its words with anything is left to the text tower.
LEAST_WORDS_WEIGHT, MOST_WORDS_WEIGHT = 0.5, 2.0
# Of names, where a word of the query is in no tag or caption, so that only a name can have meant
# it: as much as all other arms together. At 0.5 the 61st of a list by sound comes before any name.
NAMES_ALONE_WEIGHT = 4.0


@dataclass(frozen=True)
class Direction:
    """A unit vector [D] to search along, and which arm it makes."""

    by: str
    vector: np.ndarray


def sentences_of(understood: Understood) -> list[str]:
    """What the text tower is to read for a query."""
    if understood.kind == "similar":
        artist = [] if understood.title else [understood.artist or ""]
        about = [sentences.similar_artists_sentence(artist)] if artist else []
        return about + ([understood.text] if understood.text else [])
    return [understood.text] if understood.text else []


def example_vector(
    table: TrackTable, request: SearchRequest, understood: Understood
) -> np.ndarray | None:
    """The sound of the liked tracks, or of what "similar to" names, less part of the unliked."""
    liked = dict(request.like)
    if understood.kind == "similar":
        liked |= dict.fromkeys(understood.tracks, 1.0)
    toward = _weighted_mean(table.vectors(list(liked)), liked)
    if toward is None:
        return None
    away = _weighted_mean(table.vectors(list(request.unlike)), request.unlike)
    return _unit(toward if away is None else toward - UNLIKE * away)


def steer_away(table: TrackTable, request: SearchRequest, vector: np.ndarray) -> np.ndarray:
    """A text's or recording's vector less part of the unliked tracks'."""
    away = _weighted_mean(table.vectors(list(request.unlike)), request.unlike)
    return vector if away is None else _unit(vector - UNLIKE * away)


def run_arms(
    table: TrackTable,
    request: SearchRequest,
    understood: Understood,
    directions: Iterable[Direction],
    *,
    limit: int,
    threads: Executor,
) -> list[Arm]:
    """Every arm that has something to say, with up to `limit` tracks each, asked side by side."""
    where, text = request.where, understood.text
    asked: list[tuple[Arm, Future[Ranked]]] = []

    def ask(arm: Arm, look_up: Callable[..., Ranked], *about: Any, **how: Any) -> None:
        asked.append((arm, threads.submit(look_up, *about, **how)))

    if understood.kind in ("title", "artist"):
        ask(Arm(by=understood.kind, sure=True), _named, table, request, understood)
    if understood.kind == "similar" and understood.artist and not understood.title:
        ask(_weighted("artist graph"), _artist_graph, table, request, understood)
    for direction in directions:
        ask(_weighted(direction.by), table.nearest, direction.vector, limit=limit, where=where)
    if text and request.mode != "semantic":
        words = Arm(by="words", weight=_words_weight(table, text))
        ask(words, table.match_words, text, limit=limit, where=where)
        ask(_weighted("names"), table.match_names, text, limit=limit, where=where)
    arms = [replace(arm, ranked=found.result()) for arm, found in asked]
    arms = [arm for arm in arms if arm.ranked]
    if any(arm.by == "names" for arm in arms) and _only_a_name(table, text, where):
        arms = [
            replace(arm, weight=NAMES_ALONE_WEIGHT) if arm.by == "names" else arm for arm in arms
        ]
    return arms


def _weighted(by: str) -> Arm:
    return Arm(by=by, weight=WEIGHTS[by])


def _named(table: TrackTable, request: SearchRequest, understood: Understood) -> Ranked:
    """The tracks a name stands for, the most typical of them first."""
    where = _and(Condition("track_id", "in", understood.tracks), request.where)
    allowed = table.matching(where)
    vectors = table.vectors(sorted(allowed))
    centre = _weighted_mean(vectors, dict.fromkeys(vectors, 1.0))
    ranked = [] if centre is None else table.nearest(centre, limit=len(allowed), where=where)
    silent = allowed - {track_id for track_id, _ in ranked}
    return ranked + [(track_id, 0.0) for track_id in sorted(silent)]


def _words_weight(table: TrackTable, text: str) -> float:
    words = spoken_name(text).split()
    share = sum(word in table.tag_words for word in words) / max(len(words), 1)
    return LEAST_WORDS_WEIGHT + (MOST_WORDS_WEIGHT - LEAST_WORDS_WEIGHT) * share


def _only_a_name(table: TrackTable, text: str, where: Filter | None) -> bool:
    """Whether some word of a text is in no tag or caption of the tracks that a filter leaves."""
    words = dict.fromkeys(spoken_name(text).split())
    return any(not table.match_words(word, limit=1, where=where) for word in words)


def _artist_graph(table: TrackTable, request: SearchRequest, understood: Understood) -> Ranked:
    """Tracks whose artist names this one as similar, or is named by it; near neighbours first."""
    places = dict(table.similar_to(name_key(understood.artist) or ""))
    own = table.rows(understood.tracks[:1], ["similar_artists"])
    named = [name for row in own.values() for name in row["similar_artists"] or ()]
    rank = {name_key(name): place for place, name in reversed(list(enumerate(named)))}
    for row in table.named([key for key in rank if key]):
        place = rank.get(name_key(row["artist"]))
        if place is not None:
            places[row["track_id"]] = min(place, places.get(row["track_id"], place))
    allowed = places.keys() & table.matching(request.where) if request.where else places.keys()
    ordered = sorted(allowed, key=lambda track_id: (places[track_id], track_id))
    return [(track_id, 1.0 / (1 + places[track_id])) for track_id in ordered]


def _and(first: Filter, second: Filter | None) -> Filter:
    return first if second is None else joined("and", first, second)


def _weighted_mean(
    vectors: Mapping[str, np.ndarray], weights: Mapping[str, float]
) -> np.ndarray | None:
    if not vectors:
        return None
    total = sum(weights[track_id] * vector for track_id, vector in vectors.items())
    return _unit(np.asarray(total, np.float32))


def _unit(vector: np.ndarray) -> np.ndarray:
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12), np.float32)
