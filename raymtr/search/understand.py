"""Parses a query into slots: names, tags, facets, directions, exclusions and the rest.

Whole names come first, because 43 % of real music queries name an artist (Doh et al. 2024) and a
joint embedding space does not find names. Any other query is parsed into phrases (`phrases`,
`parse`). Names inside it are found after a cue, or by words that have no other meaning. Typos are
corrected only if words remain that no slot matched: first to tags, then names, then the lexicon.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from raymtr.errors import InputError
from raymtr.index.track_table import TrackTable
from raymtr.names import name_key, spoken_name
from raymtr.search.anchors import NameFinder
from raymtr.search.corrections import ParseState, correct, corrected_terms, resolve_name
from raymtr.search.lexicon import Lexicon, load_lexicon
from raymtr.search.named import (
    CatalogNames,
    NameMatch,
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
    query, plain = tokenize(text), without_politeness(text)
    finder = NameFinder(query, vocabulary)
    wholes = [r for variant in variants(text) for r in whole_readings(variant)]
    artists, pairs = list(artist_readings(plain)), list(side_by_side(plain))
    known = CatalogNames(table, [*wholes, *artists, *pairs], finder.span_texts())
    pairs = [pair for pair in pairs if name_key(pair.title) not in vocabulary.tags]
    named = known.first(wholes) or known.first(artists) or known.first(pairs)
    if not query.tokens and named is None:
        why = "it has no words"
        return Understood(kind="description", text="", ignored=(Ignored(words=text, why=why),))
    if named is not None:
        return _whole_name(text, plain, named, query, vocabulary)
    found = finder.find(known)
    parser = Parser(query, vocabulary, found.taken)
    parsed = parser.parse()
    state = ParseState(query, vocabulary, found, parsed, parser.language, [])
    # Negated words may belong to a name if no exclusion matches a tag of the catalog.
    without_tags = not any(slot.tags for slot in parsed.excluded)
    negated = sorted(parsed.negated) if without_tags else []
    unexplained = parsed.unmatched or found.ignored or negated
    if unexplained and not found.anchors and not found.artists:
        remaining = parsed.unmatched + (sorted(found.taken) if found.ignored else [])
        name = resolve_name(plain, remaining + negated, state)
        if name is not None:
            return name
    if parsed.unmatched:
        correct(state)
    return _combine(state)


def similar_artist(name: str, table: TrackTable) -> Understood:
    """The parsed query `similar to` exactly this artist, without any other reading of the name.

    Raises InputError if neither a track nor the artist graph has the name.
    """
    named = CatalogNames(table, [NameReading(None, name)]).match(NameReading(None, name))
    if named is None and not CatalogNames(table).in_graph(name):
        raise InputError(f"no artist {name!r} in this catalog")
    artist = (named.artist if named else None) or name
    tracks = named.tracks if named else ()
    anchor = Anchor(words=name, artist=artist, tracks=tracks)
    return Understood(kind="similar", text="", artist=artist, tracks=tracks, anchors=(anchor,))


def _whole_name(
    text: str, plain: str, named: NameMatch, query: TokenizedQuery, vocabulary: CatalogVocabulary
) -> Understood:
    """The parsed query whose text is one name. A single tag is a tag even if a title equals it."""
    parser = Parser(query, vocabulary, set())
    parsed = parser.parse()
    tag_alone = len(parsed.include) == 1 and not parsed.unmatched and not parsed.negated
    is_tag = tag_alone and bool(parsed.include[0].tags) and named.artist is None
    if is_tag and not parsed.filters and not parsed.directions:
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
        unmatched=" ".join(query.words(p, p + 1) for p in parsed.unmatched),
        language=parser.language,
    )


def _covers(text: str, named: NameMatch) -> bool:
    return bool(named.artist) and tokenize(text).key(0, len(tokenize(text).tokens)) != ""


def _combine(state: ParseState) -> Understood:
    """The parsed query with the slots of names, phrases and corrections."""
    found, parsed, query = state.found, state.parsed, state.query
    tokens = query.tokens
    excluded = tuple(corrected_terms(state)) + tuple(found.excluded)
    removed = found.taken | parsed.negated | parsed.dropped
    kept = [position for position in range(len(tokens)) if position not in removed]
    kept = without_loose_ends(query, kept, state.vocabulary.lexicon)
    text = text_of(query, kept)
    unmatched = [query.words(position, position + 1) for position in parsed.unmatched]
    if not set(kept) - stop_words(query, state.language, state.vocabulary.lexicon):
        slots = (parsed.include, parsed.excluded, parsed.filters, found.anchors, found.artists)
        unmatched, text = ([] if any(slots) or found.ignored else [query.text]), ""
    anchors, artists = found.anchors, found.artists
    if anchors:  # common words next to "like X" are not looked up as names
        everyday = state.vocabulary.lexicon.everyday
        unmatched = [word for word in unmatched if name_key(word) not in everyday]
    if artists and parsed.directions and not anchors and not found.has_by_cue:  # "X, but calmer"
        anchors = tuple(replace(anchor, group=0) for anchor in artists)
        artists = ()
    named = (anchors or artists)[:1]
    matched = sum(position not in parsed.unmatched for position in range(len(tokens)))
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
        directions=tuple(parsed.directions),
        ignored=(*parsed.ignored, *found.ignored, *_inapplicable(state, excluded)),
        corrected=(*found.corrected, *state.corrected),
        nearest_names=found.nearest,
        unmatched=" ".join(unmatched),
        language=state.language,
        known_share=matched / max(len(tokens), 1),
    )
    if found.title is not None and artists:
        return replace(
            understood, kind="title", title=found.title, tracks=found.title_tracks, include=()
        )
    if found.album is not None:
        return replace(understood, kind="album", tracks=found.album_tracks)
    if artists and parsed.unmatched and not anchors:
        return _titles_of_artist(understood, state)
    return understood


def _titles_of_artist(understood: Understood, state: ParseState) -> Understood:
    """An artist with unmatched words: the artist's tracks whose titles contain the words."""
    words = set(spoken_name(understood.unmatched).split())
    rows = state.vocabulary.table.rows(understood.tracks, ["title"])
    with_words = [
        t for t, row in rows.items() if words <= set(spoken_name(row["title"] or "").split())
    ]
    if not words or not with_words:
        return understood
    first = tuple(track for track in understood.tracks if track in with_words)
    return replace(understood, kind="title", title=rows[first[0]]["title"], tracks=first)


def _inapplicable(state: ParseState, excluded: Sequence[Exclude]) -> list[Ignored]:
    """Terms that cannot be applied: no tag matches them, and the catalog has no vectors."""
    if state.vocabulary.table.build.rows["vectors"]:
        return []
    terms = [(words, words) for words in state.parsed.terms_without_tag]
    terms += [(slot.words, slot.term) for slot in excluded if not slot.tags and not slot.artist]
    return [
        Ignored(words=words, why=f"no tag of this catalog matches {term}") for words, term in terms
    ]


def _distinct(slots: Sequence[Include]) -> tuple[Include, ...]:
    """Includes without duplicate tag sets. The first words for a set are kept."""
    kept: dict[object, Include] = {}
    for slot in slots:
        kept.setdefault(slot.tags or slot.term.casefold(), slot)
    return tuple(kept.values())
