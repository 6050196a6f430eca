"""Slots of every kind, printed as a sentence by templates of this file, are read back by parsing.

The catalogs are made up, and their tags, titles and artists look alike: a tag is the plural of
another, two tags in one word, a word of an artist, or the whole title of a track.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from builders import publish_catalog
from hypothesis import given, settings
from hypothesis import strategies as st

from raymtr.search.searcher import Searcher
from raymtr.search.understand import understand

SYLLABLES = ("ka", "zu", "mor", "vel", "tix", "pon", "dra", "quo", "hil", "wex", "bru", "fyn")
KEYS = ("A minor", "C", "F# minor", "Bb major")
STUDIOS = ("Zest Barn", "Quarry Loft")
DIRECTIONS = {
    "calmer": ("energy", -1),
    "more energetic": ("energy", 1),
    "faster": ("tempo", 1),
    "slower": ("tempo", -1),
    "darker": ("brightness", -1),
    "brighter": ("brightness", 1),
    "longer": ("length", 1),
}


@dataclass(frozen=True)
class Catalog:
    """A searcher over made-up tracks, and the words to ask it in."""

    searcher: Searcher
    tags: list[str]
    artists: list[str]
    titles: dict[str, str]  # of each artist
    albums: list[str]


@dataclass
class Slots:
    """What a sentence says, and the sentence's clauses."""

    include: set[str] = field(default_factory=set)
    exclude: set[str] = field(default_factory=set)
    near: list[str] = field(default_factory=list)  # artists, or titles of tracks
    far: list[str] = field(default_factory=list)
    by: list[str] = field(default_factory=list)
    not_by: list[str] = field(default_factory=list)
    album: str | None = None
    filters: set[str] = field(default_factory=set)
    ways: set[tuple[str, int]] = field(default_factory=set)


def make_catalog(make_workspace: Callable, seed: int) -> Catalog:
    rng = random.Random(seed)
    words = list(dict.fromkeys("".join(rng.choices(SYLLABLES, k=3)) for _ in range(90)))
    simple, pairs = words[:8], list(zip(words[8:12], words[12:16], strict=True))
    tags = [
        *simple,
        f"{simple[0]}s",  # a plural
        f"{simple[1]}{simple[2]}",  # two tags in one word
        f"{simple[3]} {simple[4]}",  # two tags in two words
        *(f"{first} {second}" for first, second in pairs),
        f"{words[16]}-{words[17]}",
    ]
    names = [f"{first} {second}" for first, second in zip(words[20:27], words[27:34], strict=True)]
    artists = [*names, f"{simple[5]} {words[34]}"]  # one holds a tag
    titles = [*(f"{a} {b}" for a, b in zip(words[35:42], words[42:49], strict=True)), simple[6]]
    albums = [f"{words[50]} {words[51]}", f"{simple[7]} {words[52]}"]
    rows = [
        {
            "track_id": f"t{n}",
            "title": (titles[n] if n < 8 else f"{words[53 + n % 20]} {words[73 + n % 10]}").title(),
            "artist": artists[n % 8].title(),
            "album": albums[n % 2].title(),
            "year": 1960 + n,
            "duration": 60.0 + n,
            "bpm": 70.0 + n,
            "key": KEYS[n % 4],
            "meter": ["3/4", "4/4"][n % 2],
            "vocal": ["instrumental", "vocals", None][n % 3],
            "language": ["Spanish", "German", None][n % 3],
            "studio": STUDIOS[n % 2],
            "plays": n,
            "tags": tags if n == 0 else rng.sample(tags, 3),
        }
        for n in range(48)
    ]
    workspace = make_workspace(rows)
    publish_catalog(workspace)
    by_artist = dict(zip(artists, titles[:7], strict=False))
    return Catalog(Searcher(workspace), tags, artists, by_artist, albums)


@pytest.fixture(scope="module")
def catalogs(make_workspace: Callable) -> list[Catalog]:
    return [make_catalog(make_workspace, seed) for seed in range(3)]


