"""Corrects the words of a parsed query that no slot matched: misspelt tags, names and music terms.

Tags come before names, names before the lexicon. A negation of words that the catalog does not have
may also be part of a misspelt name: "we're not hugers".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from raymtr.search.misspelt import misspelt_name, partial_name, tracks_with_words
from raymtr.search.name_lookup import NamesFound
from raymtr.search.parse import Parsed
from raymtr.search.slots import Anchor, Correction, Exclude, Include, Understood
from raymtr.search.tokens import TokenizedQuery, tokenize
from raymtr.search.vocabulary import CatalogVocabulary


@dataclass
class ParseState:
    """The state of a query while it is parsed."""

    query: TokenizedQuery
    vocabulary: CatalogVocabulary
    found: NamesFound
    parsed: Parsed
    language: str
    corrected: list[Correction]


def resolve_name(plain: str, remaining: Sequence[int], state: ParseState) -> Understood | None:
    """The query as a partial or misspelt name, tried if words remain that no slot matched."""
    vocabulary, query, parsed = state.vocabulary, state.query, state.parsed
    if set(parsed.negated) - set(remaining) or parsed.filters or parsed.directions:
        return None
    tags = _misspelt_tags(state)
    if _misspelt_whole_tag(state) or (tags and len(tags) == len(remaining)):
        return None  # corrected tags explain all remaining words
    containing = tracks_with_words(plain, vocabulary)
    name = partial_name(plain, containing, query, vocabulary) if containing else None
    rare = any(query.tokens[p].key not in vocabulary.lexicon.everyday for p in remaining)
    if name is None and containing and rare:  # a part of a name is not a misspelling of another
        return Understood(kind="description", text=plain, unmatched=plain, language=state.language)
    if name is None:
        name = misspelt_name(plain, query, remaining, vocabulary)
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
        unmatched=plain,
        corrected=corrected,
        language=state.language,
    )


def _misspelt_tags(state: ParseState) -> dict[int, str]:
    """For each unmatched word, by position, the tag that it misspells."""
    lexicon, tokens = state.vocabulary.lexicon, state.query.tokens
    spelt = {}
    for position in state.parsed.unmatched:
        key = tokens[position].key
        near = None if key in lexicon.everyday else state.vocabulary.speller.nearest(key)
        if near is not None:
            spelt[position] = near
    return spelt


def _misspelt_whole_tag(state: ParseState) -> str | None:
    """The tag that several words misspell together: "drum n base"."""
    tokens = state.query.tokens
    if len(tokens) < 2 or state.parsed.negated:
        return None
    return state.vocabulary.speller.nearest(state.query.key(0, len(tokens)))


def correct(state: ParseState) -> None:
    """Converts unmatched words that misspell a tag, or else a lexicon word, to slots."""
    vocabulary, parsed = state.vocabulary, state.parsed
    lexicon = vocabulary.lexicon
    if (whole := _misspelt_whole_tag(state)) is not None:
        words, tags = state.query.text.strip(), vocabulary.tag(whole)
        parsed.include[:] = [Include(term=tags[0].value, words=words, tags=tags, exact=True)]
        parsed.unmatched.clear()
        state.corrected.append(Correction(words=words, taken_for=tags[0].value))
        return
    spelt = _misspelt_tags(state)
    for position in list(parsed.unmatched):
        token = state.query.tokens[position]
        near = spelt.get(position)
        if near is None and token.key not in lexicon.everyday:
            near = vocabulary.lexicon_speller.nearest(token.key)
        meaning = vocabulary.meaning(near, state.language) if near else None
        if near is None or meaning is None or not meaning.tags:
            continue
        words = state.query.words(position, position + 1)
        shown = meaning.tags[0].value if near in spelt.values() else near
        parsed.include.append(meaning.include(shown, words))
        parsed.unmatched.remove(position)
        state.corrected.append(Correction(words=words, taken_for=shown))


def corrected_terms(state: ParseState) -> list[Exclude]:
    """The exclusions; a term without a tag is corrected if it misspells one with a tag."""
    vocabulary = state.vocabulary
    slots = []
    for slot in state.parsed.excluded:
        if not slot.tags and not slot.artist:
            key = "".join(token.key for token in tokenize(slot.term).tokens)
            near = None
            if key not in vocabulary.lexicon.everyday:
                near = vocabulary.speller.nearest(key) or vocabulary.lexicon_speller.nearest(key)
            concept = vocabulary.concept(near, state.language) if near else None
            tags = vocabulary.family((near, *(concept.same if concept else ()))) if near else ()
            if tags:
                state.corrected.append(Correction(words=slot.term, taken_for=str(near)))
                slot = replace(slot, term=str(near), tags=tags)
        slots.append(slot)
    return slots
