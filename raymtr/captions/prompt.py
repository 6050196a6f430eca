"""The prompt of a captioning language model, and the filtering of its answers.

Fine-tuning and writing use the same prompt, so a model gets the prompt it was trained on. Its hash
is stored with every adapter and every caption. Prompt and answer are tokenized separately and
joined as ids, so no tokenizer can merge the two at the boundary.

A tag is data. Anything that could pass for the prompt's own headings or a tokenizer's special
tokens is removed from it, so a tag that contains an instruction is only an unusual tag. The prompt
uses no chat template: a plain base model has none, and a chat model reads this form too.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from raymtr.captions.writing.templates import clean_tags

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

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
FIXED_PARTS = (*OPENING, CLOSING)  # everything in a prompt except the tags

MAX_TAG_LETTERS = 80
MIN_WORDS, MAX_WORDS = 3, 120  # of a caption
SAME_WORDS = 4  # length of a word n-gram that a caption may not contain three times
IGNORED = -100  # torch's label for a token without loss
JOINERS = "\u200c\u200d"  # format characters used in Persian and Indian spelling


def tags_of(tags: Sequence[str | None] | None) -> list[str]:
    """The tags in the form for a prompt: at most 20, one line each, without our own markup."""
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
    """The prompt for `tags` (from `tags_of`, at least one)."""
    return f"{OPENING[len(tags) > 1]} {', '.join(tags)}{CLOSING}"


def prompt_hash() -> str:
    """The hash of the prompt, 16 hexadecimal digits."""
    return hashlib.sha256("\0".join(FIXED_PARTS).encode()).hexdigest()[:16]


def encode(
    tokenizer: PreTrainedTokenizerBase, tags: Sequence[str], caption: str, *, max_tokens: int
) -> tuple[list[int], list[int]]:
    """(input ids, labels) of one example, [T] each; the prompt's labels are IGNORED.

    If both do not fit `max_tokens`, tags are dropped from the end. An answer is cut only if it does
    not fit with a single tag. It then has no end token to learn; `pairs.that_fit` leaves such pairs
    out. A `</s>` in a caption is text, not the end.
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
    """The reason why `caption` (from `tidy`) is unusable; None where it may be usable."""
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