class Writer:
    """Draws slots and prints them: a head with tags and names, then clauses in any order."""

    def __init__(self, catalog: Catalog, data: st.DataObject) -> None:
        self.catalog, self.data = catalog, data
        self.slots = Slots()
        chosen = data.draw(st.permutations(catalog.tags))
        kept = data.draw(st.integers(1, 3))
        self.wanted = chosen[:kept]
        self.unwanted = [t for t in chosen[kept : kept + 3] if self._apart(t)]
        self.artists = data.draw(st.permutations(catalog.artists))

    def _apart(self, tag: str) -> bool:
        """Whether no wanted tag is of the family of `tag`, which its exclusion would cover."""
        return not any(related(tag, other) for other in self.wanted)

    def pick(self, *choices: str) -> str:
        return self.data.draw(st.sampled_from(choices))

    def _one_of(self, forms: dict[str, str]) -> tuple[str, str]:
        """A phrase and the filter that it means."""
        words = self.pick(*forms)
        return words, forms[words]

    def chance(self) -> bool:
        return self.data.draw(st.booleans())

    def sentence(self) -> str:
        self.slots.include = set(self.wanted)
        joints = [" and ", " with "] if self._touching() else [" ", " and ", " with "]
        head = self.pick(*joints).join(self.wanted) + self._named()
        clauses = [*self._facets(), *self._excluded()]
        if self.slots.near or self.chance():
            clauses += self._directions()
        shuffled = self.data.draw(st.permutations(clauses))
        return ", ".join([head, *shuffled])

    def _touching(self) -> bool:
        """Whether two neighbours among the wanted tags would read as one other tag."""
        keys = set(map(key_of, self.catalog.tags))
        return any(key_of(a + b) in keys for a, b in pairwise(self.wanted))

    def _named(self) -> str:
        slots, (first, second, third, *_) = self.slots, self.artists
        form = self.data.draw(st.integers(0, 7))
        if form == 1:
            slots.by = [first]
            return f" by {first}"
        if form == 2:
            slots.near = [first]
            return f" {self.pick('like', 'similar to', 'in the style of')} {first}"
        if form == 3 and first in self.catalog.titles:
            slots.near = [self.catalog.titles[first]]
            return f" like {self.catalog.titles[first]} by {first}"
        if form == 4:
            slots.near = [first, second]
            return f" like {first} {self.pick('and', 'meets')} {second}"
        if form == 5:
            slots.near, slots.far = [first], [second]
            return f" like {first} but {self.pick('not like', 'unlike')} {second}"
        if form == 6:
            slots.album = self.pick(*self.catalog.albums)
            return f" from the album {slots.album}"
        if form == 7:
            slots.not_by = [third]
            return f" but not by {third}"
        return ""

    def _facets(self) -> list[str]:
        said = []
        kinds = (self._year, self._tempo, self._duration, self._other)
        for kind in kinds:
            if self.chance():
                words, where = kind()
                said.append(words)
                self.slots.filters.add(where)
        return said

    def _year(self) -> tuple[str, str]:
        low = self.data.draw(st.integers(1950, 1979))
        high = self.data.draw(st.integers(1980, 2020))
        decade = high // 10 * 10
        forms = {
            f"from {low} to {high}": f"year >= {low} and year <= {high}",
            f"between {low} and {high}": f"year >= {low} and year <= {high}",
            f"from {low}": f"year = {low}",
            f"before {high}": f"year <= {high - 1}",
            f"after {low}": f"year >= {low + 1}",
            f"since {low}": f"year >= {low}",
            f"from the {decade}s": f"year >= {decade} and year <= {decade + 9}",
            f"not from {low}": f"(year is null or not (year = {low}))",
        }
        return self._one_of(forms)

    def _tempo(self) -> tuple[str, str]:
        low, high = self.data.draw(st.integers(60, 99)), self.data.draw(st.integers(100, 190))
        forms = {
            f"at {low} bpm": f"bpm >= {0.96 * low:g} and bpm <= {1.04 * low:g}",
            f"under {high} bpm": f"bpm <= {high}",
            f"faster than {low} bpm": f"bpm >= {low}",
            f"between {low} and {high} bpm": f"bpm >= {low} and bpm <= {high}",
        }
        return self._one_of(forms)

    def _duration(self) -> tuple[str, str]:
        low, high = self.data.draw(st.integers(2, 9)), self.data.draw(st.integers(10, 30))
        forms = {
            f"shorter than {high} minutes": f"duration <= {60 * high}",
            f"longer than {low} seconds": f"duration >= {low}",
            f"between {low} and {high} minutes": (
                f"duration >= {60 * low} and duration <= {60 * high}"
            ),
        }
        return self._one_of(forms)

    def _other(self) -> tuple[str, str]:
        plays = self.data.draw(st.integers(1, 40))
        vocal = "(vocal is null or not (vocal in ('vocals')))"
        forms = {
            "in A minor": "key in ('A minor')",
            "in F sharp minor": "key in ('F# minor')",
            "in 3/4": "meter = '3/4'",
            "in Spanish": "language in ('Spanish')",
            "instrumental only": vocal,
            f"plays over {plays}": f"plays > {plays}",
            "zest barn": "studio = 'Zest Barn'",
            "not quarry loft": "(studio is null or not (studio = 'Quarry Loft'))",
        }
        return self._one_of(forms)

    def _excluded(self) -> list[str]:
        self.slots.exclude = set(self.unwanted)
        if not self.unwanted:
            return []
        cue = self.pick("without", "no", "but not", "nothing with")
        if self.chance():
            return [f"{cue} {' or '.join(self.unwanted)}"]
        return [f"{cue} {tag}" for tag in self.unwanted]

    def _directions(self) -> list[str]:
        words = self.data.draw(st.lists(st.sampled_from(list(DIRECTIONS)), max_size=2, unique=True))
        self.slots.ways = {DIRECTIONS[word] for word in words}
        return [f"but {' and '.join(words)}"] if words else []


