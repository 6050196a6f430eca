"""A bonus on the tokens of a caption's tag words, each until it is written.

A small model forgets half of its tags. So the tokens that begin a tag word, or continue one already
begun, get a bonus in every step until that word is in the caption. A bonus that outlasts its word
makes a model repeat the word. A bonus on every piece of a word, begun or not, forms new words from
the pieces.

All engines use this rule: `captions.writing.transformers_writer` with `transformers`,
`captions.writing.vllm_tag_words` inside vLLM, and on a GPU `captions.writing.tag_words_batch`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from raymtr.captions.words import SMALL_WORDS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LEAD = "a"  # prefix for tokenizing, so that a word gets its spelling after another word
WORDS, BIAS = "tag_words", "tag_bias"  # keys of vLLM's `SamplingParams.extra_args`
IN_VLLM = "raymtr.captions.writing.vllm_tag_words:TagWords{runner}"  # V1 or V2: vLLM's model runner

Spellings = Sequence[Sequence[int]]  # of one word, in tokens; the first is the tag's own


def tag_words(tokenizer: PreTrainedTokenizerBase, tags: Sequence[str]) -> list[list[list[int]]]:
    """For every word of `tags`, except function words, its possible spellings in token ids.

    The spellings are as in the tag, in lower case, and with a capital.
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
    """The extra arguments of a vLLM request that favour `words` by `bias`.

    The words are JSON text, because Ray Data carries plain values between its steps best.
    """
    return {WORDS: json.dumps(words), BIAS: bias}


def _forms(word: str) -> list[str]:
    return list(dict.fromkeys([word, word.casefold(), word[:1].upper() + word[1:]]))


class UnwrittenTagWords:
    """The tag words of one caption that are not yet written, updated as the caption grows."""

    def __init__(self, words: Sequence[Spellings]) -> None:
        self._words = words
        self._open = set(range(len(words)))
        self._starting: dict[int, list[tuple[int, Sequence[int]]]] = {}
        for word, spellings in enumerate(words):
            for spelling in spellings:
                self._starting.setdefault(spelling[0], []).append((word, spelling))
        # Spellings of open words that the caption's end has begun, and the number of tokens
        # written.
        self._begun: list[tuple[int, Sequence[int], int]] = []

    def after(self, tokens: Iterable[int]) -> list[int]:
        """The tokens that begin or continue an open word, after `tokens` are written too."""
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
