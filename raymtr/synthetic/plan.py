"""Plans every piece of a synthetic catalog before any sound is rendered.

One cheap pass with one rng decides artists, titles and the sections of each piece. So constraints
across pieces (no title twice, no two pieces with the same tags) are handled in one place, and the
slow part, rendering, needs only one piece and a seed.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from raymtr.synthetic.cast import Artist, invent_artists, split_sizes
from raymtr.synthetic.instruments import HELD_PHRASINGS, INSTRUMENTS, PHRASINGS, TEMPI
from raymtr.synthetic.names import invent_albums, invent_titles
from raymtr.synthetic.section import Section
from raymtr.synthetic.styles import STYLES

SHORT_S, LONG_S = 10.0, 14.0  # least length in s of a piece, and of one section of a long piece
LONG_EVERY = {"test": 50, "train": 90}  # one piece in so many has several different sections
HOME = 0.6  # how often an artist plays its first style
WITHOUT_DRUMS = 0.25


@dataclass(frozen=True, kw_only=True)
class Piece:
    """The plan of one track. With more than one section the music changes midway."""

    index: int
    title: str
    artist: str
    album: str
    year: int
    split: str
    sections: tuple[Section, ...]

    @property
    def track_id(self) -> str:
        """A URL-safe id, the same for the same seed."""
        return f"made-{self.index:04d}"

    @property
    def uri(self) -> str:
        """Path of the audio, relative to the catalog's folder."""
        return f"audio/{file_name(self.artist)}/{file_name(self.title)}.flac"

    @property
    def tags(self) -> list[str]:
        """The tags of the track."""
        return tags_of(self.sections)


def tags_of(sections: Sequence[Section]) -> list[str]:
    """All tags of a single section; for several sections, the style and lead of each."""
    if len(sections) == 1:
        return list(sections[0].tags)
    return list(dict.fromkeys(tag for s in sections for tag in (s.style, s.lead)))


def file_name(name: str) -> str:
    """`name` as a file name for any file system; letters of all scripts stay."""
    safe = re.sub(r'[\x00-\x1f/\\:*?"<>|]', "_", unicodedata.normalize("NFC", name))
    return safe.strip(" .") or "_"


def plan(pieces: int, seed: int) -> tuple[list[Piece], list[Artist]]:
    """The pieces and artists of a catalog."""
    rng = np.random.default_rng([seed, 0])
    artists = invent_artists(pieces, rng)
    titles = invent_titles(pieces, rng)
    heard: set[frozenset[str]] = set()
    counts = dict.fromkeys(split_sizes(pieces), 0)
    planned: list[Piece] = []
    for artist in artists:
        for album, year in invent_albums(artist.tracks, artist.first_year, rng):
            every = LONG_EVERY.get(artist.split)
            is_long = every is not None and counts[artist.split] % every == 0
            counts[artist.split] += 1
            planned.append(
                Piece(
                    index=len(planned),
                    title=titles[len(planned)],
                    artist=artist.name,
                    album=album,
                    year=year,
                    split=artist.split,
                    sections=_unheard(artist, heard, is_long=is_long, rng=rng),
                )
            )
    return planned, artists


def _unheard(
    artist: Artist, heard: set[frozenset[str]], *, is_long: bool, rng: np.random.Generator
) -> tuple[Section, ...]:
    """Sections to the artist's taste whose tags are not in `heard` yet; adds them there."""
    while True:
        sections = _long(artist, rng) if is_long else _short(artist, rng)
        tags = frozenset(tags_of(sections))
        if tags not in heard:
            heard.add(tags)
            return sections


def _short(artist: Artist, rng: np.random.Generator) -> tuple[Section, ...]:
    style = artist.styles[0] if rng.random() < HOME else artist.styles[1]
    return (_section(artist, style, str(rng.choice(artist.leads)), rng),)


def _long(artist: Artist, rng: np.random.Generator) -> tuple[Section, ...]:
    """Three sections that differ in style and lead; one of the styles is not the artist's own."""
    guest = str(rng.choice([style for style in STYLES if style not in artist.styles]))
    styles, leads = rng.permutation([*artist.styles, guest]), rng.permutation(artist.leads)
    return tuple(
        replace(_section(artist, str(style), str(lead), rng), at_least_s=LONG_S)
        for style, lead in zip(styles, leads, strict=True)
    )


def _section(artist: Artist, name: str, lead: str, rng: np.random.Generator) -> Section:
    """A section in the style `name`; what the style leaves open is drawn at random."""
    style = STYLES[name]
    tempo = str(rng.choice(style.tempi))
    slowest, fastest = TEMPI[tempo]
    phrasings = PHRASINGS + (HELD_PHRASINGS if INSTRUMENTS[lead].sustained else ())
    backings = [backing for backing in artist.backings if backing != lead]
    drummed = rng.random() >= WITHOUT_DRUMS
    return Section(
        style=name,
        lead=lead,
        backing=str(rng.choice(backings)),
        tempo=tempo,
        bpm=int(rng.integers(slowest, fastest + 1)),
        mode=str(rng.choice(style.modes)),
        tonic=int(rng.integers(12)),
        percussion=str(rng.choice(style.percussion)) if drummed else None,
        phrasing=[None, *phrasings][int(rng.integers(1 + len(phrasings)))],
        production=artist.productions[int(rng.integers(len(artist.productions)))],
        at_least_s=SHORT_S,
    )
