"""Extracts facets from a query: year, duration, tempo, key, metre and other columns.

Each facet becomes a condition in the filter language, on a column of this catalog. A facet on a
column that the catalog lacks is reported as ignored. Values that people usually round get a margin.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from raymtr.search.facet_patterns import (
    ABOUT,
    AFTER,
    AND,
    BEFORE,
    BETWEEN,
    HOUR,
    LESS,
    MINUTE,
    MORE,
    OVER,
    SECOND,
    THING,
    UNDER,
    YEAR,
)
from raymtr.search.lexicon import Lexicon
from raymtr.search.musical_key import read_key
from raymtr.search.slots import Facet, Ignored
from raymtr.search.tokens import phrase_key
from raymtr.search.vocabulary import CatalogVocabulary

TEMPO, KEY, METER = ("bpm", "tempo_bpm", "tempo"), ("key", "musical_key"), ("meter", "metre")
ABOUT_BPM, ABOUT_TIME = 0.04, 0.15  # margins of a single tempo and a single duration, as shares
SHORT_S, LONG_S = 120, 360  # the longest "short song", the shortest "long song"
THIS_CENTURY = 40  # the highest two-digit year of this century
_EARLY, _MID, _LATE = (0, 3), (4, 6), (6, 9)  # year offsets within a decade


@dataclass(frozen=True)
class FoundFacet:
    """A slot with its position in the text, in characters."""

    start: int
    end: int
    slot: Facet | Ignored


def find_facets(text: str, vocabulary: CatalogVocabulary) -> list[FoundFacet]:
    """Every facet in a text, in order, without overlaps."""
    lower = "".join(c.lower() if len(c.lower()) == 1 else c for c in text)
    taken: list[FoundFacet] = []
    for read in (_durations, _tempos, _years, _keys, _meters, _others):
        for found in read(lower, text, vocabulary):
            if all(found.end <= other.start or other.end <= found.start for other in taken):
                taken.append(found)
    return sorted(taken, key=lambda found: found.start)


def _years(lower: str, text: str, vocabulary: CatalogVocabulary) -> Iterator[FoundFacet]:
    column = "year" if "year" in vocabulary.columns else None
    if column is None and _decade_is_tag(lower, vocabulary):
        return

    def found(match: re.Match[str], low: int | None, high: int | None) -> FoundFacet:
        return _ranged(match, text, column, "year", low, high)

    for match in re.finditer(rf"(?:{BETWEEN}\s+)?\b{YEAR}{AND}{YEAR}\b", lower):
        yield found(match, int(match[1]), int(match[2]))
    for match in re.finditer(rf"\b(?:not|no) (older|earlier|newer|later) than {YEAR}\b", lower):
        from_there = match[1] in ("older", "earlier")
        yield found(match, *((int(match[2]), None) if from_there else (None, int(match[2]))))
    for match in re.finditer(rf"\b{BEFORE}\s*(?:the year )?{YEAR}\b", lower):
        yield found(match, None, int(match[1]) - 1)
    on = r"(?:\s*(?:on|onwards?|and later|or later|and newer|or newer))"
    for match in re.finditer(rf"\b(?:from|starting)\s+{YEAR}{on}\b", lower):
        yield found(match, int(match[1]), None)
    for match in re.finditer(rf"\b{AFTER}\s*(?:the year )?{YEAR}\b", lower):
        word = match[0].split()[0]
        if word == "from":
            yield found(match, int(match[1]), int(match[1]))
        else:
            yield found(
                match, int(match[1]) + (word not in ("since", "seit", "ab", "depuis")), None
            )
    yield from _decades(lower, text, column, vocabulary.lexicon)
    for match in re.finditer(r"(?:\b(?:from|in)\s+)?(?<!\w)['’](\d\d)\b(?!['’]?s)", lower):
        year = int(match[1])
        yield found(match, *(2 * [year + (1900 if year > THIS_CENTURY else 2000)]))
    near = (
        r"(?:\b(?:from|in|of|year|the year|im jahr|aus|von|en|del?|du|do|recorded in|released in)"
        r"\s+)?"
    )
    for match in re.finditer(rf"{near}(?<![\d:./]){YEAR}(?![\d:./]|\s*bpm)", lower):
        if column is not None or match[0] != match[1]:
            yield found(match, int(match[1]), int(match[1]))


def _decades(lower: str, text: str, column: str | None, lexicon: Lexicon) -> Iterator[FoundFacet]:
    words = "|".join(sorted(lexicon.decades, key=len, reverse=True))
    digits = (
        r"(?:(?P<full>1[89]\d0|20[0-4]0)|['’]?(?P<short>[1-9]0|00))"
        r"(?:['’]?s\b|er[nj]?\b|er jahren?\b|年代)"
    )
    roman = r"(?:années|años|anos|anni)\s+['’]?(?P<after>\d0|(?:19|20)\d0)\b"
    part = (
        r"(?:(?P<part>early|mid|middle|late|beginning|end|frühe?n?|späte?n?)[\s-]+"
        r"(?:of\s+the\s+|the\s+)?)?"
    )
    lead = r"(?:\b(?:from|in|of|aus|den|the|der|des|de los|dos|degli)\s+(?:the\s+|den\s+)?)?"
    edge = rf"(?P<edge>{BEFORE}\s+(?:the\s+)?|{AFTER}\s+(?:the\s+)?)?"
    pattern = rf"{edge}{lead}{part}(?:{digits}|{roman}|\b(?P<word>{words})\b)"
    for match in re.finditer(pattern, lower):
        name = match["full"] or match["short"] or match["after"]
        first = lexicon.decades[match["word"]] if match["word"] else int(name)
        if first < 100:
            first += 2000 if first <= 10 else 1900
        low, high = {"e": _EARLY, "b": _EARLY, "f": _EARLY, "m": _MID}.get(
            (match["part"] or "-")[0], (0, 9)
        )
        if (match["part"] or "").startswith(("late", "end", "spät")):
            low, high = _LATE
        bounds: tuple[int | None, int | None] = first + low, first + high
        word = next(iter((match["edge"] or "").split()), "from")
        if re.fullmatch(BEFORE, word):
            bounds = None, first - 1
        elif word in ("since", "seit", "depuis", "desde"):
            bounds = first, None
        elif word != "from":
            bounds = first + 10, None
        yield _ranged(match, text, column, "year", *bounds)


def _decade_is_tag(lower: str, vocabulary: CatalogVocabulary) -> bool:
    names = [f"{match[0]}s" for match in re.finditer(r"\b\d\d(?=['’]?s\b)", lower)]
    names += [name for name in vocabulary.lexicon.decades if name in lower]
    return any((meaning := vocabulary.meaning(phrase_key(name))) and meaning.tags for name in names)


def _durations(lower: str, text: str, vocabulary: CatalogVocabulary) -> Iterator[FoundFacet]:
    column = vocabulary.column(("duration",))
    unit = rf"(?P<unit>{MINUTE}|{SECOND}|{HOUR})"
    number = _number(vocabulary.lexicon)

    def seconds(match: re.Match[str], group: str) -> float:
        number = re.sub(r"\s+", " ", match[group])
        known = vocabulary.lexicon.numbers
        value = known[number] if number in known else float(number.replace(",", "."))
        if re.fullmatch(HOUR, match["unit"]):
            return 3600 * value
        return value * (1 if re.fullmatch(rf"{SECOND}|s", match["unit"]) else 60)

    def found(match: re.Match[str], low: float | None, high: float | None) -> FoundFacet:
        return _ranged(match, text, column, "duration", low, high)

    first = unit.replace("unit", "first")
    two = rf"(?:{BETWEEN}\s+)?(?P<n>{number})\s*{first}?{AND}(?P<m>{number})"
    for match in re.finditer(rf"{two}[\s-]*{unit}", lower):
        yield found(match, seconds(match, "n"), seconds(match, "m"))
    one = rf"(?P<n>{number})[\s-]*{unit}(?:\s+(?:long|in length|duration))?"
    brief = one.replace(HOUR, rf"{HOUR}|s\b")  # "< 60s", where "60s" alone is a decade
    for pattern in (rf"{one}\s*(?:or|oder)\s+{LESS}", rf"{UNDER}\s*{brief}"):
        for match in re.finditer(pattern, lower):
            yield found(match, None, seconds(match, "n"))
    plus = rf"(?P<n>{number})\s*\+[\s-]*{unit}"
    for pattern in (plus, rf"{one}\s*(?:\+|(?:or|oder)\s+{MORE})", rf"{OVER}\s*{brief}"):
        for match in re.finditer(pattern, lower):
            yield found(match, seconds(match, "n"), None)
    for match in re.finditer(rf"(?:\b{ABOUT}\s+)?(?<![\w.]){one}", lower):
        value = seconds(match, "n")
        yield found(match, (1 - ABOUT_TIME) * value, (1 + ABOUT_TIME) * value)
    for match in re.finditer(rf"\b(short|long)\s+(?=(?:[\w-]+\s+){{0,2}}{THING}\b)", lower):
        short = match[1] == "short"
        yield found(match, None if short else LONG_S, SHORT_S if short else None)


def _tempos(lower: str, text: str, vocabulary: CatalogVocabulary) -> Iterator[FoundFacet]:
    column = vocabulary.column(TEMPO)
    unit = r"\s*(?:bpm|beats per minute|beats/min)"
    number = r"(\d{2,3}(?:\.\d+)?)"

    def found(match: re.Match[str], low: float | None, high: float | None) -> FoundFacet:
        return _ranged(match, text, column, "tempo", low, high)

    for match in re.finditer(rf"(?:{BETWEEN}\s+)?{number}(?:{unit})?{AND}{number}{unit}", lower):
        yield found(match, float(match[1]), float(match[2]))
    for match in re.finditer(
        rf"\b(?:bpm|tempo)[\s:=]*(?:of\s+|{BETWEEN}\s+)?{number}{AND}{number}", lower
    ):
        yield found(match, float(match[1]), float(match[2]))
    for match in re.finditer(rf"{UNDER}\s*{number}{unit}", lower):
        yield found(match, None, float(match[1]))
    for match in re.finditer(rf"{OVER}\s*{number}{unit}", lower):
        yield found(match, float(match[1]), None)
    for match in re.finditer(
        rf"(?:\b{ABOUT}\s+)?(?:{number}{unit}|(?:bpm|tempo)[\s:=]*(?:of\s+)?(\d{{2,3}}))", lower
    ):
        value = float(match[1] or match[2])
        yield found(match, (1 - ABOUT_BPM) * value, (1 + ABOUT_BPM) * value)


def _keys(lower: str, text: str, vocabulary: CatalogVocabulary) -> Iterator[FoundFacet]:
    column = vocabulary.column(KEY)
    note = r"(?P<note>[a-h](?:\s*(?:sharp|flat|#|♯|♭)|-sharp|-flat|b(?=\s|$)|is\b|es\b)?)"
    modes = r"major|minor|maj\b|min\b|moll|dur|mayor|menor|majeur|mineur|maggiore|minore"
    mode = rf"[\s-]*(?P<mode>{modes})"
    lead = (
        r"(?:\b(?:in|en)\s+(?:the\s+)?(?:key\s+(?:of\s+)?)?|\b(?:the\s+)?key\s*(?:of|=|:|is)?\s+)"
    )
    after = r"(?!\s*(?:key|mood|mode|scale|way|chords?|feel)\b)"
    yield from _modes(lower, text, column, vocabulary)
    patterns = (
        rf"^\s*{note}(?P<mode>m|maj|min)\s*$",
        rf"{lead}?(?<![\w'’]){note}{mode}\b{after}",
        rf"{lead}{note}(?P<mode>m)?(?=\s*(?:$|[,;.!?]|\band\b|\bbut\b|\bfor\b|\bwith\b))",
        rf"\bkey\s+(?:of\s+)?{note}(?P<mode>m)?\b",
    )
    for pattern in patterns:
        for match in re.finditer(pattern, lower):
            requested = read_key(f"{match['note']} {match['mode'] or ''}")
            if requested is None:
                continue
            words = text[match.start() : match.end()].strip()
            if column is None:
                yield _missing(match, words, "key")
                continue
            read = {value: read_key(value) for value in vocabulary.values(column)}
            values = [value for value, key in read.items() if key == requested]
            where = f"{column} in ({', '.join(map(quoted, values))})"
            separate_mode = not any(key and key[1] == "minor" for key in read.values())
            if separate_mode and "mode" in vocabulary.columns:  # modes have their own column
                values = [value for value, key in read.items() if key and key[0] == requested[0]]
                among = ", ".join(map(quoted, values))
                where = f"{column} in ({among}) and mode = '{requested[1]}'"
            if values:
                yield FoundFacet(*_span(match), Facet(column=column, where=where, words=words))
            else:
                why = f"no track of this catalog has the key {words}"
                yield FoundFacet(*_span(match), Ignored(words=words, why=why))


def _modes(
    lower: str, text: str, column: str | None, vocabulary: CatalogVocabulary
) -> Iterator[FoundFacet]:
    """ "In a minor key" without a tag for it: all keys of that mode."""
    for match in re.finditer(r"(?:\bin\s+)?(?:\ba\s+)?\b(minor|major)(?:\s+|-)keys?\b", lower):
        values = [
            value
            for value in (vocabulary.values(column) if column else ())
            if (key := read_key(value)) and key[1] == match[1]
        ]
        if values and not vocabulary.tag(f"{match[1]}key"):
            where = f"{column} in ({', '.join(map(quoted, values))})"
            words = text[match.start() : match.end()].strip()
            slot = Facet(column=column or "", where=where, words=words)
            yield FoundFacet(*_span(match), slot)


def _meters(lower: str, text: str, vocabulary: CatalogVocabulary) -> Iterator[FoundFacet]:
    column = vocabulary.column((*METER, "time_signature"))
    for match in re.finditer(
        r"(?:\bin\s+)?\b(\d{1,2}/\d{1,2})\b(?:[\s-]*(?:time|met(?:er|re)|signature|takt|beat)\b)?",
        lower,
    ):
        words = text[match.start() : match.end()]
        if column is None:
            yield _missing(match, words, "metre")
        elif match[1] in vocabulary.values(column):
            where = f"{column} = {quoted(match[1])}"
            yield FoundFacet(*_span(match), Facet(column=column, where=where, words=words))
        else:
            yield FoundFacet(
                *_span(match),
                Ignored(words=words, why=f"no track of this catalog is in {match[1]}"),
            )


def _others(lower: str, text: str, vocabulary: CatalogVocabulary) -> Iterator[FoundFacet]:
    """Conditions such as `<column> over 5` on any numeric column."""
    for column in vocabulary.number_columns():
        name = re.escape(column.lower()).replace("_", "[ _]")
        for sign, words in (("<", UNDER), (">", OVER), ("=", r"(?:=|is|of|:)")):
            for match in re.finditer(rf"\b{name}\s*(?:is\s+)?{words}\s*(-?\d+(?:\.\d+)?)", lower):
                where = f"{column} {sign} {match[1]}"
                phrase = text[match.start() : match.end()]
                yield FoundFacet(*_span(match), Facet(column=column, where=where, words=phrase))


def _ranged(
    match: re.Match[str],
    text: str,
    column: str | None,
    name: str,
    low: float | None,
    high: float | None,
) -> FoundFacet:
    words = text[match.start() : match.end()].strip()
    if column is None:
        return _missing(match, words, name)
    if low is not None and low == high:
        where = f"{column} = {low:g}"
    else:
        edges = ((">=", low), ("<=", high))
        where = " and ".join(
            f"{column} {sign} {edge:g}" for sign, edge in edges if edge is not None
        )
    return FoundFacet(*_span(match), Facet(column=column, where=where, words=words))


def _missing(match: re.Match[str], words: str, name: str) -> FoundFacet:
    return FoundFacet(*_span(match), Ignored(words=words, why=f"no {name} in this catalog"))


def _span(match: re.Match[str]) -> tuple[int, int]:
    inside = match[0]
    start = match.start() + len(inside) - len(inside.lstrip())
    return start, match.end() - (len(inside) - len(inside.rstrip()))


def _number(lexicon: Lexicon) -> str:
    names = sorted(lexicon.numbers, key=len, reverse=True)
    words = "|".join(name.replace(" ", r"\s+") for name in names)
    return rf"(?:\d+(?:[.,]\d+)?|\b(?:{words})\b)"


def quoted(value: str | None) -> str:
    """A text as a quoted literal of the filter language."""
    return "'" + (value or "").replace("'", "''") + "'"
