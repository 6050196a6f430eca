"""Drawing a model to the words of its tags, each until it is written.

A small model forgets half of its tags. So the tokens that begin a word of the tags, or go on with
one that was begun, get a bonus in every step, until that word stands in the caption. A bonus that
outlives its word makes a model say the word again and again; one for every piece of a word, begun
or not, makes new words out of the pieces.

This rule is every engine's: `captions.writing.transformers_writer`'s with `transformers`, and
inside vLLM that of
`captions.writing.vllm_tag_words`, on a GPU by way of `captions.writing.tag_words_batch`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from raymtr.captions.words import SMALL_WORDS

LEAD = "a"  # before a word, so that it is spelt as after another
WORDS, BIAS = "tag_words", "tag_bias"  # of `SamplingParams.extra_args`, vLLM's way for own settings
IN_VLLM = "raymtr.captions.writing.vllm_tag_words:TagWords{runner}"  # V1 or V2: vLLM's model runner

Spellings = Sequence[Sequence[int]]  # of one word, in tokens; the first is the tag's own


def tag_words(tokenizer: Any, tags: Sequence[str]) -> list[list[list[int]]]:
    """Of every word of `tags`, small words aside, how a sentence may spell it, in token ids.

    As the tag spells it, in small letters, and with a capital.
    """
    words = sorted({word for tag in tags for word in tag.split()})
    spoken = [word for word in words if word.casefold() not in SMALL_WORDS]
    if not spoken:
        return []
    forms = [_forms(word) for word in spoken]
    texts = [f"{LEAD} {form}" for own in forms for form in own]
    before = len(tokenizer(LEAD, add_special_tokens=False)["input_ids"])
    rows = iter(tokenizer(texts, add_special_tokens=False)["input_ids"])
    found = [[next(rows)[before:] for _ in own] for own in forms]
    return [spellings for spellings in found if all(spellings)]


def extra_args(words: Sequence[Spellings], bias: float) -> dict[str, Any]:
    """What a request to vLLM brings along, so that it is drawn to `words` by `bias`.

    The words are JSON text, for Ray Data carries plain values between its steps best.
    """
    return {WORDS: json.dumps(words), BIAS: bias}


def _forms(word: str) -> list[str]:
    return list(dict.fromkeys([word, word.casefold(), word[:1].upper() + word[1:]]))


class UnwrittenTagWords:
    """The words of one caption's tags that are still to be written, as the caption grows."""

    def __init__(self, words: Sequence[Spellings]) -> None:
        self._words = words
        self._open = set(range(len(words)))
        self._starting: dict[int, list[tuple[int, Sequence[int]]]] = {}
        for word, spellings in enumerate(words):
            for spelling in spellings:
                self._starting.setdefault(spelling[0], []).append((word, spelling))
        # Spellings of open words whose first tokens are the last ones of the caption, and how many.
        self._begun: list[tuple[int, Sequence[int], int]] = []

    def after(self, tokens: Iterable[int]) -> list[int]:
        """The tokens that begin or go on with an open word, once `tokens` are written as well."""
        for token in tokens:
            self._write(token)
        begin = {self._words[word][0][0] for word in self._open}
        return sorted(begin | {spelling[count] for _, spelling, count in self._begun})

    def _write(self, token: int) -> None:
        grown = [(word, own, n + 1) for word, own, n in self._begun if own[n] == token]
        grown += [(word, own, 1) for word, own in self._starting.get(token, ())]
        self._open -= {word for word, own, n in grown if n == len(own)}
        self._begun = [
            (word, own, n) for word, own, n in grown if word in self._open and n < len(own)
        ]
