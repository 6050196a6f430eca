"""The rules and thresholds that decide whether two tracks are one song, and how pairs form groups.

A vector alone is not enough. Measured with towers trained in this project, which ignore level, on 8
synthetic pieces each: an MP3 or Ogg of the same sound had a cosine of 0.93 to 1, the same 6 dB
quieter 1, 12 dB louder and limited 0.81 to 0.95, with a second of silence in front 0.88 to 0.99. Of
200 pieces, 0.4 % of all pairs and 6 % of pairs by one artist had a cosine above 0.7. So two tracks
are one song if their vectors are equal up to rounding, with any names, or if title and artist
agree; then vector and duration decide the kind of likeness.

Titles are compared without additions that name a version: `Song (Live at Wembley)` and
`Song - 2011 Remaster` are both `Song`. Only words of such an addition count, not words of the title
itself: `Live and Let Die` is not a live version.

Placeholder names that programs write ("Track 01", "Unknown Artist") are not evidence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from raymtr.names import name_key, spoken_name

Likeness = Literal["same recording", "different master", "other version"]
KEPT = "kept"
Pair = tuple[int, int, int]  # two rows, and their likeness as an index into KINDS
Compare = Callable[[int, list[int]], list[Likeness | None]]  # (row, other rows) -> their likenesses
KINDS: tuple[Likeness, ...] = ("same recording", "different master", "other version")

# Each class has a least cosine and a largest difference of durations in seconds.
COPY, COPY_S = 0.9999, 0.1  # a copy, under any name
SAME, SAME_S = 0.90, 1.0  # re-encoded: silence at the ends may differ
MASTER, MASTER_S = 0.70, 3.0  # remastered, or ripped from another disc
# The least cosine for tracks of one name by one artist and of any duration. A name alone is not
# enough: an "Intro" is on each album.
VERSION = 0.70

THRESHOLDS = {
    "same recording": f"vectors at a cosine of {COPY} or more and durations within {COPY_S} s; or "
    f"one title and artist, {SAME} or more, within {SAME_S:g} s",
    "different master": f"one title and artist, {MASTER} or more, within {MASTER_S:g} s",
    "other version": "one artist, one title but for words such as live, remix or acoustic; or one "
    f"title and artist of other durations, or cut to one length as previews, {VERSION} or more",
}

_ADDITION = re.compile(r"\s*(?:\(([^()]*)\)|\[([^\[\]]*)\])\s*$|\s+[-–—]\s+([^-–—]+)$")
_GUEST = re.compile(r"^(?:feat|ft|featuring|with)\b")
# Placeholders that programs and people write for an unknown name, in the form of `spoken_name`.
_NO_ARTIST = re.compile(
    r"(?:an? )?(?:unknown|unbekannte?r?|desconocido|desconhecido|inconnu|sconosciuto|onbekend)"
    r"(?: (?:artist|performer|kunstler|interpret))?"
    r"|(?:artista?|artiste) (?:unknown|desconocido|desconhecido|inconnu|sconosciuto)"
    r"|no artist|various(?: artists?)?|v ?a|diverse|verschiedene(?: interpreten)?"
    r"|varios(?: artistas)?|artistes? divers|artisti vari|n a|none|null|unidentified|anonymous"
    r"|неизвестныи исполнитель|不明なアーティスト|未知艺术家"
)
_NO_TITLE = re.compile(
    r"(?:(?:audio ?)?track|titel|titre|title|pista|piste|traccia|faixa|spur|recording|audio"
    r"|take|new recording|aufnahme|дорожка|трек|トラック|曲目)(?: (?:no|nr|n))? ?\d+|0\d+|track"
    r"|(?:unknown|untitled|no title|ohne titel|sin titulo|sans titre|senza titolo)"
    r"(?: (?:track|title|song))?(?: ?\d+)?"
)
_COMMON_TITLE = re.compile(r"(?:intro(?:duction)?|outro|interlude|skit|prelude|finale|bonus) ?\d*")
_WITH_GUEST = re.compile(r"[\s(\[,]+(?:feat|ft|featuring)\b.*$", re.IGNORECASE)
_MASTER = re.compile(
    r"\b(?:re ?master(?:ed)?|mono|stereo|deluxe|explicit|clean|anniversary|bonus track|re ?issue"
    r"|(?:album|single|original|lp|cd) (?:version|mix))\b"
)
_VERSION = re.compile(
    r"\b(?:live|vivo|dal vivo|en directo|unplugged|acoustic|demo|re ?mix(?:ed)?|rmx|mix|edit|dub"
    r"|version|instrumental|karaoke|sessions?|rehearsal|take|outtake|alternate|cover|reprise"
    r"|extended|orchestral|a ?cap+ella|re ?work|bootleg|re ?recorded)\b"
)


@dataclass(frozen=True)
class Name:
    """A parsed track name; `song` is None if title or artist is unknown."""

    song: str | None  # equal for all versions of a song by one artist
    version: str = ""  # "live at wembley"
    master: str = ""  # "2011 remaster"
    common: bool = False  # a title such as "Intro", which one artist uses for many pieces


def read_name(title: str | None, artist: str | None) -> Name:
    """Parse `Song (feat. B) - Live - Remastered 2011` by A -> a/song, live, remastered 2011."""
    rest, versions, masters = title or "", [], []
    while match := _ADDITION.search(rest):
        spoken = spoken_name(next(filter(None, match.groups()), ""))
        if _MASTER.search(spoken):
            masters.append(spoken)
        elif _VERSION.search(spoken):
            versions.append(spoken)
        elif not _GUEST.match(spoken):
            break
        rest = rest[: match.start()]
    spoken = spoken_name(rest)
    who, what = artist_of(artist), None if _NO_TITLE.fullmatch(spoken) else name_key(rest)
    song = f"{who}/{what}" if who and what else None
    common = _COMMON_TITLE.fullmatch(spoken) is not None
    return Name(song, " ".join(sorted(versions)), " ".join(sorted(masters)), common)


def artist_of(name: str | None) -> str | None:
    """The key of a track's artist without guests; None for "Unknown Artist" and the like."""
    if not name or _NO_ARTIST.fullmatch(spoken_name(name)):
        return None
    return name_key(_WITH_GUEST.sub("", name))


