"""Parses a query into slots: names, tags, facets, directions, exclusions and the rest.

Whole names come first, because 43 % of real music queries name an artist (Doh et al. 2024) and a
joint embedding space does not find names. Any other query is parsed into phrases (`phrases`,
`govern`). Names inside it are found after a cue, or by words that have no other meaning. Typos are
corrected only if words remain that no slot took: first to tags, then names, then the lexicon.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from raymtr.errors import InputError
from raymtr.index.track_table import TrackTable
from raymtr.names import name_key, spoken_name
from raymtr.search.anchors import NameFinder
from raymtr.search.lexicon import Lexicon, load_lexicon
from raymtr.search.misspelt import holding, misspelt_name, name_in_part
from raymtr.search.name_lookup import NamesFound
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
from raymtr.search.parse import Parsed, Parser
from raymtr.search.remaining_words import stop_words, text_of, without_loose_ends
from raymtr.search.slots import Anchor, Correction, Exclude, Ignored, Include, Understood
from raymtr.search.tokens import TokenizedQuery, tokenize
from raymtr.search.vocabulary import CatalogVocabulary, vocabulary_of

__all__ = ["Understood", "similar_artist", "understand"]


@dataclass
class _Ask:
    """The state of a query while it is parsed."""

    question: TokenizedQuery
    vocabulary: CatalogVocabulary
    found: NamesFound
    parsed: Parsed
    language: str
    corrected: list[Correction]


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
    ask = _Ask(question, vocabulary, found, parsed, parser.language, [])
    idle = not any(slot.tags for slot in parsed.excluded)  # negations of nothing known here
    strange = parsed.unsaid or found.ignored or (idle and parsed.negated)
    if strange and not found.anchors and not found.artists:
        left = parsed.unsaid + (sorted(found.taken) if found.ignored else [])
        name = _name_of(plain, left + (sorted(parsed.negated) if idle else []), ask)
        if name is not None:
            return name
    if parsed.unsaid:
        _correct(ask)
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


def _name_of(plain: str, left: Sequence[int], ask: _Ask) -> Understood | None:
    """A query that is a partial or misspelt name, tried if words remain that no slot took."""
    vocabulary, question, parsed = ask.vocabulary, ask.question, ask.parsed
    if set(parsed.negated) - set(left) or parsed.filters or parsed.ways:
        return None
    tags = _tags_spelt_like(ask)
    if _tag_spelt_like_all(ask) or (tags and len(tags) == len(left)):
        return None  # typo correction explains all of it
    held = holding(plain, vocabulary)
    name = name_in_part(plain, held, question, vocabulary) if held else None
    rare = any(question.tokens[p].key not in vocabulary.lexicon.everyday for p in left)
    if name is None and held and rare:  # a part of a name is not a misspelling of another
        return Understood(kind="description", text=plain, unsaid=plain, language=ask.language)
    if name is None:
        name = misspelt_name(plain, question, left, vocabulary)
    if name is None:
        return None
    spelt = " by ".join(part for part in (name.title, name.artist, name.album) if part)
    corrected = (Correction(words=plain, taken_for=spelt),) if name.misspelt else ()
    return Understood(
        kind=name.kind,
        text=plain,
        title=name.title,
        artist=name.artist,
        album=name.album,
        tracks=name.tracks,
        names=(Anchor(words=plain, title=name.title, artist=name.artist, tracks=name.tracks),),
        unsaid=plain,
        corrected=corrected,
        language=ask.language,
    )


def _tags_spelt_like(ask: _Ask) -> dict[int, str]:
    """For each unused word, the tag that it misspells."""
    lexicon, tokens = ask.vocabulary.lexicon, ask.question.tokens
    spelt = {}
    for place in ask.parsed.unsaid:
        key = tokens[place].key
        near = None if key in lexicon.everyday else ask.vocabulary.speller.nearest(key)
        if near is not None:
            spelt[place] = near
    return spelt


def _tag_spelt_like_all(ask: _Ask) -> str | None:
    """The tag that several words misspell together: "drum n base"."""
    tokens = ask.question.tokens
    if len(tokens) < 2 or ask.parsed.negated:
        return None
    return ask.vocabulary.speller.nearest(ask.question.key(0, len(tokens)))


def _correct(ask: _Ask) -> None:
    """Converts unused words that misspell a tag, or else a lexicon word, to slots."""
    vocabulary, parsed = ask.vocabulary, ask.parsed
    lexicon = vocabulary.lexicon
    if (whole := _tag_spelt_like_all(ask)) is not None:
        words, tags = ask.question.text.strip(), vocabulary.tag(whole)
        parsed.include[:] = [Include(term=tags[0].value, words=words, tags=tags, exact=True)]
        parsed.unsaid.clear()
        ask.corrected.append(Correction(words=words, taken_for=tags[0].value))
        return
    spelt = _tags_spelt_like(ask)
    for place in list(parsed.unsaid):
        token = ask.question.tokens[place]
        near = spelt.get(place)
        if near is None and token.key not in lexicon.everyday:
            near = vocabulary.lexicon_speller.nearest(token.key)
        meaning = vocabulary.said(near, ask.language) if near else None
        if near is None or meaning is None or not meaning.tags:
            continue
        words = ask.question.words(place, place + 1)
        shown = meaning.tags[0].value if near in spelt.values() else near
        slot = Include(
            term=shown,
            words=words,
            tags=meaning.tags,
            wider=meaning.wider,
            exact=meaning.exact,
            few=meaning.few,
            theme=meaning.theme,
        )
        parsed.include.append(slot)
        parsed.unsaid.remove(place)
        ask.corrected.append(Correction(words=words, taken_for=shown))


def _described(ask: _Ask) -> Understood:
    """Combines the slots."""
    found, parsed, question = ask.found, ask.parsed, ask.question
    tokens = question.tokens
    excluded = tuple(_corrected_terms(ask)) + tuple(found.excluded)
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


def _of_artist(understood: Understood, ask: _Ask) -> Understood:
    """An artist with unused words: the artist's tracks whose titles contain the words."""
    words = set(spoken_name(understood.unsaid).split())
    rows = ask.vocabulary.table.rows(understood.tracks, ["title"])
    held = [t for t, row in rows.items() if words <= set(spoken_name(row["title"] or "").split())]
    if not words or not held:
        return understood
    first = tuple(track for track in understood.tracks if track in held)
    return replace(understood, kind="title", title=rows[first[0]]["title"], tracks=first)


def _corrected_terms(ask: _Ask) -> list[Exclude]:
    """Exclusions; one that no tag matches may misspell one that a tag matches."""
    vocabulary = ask.vocabulary
    slots = []
    for slot in ask.parsed.excluded:
        if not slot.tags and not slot.artist:
            key = "".join(token.key for token in tokenize(slot.term).tokens)
            near = None
            if key not in vocabulary.lexicon.everyday:
                near = vocabulary.speller.nearest(key) or vocabulary.lexicon_speller.nearest(key)
            concept = vocabulary.concept(near, ask.language) if near else None
            tags = vocabulary.family((near, *(concept.same if concept else ()))) if near else ()
            if tags:
                ask.corrected.append(Correction(words=slot.term, taken_for=str(near)))
                slot = replace(slot, term=str(near), tags=tags)
        slots.append(slot)
    return slots


def _useless(ask: _Ask, excluded: Sequence[Exclude]) -> list[Ignored]:
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
