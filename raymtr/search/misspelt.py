"""Partial and misspelt names, tried if a query has words that no other slot matched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from raymtr.index.conditions import Condition
from raymtr.index.track_rows import ARTIST_KEY, TITLE_KEY, NamedRow
from raymtr.names import name_key, spoken_name
from raymtr.search.named import (
    BRACKETS,
    LEAST_SIMILARITY,
    SPELT_LIKE,
    CatalogNames,
    NameReading,
    artist_keys,
    similarity,
    variants,
    whole_readings,
)
from raymtr.search.slots import Kind
from raymtr.search.tokens import TokenizedQuery
from raymtr.search.vocabulary import CatalogVocabulary

LEAST_PAIR = 0.85  # minimum similarity of title and artist together
LEAST_COMMON = 0.85  # minimum similarity of a name of common words alone
MOST_NAME_WORDS = 10  # a longer query is not treated as a misspelt name
NAME_MATCHES = 100  # most tracks to compare whose names contain all words
MOST_OF_TITLE = 0.6  # minimum share of a title's words that identifies it


@dataclass(frozen=True)
class ResolvedName:
    """The name that a query refers to, with its tracks."""

    kind: Kind
    title: str | None
    artist: str | None
    album: str | None
    tracks: tuple[str, ...]
    misspelt: bool


class AlbumRow(NamedRow):
    """A NamedRow with the album."""

    album: str | None


def tracks_with_words(plain: str, vocabulary: CatalogVocabulary) -> list[str]:
    """Tracks whose names contain all words of a text."""
    return [track_id for track_id, _ in vocabulary.table.match_names(plain, limit=NAME_MATCHES)]


def partial_name(
    plain: str, tracks: Sequence[str], query: TokenizedQuery, vocabulary: CatalogVocabulary
) -> ResolvedName | None:
    """The name that a text refers to, among the tracks whose names contain all its words.

    A text refers to a track by its title without brackets, by most of its title, by title and
    artist side by side, or by its album.
    """
    table = vocabulary.table
    rows = table.rows(tracks, ["title", "artist", "album", TITLE_KEY, ARTIST_KEY])
    ordered = [cast(AlbumRow, rows[track_id]) for track_id in tracks]
    key = name_key(plain) or ""
    for sought in (key, _without_lead_words(query, key)):
        titles = [row for row in ordered if _is_title(row, sought)]
        if titles:
            return _name_of_rows("title", titles)
        albums = [row["album"] for row in ordered if name_key(row["album"]) == sought]
        if albums and albums[0]:
            return album_of(albums[0], vocabulary)
    words = set(spoken_name(plain).split())
    both = [row for row in ordered if _matches_title_and_artist(row, words)]
    if both:
        return _name_of_rows("title", both)
    return None


def album_of(album: str, vocabulary: CatalogVocabulary, *, misspelt: bool = False) -> ResolvedName:
    """All tracks of an album."""
    tracks = vocabulary.table.matching(Condition("album", "in", (album,)))
    return ResolvedName("album", None, None, album, tuple(sorted(tracks)), misspelt)


def misspelt_name(
    plain: str, query: TokenizedQuery, unmatched: Sequence[int], vocabulary: CatalogVocabulary
) -> ResolvedName | None:
    """The name most similar to the query, if it is similar enough.

    A single common word is never a misspelt name. Several common words need a higher similarity.
    """
    tokens, lexicon = query.tokens, vocabulary.lexicon
    if len(tokens) > MOST_NAME_WORDS:
        return None
    unknown = [p for p in unmatched if tokens[p].key not in lexicon.everyday]
    if not unknown and len(tokens) < 2:
        return None
    content = [t for t in tokens if t.key not in lexicon.stops]
    explained = 2 * len(unmatched) < len(content)  # other slots matched most words
    if explained and not unknown:
        return None
    if unknown and (other := _in_latin_letters(plain, vocabulary)) is not None:
        return other
    table = vocabulary.table
    rows = table.spelt_like(plain, limit=SPELT_LIKE)
    if not rows:
        return None
    key = name_key(plain) or ""
    minimum = LEAST_SIMILARITY if unknown and not explained else LEAST_COMMON
    readings = [r for variant in variants(plain) for r in whole_readings(variant)]
    names = CatalogNames(table, rows=rows)
    named = names.first(readings)
    if named is not None:
        named = names.complete(named)
        spelt = max(
            similarity(name_key(named.title), key),
            similarity(name_key(named.artist), key),
            LEAST_SIMILARITY if named.title and named.artist else 0.0,
        )
        words = len(spoken_name(named.title or named.artist or "").split())
        if spelt >= minimum and (unknown or words == len(tokens)):
            kind: Kind = "title" if named.title is not None else "artist"
            return ResolvedName(kind, named.title, named.artist, None, named.tracks, True)
    pairs = [(max(_pair_similarity(row, key)), row) for row in rows]
    best = max((fit for fit, _ in pairs), default=0.0)
    if unknown and best >= LEAST_PAIR:
        return _name_of_rows("title", [row for fit, row in pairs if fit == best], misspelt=True)
    if unknown:
        ids = [row["track_id"] for row in rows]
        albums = {row["album"] for row in table.rows(ids, ["album"]).values() if row["album"]}
        scored = [(similarity(name_key(album), key), album) for album in albums]
        best_album = max(scored, default=(0.0, ""))
        if best_album[0] >= LEAST_PAIR:
            return album_of(best_album[1], vocabulary, misspelt=True)
    return None


def _in_latin_letters(plain: str, vocabulary: CatalogVocabulary) -> ResolvedName | None:
    """The name in another script that a query in Latin letters transliterates."""
    key = name_key(plain) or ""
    if not key.isascii():
        return None
    similarities = {
        spelt: similarity(spelt, key) for spelt in vocabulary.latin_names if spelt[:1] == key[:1]
    }
    best = max(similarities, key=lambda spelt: (similarities[spelt], spelt), default=None)
    if best is None or similarities[best] < LEAST_PAIR:
        return None
    column, name = sorted(vocabulary.latin_names[best])[-1]  # prefers a title to an artist
    reading = NameReading(name, None) if column == "title" else NameReading(None, name)
    named = CatalogNames(vocabulary.table, [reading]).match(reading)
    if named is None:
        return None
    kind: Kind = "title" if column == "title" else "artist"
    return ResolvedName(kind, named.title, named.artist, None, named.tracks, True)


def _pair_similarity(row: NamedRow, key: str) -> tuple[float, float]:
    title, artists = row[TITLE_KEY] or "", artist_keys(row)
    return (
        max(similarity(title + artist, key) for artist in artists),
        max(similarity(artist + title, key) for artist in artists),
    )


def _without_lead_words(query: TokenizedQuery, key: str) -> str:
    """The key without leading words such as "songs from" and "the album"."""
    tokens = query.tokens
    first = 0
    for position, token in enumerate(tokens):
        if token.key in (
            "the",
            "songs",
            "tracks",
            "music",
            "from",
            "off",
            "album",
            "record",
            "all",
            "on",
        ):
            first = position + 1
        else:
            break
    return query.key(first, len(tokens)) if 0 < first < len(tokens) else key


def bare_title(title: str | None) -> str:
    """The key of a title without brackets and guest artists."""
    return name_key(BRACKETS.sub("", title or "").strip()) or ""


def _is_title(row: NamedRow, key: str) -> bool:
    return bool(key) and key in (row[TITLE_KEY], bare_title(row["title"]))


def _matches_title_and_artist(row: NamedRow, words: set[str]) -> bool:
    """Whether the words are most of a track's title, with or without its artist, and no more."""
    whole = set(spoken_name(row["title"] or "").split())
    if len(words) > 1 and words <= whole:
        return len(words) >= MOST_OF_TITLE * len(whole)
    title = set(spoken_name(BRACKETS.sub("", row["title"] or "")).split())
    artist = set(spoken_name(row["artist"] or "").split())
    if not artist or not title or not artist <= words or not words <= title | artist:
        return False
    return len(words - artist) >= 1 and len(title & words) >= MOST_OF_TITLE * len(title)


def _name_of_rows(kind: Kind, rows: Sequence[NamedRow], *, misspelt: bool = False) -> ResolvedName:
    first = rows[0]
    tracks = tuple(row["track_id"] for row in rows)
    return ResolvedName(kind, first["title"], first["artist"], None, tracks, misspelt)
