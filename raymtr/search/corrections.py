"""Corrects the words of a parsed query that no slot took: misspelt tags, names and music terms.

Tags come before names, names before the lexicon. A negation of nothing that the catalog knows may
also belong to a misspelt name: "we're not hugers".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from raymtr.search.misspelt import holding, misspelt_name, name_in_part
from raymtr.search.name_lookup import NamesFound
from raymtr.search.parse import Parsed
from raymtr.search.slots import Anchor, Correction, Exclude, Include, Understood
from raymtr.search.tokens import TokenizedQuery, tokenize
from raymtr.search.vocabulary import CatalogVocabulary


@dataclass
class Ask:
    """The state of a query while it is parsed."""

    question: TokenizedQuery
    vocabulary: CatalogVocabulary
    found: NamesFound
    parsed: Parsed
    language: str
    corrected: list[Correction]


def name_of(plain: str, left: Sequence[int], ask: Ask) -> Understood | None:
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


def _tags_spelt_like(ask: Ask) -> dict[int, str]:
    """For each unused word, the tag that it misspells."""
    lexicon, tokens = ask.vocabulary.lexicon, ask.question.tokens
    spelt = {}
    for place in ask.parsed.unsaid:
        key = tokens[place].key
        near = None if key in lexicon.everyday else ask.vocabulary.speller.nearest(key)
        if near is not None:
            spelt[place] = near
    return spelt


def _tag_spelt_like_all(ask: Ask) -> str | None:
    """The tag that several words misspell together: "drum n base"."""
    tokens = ask.question.tokens
    if len(tokens) < 2 or ask.parsed.negated:
        return None
    return ask.vocabulary.speller.nearest(ask.question.key(0, len(tokens)))


def correct(ask: Ask) -> None:
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
        parsed.include.append(meaning.include(shown, words))
        parsed.unsaid.remove(place)
        ask.corrected.append(Correction(words=words, taken_for=shown))


def corrected_terms(ask: Ask) -> list[Exclude]:
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
