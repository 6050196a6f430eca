"""The published retrieval protocols: captions, tags, zero-shot tagging, similar artists, triplets.

They are pure functions of unit vectors and words; jobs.evaluate_protocols reads both. The direction
is in every name: `text_to_audio` has texts as queries and tracks as the pool, `audio_to_text` the
other way. All follow TTMR++ (Doh et al., ICASSP 2024), but ranks count from 1 (theirs from 0) and
ties count against the system (raymtr.metrics).

    captions        each caption is a query for its track, each track a query for its captions
    tags            each tag, synonyms merged, is a query for the tracks that have it
    zero-shot       the same with unmerged labels, and each track is a query for its labels
    artists         each artist, by name and by sound, is a query for its similar artists
    triplets        which of two tracks is nearer to a third; Dim-Sim's human answers
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raymtr import metrics
from raymtr.errors import InputError
from raymtr.text import similar_artists_sentence
from raymtr.track import PUBLISHED, artist_key

Vectors = NDArray[np.float32]
Encode = Callable[[list[str]], Vectors]  # sentences -> unit rows [N, D]
Row = Mapping[str, Any]

RECALL_AT = (1, 5, 10)
MAP_AT = 10
NDCG_AT = 200  # of similar artists, as TTMR++ on OLGA
SYNONYMS = 0.9  # cosine of two tags' MiniLM vectors above which they are one (TTMR++)
FEWEST_TRACKS = 10  # of a tag (TTMR++)


@dataclass
class Outcome:
    """A protocol's figures, and its ranking, from which others can compute them again."""

    figures: dict[str, float]
    intervals: dict[str, list[float]] = field(default_factory=dict)
    pools: dict[str, int] = field(default_factory=dict)  # what was ranked, and how many
    queries: dict[str, int] = field(default_factory=dict)
    # direction -> query -> pool, best first; the same for what is right, with grades
    runs: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    right: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(
        self,
        direction: str,
        values: Mapping[str, NDArray[np.float64]],
        rng: np.random.Generator,
    ) -> None:
        """Add the mean of each per-query figure, named with its direction, and its interval."""
        for name, column in values.items():
            self.figures[f"{direction}_{name}"] = float(column.mean())
            bounds = metrics.bootstrap_interval(column, rng, bounds=(0.0, 1.0))
            self.intervals[f"{direction}_{name}"] = list(bounds)

    def rank(
        self,
        direction: str,
        queries: Sequence[str],
        pool: Sequence[str],
        scores: NDArray[Any],
        relevance: NDArray[Any],
    ) -> None:
        """Add the ranking of `pool` by each query, [Q, N], with the sizes."""
        order = metrics.pessimistic_order(scores, relevance)
        self.runs[direction] = {
            query: [pool[column] for column in row]
            for query, row in zip(queries, order, strict=True)
        }
        self.right[direction] = {
            query: {pool[column]: int(row[column]) for column in np.flatnonzero(row)}
            for query, row in zip(queries, relevance, strict=True)
        }
        self.pools[direction], self.queries[direction] = len(pool), len(queries)


