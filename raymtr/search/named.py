"""Reads a query as a title, an artist or both, and looks the readings up in the catalog.

43 % of real music queries name an artist (Doh et al. 2024), and a joint embedding space does not
find names. All readings are therefore looked up in one call, and the first known one is used.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from raymtr.index.track_rows import ARTIST_KEY, ARTIST_KEYS, TITLE_KEY, NamedRow
from raymtr.index.track_table import TrackTable
from raymtr.names import name_key

LEAST_LIKENESS = 0.8  # minimum SequenceMatcher ratio of two keys that count as one misspelt name
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
class Named:
    """What the catalog has under some names, in its own spelling."""

    title: str | None
    artist: str | None
    tracks: tuple[str, ...]


def variants(text: str) -> list[str]:
    """A text, and the text without polite phrases and "the song called"."""
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

    `album` allows any words after "from", other than a year, to name the album.
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


class Known:
    """What the catalog knows of the names in some readings, from a single look-up.

    With `rows`, which are tracks with similarly spelt names, a name may differ by a few letters.
    """

    def __init__(
        self,
        table: TrackTable,
        readings: Iterable[NameReading] = (),
        spans: Iterable[str] = (),
        rows: Sequence[NamedRow] | None = None,
    ) -> None:
        self._loose = rows is not None
        self._graph = table
        names = {name for r in readings for name in (r.title, r.artist) if name}
        keys = [key for key in map(name_key, (*names, *spans)) if key]
        self.rows = list(rows) if rows is not None else table.named(dict.fromkeys(keys))
        self._by_title: dict[str | None, list[NamedRow]] = {}
        self._by_artist: dict[str, list[NamedRow]] = {}
        for row in self.rows:
            self._by_title.setdefault(row[TITLE_KEY], []).append(row)
            for key in {row[ARTIST_KEY], *(row.get(ARTIST_KEYS) or ())}:
                self._by_artist.setdefault(key, []).append(row)

    def first(self, readings: Iterable[NameReading]) -> Named | None:
        """The first reading that the catalog knows."""
        return next((named for named in map(self.named, readings) if named), None)

    def named(self, reading: NameReading) -> Named | None:
        """What a reading refers to."""
        rows = self._matching(reading)
        if not rows:
            return None
        return Named(
            title=rows[0]["title"] if reading.title is not None else None,
            artist=artist_of(rows[0], reading.artist),
            tracks=tuple(row["track_id"] for row in rows),
        )

    def all_of(self, named: Named) -> Named:
        """The same name with all its tracks; rows with similar spellings are only a sample."""
        if named.title is not None or named.artist is None:
            return named
        wanted = NameReading(None, named.artist)
        return Known(self._graph, [wanted]).named(wanted) or named

    def in_graph(self, name: str) -> bool:
        """Whether the artist graph knows an artist."""
        return bool(self._graph.similar_to(name_key(name) or ""))

    def _matching(self, reading: NameReading) -> list[NamedRow]:
        rows = self._alike(reading) if self._loose else self._equal(reading)
        return [row for row in rows if _same_letters(row, reading)] or rows

    def _equal(self, reading: NameReading) -> list[NamedRow]:
        title, artist = name_key(reading.title), name_key(reading.artist)
        if reading.title is not None and reading.artist is not None:
            found = self._by_title.get(title or "", ())
            return [row for row in found if artist and artist in artist_keys(row)]
        if reading.title is not None:
            return self._by_title.get(title, []) if title else []
        return self._by_artist.get(artist, []) if artist else []

    def _alike(self, reading: NameReading) -> list[NamedRow]:
        title, artist = name_key(reading.title), name_key(reading.artist)
        fits = []
        for row in self.rows:
            parts = []
            if reading.title is not None:
                parts.append(likeness(row[TITLE_KEY], title))
            if reading.artist is not None:
                parts.append(max(likeness(key, artist) for key in artist_keys(row)))
            fits.append(min(parts))
        best = max(fits, default=0.0)
        if best < LEAST_LIKENESS:
            return []
        return [row for row, fit in zip(self.rows, fits, strict=True) if fit == best]


def artist_keys(row: NamedRow) -> set[str]:
    """The keys of a track's artists, and of the text that displays them all."""
    return {key for key in (row[ARTIST_KEY], *(row.get(ARTIST_KEYS) or ())) if key} or {""}


def likeness(first: str | None, second: str | None) -> float:
    """The likeness of two keys, 0 to 1."""
    if not first or not second:
        return 0.0
    if first == second:
        return 1.0
    longer, shorter = max(len(first), len(second)), min(len(first), len(second))
    if 2 * shorter / (longer + shorter) < LEAST_LIKENESS:  # upper bound of the ratio
        return 0.0
    return SequenceMatcher(None, first, second, autojunk=False).ratio()


def _same_letters(row: NamedRow, reading: NameReading) -> bool:
    """Whether the names are written as typed: "Sun" prefers Sun to The Sun."""
    typed = [(reading.title, row["title"]), (reading.artist, artist_of(row, reading.artist))]
    return all(name.casefold() == spelt.casefold() for name, spelt in typed if name and spelt)


def artist_of(row: NamedRow, name: str | None) -> str | None:
    """The name of the track's artist that is meant, else the displayed artist text."""
    shown: str | None = row["artist"]
    if name is None or name_key(shown) == name_key(name):
        return shown if name is not None else None
    artists = row.get("artists") or ()
    return next((one for one in artists if name_key(one) == name_key(name)), shown)
