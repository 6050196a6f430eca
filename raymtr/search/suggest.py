"""Suggestions for a query with few or no hits: nearest names, constraints to relax."""

from __future__ import annotations

from raymtr.index.filters import Filter, joined, parse_filter
from raymtr.search.answer_parts import Suggestion
from raymtr.search.constraints import binds_to_tracks, without
from raymtr.search.slots import Understood
from raymtr.search.vocabulary import CatalogVocabulary

NEAREST = 3
LEAST_KNOWN = 0.34  # share of known words of a query below which other names are suggested


def suggestions(
    understood: Understood, asked: Filter | None, vocabulary: CatalogVocabulary, found: int
) -> list[Suggestion]:
    """`{"did_you_mean"}` for unknown names, `{"relax", "hits"}` if nothing is found."""
    table = vocabulary.table
    names = list(understood.nearest_names)
    plain = understood.kind == "description" and not understood.include and not understood.filters
    if not names and (not found or (plain and understood.known_share < LEAST_KNOWN)):
        rows = table.spelt_like(understood.unsaid or understood.text, limit=NEAREST)
        shown = (" by ".join(p for p in (row["title"], row["artist"]) if p) for row in rows)
        names = list(dict.fromkeys(name for name in shown if name))
    advice: list[Suggestion] = [{"did_you_mean": name} for name in names]
    return advice + ([] if found else _relaxed(understood, asked, vocabulary))


def _relaxed(
    understood: Understood, asked: Filter | None, vocabulary: CatalogVocabulary
) -> list[Suggestion]:
    """Each constraint that could be dropped, with the number of hits under the others."""
    table = vocabulary.table
    parts: dict[str, Filter] = {
        slot.words: parse_filter(slot.where, table.filterable) for slot in understood.filters
    }
    parts |= {
        slot.words: without(slot, table) for slot in understood.excluded if slot.tags or slot.artist
    }
    if len(parts) < 1 or binds_to_tracks(understood):
        return []
    advice: list[Suggestion] = []
    for words in parts:
        kept = [part for other, part in parts.items() if other != words]
        kept += [] if asked is None else [asked]
        hits = table.count(joined("and", *kept) if kept else None)
        if hits:
            advice.append({"relax": words, "hits": hits})
    return advice
