"""The vocabulary of a catalog: its tags by key, its columns, and what the lexicon adds.

Built once per table, because a table's content never changes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from weakref import WeakKeyDictionary

import pyarrow as pa
import pyarrow.types as pt

from raymtr.index.column_values import TAG_COLUMNS
from raymtr.index.track_table import TrackTable
from raymtr.names import name_key, spoken_name
from raymtr.search.lexicon import Concept, Lexicon
from raymtr.search.slots import Include, Tag
from raymtr.search.spelling import Speller
from raymtr.search.tokens import phrase_key, singulars
from raymtr.search.transliterate import latin

NAME_COLUMNS = ("title", "artist", "album", "artists", "similar_artists")
# Columns of provenance, which are not queried in words.
PROVENANCE_COLUMNS = (
    *("track_id", "uri", "split", "dataset"),
    *("file_version", "audio_digest", "licence_file"),
)
# Columns that `facets`, `phrases` and `parse` read with rules of their own.
COLUMNS_WITH_GRAMMAR = (
    *("key", "musical_key", "mode", "meter", "metre"),
    *("time_signature", "language", "vocal"),
)
MOST_NAMED = 200  # distinct values of a column that queries can name as words
LEAST_PART = 4  # minimum letters of a tag that begins or ends a longer one
FEW_TRACKS = 20  # if its tags have fewer tracks, the weaker tags of a phrase are searched too
COMPOUNDS = (  # last parts of German compounds, such as "Klaviermusik"
    *(
        "musik",
        "lieder",
        "lied",
        "songs",
        "song",
        "stucke",
        "stucken",
        "stuck",
        "klange",
        "klangen",
    ),
    *(
        "sound",
        "sounds",
        "melodien",
        "melodie",
        "balladen",
        "ballade",
        "solo",
        "soli",
        "begleitung",
    ),
)


@dataclass(frozen=True)
class Meaning:
    """The tags that match a phrase, wider ones with their families, and the kind of concept."""

    tags: tuple[Tag, ...]
    wider: tuple[Tag, ...]
    theme: str
    exact: bool  # the catalog has an exactly matching tag
    few: bool  # few tracks have it

    def include(self, term: str, words: str) -> Include:
        """The slot that requires one of these tags."""
        return Include(
            term=term,
            words=words,
            tags=self.tags,
            wider=self.wider,
            exact=self.exact,
            few=self.few,
            theme=self.theme,
        )


class CatalogVocabulary:
    """The words that queries can use for the tracks of `table`: tags, values and concepts."""

    def __init__(self, table: TrackTable, lexicon: Lexicon) -> None:
        self.lexicon = lexicon
        self.table = table
        fields = {field.name: field.type for field in table.filterable}
        self._held = table.column_values
        self.columns = {name: kind for name, kind in fields.items() if name in self._held.filled}
        self.tags: dict[str, tuple[Tag, ...]] = {}
        self.counts = self._held.tags
        for column, counts in self.counts.items():
            for value in counts:
                if key := phrase_key(value):
                    earlier = self.tags.get(key, ())
                    self.tags[key] = (*earlier, Tag(column=column, value=value))
        self._meanings: dict[tuple[str, str], Meaning | None] = {}

    @cached_property
    def speller(self) -> Speller:
        """The speller over tags."""
        return Speller(self.tags)

    @cached_property
    def lexicon_speller(self) -> Speller:
        """The speller over the lexicon's words."""
        return Speller(self.lexicon.concepts)

    @cached_property
    def categories(self) -> dict[str, list[tuple[str, str]]]:
        """Columns and values, by key, of text columns with few distinct values."""
        found: dict[str, list[tuple[str, str]]] = {}
        for name, kind in self.columns.items():
            if name in (
                *NAME_COLUMNS,
                *PROVENANCE_COLUMNS,
                *TAG_COLUMNS,
                *COLUMNS_WITH_GRAMMAR,
            ) or not pt.is_string(kind):
                continue
            values = self.values(name)
            for value in values if len(values) <= MOST_NAMED else ():
                if key := phrase_key(value):
                    found.setdefault(key, []).append((name, value))
        return found

    @cached_property
    def latin_names(self) -> dict[str, set[tuple[str, str]]]:
        """Titles and artists of other scripts, by their key in Latin letters: (column, name)."""
        found: dict[str, set[tuple[str, str]]] = {}
        for column, names in self._held.other_scripts.items():
            for name in names:
                if (spelt := latin(name)) and (key := name_key(spelt)):
                    found.setdefault(key, set()).add((column, name))
        return found

    def values(self, column: str) -> list[str]:
        """The texts of a column of categories; none of one with more than its MOST_VALUES."""
        return list(self._held.counts.get(column, ()))

    def number_columns(self) -> list[str]:
        """Numeric columns that are not empty."""
        return [
            name
            for name, kind in self.columns.items()
            if (pt.is_integer(kind) or pt.is_floating(kind)) and name not in PROVENANCE_COLUMNS
        ]

    def column(self, names: Iterable[str]) -> str | None:
        """The first of `names` that this catalog has as a column."""
        return next((name for name in names if name in self.columns), None)

    def kind(self, column: str) -> pa.DataType:
        """A column's type."""
        return self.columns[column]

    def tag(self, key: str) -> tuple[Tag, ...]:
        """The tags of that name, in singular or plural."""
        for form in singulars(key):
            if form in self.tags:
                return self.tags[form]
        return ()

    def meaning(self, key: str, language: str = "en") -> Meaning | None:
        """The tags a phrase means; None if the phrase is not a music term in that language.

        Both tag lists are empty if the lexicon has the phrase but the catalog has no such tag.
        """
        if (key, language) not in self._meanings:
            self._meanings[key, language] = self._find_meaning(key, language)
        return self._meanings[key, language]

    def _find_meaning(self, key: str, language: str) -> Meaning | None:
        exact, concept = self.tag(key), self.concept(key, language)
        if not exact and concept is None:
            return None
        same = self._tags_of(concept.same) if concept else ()
        family = self.family((key, *(concept.same if concept else ())))
        tags = exact or same or family or (self._tags_of(concept.weaker) if concept else ())
        wider = tuple(dict.fromkeys((*tags, *same, *family)))
        few = concept is not None and self._most_tracks(tags) < FEW_TRACKS
        if concept is not None and few:
            wider = tuple(dict.fromkeys((*wider, *self._tags_of(concept.weaker))))
        return Meaning(tags, wider, concept.theme if concept else "", bool(exact or same), few)

    def concept(self, key: str, language: str) -> Concept | None:
        """The lexicon's concept for a phrase, in English and in `language`, with inflections."""
        lexicon = self.lexicon
        for form in singulars(key):
            found = lexicon.concepts.get(form)
            if found is not None and lexicon.language[form] in ("en", language):
                return found
        if language == "en":
            return None
        if (found := lexicon.concept(key)) is not None:
            return found
        for ending in COMPOUNDS:
            if key.endswith(ending) and len(key) - len(ending) > 2:
                head = key[: -len(ending)]
                for form in (head, head[:-1]):
                    if (found := lexicon.concept(form)) is not None:
                        return found
        return None

    def family(self, keys: Iterable[str]) -> tuple[Tag, ...]:
        """The tags that equal or contain one of the keys: "metal" and "black metal"."""
        stems = {form for key in keys for form in singulars(key) if len(form) > 2}
        return tuple(
            tag
            for key, tags in self.tags.items()
            if any(self._is_in_family(key, tags[0].value, form) for form in stems)
            for tag in tags
        )

    def _most_tracks(self, tags: Iterable[Tag]) -> int:
        """An upper bound on the number of tracks with any of the tags; tracks may have several."""
        return sum(self.counts[tag.column][tag.value] for tag in tags)

    def vocal_tags(self) -> tuple[Tag, ...]:
        """The tags for vocals."""
        return self.family(self.lexicon.voices)

    def _tags_of(self, keys: Iterable[str]) -> tuple[Tag, ...]:
        return tuple(dict.fromkeys(tag for key in keys for tag in self.tag(key)))

    def _is_in_family(self, key: str, value: str, part: str) -> bool:
        if key == part or part in spoken_name(value).split():
            return True
        if len(part) < LEAST_PART:
            starts = key.startswith(part) and key[len(part) :] in self.tags
            return starts or (key.endswith(part) and key[: -len(part)] in self.tags)
        if key.startswith(part):
            return self._is_word(key[len(part) :])
        return key.endswith(part) and self._is_word(key[: -len(part)])

    def _is_word(self, key: str) -> bool:
        lexicon = self.lexicon
        return key in self.tags or key in lexicon.concepts or key in lexicon.everyday


_VOCABULARIES: WeakKeyDictionary[TrackTable, dict[int, CatalogVocabulary]] = WeakKeyDictionary()


def vocabulary_of(table: TrackTable, lexicon: Lexicon) -> CatalogVocabulary:
    """The vocabulary of a table and a lexicon, cached."""
    cached = _VOCABULARIES.setdefault(table, {})
    if id(lexicon) not in cached:
        cached[id(lexicon)] = CatalogVocabulary(table, lexicon)
    return cached[id(lexicon)]
