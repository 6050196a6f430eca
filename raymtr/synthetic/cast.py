"""The invented artists of the synthetic catalog: names, tastes and similarity.

An artist's tracks follow its taste, and the similarity graph is computed from tastes, so the graph
is true by construction. Tastes are dealt like cards from shuffled decks, so that every style and
instrument is in the training split. An artist outside that split has an influence inside it, whose
first style and some instruments it shares, so that "similar with artist X" has right answers among
artists not seen in training.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from raymtr.synthetic.instruments import BACKINGS, LEADS, PRODUCTIONS
from raymtr.synthetic.names import invent_names
from raymtr.synthetic.styles import STYLES

Card = TypeVar("Card")

TRACKS_PER_ARTIST = 9.7  # on average: 62 artists for 600 tracks
TEST_SHARE, VALID_SHARE = 3, 15  # one track in three is test, one in fifteen is valid
MOST_SIMILAR, LEAST_SIMILAR = 8, 3  # similar artists of one artist
SIMILAR_FROM = 0.2  # score from which an artist counts as similar


@dataclass(frozen=True, kw_only=True)
class Artist:
    """One invented artist and its taste; it plays the first style most."""

    name: str
    split: str
    tracks: int
    styles: tuple[str, ...]
    leads: tuple[str, ...]
    backings: tuple[str, ...]
    productions: tuple[str | None, ...]
    first_year: int


def split_sizes(pieces: int) -> dict[str, int]:
    """Tracks of each split: a third test, a fifteenth valid, the rest train."""
    test, valid = pieces // TEST_SHARE, max(1, pieces // VALID_SHARE)
    return {"train": pieces - test - valid, "valid": valid, "test": test}


def invent_artists(pieces: int, rng: np.random.Generator) -> list[Artist]:
    """The artists of a catalog of `pieces` tracks, in random order, with distinct names."""
    shares = [
        (split, count)
        for split, total in split_sizes(pieces).items()
        for count in _shared_out(total, max(1, round(total / TRACKS_PER_ARTIST)))
    ]
    styles, leads = _deck(tuple(STYLES), rng), _deck(LEADS, rng)
    backings, productions = _deck(BACKINGS, rng), _deck((None, *PRODUCTIONS), rng)
    names = invent_names(len(shares), rng)
    artists: list[Artist] = []
    for name, (split, tracks) in zip(names, shares, strict=True):
        artist = Artist(
            name=name,
            split=split,
            tracks=tracks,
            styles=_deal(styles, 2),
            leads=_deal(leads, 3),
            backings=_deal(backings, 2),
            productions=_deal(productions, 2),
            first_year=int(rng.integers(1961, 2018)),
        )
        taught = [other for other in artists if other.split == "train"]
        if split != "train":
            artist = _influenced(artist, taught[int(rng.integers(len(taught)))])
        artists.append(artist)
    return [artists[i] for i in rng.permutation(len(artists))]


def _influenced(artist: Artist, influence: Artist) -> Artist:
    """`artist` with the first style, two leads and a backing of `influence`."""

    def mixed(theirs: Sequence[str], own: Sequence[str]) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*theirs, *own)))[: len(own)]

    return replace(
        artist,
        styles=mixed(influence.styles[:1], artist.styles),
        leads=mixed(influence.leads[:2], artist.leads),
        backings=mixed(influence.backings[:1], artist.backings),
    )


def similar_artists(artists: Sequence[Artist]) -> list[tuple[str, str, float]]:
    """(artist, similar artist, score in 0..1), grouped by artist, by decreasing score."""
    edges = []
    for artist in artists:
        scored = sorted(
            (-_likeness(artist, other), other.name) for other in artists if other is not artist
        )
        near = [pair for pair in scored if -pair[0] >= SIMILAR_FROM]
        kept = scored[: min(MOST_SIMILAR, max(LEAST_SIMILAR, len(near)))]
        edges += [(artist.name, name, round(-score, 3)) for score, name in kept]
    return edges


def _likeness(one: Artist, other: Artist) -> float:
    """Shared taste, 0 to 1: styles weigh most, then leads, then backings (Jaccard each)."""
    weights = (0.6, 0.3, 0.1)
    tastes = zip(
        (one.styles, one.leads, one.backings),
        (other.styles, other.leads, other.backings),
        strict=True,
    )
    shares = [len(set(a) & set(b)) / len(set(a) | set(b)) for a, b in tastes]
    return sum(weight * share for weight, share in zip(weights, shares, strict=True))


def _shared_out(total: int, parts: int) -> list[int]:
    """`total` split into `parts` integers that differ by at most one."""
    return [total * (i + 1) // parts - total * i // parts for i in range(parts)]


def _deck(cards: Sequence[Card], rng: np.random.Generator) -> Iterator[Card]:
    """The cards in an endless sequence, shuffled again in each round."""
    while True:
        yield from (cards[i] for i in rng.permutation(len(cards)))


def _deal(deck: Iterator[Card], count: int) -> tuple[Card, ...]:
    """The next `count` distinct cards of the deck."""
    hand: dict[Card, None] = {}
    while len(hand) < count:
        hand[next(deck)] = None
    return tuple(hand)
