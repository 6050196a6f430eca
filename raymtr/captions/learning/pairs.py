"""Tags-to-caption pairs: reading, holding out by clip, and drawing for a training step.

A pair is a line of JSON with `tags` and `caption`. `source` (who wrote it), `split` and a clip
(`ytid`, `clip_id` or `track_id`) are used where present. Pairs are held out by clip: all captions
of a clip, by all writers, and those of clips with the same words. The clips with the smallest
hashes are held out, so the choice is the same on every machine and independent of line order. Where
sources say `human`, only such pairs are held out. Where splits are marked, only clips not marked
`train` are.

The adapter learns from captions by people, where sources say so. Captions by machines are plentiful
but read like machines. They are for a base that is trained here, which sees few captions by people.

People leave tags out and add what no tag says, and a model learns both. So a drawn example is made
faithful at a set rate. It keeps the tags whose words are in the caption, and terms of the tag
vocabulary found in the caption are added. The caption is never changed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from raymtr import storage
from raymtr.captions.prompt import prompt_of, tags_of
from raymtr.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LOG = logging.getLogger("raymtr")

FEWEST_PAIRS = 10  # for training, and for holding any out
MOST_TAGS = 20  # of a drawn example
HELD_OUT, HELD_OUT_SHARE = 500, 0.125  # pairs kept for scoring: this many, or this share if fewer
VALIDATION = 64  # clips for the validation loss
MAX_TERM_WORDS, MIN_TERM_COUNT = 3, 3  # a tag used this often is a vocabulary term
CLIP_KEYS = ("ytid", "clip_id", "track_id")


@dataclass(frozen=True)
class Pair:
    """Tags and a caption of one clip, and the vocabulary terms in the caption."""

    tags: tuple[str, ...]
    caption: str
    source: str
    clip: str
    split: str
    terms: tuple[str, ...] = ()


@dataclass(frozen=True)
class PairSets:
    """Pairs for training, validation and scoring; no clip is in two of them."""

    train: list[Pair]
    valid: list[Pair]
    held_out: list[Pair]


def read_pairs(uri: str) -> list[Pair]:
    """All pairs of the JSON Lines file `uri`; pairs with empty tags or caption are left out.

    Raises InputError on a line that is not such a pair, with its number, and on too few pairs.
    """
    if not storage.exists(uri):
        raise InputError(f"no file {uri}; --pairs is a JSON Lines file of `tags` and `caption`")
    rows = []
    for number, line in enumerate(storage.read_bytes(uri).splitlines(), start=1):
        if line.strip():
            rows.append(_row(line, f"{uri}, line {number}"))
    pairs = [_pair(row) for row in rows]
    usable = [pair for pair in pairs if pair.tags and pair.caption]
    if len(usable) < len(pairs):
        LOG.info("%d pairs without tags or caption are left out", len(pairs) - len(usable))
    if len(usable) < FEWEST_PAIRS:
        raise InputError(
            f"{uri} has {len(usable)} pairs with tags and a caption; {FEWEST_PAIRS} at least"
        )
    return with_terms(usable)


def _row(line: bytes, where: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise InputError(f"{where}: not JSON ({error}); expected one object per line") from error
    if not isinstance(row, dict) or not {"tags", "caption"} <= set(row):
        raise InputError(
            f"{where}: expected an object with `tags` and `caption`, got {line[:80]!r}"
        )
    tags = row["tags"].split(",") if isinstance(row["tags"], str) else row["tags"]
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise InputError(f"{where}: `tags` is a list of texts, got {row['tags']!r}")
    if not isinstance(row["caption"], str):
        raise InputError(f"{where}: `caption` is a text, got {row['caption']!r}")
    return row | {"tags": tags}


def _pair(row: Mapping[str, Any]) -> Pair:
    tags, caption = tuple(tags_of(row["tags"])), " ".join(row["caption"].split())
    clip = clip_of(row) or "\0".join(tags)
    return Pair(tags, caption, str(row.get("source", "")), clip, str(row.get("split", "")))


def clip_of(row: Mapping[str, Any]) -> str | None:
    """A row's clip id, by the first of CLIP_KEYS that it has; 0 is a valid id."""
    return next((str(row[key]) for key in CLIP_KEYS if row.get(key) not in (None, "")), None)


def with_terms(pairs: Sequence[Pair]) -> list[Pair]:
    """The same pairs, each with the common tags (vocabulary terms) found in its caption."""
    counts = Counter(tag.casefold() for pair in pairs for tag in pair.tags)
    known = {
        tag
        for tag, n in counts.items()
        if n >= MIN_TERM_COUNT and len(tag.split()) <= MAX_TERM_WORDS
    }
    return [
        Pair(p.tags, p.caption, p.source, p.clip, p.split, tuple(find_terms(p.caption, known)))
        for p in pairs
    ]


def find_terms(caption: str, known: set[str]) -> list[str]:
    """The longest terms of `known` in `caption`, left to right, not overlapping, each once."""
    words = words_of(caption)
    found, at = [], 0
    while at < len(words):
        for length in range(MAX_TERM_WORDS, 0, -1):
            term = " ".join(words[at : at + length])
            if term in known:
                found.append(term)
                at += length - 1
                break
        at += 1
    return list(dict.fromkeys(found))


def words_of(text: str) -> list[str]:
    """Words in lower case; hyphens and apostrophes belong to them."""
    return re.findall(r"\w+(?:[-'’]\w+)*", text.casefold())


