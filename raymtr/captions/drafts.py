"""From tracks to drafts, from drafts to captions: all that is not the language model's.

A draft is one draw for one caption of one track. It carries its prompt and its seed, so any engine
may write it, in any order and on any machine; the judge (`captions.faithfulness`) scores it, and
the best draft of a caption is kept. What no draw got right is drawn again with new seeds, and
at last a template writes it, which says so in its provenance.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from raymtr.captions.faithfulness import Vocabulary, acceptable, judge, names_of, without_names
from raymtr.captions.prompt import junk, prompt_of, tags_of, tidy
from raymtr.captions.templates import template_caption

DRAFT = pa.schema(
    [
        pa.field("track_id", pa.string()),
        pa.field("uri", pa.string()),
        pa.field("caption", pa.int64()),  # which of the track's captions, from 0
        pa.field("draw", pa.int64()),
        pa.field("tags", pa.string()),  # a JSON list: engines carry rows of plain values best
        pa.field("names", pa.string()),  # a JSON list: what no caption may say
        pa.field("prompt", pa.string()),
        pa.field("seed", pa.int64()),
        pa.field("text", pa.string()),
        pa.field("coverage", pa.float64()),
        pa.field("invention", pa.float64()),
        pa.field("verdict", pa.string()),  # ok, or why not
        pa.field("error", pa.string()),  # why there is no text
    ]
)
OK = "ok"


def usable_tags(track: dict[str, Any]) -> list[str]:
    """The tags of `track` that a model may be told: none that would say a name it must not."""
    return without_names(tags_of(track["tags"]), names_of(track))


def plan_drafts(
    tracks: pa.Table,
    *,
    per_track: int,
    seed: int,
    draws: range,
    wanted: frozenset[tuple[str, int]] | None = None,
) -> pa.Table:
    """A DRAFT row for each of `draws` of each caption of `tracks` (TRACK columns).

    Tracks without usable tags have none. `wanted` are the (track, caption) still to be drawn.
    """
    rows: list[dict[str, Any]] = []
    for track in tracks.to_pylist():
        tags, track_id = usable_tags(track), track["track_id"]
        shared = {
            "track_id": track_id,
            "uri": track["uri"],
            "tags": json.dumps(tags, ensure_ascii=False),
            "names": json.dumps(names_of(track), ensure_ascii=False),
        }
        for caption in range(per_track if tags else 0):
            if wanted is not None and (track_id, caption) not in wanted:
                continue
            shared |= {"caption": caption, "prompt": prompt_of(tags)}
            for draw in draws:
                rows.append(
                    {**shared, "draw": draw, "seed": seed_of(seed, track_id, caption, draw)}
                )
    return pa.Table.from_pylist(rows, DRAFT)


def seed_of(seed: int, track_id: str, caption: int, draw: int) -> int:
    """A draw's own seed, 31 bits (vLLM's limit is 63), the same on every machine."""
    text = f"{seed}\0{track_id}\0{caption}\0{draw}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big") >> 1


def judge_drafts(drafts: pa.Table, vocabulary: Vocabulary) -> pa.Table:
    """`drafts` with their texts made tidy, scored, and a verdict on each."""
    rows = drafts.to_pylist()
    for row in rows:
        if row["error"] is not None or row["text"] is None:
            row["error"] = row["error"] or "the engine wrote nothing"
            continue
        row["text"] = tidy(row["text"])
        tags, names = json.loads(row["tags"]), json.loads(row["names"])
        found = judge(row["text"], tags, vocabulary, names=names)
        row |= {"coverage": found.coverage, "invention": found.invention}
        row["verdict"] = junk(row["text"]) or (OK if acceptable(found) else "unfaithful")
        if found.leaked:
            row["verdict"] = "leaks a name"
    return pa.Table.from_pylist(rows, DRAFT)


def best_draft(drafts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of one caption's judged drafts: an acceptable one before others, then by its figures."""

    def worth(draft: dict[str, Any]) -> tuple[bool, bool, float, int]:
        if draft["error"] is not None:
            return (False, False, 0.0, -draft["draw"])
        return (
            draft["verdict"] == OK,
            True,
            draft["coverage"] - draft["invention"],
            -draft["draw"],
        )

    return max(drafts, key=worth)


def caption_row(draft: dict[str, Any], made_by: dict[str, Any]) -> dict[str, str]:
    """The caption's row of an accepted draft; `made_by` is what all captions of a run share."""
    provenance = {
        "source": "model",
        "tags": json.loads(draft["tags"]),
        **made_by,
        "seed": draft["seed"],
        "draw": draft["draw"],
        "coverage": round(draft["coverage"], 4),
        "invention": round(draft["invention"], 4),
    }
    return _row(draft, draft["text"], provenance)


def template_row(draft: dict[str, Any], made_by: dict[str, Any]) -> dict[str, str]:
    """A template's caption in the place of a draft that could not be accepted."""
    text = template_caption(json.loads(draft["tags"]), np.random.default_rng(draft["seed"]))
    assert text is not None, "a draft has tags"
    provenance = {
        "source": "template",
        "tags": json.loads(draft["tags"]),
        **made_by,
        "seed": draft["seed"],
        "instead_of": draft["text"],
        "because": draft["verdict"],
        "coverage": 1.0,
        "invention": 0.0,
    }
    return _row(draft, text, provenance)


def _row(draft: dict[str, Any], text: str, provenance: dict[str, Any]) -> dict[str, str]:
    return {
        "track_id": draft["track_id"],
        "caption": text,
        "provenance": json.dumps(provenance, ensure_ascii=False),
    }
