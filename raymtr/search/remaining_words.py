"""The words of a query that its slots leave for the text tower, as typed."""

from __future__ import annotations

from collections.abc import Sequence

from raymtr.search.lexicon import Lexicon
from raymtr.search.tokens import TokenizedQuery


def stop_words(question: TokenizedQuery, language: str, lexicon: Lexicon) -> set[int]:
    """The tokens that are stop words in English or in `language`."""
    return {
        place
        for place, token in enumerate(question.tokens)
        if lexicon.stops.get(token.key, set()) & {"en", language}
    }


def without_loose_ends(question: TokenizedQuery, kept: list[int], lexicon: Lexicon) -> list[int]:
    """Drops "but" and "with" at either end, whose other operand is gone."""
    cues, tokens = lexicon.cues, question.tokens
    gone = {p for p in range(len(tokens))} - set(kept)

    def loose(place: int) -> bool:
        key = tokens[place].key
        joins = key in cues["ends_not"] or key in cues["and"] or key in ("の", "な", "的")
        return joins and bool(gone & {place - 1, place + 1})

    while kept and loose(kept[-1]):
        kept = kept[:-1]
    while kept and loose(kept[0]):
        kept = kept[1:]
    return kept


def text_of(question: TokenizedQuery, kept: Sequence[int]) -> str:
    """The words of some tokens as typed, with the punctuation between neighbours."""
    pieces: list[str] = []
    for at, place in enumerate(kept):
        token = question.tokens[place]
        if at:
            before = kept[at - 1]
            near = before + 1 == place
            between = question.text[question.tokens[before].end : token.start] if near else " "
            if not near and question.tokens[before].clause != token.clause:
                between = ", "
            pieces.append(between)
        pieces.append(question.text[token.start : token.end])
    return "".join(pieces).strip(" ,;")
