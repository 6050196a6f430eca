"""Words -> what is meant: a title, an artist, something similar to one, or a description.

43 % of real music queries name an artist (Doh et al. 2024), and no joint space finds a name. So
every way a query could be read as a name is looked up in the catalog at once, and the first
reading, in the order of `_exact`, that the catalog knows is taken. Only when none is, and the words
are not the catalog's own tags, typos are forgiven. What is left is a description.

Negations are taken out of a description ("piano, no vocals"), for they fail inside every joint
space; only tags of the catalog count, so that a stray "no" does no harm.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from typing import Any, Literal

from raymtr.errors import InputError
from raymtr.index.names import name_key, spoken_name
from raymtr.index.track_rows import ARTIST_KEY, ARTIST_KEYS, TITLE_KEY
from raymtr.index.track_table import TrackTable

LEAST_LIKENESS = 0.8  # of two keys, SequenceMatcher's ratio, to be taken for one name misspelt
MOST_NAME_WORDS = 10  # a longer query is no misspelt name
SPELT_LIKE = 50  # tracks looked at for a misspelt name

_POLITE = re.compile(
    r"^(?:please\s+)?(?:play|find|search(?:\s+for)?|show|give|get|put\s+on|listen\s+to"
    r"|i\s+want(?:\s+to\s+hear)?)\s+(?:me\s+)?(?:some\s+)?",
    re.IGNORECASE,
)
_THING = r"(?:songs?|music|tracks?|tunes?|albums?|pieces?|works?|hits?|artists?|bands?)"
_THINGS = rf"(?:{_THING}|anything|something|everything|stuff|more)"
_CALLED = re.compile(
    r"^(?:the\s+)?(?:music\s+)?(?:track|song|tune|piece)(?:\s+(?:called|named|titled))?\s+",
    re.IGNORECASE,
)
_SIMILAR = re.compile(
    rf"^(?:{_THINGS}\s+)*(?:that\s+)?(?:(?:is|are|sounds?)\s+)?"
    r"(?:(?:much\s+|very\s+)?similar\s+(?:music\s+track\s+with|(?:to|with)(?:\s+the)?(?:\s+artists?)?)"
    r"|like|(?:in\s+)?the\s+style\s+of|reminiscent\s+of|à\s+la)\s+(?P<name>.+)$",
    re.IGNORECASE,
)
_BUT = re.compile(r"\s*(?:,\s*(?:but\s+)?|;\s*|\s+but\s+|\s+only\s+)", re.IGNORECASE)
_ARTISTS_THINGS = re.compile(
    rf"^(?:(?:the\s+)?{_THINGS}\s+(?:by|from|of)\s+(?P<after>.+)|(?P<before>.+?)\s+{_THING})$",
    re.IGNORECASE,
)
_NEGATED = re.compile(
    r"(?:^|[,;]|\s)\s*(?:(?:and|but|with)\s+)?(?:no|without(?:\s+any)?)\s+"
    r"(?P<term>[^\W\d][\w -]*?)(?=\s*(?:[,;.]|$|\band\b|\bbut\b|\bwith\b))",
    re.IGNORECASE,
)
_QUOTES = "\"“”„«»'‘’`"


@dataclass(frozen=True, kw_only=True)
class Understood:
    """A query as it was understood. Names stand as the catalog spells them."""

    kind: Literal["title", "artist", "similar", "description"]
    text: str  # what the text tower and the words' index read
    title: str | None = None
    artist: str | None = None
    tracks: tuple[str, ...] = ()  # what the names stand for
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Reading:
    """One way to read (a part of) a query as names."""

    title: str | None
    artist: str | None
    rest: str = ""


def understand(text: str, table: TrackTable) -> Understood:
    """What `text` asks of the catalog in `table`."""
    plain = _POLITE.sub("", text) or text
    wholes = [r for variant in _variants(text, plain) for r in _whole_readings(variant)]
    similar = list(_similar_readings(plain))
    artists = list(_artist_readings(plain))
    known = _Known(table, [*wholes, *similar, *artists])
    found = known.first(wholes, "title")
    if found is not None:
        if spoken_name(text) in table.tags:  # "piano": a tag first, whatever else is called so
            return replace(found, kind="description", text=text)
        return replace(found, text=text)
    found = known.first(similar, "similar") or known.first(artists, "artist")
    # Part of a name, letter by letter, is no other name misspelt.
    if found is None and _may_be_misspelt(plain, table) and not table.match_names(plain, limit=1):
        found = _misspelt(text, wholes, similar, artists, table)
    return found or _description(text, table)


def similar_artist(name: str, table: TrackTable) -> Understood:
    """What `similar to` asks of this very artist, whatever else its name could be read as.

    Raises InputError where neither a track nor the artist graph has the name.
    """
    named = [_Reading(None, name)]
    found = _Known(table, named).first(named, "similar")
    if found is None:
        raise InputError(f"no artist {name!r} in this catalog")
    return found


def _misspelt(
    text: str,
    wholes: list[_Reading],
    similar: list[_Reading],
    artists: list[_Reading],
    table: TrackTable,
) -> Understood | None:
    """The best reading as names give or take some letters."""
    if similar:
        names = {reading.title or reading.artist or "" for reading in similar}
        return _Known(table, [], spelt_like=sorted(names)).first(similar, "similar")
    known = _Known(table, [], spelt_like=[text])
    found = known.first(wholes, "title")
    return replace(found, text=text) if found else known.first(artists, "artist")


def _variants(text: str, plain: str) -> list[str]:
    called = _CALLED.sub("", plain)
    return list(dict.fromkeys(v for v in (text, plain, called, called.strip(_QUOTES)) if v.strip()))


def _whole_readings(text: str) -> Iterator[_Reading]:
    """Title by artist, in every place it could be cut; a title; an artist."""
    for cut in re.finditer(r"\s+by\s+", text, re.IGNORECASE):
        title, artist = text[: cut.start()].strip(_QUOTES), text[cut.end() :]
        yield _Reading(title, artist)
        for album in re.finditer(r"\s+from\s+", artist, re.IGNORECASE):
            yield _Reading(title, artist[: album.start()])
    for cut in re.finditer(r"\s+[-–—]\s+|\s*:\s+", text):
        first, second = text[: cut.start()].strip(_QUOTES), text[cut.end() :].strip(_QUOTES)
        yield _Reading(second, first)
        yield _Reading(first, second)
    yield _Reading(text, None)
    yield _Reading(None, text)


def _similar_readings(text: str) -> Iterator[_Reading]:
    """What stands after "similar to"; what follows a comma or a "but" is the rest."""
    match = _SIMILAR.match(text)
    if match is None:
        return
    name = match["name"]
    pieces = [(name, "")]
    pieces += [(name[: cut.start()], name[cut.end() :]) for cut in _BUT.finditer(name)]
    for head, rest in pieces:
        for reading in _whole_readings(head.strip(_QUOTES)):
            yield replace(reading, rest=rest)


def _artist_readings(text: str) -> Iterator[_Reading]:
    """ "songs by Y", "Y songs", "calm songs by Y"."""
    match = _ARTISTS_THINGS.match(text)
    if match is not None:
        yield _Reading(None, match["after"] or match["before"])
    for cut in re.finditer(r"\s+by\s+", text, re.IGNORECASE):
        yield _Reading(None, text[cut.end() :], rest=text[: cut.start()])


class _Known:
    """What the catalog knows of the names in some readings, asked once."""

    def __init__(
        self, table: TrackTable, readings: list[_Reading], spelt_like: list[str] | None = None
    ) -> None:
        self._table, self._loose = table, spelt_like is not None
        names = {name for r in readings for name in (r.title, r.artist) if name}
        if spelt_like is None:
            self._rows = table.named(filter(None, map(name_key, names)))
        else:
            found = [row for name in spelt_like for row in table.spelt_like(name, limit=SPELT_LIKE)]
            self._rows = list({row["track_id"]: row for row in found}.values())

    def first(self, readings: list[_Reading], kind: Any) -> Understood | None:
        """The first reading the catalog knows."""
        for reading in readings:
            rows = self._matching(reading)
            if rows:
                return _understood(reading, rows, kind)
            alone = kind == "similar" and reading.artist and not reading.title
            if alone and self._table.similar_to(name_key(reading.artist) or ""):
                return Understood(kind="similar", text=reading.rest, artist=reading.artist)
        return None

    def _matching(self, reading: _Reading) -> list[dict[str, Any]]:
        """Rows that fit all names of a reading; loosely: the rows that fit best, if well enough."""
        wanted = [
            (column, name_key(name))
            for column, name in ((TITLE_KEY, reading.title), (ARTIST_KEY, reading.artist))
            if name is not None
        ]
        fits = [min(self._best_fit(row, *each) for each in wanted) for row in self._rows]
        best = max(fits, default=0.0)
        if best < LEAST_LIKENESS:
            return []
        rows = [row for row, fit in zip(self._rows, fits, strict=True) if fit == best]
        return [row for row in rows if _same_letters(row, reading)] or rows

    def _best_fit(self, row: dict[str, Any], column: str, wanted: str | None) -> float:
        """How well a title fits, or that of a track's artists who fits best."""
        keys = [row[column]]
        if column == ARTIST_KEY:
            keys += row.get(ARTIST_KEYS) or ()
        return max(self._fit(key, wanted) for key in keys)

    def _fit(self, key: str | None, wanted: str | None) -> float:
        if not key or not wanted:
            return 0.0
        if self._loose:
            return SequenceMatcher(None, key, wanted, autojunk=False).ratio()
        return float(key == wanted)


