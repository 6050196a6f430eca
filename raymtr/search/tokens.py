"""Tokenizes a query into words with their positions.

A word's key is `names.name_key`, so case, accents and punctuation do not matter. The key of a
phrase is the concatenation of its words' keys, so "punk rock", "punk-rock" and "punkrock" are
equal. Characters of scripts without spaces are tokens of their own, and so are emoji.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from raymtr.names import name_key

_SPACELESS_SCRIPTS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uff66-\uff9f"  # kana and Han
_EMOJI = "\u2600-\u27bf\U0001f300-\U0001faff"
_TOKEN = re.compile(
    rf"[{_SPACELESS_SCRIPTS}]|[{_EMOJI}]|(?:(?![{_SPACELESS_SCRIPTS}])[^\W_])+"
    rf"(?:['’&/.!$]+(?:(?![{_SPACELESS_SCRIPTS}])[^\W_])+)*[$]?"
)
_CLAUSE_ENDS = re.compile(r"[,;.!?:()\n—–]|\s-\s")
LONGEST_PHRASE = 6  # words; single-character tokens count a third
_SPACELESS = re.compile(rf"^[{_SPACELESS_SCRIPTS}]")


@dataclass(frozen=True)
class Token:
    """A word at `text[start:end]`; `clause` counts the commas and similar separators before it."""

    start: int
    end: int
    key: str
    clause: int
    minus: bool  # "-word" or "!word", a negation as in search engines
    spaceless: bool


@dataclass(frozen=True)
class TokenizedQuery:
    """A text and its tokens."""

    text: str
    tokens: tuple[Token, ...]

    def words(self, start: int, end: int) -> str:
        """The text of tokens `start` to `end`, as typed."""
        return self.text[self.tokens[start].start : self.tokens[end - 1].end]

    def key(self, start: int, end: int) -> str:
        """The concatenated keys of tokens `start` to `end`."""
        return "".join(token.key for token in self.tokens[start:end])

    def longest(self, start: int) -> int:
        """The largest end of a phrase that starts at token `start`."""
        length = 3 * LONGEST_PHRASE if self.tokens[start].spaceless else LONGEST_PHRASE
        return min(len(self.tokens), start + length)


def tokenize(text: str) -> TokenizedQuery:
    """The words of `text`, in order."""
    tokens: list[Token] = []
    clause = last = 0
    for match in _TOKEN.finditer(text):
        between = text[last : match.start()]
        clause += bool(tokens and _CLAUSE_ENDS.search(between))
        key = name_key(match[0])
        last = match.end()
        if not key:
            continue
        minus = between.endswith(("-", "!")) and between[:-1][-1:] in ("", " ")
        minus = minus and (bool(tokens) or match.start() == 1)
        spaceless = bool(_SPACELESS.match(match[0]))
        tokens.append(Token(match.start(), match.end(), key, clause, minus, spaceless))
    return TokenizedQuery(text, tuple(tokens))


def phrase_key(text: str) -> str:
    """The key of all words of a text."""
    return "".join(token.key for token in tokenize(text).tokens)


def singulars(key: str) -> Sequence[str]:
    """A key and its possible singular and plural forms."""
    forms = [key]
    if len(key) > 3 and key.isascii():
        if key.endswith("ies"):
            forms.append(key[:-3] + "y")
        if key.endswith("es") and len(key) > 4:
            forms.append(key[:-2])
        if key.endswith("s") and not key.endswith("ss"):
            forms.append(key[:-1])
        else:
            forms.append(key + "s")
    return forms
