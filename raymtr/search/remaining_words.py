"""The words of a query that remain for the text tower after its slots are removed, as typed."""

from __future__ import annotations

from collections.abc import Sequence

from raymtr.search.lexicon import Lexicon
from raymtr.search.tokens import TokenizedQuery


def stop_words(query: TokenizedQuery, language: str, lexicon: Lexicon) -> set[int]:
    """The tokens that are stop words in English or in `language`."""
    return {
        position
        for position, token in enumerate(query.tokens)
        if lexicon.stops.get(token.key, set()) & {"en", language}
    }


def without_loose_ends(query: TokenizedQuery, kept: list[int], lexicon: Lexicon) -> list[int]:
    """The tokens `kept` without "but", "with" etc. at either end, whose other operand is gone."""
    cues, tokens = lexicon.cues, query.tokens
    removed = {p for p in range(len(tokens))} - set(kept)

    def loose(position: int) -> bool:
        key = tokens[position].key
        joins = key in cues["ends_not"] or key in cues["and"] or key in ("の", "な", "的")
        return joins and bool(removed & {position - 1, position + 1})

    while kept and loose(kept[-1]):
        kept = kept[:-1]
    while kept and loose(kept[0]):
        kept = kept[1:]
    return kept


def text_of(query: TokenizedQuery, kept: Sequence[int]) -> str:
    """The words of some tokens as typed, with the punctuation between neighbours."""
    pieces: list[str] = []
    for at, position in enumerate(kept):
        token = query.tokens[position]
        if at:
            before = kept[at - 1]
            near = before + 1 == position
            between = query.text[query.tokens[before].end : token.start] if near else " "
            if not near and query.tokens[before].clause != token.clause:
                between = ", "
            pieces.append(between)
        pieces.append(query.text[token.start : token.end])
    return "".join(pieces).strip(" ,;")