def hold_out(pairs: Sequence[Pair]) -> PairSets:
    """Split by clip, by the rule in this file's docstring."""
    recording = recordings(pairs)
    candidates = by_people(pairs)
    unseen = [pair for pair in candidates if pair.split and pair.split != "train"]
    candidates = unseen or candidates
    clips = sorted({recording[pair.clip] for pair in candidates}, key=_place)
    every = set(recording.values())
    scored = set(clips[: min(HELD_OUT, round(HELD_OUT_SHARE * len(every)) or 1)])
    others = sorted(every - scored, key=_place)
    watched = set(others[: min(VALIDATION, len(others) // 10 or 1)])
    wanted = set(map(id, candidates))
    return PairSets(
        train=[p for p in pairs if recording[p.clip] not in scored | watched],
        valid=[p for p in pairs if recording[p.clip] in watched],
        held_out=sorted(
            (p for p in pairs if recording[p.clip] in scored and id(p) in wanted),
            key=lambda p: _place(p.clip),
        ),
    )


def recordings(pairs: Sequence[Pair]) -> dict[str, str]:
    """For each clip the representative clip of its recording.

    Clips that share a pair of the same tags and caption are one recording under two ids, as
    catalogs have it on several albums.
    """
    joined: dict[str, str] = {}

    def first(clip: str) -> str:
        while joined.setdefault(clip, clip) != clip:
            joined[clip] = joined[joined[clip]]
            clip = joined[clip]
        return clip

    said: dict[tuple[frozenset[str], str], str] = {}
    for pair in pairs:
        words = frozenset(tag.casefold() for tag in pair.tags), pair.caption.casefold()
        one, other = sorted(
            (first(pair.clip), first(said.setdefault(words, pair.clip))), key=_place
        )
        joined[other] = one
    return {clip: first(clip) for clip in list(joined)}


def that_fit(
    pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerBase, *, max_tokens: int
) -> tuple[list[Pair], list[str]]:
    """The pairs whose caption fits `max_tokens` beside a tag, and notes on pairs left out or cut.

    Raises InputError where too few fit.
    """

    def lengths(texts: list[str], **how: bool) -> np.ndarray:
        return np.array([len(ids) for ids in tokenizer(texts, **how)["input_ids"]])

    captions = [f" {pair.caption}" for pair in pairs]
    answers = 1 + lengths(captions, add_special_tokens=False, split_special_tokens=True)
    least = answers + lengths([prompt_of([max(pair.tags, key=len)]) for pair in pairs])
    full = answers + lengths([prompt_of(pair.tags[:MOST_TAGS]) for pair in pairs])
    fit = least <= max_tokens
    if fit.sum() < min(FEWEST_PAIRS, len(pairs)):
        raise InputError(
            f"finetune.max_tokens={max_tokens} fits the prompt with a tag and the caption of "
            f"{fit.sum()} of {len(pairs)} pairs; at least {FEWEST_PAIRS} are needed; "
            f"{int(np.median(least))} would fit half of them, {least.max()} all"
        )
    notes = []
    if not fit.all():
        notes.append(
            f"{(~fit).sum()} of {len(pairs)} pairs are left out: their caption does not fit "
            f"finetune.max_tokens={max_tokens} with a tag; {least.max()} would fit all"
        )
    if (cut := fit & (full > max_tokens)).any():
        notes.append(
            f"{cut.sum()} of {len(pairs)} pairs lose tags, so that their captions fit "
            f"finetune.max_tokens={max_tokens}; {full.max()} would fit all tags"
        )
    return [pair for pair, fits in zip(pairs, fit, strict=True) if fits], notes


def by_people(pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs that people wrote; all pairs where no source says so."""
    return [pair for pair in pairs if "human" in pair.source] or list(pairs)


def _place(clip: str) -> str:
    return hashlib.blake2b(clip.encode(), digest_size=8).hexdigest()


class Draw:
    """Random training examples: a pair, weighted by its source, with its tags shuffled."""

    def __init__(
        self, pairs: Sequence[Pair], *, weights: Mapping[str, float], faithful: float
    ) -> None:
        """`weights` is per pair of a source, 1 where the source is not named."""
        self.pairs, self.faithful = pairs, faithful
        weight = np.array([weights.get(pair.source, 1.0) for pair in pairs])
        if not weight.sum() > 0:
            raise InputError("finetune.mixture gives every source of the pairs a weight of 0")
        self._chance = np.cumsum(weight / weight.sum())

    def __call__(self, rng: np.random.Generator) -> tuple[list[str], str]:
        """(tags, caption)."""
        at = int(np.searchsorted(self._chance, rng.random(), side="right"))
        pair = self.pairs[min(at, len(self.pairs) - 1)]
        tags = list(pair.tags)
        if rng.random() < self.faithful:
            tags = faithful_tags(pair) or tags
        return [tags[i] for i in rng.permutation(len(tags))][:MOST_TAGS], pair.caption


def faithful_tags(pair: Pair) -> list[str]:
    """Tags that `pair.caption` contains: its own, and vocabulary terms."""
    caption_words = set(words_of(pair.caption))
    tags = [tag for tag in pair.tags if set(words_of(tag)) <= caption_words]
    present = {word for tag in tags for word in words_of(tag)}
    return tags + [term for term in pair.terms if not set(term.split()) <= present]
