"""Two tracks, one song? The rules and their thresholds, and how pairs make groups.

A vector alone cannot tell. Measured on towers trained here and 50 pieces each of real and made
music: an MP3 of 128 kb/s of the same sound lay at a cosine of 0.89 to 1, the same piece louder and
compressed anywhere from 0.12 to 0.99, and *different* pieces on one instrument at up to 0.998. So
either the vectors are equal but for rounding, whatever the names, or names and artist agree and
vector and duration say what kind of likeness it is.

Titles are compared without what says which version they are: `Song (Live at Wembley)` and
`Song - 2011 Remaster` are both `Song`. The words of such an addition count, not the title's own:
`Live and Let Die` is no live version.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from raymtr.index.names import name_key, spoken_name

Likeness = Literal["same recording", "different master", "other version"]
KEPT = "kept"
Pair = tuple[int, int, int]  # two rows, and their likeness as its place in KINDS
KINDS: tuple[Likeness, ...] = ("same recording", "different master", "other version")

COPY, COPY_S = 0.9999, 0.1  # a copy, whatever its name: the cosine it reaches, seconds apart
SAME, SAME_S = 0.90, 1.0  # encoded again: silence at the ends may differ
MASTER, MASTER_S = 0.30, 3.0  # made louder or clearer, cut from another disc
VERSION = 0.50  # of one name by one artist, and not even as long: an "Intro" is on each album

THRESHOLDS = {
    "same recording": f"vectors at a cosine of {COPY} or more and durations within {COPY_S} s; or "
    f"one title and artist, {SAME} or more, within {SAME_S:g} s",
    "different master": f"one title and artist, {MASTER} or more, within {MASTER_S:g} s",
    "other version": "one artist, one title but for words such as live, remix or acoustic; or one "
    f"title and artist of other durations, or cut to one length as previews, {VERSION} or more",
}

_ADDITION = re.compile(r"\s*(?:\(([^()]*)\)|\[([^\[\]]*)\])\s*$|\s+[-–—]\s+([^-–—]+)$")
_GUEST = re.compile(r"^(?:feat|ft|featuring|with)\b")
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
    """A track's name taken apart; `song` is None where title or artist is unknown."""

    song: str | None  # equal for all versions of a song by one artist
    version: str = ""  # "live at wembley"
    master: str = ""  # "2011 remaster"


def read_name(title: str | None, artist: str | None) -> Name:
    """`Song (feat. B) - Live - Remastered 2011` by A -> a/song, live, remastered 2011."""
    rest, versions, masters = title or "", [], []
    while match := _ADDITION.search(rest):
        said = spoken_name(next(filter(None, match.groups()), ""))
        if _MASTER.search(said):
            masters.append(said)
        elif _VERSION.search(said):
            versions.append(said)
        elif not _GUEST.match(said):
            break
        rest = rest[: match.start()]
    who, what = name_key(artist), name_key(rest)
    song = f"{who}/{what}" if who and what else None
    return Name(song, " ".join(sorted(versions)), " ".join(sorted(masters)))


def likeness(one: Name, other: Name, *, cosine: float, apart_s: float) -> Likeness | None:
    """What two tracks of these names are to each other; None where they are strangers.

    `apart_s`, the difference of their durations in seconds, may be NaN: unknown.
    """
    if cosine >= COPY and apart_s <= COPY_S:
        return "same recording"
    if one.song is None or one.song != other.song:
        return None
    if one.version != other.version:
        return "other version"
    if cosine >= SAME and apart_s <= SAME_S and one.master == other.master:
        return "same recording"
    if cosine >= MASTER and apart_s <= MASTER_S:
        return "different master"
    return "other version" if cosine >= VERSION else None


def group_rows(
    pairs: Iterable[Pair], names: list[Name], ids: list[str]
) -> list[tuple[int, int, str]]:
    """(group, row, class) of every row in a pair: the one to keep first in its group.

    A row is to the one kept what the loosest of the pairs between them says, on the path where
    the loosest is closest. Kept is what has the plainest name, then the least id.
    """
    pairs = sorted(pairs, key=lambda pair: pair[2])
    rows = sorted({row for one, other, _ in pairs for row in (one, other)})
    joined = {row: row for row in rows}
    levels = []  # of each kind: row -> what it is joined to by pairs of that kind and closer ones
    for kind in range(len(KINDS)):
        for one, other, how in pairs:
            if how == kind:
                joined[_root(joined, one)] = _root(joined, other)
        levels.append({row: _root(joined, row) for row in rows})
    groups: dict[int, list[int]] = {}
    for row in rows:
        groups.setdefault(levels[-1][row], []).append(row)
    found = []
    members = [
        sorted(group, key=lambda row: (_preference(names[row]), ids[row]))
        for group in groups.values()
    ]
    for number, group in enumerate(sorted(members, key=lambda group: ids[group[0]])):
        first = group[0]
        found.append((number, first, KEPT))
        for row in group[1:]:
            kind = next(k for k, level in enumerate(levels) if level[row] == level[first])
            found.append((number, row, KINDS[kind]))
    return found


def _preference(name: Name) -> tuple[bool, bool, bool]:
    return bool(name.version), name.song is None, bool(name.master)


def _root(joined: dict[int, int], row: int) -> int:
    while joined[row] != row:
        joined[row] = joined[joined[row]]
        row = joined[row]
    return row
