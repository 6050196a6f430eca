"""Reads a query as a title, an artist or both, and looks the readings up in the catalog.

43 % of real music queries name an artist (Doh et al. 2024), and a joint embedding space does not
find names. So all readings are looked up in one call, and the first one that the catalog has is
used.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from raymtr.index.track_rows import ARTIST_KEY, ARTIST_KEYS, TITLE_KEY, NamedRow
from raymtr.index.track_table import TrackTable
from raymtr.names import name_key

LEAST_SIMILARITY = 0.8  # minimum SequenceMatcher ratio of two keys that count as one misspelt name
SPELT_LIKE = 50  # tracks compared for a misspelt name
MOST_CUTS = 10  # maximum words of a query split into title and artist without a separator

_POLITE = re.compile(
    r"^(?:(?:hey|hi|hello)[,!]?\s+)?(?:(?:can|could|would)\s+you\s+)?(?:please\s+)?"
    r"(?:play|find|search(?:\s+for)?|show|give|get|put\s+on|listen\s+to|recommend|suggest"
    r"|i(?:['’]d|\s+would)?\s+(?:want|like|love)(?:\s+to\s+(?:hear|listen\s+to))?"
    r"|what\s+(?:was|is)\s+(?:that|the)\s+(?:song|track|tune)"
    r"|spiel(?:e|\s+mir)?|zeig(?:e|\s+mir)?|joue(?:z|-moi)?|mets(?:-moi)?|pon(?:me)?|toca(?:r)?"
    r"|metti|suona|включи|поставь|найди)\s+(?:me\s+)?(?:some\s+)?",
    re.IGNORECASE,
)
_POLITE_AFTER = re.compile(
    r"[\s,]+(?:please|thanks|thank\s+you|for\s+me|pls|bitte|por\s+favor|per\s+favore"
    r"|s['’]il\s+te\s+pla[iî]t|пожалуйста|now)[.!?]*$",
    re.IGNORECASE,
)
THING = r"(?:songs?|music|tracks?|tunes?|albums?|pieces?|works?|hits?|artists?|bands?)"
THINGS = rf"(?:{THING}|anything|something|everything|stuff|more)"
_CALLED = re.compile(
    r"^(?:(?:the|a|that|some)\s+)?(?:(?:music\s+)?(?:track|song|tune|piece)"
    r"(?:\s+(?:called|named|titled))?"
    r"|(?:something|anything|one|stuff|tracks|songs)\s+(?:called|named|titled))\s+",
    re.IGNORECASE,
)
_ARTISTS_THINGS = re.compile(
    rf"^(?:(?:the\s+|popular\s+|best\s+|all\s+)*{THINGS}\s+(?:by|from|of)\s+(?P<after>.+)"
    rf"|(?P<before>.+?)\s+{THING})$",
    re.IGNORECASE,
)
_FROM = re.compile(r"(?<!,)\s+from\s+(?!(?:the\s+)?['’]?\d{2,4}s?\b)", re.IGNORECASE)
QUOTES = "\"“”„«»'‘’`"
BRACKETS = re.compile(
    r"\s*(?:\([^()]*\)|\[[^\[\]]*\]|(?:-\s+)?\b(?:feat|ft)\.?\s.*$"
    r"|\s-\s+[^-]*\b(?:re)?(?:edit|mix|version|remaster(?:ed)?|instrumental|take|live)\b.*$)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class NameReading:
    """One way to read a query, or a part of it, as names."""

    title: str | None
    artist: str | None


@dataclass(frozen=True)
class NameMatch:
    """The tracks that a reading refers to, with the names in the catalog's spelling."""

    title: str | None
    artist: str | None
    tracks: tuple[str, ...]


def variants(text: str) -> list[str]:
    """The text itself, and the text without polite phrases and "the song called"."""
    plain = without_politeness(text)
    called = _CALLED.sub("", plain)
    forms = (text, plain, called, called.strip(QUOTES))
    return list(dict.fromkeys(form for form in forms if form.strip()))


def without_politeness(text: str) -> str:
    """A text without "please play me some" and the like; the full text if nothing would remain."""
    plain = _POLITE_AFTER.sub("", text)
    return _POLITE.sub("", plain).strip() or plain or text


def whole_readings(text: str, *, album: bool = True) -> Iterator[NameReading]:
    """Readings of a whole text: title by artist at every possible split, a title, an artist.

    With `album`, any words after "from", other than a year, may name the album.
    """
    for cut in re.finditer(r"\s+(?:by|from|de|von|di)\s+", text, re.IGNORECASE):
        title, artist = text[: cut.start()].strip(QUOTES), text[cut.end() :]
        yield NameReading(title, artist)
        for source in _FROM.finditer(artist) if album else ():
            yield NameReading(title, artist[: source.start()])
    for cut in re.finditer(r"\s+[-–—]\s+|\s*[:,]\s+", text):
        first, second = text[: cut.start()].strip(QUOTES), text[cut.end() :].strip(QUOTES)
        yield NameReading(second, first)
        yield NameReading(first, second)
    yield NameReading(text, None)
    yield NameReading(None, text)


