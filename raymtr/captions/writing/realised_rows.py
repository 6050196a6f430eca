"""Rows of realised captions: the job's writer without a language model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from raymtr.captions.judging.faithfulness import names_of, without_names
from raymtr.captions.writing.realiser import Realised, realise
from raymtr.captions.writing.templates import SCHEMA, TRACK, clean_tags

TRIES = 4  # seeds per caption, to find one that differs from the track's others

Candidate = tuple[int, Realised]  # a seed and its caption
Order = Callable[[Sequence[str], Sequence[Candidate]], list[Candidate]]


def caption_tracks(
    tracks: pa.Table,
    *,
    per_track: int,
    seed: int,
    candidates: int | None = None,
    order: Order | None = None,
) -> pa.Table:
    """Up to `per_track` different captions for each of `tracks` (columns TRACK).

    Returns rows of `track_id, caption, provenance`. A track without tags has none, and a tag that
    contains its artist, title or album is not used. With `order`, a ranking of captions of the same
    tags, the best of `candidates` captions are kept. A track's captions depend only on its own row
    and the seed, never on other rows.
    """
    rows: list[dict[str, str]] = []
    for track in tracks.select(TRACK).to_pylist():
        tags = without_names(clean_tags(track["tags"] or ()), names_of(track))
        found = _different(tags, candidates or per_track, _number(f"{seed}\0{track['track_id']}"))
        for number, caption in (order(tags, found) if order and found else found)[:per_track]:
            record = provenance(tags, caption, number) | ({"ranked": len(found)} if order else {})
            rows.append(
                {
                    "track_id": track["track_id"],
                    "caption": caption.text,
                    "provenance": json.dumps(record, ensure_ascii=False),
                }
            )
    return pa.Table.from_pylist(rows, SCHEMA)


def provenance(tags: Sequence[str], caption: Realised, seed: int) -> dict[str, Any]:
    """Writer and input of `caption`: `realise(tags, seed)` writes it again."""
    return {
        "source": "realised",
        "tags": list(tags),
        "structure": caption.structure,
        "seed": seed,
    }


def _different(tags: Sequence[str], count: int, first: int) -> list[Candidate]:
    """Seeds and distinct captions; fewer than `count` where the tries give no more."""
    found: dict[str, Candidate] = {}
    for seed in range(first, first + count * TRIES):
        caption = realise(tags, seed)
        if caption is None or len(found) == count:
            break
        found.setdefault(caption.text, (seed, caption))
    return list(found.values())


def _number(text: str) -> int:
    """A seed of 48 bits, the same in every process; JSON represents it exactly."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=6).digest(), "big")
