"""The one prompt: what a language model is told, what it may answer, and what is thrown away.

Fine-tuning and writing share these words, so that a model is always asked as it was taught; their
hash travels with every adapter and every caption. Prompt and answer are tokenized apart and joined
as ids: the answer then starts at a token of its own, whatever the tokenizer would merge.

A tag is data. What could pass for the prompt's own headings or for a tokenizer's special tokens
is taken out of it, so a tag that holds an instruction is only a strange tag. The prompt uses no
chat template: a plain base model has none, and a chat model reads this form as well.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any

from raymtr.captions.writing.templates import clean_tags

# The instruction of TTMR++ (Doh et al., ICASSP 2024), and its form for one tag.
INSTRUCTION = (
    "write a single sentence that summarize a song with the following {attributes}. "
    "Do not write artist name or album name."
)
OPENING = tuple(
    f"### Instruction: {INSTRUCTION.format(attributes=word)}\n### Input:"
    for word in ("attribute", "attributes")
)
CLOSING = "\n### Response:"
FIXED_PARTS = (*OPENING, CLOSING)  # all that stands in a prompt but the tags

MAX_TAG_LETTERS = 80
MIN_WORDS, MAX_WORDS = 3, 120  # of a caption
SAME_WORDS = 4  # words in a row that a caption may not say three times
IGNORED = -100  # torch's label for a token without loss
JOINERS = "\u200c\u200d"  # format characters that Persian and Indian scripts are spelt with


def tags_of(tags: Sequence[str | None] | None) -> list[str]:
    """The tags as a prompt may hold them: at most 20, one line each, none of our own marks."""
    plain = []
    for tag in tags or ():
        text = "".join(map(_plain, unicodedata.normalize("NFC", tag))) if tag else ""
        text = re.sub("#{2,}", "#", text)
        if len(text) > MAX_TAG_LETTERS:
            text = text[:MAX_TAG_LETTERS].rpartition(" ")[0] or text[:MAX_TAG_LETTERS]
        plain.append(text)
    return clean_tags(plain)


def _plain(letter: str) -> str:
    if letter in "<>|":
        return " "
    if unicodedata.category(letter).startswith("C") and letter not in JOINERS:
        return " "
    return letter


def prompt_of(tags: Sequence[str]) -> str:
    """The prompt for `tags` (of `tags_of`, one at least)."""
    return f"{OPENING[len(tags) > 1]} {', '.join(tags)}{CLOSING}"


def prompt_hash() -> str:
    """Which prompt this is, in 16 hexadecimal digits."""
    return hashlib.sha256("\0".join(FIXED_PARTS).encode()).hexdigest()[:16]


def encode(
    tokenizer: Any, tags: Sequence[str], caption: str, *, max_tokens: int
) -> tuple[list[int], list[int]]:
    """(input ids, labels) of one example, [T] each; the prompt's labels are IGNORED.

    Where they do not fit `max_tokens` together, tags are left out from the last on. Only an answer
    that does not fit beside a single tag is cut, and then has no end token to learn: such pairs
    are for `pairs.that_fit` to leave out. A caption's `</s>` is text, not the end.
    """
    answer = tokenizer(f" {caption}", add_special_tokens=False, split_special_tokens=True)
    answer = [*answer["input_ids"], tokenizer.eos_token_id]
    prompt = tokenizer(prompt_of(tags))["input_ids"]
    while len(prompt) + len(answer) > max_tokens and len(tags) > 1:
        tags = tags[:-1]
        prompt = tokenizer(prompt_of(tags))["input_ids"]
    ids = [*prompt, *answer][:max_tokens]
    return ids, [*([IGNORED] * len(prompt)), *answer][:max_tokens]


def tidy(text: str) -> str:
    """A model's answer on one line, up to the next heading, without an unfinished last sentence."""
    text = " ".join(text.partition("###")[0].split())
    if text and text[-1] not in ".!?\"'”)":
        end = max(text.rfind(mark) for mark in ".!?")
        text = text[: end + 1] if end > 0 else f"{text.rstrip(',;:- ')}."
    return text[:1].upper() + text[1:]


def junk(caption: str) -> str | None:
    """Why `caption` (of `tidy`) is no caption at all; None where it may be one."""
    words = re.findall(r"\w+", caption.casefold())
    if not MIN_WORDS <= len(words) <= MAX_WORDS:
        return f"{len(words)} words"
    if any(unicodedata.category(c).startswith("C") and c not in JOINERS for c in caption):
        return "unprintable characters"
    if "\ufffd" in caption:
        return "broken characters"
    runs = Counter(zip(*(words[i:] for i in range(SAME_WORDS)), strict=False))
    if max(runs.values(), default=0) > 2 or len(set(words)) < len(words) / 4:
        return "repeats itself"
    return None
