"""Partial and misspelt names, tried when a query has words that no other slot explains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from raymtr.index.conditions import Condition
from raymtr.index.track_rows import ARTIST_KEY, TITLE_KEY, NamedRow
from raymtr.names import name_key, spoken_name
from raymtr.search.named import (
    BRACKETS,
    LEAST_LIKENESS,
    SPELT_LIKE,
    Known,
    NameReading,
    artist_keys,
    likeness,
    variants,
    whole_readings,
)
from raymtr.search.slots import Kind
from raymtr.search.tokens import TokenizedQuery
from raymtr.search.vocabulary import CatalogVocabulary

LEAST_PAIR = 0.85  # minimum likeness of title and artist together
LEAST_COMMON = 0.85  # minimum likeness of a name of common words alone
MOST_NAME_WORDS = 10  # a longer query is not treated as a misspelt name
NAME_MATCHES = 100  # limit on the tracks looked at whose names contain all words
MOST_OF_TITLE = 0.6  # minimum share of a title's words that identifies it


@dataclass(frozen=True)
class PartName:
    """A name that a query refers to."""

    kind: Kind
    title: str | None
    artist: str | None
    album: str | None
    tracks: tuple[str, ...]
    misspelt: bool


class AlbumRow(NamedRow):
    """A row that also has its album."""

    album: str | None


def holding(plain: str, vocabulary: CatalogVocabulary) -> list[str]:
    """Tracks whose names contain all words of a text."""
    return [track_id for track_id, _ in vocabulary.table.match_names(plain, limit=NAME_MATCHES)]


def name_in_part(
    plain: str, tracks: Sequence[str], question: TokenizedQuery, vocabulary: CatalogVocabulary
) -> PartName | None:
    """The name that a text refers to, among the tracks whose names contain all its words.

    A text refers to a track by its title without brackets, by most of its title, by title and
    artist side by side, or by its album.
    """
    table = vocabulary.table
    rows = table.rows(tracks, ["title", "artist", "album", TITLE_KEY, ARTIST_KEY])
    ordered = [cast(AlbumRow, rows[track_id]) for track_id in tracks]
    key = name_key(plain) or ""
    for wanted in (key, _called(question, key)):
        titles = [row for row in ordered if _is_title(row, wanted)]
        if titles:
            return _part("title", titles)
        albums = [row["album"] for row in ordered if name_key(row["album"]) == wanted]
        if albums and albums[0]:
            return album_of(albums[0], vocabulary)
    words = set(spoken_name(plain).split())
    both = [row for row in ordered if _names_both(row, words)]
    if both:
        return _part("title", both)
    return None


def album_of(album: str, vocabulary: CatalogVocabulary, *, misspelt: bool = False) -> PartName:
    """All tracks of an album."""
    tracks = vocabulary.table.matching(Condition("album", "in", (album,)))
    return PartName("album", None, None, album, tuple(sorted(tracks)), misspelt)


def misspelt_name(
    plain: str, question: TokenizedQuery, unsaid: Sequence[int], vocabulary: CatalogVocabulary
) -> PartName | None:
    """The name most like the query, if it is similar enough.

    A single common word is never a misspelt name. Several common words are one only if they nearly
    match it.
    """
    tokens, lexicon = question.tokens, vocabulary.lexicon
    if len(tokens) > MOST_NAME_WORDS:
        return None
    strange = [p for p in unsaid if tokens[p].key not in lexicon.everyday]
    if not strange and len(tokens) < 2:
        return None
    meant = [t for t in tokens if t.key not in lexicon.stops]
    mostly = 2 * len(unsaid) < len(meant)  # most words mean something else
    if mostly and not strange:
        return None
    if strange and (other := _in_latin_letters(plain, vocabulary)) is not None:
        return other
    table = vocabulary.table
    rows = table.spelt_like(plain, limit=SPELT_LIKE)
    if not rows:
        return None
    key = name_key(plain) or ""
    least = LEAST_LIKENESS if strange and not mostly else LEAST_COMMON
    readings = [r for variant in variants(plain) for r in whole_readings(variant)]
    known = Known(table, rows=rows)
    named = known.first(readings)
    if named is not None:
        named = known.all_of(named)
        spelt = max(
            likeness(name_key(named.title), key),
            likeness(name_key(named.artist), key),
            LEAST_LIKENESS if named.title and named.artist else 0.0,
        )
        words = len(spoken_name(named.title or named.artist or "").split())
        if spelt >= least and (strange or words == len(tokens)):
            kind: Kind = "title" if named.title is not None else "artist"
            return PartName(kind, named.title, named.artist, None, named.tracks, True)
    pairs = [(max(_pair(row, key)), row) for row in rows]
    best = max((fit for fit, _ in pairs), default=0.0)
    if strange and best >= LEAST_PAIR:
        return _part("title", [row for fit, row in pairs if fit == best], misspelt=True)
    if strange:
        ids = [row["track_id"] for row in rows]
        albums = {row["album"] for row in table.rows(ids, ["album"]).values() if row["album"]}
        near = max(albums, key=lambda album: (likeness(name_key(album), key), album), default=None)
        if near is not None and likeness(name_key(near), key) >= LEAST_PAIR:
            return album_of(near, vocabulary, misspelt=True)
    return None


def _in_latin_letters(plain: str, vocabulary: CatalogVocabulary) -> PartName | None:
    """A name of another script, typed in Latin letters."""
    key = name_key(plain) or ""
    if not key.isascii():
        return None
    fits = {spelt: likeness(spelt, key) for spelt in vocabulary.latin_names if spelt[:1] == key[:1]}
    best = max(fits, key=lambda spelt: (fits[spelt], spelt), default=None)
    if best is None or fits[best] < LEAST_PAIR:
        return None
    column, name = sorted(vocabulary.latin_names[best])[-1]  # prefers a title to an artist
    wanted = NameReading(name, None) if column == "title" else NameReading(None, name)
    named = Known(vocabulary.table, [wanted]).named(wanted)
    if named is None:
        return None
    kind: Kind = "title" if column == "title" else "artist"
    return PartName(kind, named.title, named.artist, None, named.tracks, True)


def _pair(row: NamedRow, key: str) -> tuple[float, float]:
    title, artists = row[TITLE_KEY] or "", artist_keys(row)
    return (
        max(likeness(title + artist, key) for artist in artists),
        max(likeness(artist + title, key) for artist in artists),
    )


def _called(question: TokenizedQuery, key: str) -> str:
    """The key without leading words such as "songs from" and "the album"."""
    tokens = question.tokens
    first = 0
    for place, token in enumerate(tokens):
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
            first = place + 1
        else:
            break
    return question.key(first, len(tokens)) if 0 < first < len(tokens) else key


def bare_title(title: str | None) -> str:
    """The key of a title without brackets and guest artists."""
    return name_key(BRACKETS.sub("", title or "").strip()) or ""


def _is_title(row: NamedRow, key: str) -> bool:
    return bool(key) and key in (row[TITLE_KEY], bare_title(row["title"]))


def _names_both(row: NamedRow, words: set[str]) -> bool:
    """Whether the words are most of a track's title, with or without its artist, and no more."""
    whole = set(spoken_name(row["title"] or "").split())
    if len(words) > 1 and words <= whole:
        return len(words) >= MOST_OF_TITLE * len(whole)
    title = set(spoken_name(BRACKETS.sub("", row["title"] or "")).split())
    artist = set(spoken_name(row["artist"] or "").split())
    if not artist or not title or not artist <= words or not words <= title | artist:
        return False
    return len(words - artist) >= 1 and len(title & words) >= MOST_OF_TITLE * len(title)


def _part(kind: Kind, rows: Sequence[NamedRow], *, misspelt: bool = False) -> PartName:
    first = rows[0]
    tracks = tuple(row["track_id"] for row in rows)
    return PartName(kind, first["title"], first["artist"], None, tracks, misspelt)
