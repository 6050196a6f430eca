"""Parses a query into slots: names, tags, facets, directions, exclusions and the rest.

Whole names come first, because 43 % of real music queries name an artist (Doh et al. 2024) and a
joint embedding space does not find names. Any other query is parsed into phrases (`phrases`,
`govern`). Names inside it are found after a cue, or by words that have no other meaning. Typos are
corrected only if words remain that no slot took: first to tags, then names, then the lexicon.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from raymtr.errors import InputError
from raymtr.index.track_table import TrackTable
from raymtr.names import name_key, spoken_name
from raymtr.search.anchors import NameFinder
from raymtr.search.corrections import Ask, correct, corrected_terms, name_of
from raymtr.search.lexicon import Lexicon, load_lexicon
from raymtr.search.named import (
    Known,
    Named,
    NameReading,
    artist_readings,
    side_by_side,
    variants,
    whole_readings,
    without_politeness,
)
from raymtr.search.parse import Parser
from raymtr.search.remaining_words import stop_words, text_of, without_loose_ends
from raymtr.search.slots import Anchor, Exclude, Ignored, Include, Understood
from raymtr.search.tokens import TokenizedQuery, tokenize
from raymtr.search.vocabulary import CatalogVocabulary, vocabulary_of

__all__ = ["Understood", "similar_artist", "understand"]


def understand(text: str, table: TrackTable, lexicon: Lexicon | None = None) -> Understood:
    """Parses `text` against the catalog in `table`."""
    vocabulary = vocabulary_of(table, lexicon or load_lexicon())
    question, plain = tokenize(text), without_politeness(text)
    finder = NameFinder(question, vocabulary)
    wholes = [r for variant in variants(text) for r in whole_readings(variant)]
    artists, pairs = list(artist_readings(plain)), list(side_by_side(plain))
    known = Known(table, [*wholes, *artists, *pairs], finder.spans())
    pairs = [pair for pair in pairs if name_key(pair.title) not in vocabulary.tags]
    named = known.first(wholes) or known.first(artists) or known.first(pairs)
    if not question.tokens and named is None:
        why = "there are no words in it"
        return Understood(kind="description", text="", ignored=(Ignored(words=text, why=why),))
    if named is not None:
        return _whole(text, plain, named, question, vocabulary)
    found = finder.find(known)
    parser = Parser(question, vocabulary, found.taken)
    parsed = parser.parse()
    ask = Ask(question, vocabulary, found, parsed, parser.language, [])
    idle = not any(slot.tags for slot in parsed.excluded)  # negations of nothing known here
    strange = parsed.unsaid or found.ignored or (idle and parsed.negated)
    if strange and not found.anchors and not found.artists:
        left = parsed.unsaid + (sorted(found.taken) if found.ignored else [])
        name = name_of(plain, left + (sorted(parsed.negated) if idle else []), ask)
        if name is not None:
            return name
    if parsed.unsaid:
        correct(ask)
    return _described(ask)


def similar_artist(name: str, table: TrackTable) -> Understood:
    """The query `similar to` exactly this artist, without any other reading of the name.

    Raises InputError if neither a track nor the artist graph has the name.
    """
    named = Known(table, [NameReading(None, name)]).named(NameReading(None, name))
    if named is None and not Known(table).in_graph(name):
        raise InputError(f"no artist {name!r} in this catalog")
    artist = (named.artist if named else None) or name
    tracks = named.tracks if named else ()
    anchor = Anchor(words=name, artist=artist, tracks=tracks)
    return Understood(kind="similar", text="", artist=artist, tracks=tracks, anchors=(anchor,))


def _whole(
    text: str, plain: str, named: Named, question: TokenizedQuery, vocabulary: CatalogVocabulary
) -> Understood:
    """A name that is the whole query. A single tag is read as a tag even if a name equals it."""
    parser = Parser(question, vocabulary, set())
    parsed = parser.parse()
    tag_alone = len(parsed.include) == 1 and not parsed.unsaid and not parsed.negated
    is_tag = tag_alone and bool(parsed.include[0].tags) and named.artist is None
    if is_tag and not parsed.filters and not parsed.ways:
        kind = "description"
    else:
        kind = "title" if named.title is not None else "artist"
        if kind == "artist" and plain != text and not _covers(plain, named):
            text = ""
    include = tuple(parsed.include) if is_tag or kind == "title" else ()
    return Understood(
        kind=kind,  # type: ignore[arg-type]
        text=text,
        title=named.title,
        artist=named.artist,
        tracks=named.tracks,
        names=(Anchor(words=plain, title=named.title, artist=named.artist, tracks=named.tracks),),
        include=include,
        unsaid=" ".join(question.words(p, p + 1) for p in parsed.unsaid),
        language=parser.language,
    )


def _covers(text: str, named: Named) -> bool:
    return bool(named.artist) and tokenize(text).key(0, len(tokenize(text).tokens)) != ""


def _described(ask: Ask) -> Understood:
    """Combines the slots."""
    found, parsed, question = ask.found, ask.parsed, ask.question
    tokens = question.tokens
    excluded = tuple(corrected_terms(ask)) + tuple(found.excluded)
    gone = found.taken | parsed.negated | parsed.dropped
    kept = [place for place in range(len(tokens)) if place not in gone]
    kept = without_loose_ends(question, kept, ask.vocabulary.lexicon)
    text = text_of(question, kept)
    unsaid = [question.words(place, place + 1) for place in parsed.unsaid]
    if not set(kept) - stop_words(question, ask.language, ask.vocabulary.lexicon):
        slots = (parsed.include, parsed.excluded, parsed.filters, found.anchors, found.artists)
        unsaid, text = ([] if any(slots) or found.ignored else [question.text]), ""
    anchors, artists = found.anchors, found.artists
    if anchors:  # common words beside a likeness are no name to look for
        everyday = ask.vocabulary.lexicon.everyday
        unsaid = [word for word in unsaid if name_key(word) not in everyday]
    if artists and parsed.ways and not anchors and not found.says_by:  # "X, but calmer"
        anchors = tuple(replace(anchor, group=0) for anchor in artists)
        artists = ()
    named = (anchors or artists)[:1]
    taken = sum(place not in parsed.unsaid for place in range(len(tokens)))
    understood = Understood(
        kind="similar"
        if any(a.positive for a in anchors)
        else "artist"
        if artists
        else "description",
        text=text,
        title=named[0].title if named else None,
        artist=named[0].artist if named else None,
        album=found.album,
        tracks=tuple(
            dict.fromkeys(t for a in (anchors or artists) if a.positive for t in a.tracks)
        ),
        anchors=anchors,
        names=artists,
        include=_distinct(parsed.include),
        excluded=excluded,
        filters=tuple(parsed.filters),
        directions=tuple(parsed.ways),
        ignored=(*parsed.ignored, *found.ignored, *_useless(ask, excluded)),
        corrected=(*found.corrected, *ask.corrected),
        nearest_names=found.nearest,
        unsaid=" ".join(unsaid),
        language=ask.language,
        known_share=taken / max(len(tokens), 1),
    )
    if found.title is not None and artists:
        return replace(
            understood, kind="title", title=found.title, tracks=found.title_tracks, include=()
        )
    if found.album is not None:
        return replace(understood, kind="album", tracks=found.album_tracks)
    if artists and parsed.unsaid and not anchors:
        return _of_artist(understood, ask)
    return understood


def _of_artist(understood: Understood, ask: Ask) -> Understood:
    """An artist with unused words: the artist's tracks whose titles contain the words."""
    words = set(spoken_name(understood.unsaid).split())
    rows = ask.vocabulary.table.rows(understood.tracks, ["title"])
    held = [t for t, row in rows.items() if words <= set(spoken_name(row["title"] or "").split())]
    if not words or not held:
        return understood
    first = tuple(track for track in understood.tracks if track in held)
    return replace(understood, kind="title", title=rows[first[0]]["title"], tracks=first)


def _useless(ask: Ask, excluded: Sequence[Exclude]) -> list[Ignored]:
    """Exclusions that cannot be applied: no tag matches, and there is no sound to avoid."""
    silent = not ask.vocabulary.table.build.rows["vectors"]
    unmet = [
        Ignored(words=words, why=f"no tag of this catalog says {words}")
        for words in ask.parsed.unmet
        if silent
    ]
    return unmet + [
        Ignored(words=slot.words, why=f"no tag of this catalog says {slot.term}")
        for slot in excluded
        if silent and not slot.tags and not slot.artist
    ]


def _distinct(slots: Sequence[Include]) -> tuple[Include, ...]:
    """Includes without duplicate tag sets. The first words for a set are kept."""
    kept: dict[object, Include] = {}
    for slot in slots:
        kept.setdefault(slot.tags or slot.term.casefold(), slot)
    return tuple(kept.values())