def _ranked(scores: NDArray[Any], relevance: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
    ranks = metrics.first_right_ranks(scores, relevance)
    return {
        **{f"r_at_{k}": (ranks <= k).astype(np.float64) for k in RECALL_AT},
        "mrr": 1.0 / ranks,
        f"map_at_{MAP_AT}": metrics.average_precisions(scores, relevance, k=MAP_AT),
    }


def captions(rows: Sequence[Row], vectors: Vectors, encode: Encode, seed: int) -> Outcome:
    """Captions to tracks and back. `rows` have `track_id` and PUBLISHED; [N] rows, [N, D] vectors.

    Raises InputError where no row has a caption.
    """
    pairs = [(text, place) for place, row in enumerate(rows) for text in row.get(PUBLISHED) or ()]
    if not pairs:
        raise InputError(
            f"none of {len(rows)} tracks has a caption that came with its dataset (column "
            f"{PUBLISHED}); captions written by a model are not ground truth"
        )
    texts, places = [text for text, _ in pairs], np.array([place for _, place in pairs])
    scores = encode(texts) @ vectors.T  # [captions, tracks]
    relevance = places[:, None] == np.arange(len(rows))
    ids = [row["track_id"] for row in rows]
    names = [f"caption-{number:05d}" for number in range(len(texts))]
    outcome, rng = Outcome({}), np.random.default_rng(seed)
    described = relevance.any(axis=0)
    for direction, (s, r, queries, pool) in {
        "text_to_audio": (scores, relevance, names, ids),
        "audio_to_text": (
            *(scores.T[described], relevance.T[described]),
            *([i for i, has in zip(ids, described, strict=True) if has], names),
        ),
    }.items():
        outcome.add(direction, _ranked(s, r), rng)
        outcome.figures[f"{direction}_median_rank"] = metrics.median_rank(s, r)
        outcome.rank(direction, queries, pool, s, r)
    return outcome


def merged_synonyms(counts: Mapping[str, int], vectors: Mapping[str, Vectors]) -> dict[str, str]:
    """Tag -> the tag it is merged into: a more frequent one at a cosine above SYNONYMS, or itself.

    `vectors` are unit vectors of the tags. A tag joins the nearest tag that is not merged itself,
    so chains of near synonyms do not become one tag.
    """
    leaders: list[str] = []
    merged: dict[str, str] = {}
    for tag in sorted(counts, key=lambda tag: (-counts[tag], tag)):
        alike = [float(vectors[tag] @ vectors[leader]) for leader in leaders]
        if alike and max(alike) > SYNONYMS:
            merged[tag] = leaders[int(np.argmax(alike))]
        else:
            leaders.append(tag)
            merged[tag] = tag
    return merged


def discriminating(own: Sequence[set[str]], fewest: int) -> tuple[list[str], list[int]]:
    """Tags on at least `fewest` tracks and not on all, and the tracks that have one of them.

    Tracks without such a tag leave the pool, and then tags are counted again (TTMR++'s iteration).
    """
    places = [place for place, tags in enumerate(own) if tags]
    while True:
        counts = Counter(tag for place in places for tag in own[place])
        labels = sorted(tag for tag, n in counts.items() if fewest <= n < len(places))
        left = [place for place in places if own[place] & set(labels)]
        if len(left) == len(places):
            return labels, places
        places = left


def tags(
    rows: Sequence[Row],
    vectors: Vectors,
    encode: Encode,
    seed: int,
    *,
    synonyms: Encode | None,
    fewest: int = FEWEST_TRACKS,
) -> Outcome:
    """Tag queries: ROC-AUC and AP of each tag over the tracks, averaged, and of each track.

    With `synonyms`, an encoder of tags, near synonyms are merged first; without it every tag is a
    separate label, as in zero-shot tagging. Raises InputError if no tag discriminates.
    """
    tag_sets = [set(row["tags"] or ()) for row in rows]
    outcome, rng = Outcome({}), np.random.default_rng(seed)
    if synonyms is not None and any(tag_sets):
        tag_sets, merged = _merge(tag_sets, synonyms)
        outcome.notes.append(f"{merged} tags were merged into a more frequent one")
    labels, places = discriminating(tag_sets, fewest)
    if not labels:
        raise InputError(
            f"no tag is on {fewest} or more of {len(rows)} tracks and not on all of them"
        )
    relevance = np.array([[label in tag_sets[place] for place in places] for label in labels])
    scores = (encode(labels) @ vectors[places].T).astype(np.float64)
    ids = [rows[place]["track_id"] for place in places]
    names = [f"tag-{number:04d}" for number in range(len(labels))]
    figures = {
        "roc_auc": metrics.roc_aucs(scores, relevance),
        "ap": metrics.average_precisions(scores, relevance),
    }
    outcome.add("text_to_audio", figures, rng)
    outcome.rank("text_to_audio", names, ids, scores, relevance)
    back = {
        "ap": metrics.average_precisions(scores.T, relevance.T),
        "r_at_1": (metrics.first_right_ranks(scores.T, relevance.T) == 1).astype(np.float64),
    }
    outcome.add("audio_to_text", back, rng)
    outcome.rank("audio_to_text", ids, names, scores.T, relevance.T)
    return outcome


def _merge(own: list[set[str]], synonyms: Encode) -> tuple[list[set[str]], int]:
    """The tracks' tags with synonyms merged, and how many tags were."""
    counts = Counter(tag for tags in own for tag in tags)
    named = sorted(counts)
    into = merged_synonyms(counts, dict(zip(named, synonyms(named), strict=True)))
    merged = sum(tag != leader for tag, leader in into.items())
    return [{into[tag] for tag in tags} for tags in own], merged


def artists(rows: Sequence[Row], vectors: Vectors, encode: Encode, seed: int) -> Outcome:
    """Similar artists, by the sentence with the name and by the artist's own vector: nDCG@200.

    An artist's vector is the mean of its tracks', normalised. An artist of the pool is relevant
    where the lists of the query's artist name it. The query's artist is never in its own pool.
    Raises InputError where no list names another artist of the pool.
    """
    names, similar, mean = _by_artist(rows, vectors)
    keys = list(names)
    relevance = np.array([[other in similar[key] for other in keys] for key in keys], np.int64)
    np.fill_diagonal(relevance, 0)
    asks = np.asarray(relevance.any(axis=1))
    if not asks.any():
        raise InputError(
            f"none of {len(keys)} artists lists another of them as similar; scan with --artists"
        )
    queries = [names[key] for key, ask in zip(keys, asks, strict=True) if ask]
    sentences = encode([similar_artists_sentence([name]) for name in queries])
    outcome, rng = Outcome({}), np.random.default_rng(seed)
    for direction, asking in (("text_to_audio", sentences), ("audio_to_audio", mean[asks])):
        scores = (asking @ mean.T).astype(np.float64)
        scores[np.arange(len(queries)), np.flatnonzero(asks)] = -np.inf  # itself: last, and wrong
        wanted = relevance[asks]
        values = {f"ndcg_at_{NDCG_AT}": metrics.ndcgs_at(scores, wanted, k=NDCG_AT)}
        outcome.add(direction, values, rng)
        ids = [f"artist-{number:05d}" for number in np.flatnonzero(asks)]
        pool = [f"artist-{number:05d}" for number in range(len(keys))]
        outcome.rank(direction, ids, pool, scores, wanted)
    return outcome


def _by_artist(
    rows: Sequence[Row], vectors: Vectors
) -> tuple[dict[str, str], dict[str, set[str]], Vectors]:
    """Names by key, keys of similar artists by key, and unit vectors [artists, D] in that order."""
    names: dict[str, str] = {}
    similar: dict[str, set[str]] = {}
    places: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        key = artist_key(row["artist"] or "")
        if not key:
            continue
        names.setdefault(key, row["artist"])
        places.setdefault(key, []).append(place)
        similar.setdefault(key, set()).update(map(artist_key, row["similar_artists"] or ()))
    if not names:
        raise InputError(f"none of {len(rows)} tracks has an artist")
    mean = np.stack([vectors[places[key]].mean(axis=0) for key in names])
    return names, similar, mean / np.linalg.norm(mean, axis=1, keepdims=True)


def triplets(
    rows: Sequence[Row],
    vectors: Vectors,
    encode: Encode,
    seed: int,
    judged: Sequence[tuple[str, str, str]],
) -> Outcome:
    """Share of triplets (anchor, nearer, farther; track ids) in which the nearer one is nearer.

    By audio the anchor is its vector, by text the sentence `similar music track with {title} by
    {artist} from {album}` (TTMR++). A tie is wrong. Raises InputError on an unknown track.
    """
    place = {row["track_id"]: number for number, row in enumerate(rows)}
    unknown = sorted({track for three in judged for track in three} - set(place))
    if unknown:
        raise InputError(
            f"{len(unknown)} tracks of the triplets have no vector, among them {unknown[0]!r}"
        )
    anchor, near, far = (vectors[[place[three[n]] for three in judged]] for n in range(3))
    outcome, rng = Outcome({}), np.random.default_rng(seed)
    sentences = encode([anchor_sentence(rows[place[three[0]]]) for three in judged])
    for direction, query in (("audio_to_audio", anchor), ("text_to_audio", sentences)):
        right = (query * near).sum(axis=1) > (query * far).sum(axis=1)
        outcome.add(direction, {"triplet_accuracy": right.astype(np.float64)}, rng)
        outcome.queries[direction] = len(judged)
        outcome.pools[direction] = len({track for three in judged for track in three})
    return outcome


def anchor_sentence(row: Row) -> str:
    """The words of a triplet's anchor, without absent parts."""
    parts = (("with", "title"), ("by", "artist"), ("from", "album"))
    phrases = [f"{word} {row[name]}" for word, name in parts if row.get(name)]
    return " ".join(["similar music track", *phrases])
