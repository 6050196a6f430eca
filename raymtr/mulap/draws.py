"""Random draws for a row of a MuLaP batch: masked words, masked chunks, an untrue sentence.

Pure functions of a numpy rng, so a batch can be built again on any number of workers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from raymtr.text import draw_sentence

NO_LABEL = -100  # of a word that is not predicted; cross entropy ignores it
MASK_TOKEN, OTHER_TOKEN = 0.8, 0.1  # shares of masked words; the rest are unchanged (BERT)
TRIES = 16  # other tracks tried for an untrue sentence


def mask_words(
    ids: Sequence[int],
    share: float,
    rng: np.random.Generator,
    *,
    special: Collection[int],
    mask_id: int,
    vocabulary: int,
) -> tuple[list[int], list[int]]:
    """The input ids and the label of each: the original id if it is to be predicted.

    A `share` of the words is masked: 80 % become `mask_id`, 10 % any id, 10 % stay (Devlin et al.
    2019). Tokens in `special` are never masked.
    """
    read, labels = list(ids), [NO_LABEL] * len(ids)
    for place, word in enumerate(ids):
        chosen, kind, other = rng.random(), rng.random(), int(rng.integers(vocabulary))
        if word in special or chosen >= share:
            continue
        labels[place] = word
        if kind < MASK_TOKEN:
            read[place] = mask_id
        elif kind < MASK_TOKEN + OTHER_TOKEN:
            read[place] = other
    return read, labels


def mask_chunks(count: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """Which of `count` chunks are masked, bool [count]; at least one is not masked."""
    masked = np.asarray(rng.random(count) < share)
    if masked.all():
        masked[int(rng.integers(count))] = False
    return masked


def pair_sentence(
    track: Mapping[str, Any],
    others: Sequence[Mapping[str, Any]],
    rng: np.random.Generator,
    weights: Mapping[str, float] | None = None,
    *,
    true: bool,
) -> str | None:
    """A sentence about `track`, or an untrue one, about one of `others`; None if none has one.

    Either has nothing that is true of both tracks. If only untrue sentences lacked what is shared,
    they could be told by their words, and a matching head would not have to listen.
    """
    for other in others:
        texts = untrue(track, other) if true else untrue(other, track)
        sentence = draw_sentence(texts, texts["captions"], rng, weights)
        if sentence is not None:
            return sentence
    return None


def untrue(other: Mapping[str, Any], track: Mapping[str, Any]) -> dict[str, Any]:
    """The texts of `other` without those that are also true of `track`.

    A tag or a similar artist that both have is left out. A caption stays if it names a tag that
    only `other` has. If `other` has no tags, a caption stays if `track` does not have it too. Names
    stay only if the artist is another one.
    """
    tags = _without(other.get("tags"), track.get("tags"))
    captions = _without(other.get("captions"), track.get("captions"))
    if other.get("tags"):
        captions = [c for c in captions if any(tag.casefold() in c.casefold() for tag in tags)]
    texts: dict[str, Any] = {"tags": tags, "captions": captions}
    names = {name: other.get(name) for name in ("title", "artist", "album")}
    if _same(other.get("artist"), track.get("artist")):
        return texts | {"similar_artists": []}
    known = [*(track.get("similar_artists") or ()), *filter(None, [track.get("artist")])]
    texts["similar_artists"] = _without(other.get("similar_artists"), known)
    return texts | {n: None if _same(text, track.get(n)) else text for n, text in names.items()}


def _without(texts: Sequence[str] | None, known: Sequence[str] | None) -> list[str]:
    same = {text.casefold() for text in known or ()}
    return [text for text in texts or () if text.casefold() not in same]


def _same(one: str | None, other: str | None) -> bool:
    return (one or "").casefold() == (other or "").casefold()