def key_of(tag: str) -> str:
    return tag.replace(" ", "").replace("-", "")


def related(tag: str, other: str) -> bool:
    """Whether one tag holds the other, as its word, its beginning or its end, or is its plural."""
    keys = sorted(map(key_of, (tag, other)), key=len)
    return keys[0].removesuffix("s") in keys[1]


@pytest.mark.slow
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_slots_printed_as_a_sentence_are_read_back(
    catalogs: list[Catalog], data: st.DataObject
) -> None:
    catalog = data.draw(st.sampled_from(catalogs))
    writer = Writer(catalog, data)
    sentence, said = writer.sentence(), writer.slots
    read = understand(sentence, catalog.searcher.table)
    assert {tag.value for slot in read.include for tag in slot.tags} == said.include, sentence
    excluded = {tag.value for slot in read.excluded for tag in slot.tags}
    assert said.exclude <= excluded, sentence
    assert all(any(related(tag, asked) for asked in said.exclude) for tag in excluded), sentence
    names = [(a.title or a.artist or "").lower() for a in read.anchors if a.positive]
    assert names == said.near, sentence
    assert [(a.artist or "").lower() for a in read.anchors if not a.positive] == said.far, sentence
    assert [(a.artist or "").lower() for a in read.names] == said.by, sentence
    assert [s.artist.lower() for s in read.excluded if s.artist] == said.not_by, sentence
    assert (read.album or "").lower() == (said.album or ""), sentence
    assert {slot.where for slot in read.filters} == said.filters, sentence
    assert {(slot.axis, slot.sign) for slot in read.directions} == said.ways, sentence
    assert (read.ignored, read.corrected, read.unmatched) == ((), (), ""), sentence


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_name_alone_is_that_name(catalogs: list[Catalog], data: st.DataObject) -> None:
    catalog = data.draw(st.sampled_from(catalogs))
    artist, title = data.draw(st.sampled_from(sorted(catalog.titles.items())))
    forms = {
        artist: ("artist", None),
        f"songs by {artist}": ("artist", None),
        f"{title} by {artist}": ("title", title),
        f"{artist} - {title}": ("title", title),
        f"{title} {artist}": ("title", title),
    }
    text = data.draw(st.sampled_from(sorted(forms)))
    read = understand(text, catalog.searcher.table)
    kind, named = forms[text]
    assert (read.kind, (read.artist or "").lower()) == (kind, artist), text
    assert read.title is None if named is None else (read.title or "").lower() == named, text