def side_by_side(text: str) -> Iterator[NameReading]:
    """Readings as title and artist in either order without a separator."""
    words = text.split()
    if len(words) > MOST_CUTS:
        return
    for cut in range(1, len(words)):
        first, second = " ".join(words[:cut]), " ".join(words[cut:])
        yield NameReading(first.strip(QUOTES), second.strip(QUOTES))
        yield NameReading(second.strip(QUOTES), first.strip(QUOTES))


def artist_readings(text: str) -> Iterator[NameReading]:
    """Readings such as "songs by Y" and "Y songs"."""
    match = _ARTISTS_THINGS.match(text)
    if match is not None:
        yield NameReading(None, match["after"] or match["before"])


class CatalogNames:
    """The catalog's tracks under the names in some readings, from a single look-up.

    With `rows` (tracks with similarly spelt names) matching is fuzzy: a name may differ by a few
    letters.
    """

    def __init__(
        self,
        table: TrackTable,
        readings: Iterable[NameReading] = (),
        spans: Iterable[str] = (),
        rows: Sequence[NamedRow] | None = None,
    ) -> None:
        self._fuzzy = rows is not None
        self._table = table
        names = {name for r in readings for name in (r.title, r.artist) if name}
        keys = [key for key in map(name_key, (*names, *spans)) if key]
        self.rows = list(rows) if rows is not None else table.named(dict.fromkeys(keys))
        self._by_title: dict[str | None, list[NamedRow]] = {}
        self._by_artist: dict[str, list[NamedRow]] = {}
        for row in self.rows:
            self._by_title.setdefault(row[TITLE_KEY], []).append(row)
            for key in {row[ARTIST_KEY], *(row.get(ARTIST_KEYS) or ())}:
                self._by_artist.setdefault(key, []).append(row)

    def first(self, readings: Iterable[NameReading]) -> NameMatch | None:
        """The match of the first reading that the catalog has."""
        return next((named for named in map(self.match, readings) if named), None)

    def match(self, reading: NameReading) -> NameMatch | None:
        """The tracks that a reading refers to; None if there are none."""
        rows = self._matching(reading)
        if not rows:
            return None
        return NameMatch(
            title=rows[0]["title"] if reading.title is not None else None,
            artist=artist_of(rows[0], reading.artist),
            tracks=tuple(row["track_id"] for row in rows),
        )

    def complete(self, named: NameMatch) -> NameMatch:
        """The match with all tracks of its artist; `rows` may lack some of them."""
        if named.title is not None or named.artist is None:
            return named
        reading = NameReading(None, named.artist)
        return CatalogNames(self._table, [reading]).match(reading) or named

    def in_graph(self, name: str) -> bool:
        """Whether the artist graph has an artist."""
        return bool(self._table.similar_to(name_key(name) or ""))

    def _matching(self, reading: NameReading) -> list[NamedRow]:
        rows = self._similar(reading) if self._fuzzy else self._equal(reading)
        return [row for row in rows if _same_letters(row, reading)] or rows

    def _equal(self, reading: NameReading) -> list[NamedRow]:
        title, artist = name_key(reading.title), name_key(reading.artist)
        if reading.title is not None and reading.artist is not None:
            found = self._by_title.get(title or "", ())
            return [row for row in found if artist and artist in artist_keys(row)]
        if reading.title is not None:
            return self._by_title.get(title, []) if title else []
        return self._by_artist.get(artist, []) if artist else []

    def _similar(self, reading: NameReading) -> list[NamedRow]:
        title, artist = name_key(reading.title), name_key(reading.artist)
        similarities = []
        for row in self.rows:
            parts = []
            if reading.title is not None:
                parts.append(similarity(row[TITLE_KEY], title))
            if reading.artist is not None:
                parts.append(max(similarity(key, artist) for key in artist_keys(row)))
            similarities.append(min(parts))
        best = max(similarities, default=0.0)
        if best < LEAST_SIMILARITY:
            return []
        return [row for row, one in zip(self.rows, similarities, strict=True) if one == best]


def artist_keys(row: NamedRow) -> set[str]:
    """The keys of a track's artists, and of the displayed artist text."""
    return {key for key in (row[ARTIST_KEY], *(row.get(ARTIST_KEYS) or ())) if key} or {""}


def similarity(first: str | None, second: str | None) -> float:
    """The similarity of two keys, 0 to 1: SequenceMatcher's ratio, 0 if it is surely too low."""
    if not first or not second:
        return 0.0
    if first == second:
        return 1.0
    longer, shorter = max(len(first), len(second)), min(len(first), len(second))
    if 2 * shorter / (longer + shorter) < LEAST_SIMILARITY:  # upper bound of the ratio
        return 0.0
    return SequenceMatcher(None, first, second, autojunk=False).ratio()


def _same_letters(row: NamedRow, reading: NameReading) -> bool:
    """Whether the track's names are spelt as typed: "Sun" prefers Sun to The Sun."""
    typed = [(reading.title, row["title"]), (reading.artist, artist_of(row, reading.artist))]
    return all(name.casefold() == spelt.casefold() for name, spelt in typed if name and spelt)


def artist_of(row: NamedRow, name: str | None) -> str | None:
    """The track's artist with the name `name`, else the displayed artist text."""
    shown: str | None = row["artist"]
    if name is None or name_key(shown) == name_key(name):
        return shown if name is not None else None
    artists = row.get("artists") or ()
    return next((one for one in artists if name_key(one) == name_key(name)), shown)