def likeness(one: Name, other: Name, *, cosine: float, apart_s: float) -> Likeness | None:
    """The likeness of two tracks with these names; None if they are not one song.

    `apart_s` is the difference of their durations in seconds; NaN means unknown.
    """
    if cosine >= COPY and apart_s <= COPY_S:
        return "same recording"
    if one.song is None or one.song != other.song:
        return None
    if one.version != other.version:
        return "other version"
    if cosine >= SAME and apart_s <= SAME_S and one.master == other.master:
        return "same recording"
    if one.common:
        return None
    if cosine >= MASTER and apart_s <= MASTER_S:
        return "different master"
    return "other version" if cosine >= VERSION else None


def group_rows(
    pairs: Iterable[Pair], names: list[Name], ids: list[str], compare: Compare | None = None
) -> list[tuple[int, int, str]]:
    """(group, row, class) of every row that has a duplicate, the row to keep first in its group.

    The row with the plainest name is kept; ties go to the least id. Every other row of a group is
    like the row kept, not only like another one. Rows that a chain of pairs joins, but that
    `compare` says are not like the row kept, are grouped again without it. If `compare` is None,
    only the pairs decide.
    """
    known = {}
    joined: dict[int, int] = {}
    for one, other, kind in pairs:
        known[one, other] = known[other, one] = KINDS[kind]
        joined[_root(joined, one)] = _root(joined, other)
    chains: dict[int, list[int]] = {}
    for row in joined:
        chains.setdefault(_root(joined, row), []).append(row)

    def by_pairs(one: int, others: list[int]) -> list[Likeness | None]:
        return [known.get((one, other)) for other in others]

    groups = []
    for chain in chains.values():
        chain.sort(key=lambda row: (_preference(names[row]), ids[row]))
        while len(chain) > 1:
            first, *others = chain
            compared = list(zip(others, (compare or by_pairs)(first, others), strict=True))
            alike = [(row, kind) for row, kind in compared if kind is not None]
            chain = [row for row, kind in compared if kind is None]
            if alike:
                groups.append([(first, KEPT), *alike])
    groups.sort(key=lambda group: ids[group[0][0]])
    return [(number, row, kind) for number, group in enumerate(groups) for row, kind in group]


def _preference(name: Name) -> tuple[bool, bool, bool]:
    return bool(name.version), name.song is None, bool(name.master)


def _root(joined: dict[int, int], row: int) -> int:
    while joined.setdefault(row, row) != row:
        joined[row] = joined[joined[row]]
        row = joined[row]
    return row
