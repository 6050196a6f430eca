"""Suggestions for a query with few or no hits: nearest names, constraints to relax."""

from __future__ import annotations

from collections.abc import Sequence

from raymtr.index.filters import Filter, joined, parse_filter
from raymtr.search.answer_parts import IgnoredPart, Suggestion
from raymtr.search.confidence import is_nonsense
from raymtr.search.constraints import binds_to_tracks, exclusion_filter
from raymtr.search.ranking import Candidate
from raymtr.search.slots import Understood
from raymtr.search.vocabulary import CatalogVocabulary

NEAREST = 3
LEAST_KNOWN = 0.34  # share of known words of a query below which other names are suggested


def suggestions(
    understood: Understood, where: Filter | None, vocabulary: CatalogVocabulary, found: int
) -> list[Suggestion]:
    """`{"did_you_mean"}` for unknown names, `{"relax", "hits"}` if nothing is found."""
    table = vocabulary.table
    names = list(understood.nearest_names)
    plain = understood.kind == "description" and not understood.include and not understood.filters
    if not names and (not found or (plain and understood.known_share < LEAST_KNOWN)):
        rows = table.spelt_like(understood.unmatched or understood.text, limit=NEAREST)
        shown = (" by ".join(p for p in (row["title"], row["artist"]) if p) for row in rows)
        names = list(dict.fromkeys(name for name in shown if name))
    advice: list[Suggestion] = [{"did_you_mean": name} for name in names]
    return advice + ([] if found else _relaxed(understood, where, vocabulary))


def unused(
    understood: Understood, candidates: Sequence[Candidate], vocabulary: CatalogVocabulary
) -> list[IgnoredPart]:
    """`{"words", "why"}` for words that no slot matched and no retriever could use.

    A text tower can use all words, unless their text is no nearer to any track than nonsense.
    Without a text tower, a word must be in a name, a tag or a caption.
    """
    if understood.kind == "artist" and understood.include:
        return _without_tags(understood, vocabulary)
    if not understood.unmatched or understood.kind != "description":
        return []
    why = "no name, tag or caption of this catalog has these words"
    if not candidates:
        return [{"words": understood.unmatched, "why": why}]
    table = vocabulary.table
    if table.build.rows["vectors"]:
        why = "no name, tag or caption has these words, and the model finds no track near them"
        nonsense = is_nonsense(understood, candidates, table.build)
        return [{"words": understood.unmatched, "why": why}] if nonsense else []
    words = [
        w for w in understood.unmatched.split() if w.casefold() not in vocabulary.lexicon.everyday
    ]
    unknown = [
        word
        for word in words
        if not table.match_words(word, limit=1) and not table.match_names(word, limit=1)
    ]
    return [{"words": " ".join(unknown), "why": why}] if unknown else []


def _without_tags(understood: Understood, vocabulary: CatalogVocabulary) -> list[IgnoredPart]:
    """The tags that no track of the named artist has."""
    rows = vocabulary.table.rows(understood.tracks, list(vocabulary.counts)).values()
    present = {(column, tag) for row in rows for column in row for tag in row[column] or ()}
    why = f"no track by {understood.artist} has such a tag"
    return [
        {"words": slot.words, "why": why}
        for slot in understood.include
        if not any((tag.column, tag.value) in present for tag in (*slot.tags, *slot.wider))
    ]


def _relaxed(
    understood: Understood, where: Filter | None, vocabulary: CatalogVocabulary
) -> list[Suggestion]:
    """Each constraint that could be dropped, with the number of hits without it."""
    table = vocabulary.table
    parts: dict[str, Filter] = {
        slot.words: parse_filter(slot.where, table.filterable) for slot in understood.filters
    }
    parts |= {
        slot.words: exclusion_filter(slot, table)
        for slot in understood.excluded
        if slot.tags or slot.artist
    }
    if len(parts) < 1 or binds_to_tracks(understood):
        return []
    advice: list[Suggestion] = []
    for words in parts:
        kept = [part for other, part in parts.items() if other != words]
        kept += [] if where is None else [where]
        hits = table.count(joined("and", *kept) if kept else None)
        if hits:
            advice.append({"relax": words, "hits": hits})
    return advice