def _same_letters(row: dict[str, Any], reading: _Reading) -> bool:
    """Whether the names are written as typed: "Sun" is first of all Sun, then The Sun."""
    typed = [(reading.title, row["title"]), (reading.artist, _artist_of(row, reading.artist))]
    return all(name.casefold() == spelt.casefold() for name, spelt in typed if name and spelt)


def _artist_of(row: dict[str, Any], name: str | None) -> str | None:
    """The name of the one of a track's artists who is meant, else as the track shows them all."""
    shown: str | None = row["artist"]
    if name is None or name_key(shown) == name_key(name):
        return shown if name is not None else None
    artists = row.get("artists") or ()
    return next((one for one in artists if name_key(one) == name_key(name)), shown)


def _understood(reading: _Reading, rows: list[dict[str, Any]], kind: Any) -> Understood:
    by_title = reading.title is not None
    return Understood(
        kind="artist" if kind == "title" and not by_title else kind,
        text=reading.rest,
        title=rows[0]["title"] if by_title else None,
        artist=_artist_of(rows[0], reading.artist),
        tracks=tuple(row["track_id"] for row in rows),
    )


def _may_be_misspelt(text: str, table: TrackTable) -> bool:
    words = spoken_name(text).split()
    strange = [word for word in words if word not in table.tag_words]
    return len(words) <= MOST_NAME_WORDS and 2 * len(strange) >= len(words)


def _description(text: str, table: TrackTable) -> Understood:
    exclude = []
    for match in _NEGATED.finditer(text):
        term = spoken_name(match["term"])
        if term in table.tags or f"{term}s" in table.tags or term.removesuffix("s") in table.tags:
            exclude.append(term)
            text = text.replace(match[0], " ", 1)
    kept = re.sub(r"\s+(?=[\s,;])", "", text).strip(" ,;")
    return Understood(kind="description", text=kept, exclude=tuple(exclude))
