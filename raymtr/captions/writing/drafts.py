"""Drafts of captions: planned from tracks, judged, and turned into caption rows.

A draft is one draw for one caption of one track. It carries its prompt and its seed, so any engine
may write it, in any order and on any machine. The judge (`captions.judging.faithfulness`) scores
it, and the best draft of a caption is kept. A caption without an acceptable draft is drawn again
with new seeds. After the last pass the realiser writes it, and its provenance says so. Between two
passes a track is a PENDING row on storage, and its new drafts carry the earlier results. So no
process keeps rejected drafts in memory.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from raymtr.captions.judging.faithfulness import (
    MusicTerms,
    acceptable,
    judge,
    names_of,
    without_names,
)
from raymtr.captions.prompt import junk, prompt_of, tags_of, tidy
from raymtr.captions.writing.realised_rows import provenance as realised_by
from raymtr.captions.writing.realiser import realise

DRAFT = pa.schema(
    [
        pa.field("track_id", pa.string()),
        pa.field("uri", pa.string()),
        pa.field("caption", pa.int64()),  # which of the track's captions, from 0
        pa.field("draw", pa.int64()),
        pa.field("tags", pa.string()),  # a JSON list: engines carry plain values best
        pa.field("names", pa.string()),  # a JSON list: names no caption may contain
        pa.field("prompt", pa.string()),
        pa.field("seed", pa.int64()),
        pa.field("text", pa.string()),
        pa.field("coverage", pa.float64()),
        pa.field("invention", pa.float64()),
        pa.field("verdict", pa.string()),  # ok, or the reason
        pa.field("error", pa.string()),  # the reason why there is no text
        pa.field("pending", pa.string()),  # a JSON list: results of earlier passes for its track
    ]
)
ABOUT = ("track_id", "uri", "tags", "names")  # columns that all drafts of a track share
PENDING = pa.schema([DRAFT.field(name) for name in (*ABOUT, "pending")])
FOUND = ("caption", "draw", "seed", "text", "coverage", "invention", "verdict", "error")
OK = "ok"


def usable_tags(track: dict[str, Any]) -> list[str]:
    """The tags of `track` for the prompt: without those that contain a name to keep out."""
    return without_names(tags_of(track["tags"]), names_of(track))


def plan_drafts(tracks: pa.Table, *, per_track: int, seed: int, draws: range) -> pa.Table:
    """A DRAFT row for each of `draws` of each caption of `tracks` (TRACK columns).

    Tracks without usable tags have none.
    """
    rows: list[dict[str, Any]] = []
    for track in tracks.to_pylist():
        if tags := usable_tags(track):
            about = {
                "track_id": track["track_id"],
                "uri": track["uri"],
                "tags": json.dumps(tags, ensure_ascii=False),
                "names": json.dumps(names_of(track), ensure_ascii=False),
            }
            rows += _draws_of(about, range(per_track), seed=seed, draws=draws)
    return pa.Table.from_pylist(rows, DRAFT)


def plan_again(pending: pa.Table, *, seed: int, draws: range) -> pa.Table:
    """A DRAFT row for each of `draws` of each rejected caption of `pending` (PENDING columns)."""
    rows: list[dict[str, Any]] = []
    for track in pending.to_pylist():
        best = json.loads(track["pending"])
        refused = [draft["caption"] for draft in best if draft["verdict"] != OK]
        rows += _draws_of(track, refused, seed=seed, draws=draws)
    return pa.Table.from_pylist(rows, DRAFT)


def _draws_of(
    about: dict[str, Any], captions: Iterable[int], *, seed: int, draws: range
) -> list[dict[str, Any]]:
    about = about | {"prompt": prompt_of(json.loads(about["tags"]))}
    return [
        {
            **about,
            "caption": caption,
            "draw": draw,
            "seed": seed_of(seed, about["track_id"], caption, draw),
        }
        for caption in captions
        for draw in draws
    ]


def pending_row(best: Sequence[dict[str, Any]]) -> dict[str, str]:
    """The PENDING row of a track to draw again, from its captions' best drafts so far."""
    about = {name: best[0][name] for name in ABOUT}
    found = [{name: draft[name] for name in FOUND} for draft in best]
    return {**about, "pending": json.dumps(found, ensure_ascii=False)}


def pending_drafts(draft: dict[str, Any]) -> list[dict[str, Any]]:
    """The best drafts of earlier passes for the track of `draft`; empty in the first pass."""
    about = {name: draft[name] for name in ABOUT}
    return [about | found for found in json.loads(draft["pending"] or "[]")]


def seed_of(seed: int, track_id: str, caption: int, draw: int) -> int:
    """A draw's own seed, 31 bits (vLLM's limit is 63), the same on every machine."""
    text = f"{seed}\0{track_id}\0{caption}\0{draw}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big") >> 1


def judge_drafts(drafts: pa.Table, vocabulary: MusicTerms) -> pa.Table:
    """`drafts` with tidied texts, scores and verdicts."""
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


def best_drafts(drafts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The best judged draft of each caption of one track, in caption order.

    Acceptable drafts come first, then coverage minus invention decides.
    """

    def worth(draft: dict[str, Any]) -> tuple[bool, bool, float, int]:
        if draft["error"] is not None:
            return (False, False, 0.0, -draft["draw"])
        return (
            draft["verdict"] == OK,
            True,
            draft["coverage"] - draft["invention"],
            -draft["draw"],
        )

    captions = sorted({draft["caption"] for draft in drafts})
    return [
        max((draft for draft in drafts if draft["caption"] == caption), key=worth)
        for caption in captions
    ]


def caption_row(draft: dict[str, Any], made_by: dict[str, Any]) -> dict[str, str]:
    """The caption row of an accepted draft; `made_by` is shared by all captions of a run."""
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


def realised_row(draft: dict[str, Any], made_by: dict[str, Any]) -> dict[str, str]:
    """The realiser's caption in place of a draft that was not acceptable."""
    tags = json.loads(draft["tags"])
    caption = realise(tags, draft["seed"])
    assert caption is not None, "a draft has tags"
    provenance = {
        **realised_by(tags, caption, draft["seed"]),
        **made_by,
        "instead_of": draft["text"],
        "because": draft["verdict"],
        "coverage": 1.0,
        "invention": 0.0,
    }
    return _row(draft, caption.text, provenance)


def _row(draft: dict[str, Any], text: str, provenance: dict[str, Any]) -> dict[str, str]:
    return {
        "track_id": draft["track_id"],
        "caption": text,
        "provenance": json.dumps(provenance, ensure_ascii=False),
    }
