"""A self-contained HTML report on a catalog: what was built, its quality, examples to play.

The page is a template beside this file. It has no external script, font or style, and its charts
are inline SVG. Only the audio is external: hits link to the files of the catalog, relative to the
report's folder, so a workspace can be moved or zipped as a whole. The template escapes everything
it shows, so a title is always text.

This file defines the facts of a report and turns them into words and links. charts.py turns them
into positions. The template sets the style. A section without facts is left out.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, TypedDict
from urllib.parse import quote

import jinja2

from raymtr import storage
from raymtr.errors import InputError
from raymtr.evaluation import charts
from raymtr.evaluation.quality import QualityFigures

TEMPLATE = "report.html.j2"
SHOWN_ERRORS = 100  # rows of the errors table; further ones are only counted
HIDDEN_SETTINGS = ("text", "mode", "k", "per_artist")  # settings in a search's query, not shown
PLAYABLE = ("http://", "https://")


class ReportHit(TypedDict, total=False):
    """A hit as search returns it, with the report's additions."""

    track_id: str
    title: str | None
    artist: str | None
    album: str | None
    uri: str | None
    score: float
    segment: Mapping[str, float] | None  # start_s, end_s: position in the track
    why: Sequence[str | Mapping[str, Any]]  # words, or search's {"by", "rank" or "matched"}
    duration: float | None  # seconds; to draw the segment's position in the track
    right: bool | None  # whether the benchmark says it is relevant; None: unknown


class ReportExample(TypedDict, total=False):
    """A query with its hits."""

    query: str
    kind: str
    understood: str | Mapping[str, Any] | None  # search's interpretation
    took_ms: float
    hits: Sequence[ReportHit]


class Captioned(TypedDict):
    """A track's tags and the captions written from them."""

    tags: Sequence[str]
    captions: Sequence[str]
    likeliest: str | None  # the one that a language model ranks first, where one is installed


class Facts(TypedDict, total=False):
    """Everything that a report can show. Only `name` is required."""

    name: str  # the headline
    lead: str  # a sentence or two under it
    made_at: str  # date, in words
    tracks: int  # in the catalog
    hours: float  # of audio
    artists: int
    built: Mapping[str, object]  # label -> value: recipe, fingerprint, sizes of the towers, ...
    quality: QualityFigures  # the answer of `raymtr evaluate`
    examples: Sequence[ReportExample]
    stages: Mapping[str, float]  # stage -> seconds, in the order they ran
    peak_memory_gib: float
    errors: Sequence[Mapping[str, Any]]  # dead-letter rows: code, reason, uri, track_id, stage
    training: Sequence[tuple[int, float | None, float | None]]  # step, loss, validation R@10
    captions: Sequence[Captioned]  # of some tracks, side by side
    notes: Sequence[str]
    versions: Mapping[str, str]


def write_report(path: str, facts: Facts) -> None:
    """Write the page to `path` (or URI). Raises InputError on unknown facts."""
    unknown = sorted(set(facts) - set(Facts.__annotations__))
    if unknown or not facts.get("name"):
        raise InputError(
            f"a report has a name, and of facts it knows {', '.join(Facts.__annotations__)}; "
            f"unknown: {', '.join(unknown) or 'none'}"
        )
    folder = None if storage.is_remote(path) else os.path.dirname(os.path.abspath(path))
    storage.write_bytes(path, render(facts, folder).encode("utf-8", "replace"))


def render(facts: Facts, folder: str | None) -> str:
    """The page as text, with audio links relative to `folder` (None: no links to local files)."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(seconds=duration_words, clock=clock, count=count_words)
    source = resources.files("raymtr.evaluation").joinpath(TEMPLATE).read_text(encoding="utf-8")
    errors = facts.get("errors")
    return environment.from_string(source).render(
        name=facts["name"],
        lead=facts.get("lead"),
        made_at=facts.get("made_at"),
        tiles=_tiles(facts),
        built=facts.get("built") or {},
        quality=charts.quality_charts(facts.get("quality")),
        examples=[_example(example, folder) for example in facts.get("examples") or ()],
        stages=charts.stage_bars(facts.get("stages") or {}),
        errors=None if errors is None else errors[:SHOWN_ERRORS],
        error_count=len(errors or ()),
        curves=charts.training_curves(facts.get("training") or ()),
        captions=facts.get("captions") or (),
        notes=facts.get("notes") or (),
        versions=facts.get("versions") or {},
    )


def _tiles(facts: Facts) -> list[tuple[str, str]]:
    """The key numbers at the top: (value, label)."""
    counts = {"tracks": facts.get("tracks"), "artists": facts.get("artists")}
    tiles = [(count_words(n), label) for label, n in counts.items() if n is not None]
    if facts.get("hours") is not None:
        tiles.append((f"{facts['hours']:,.1f}", "hours of music"))
    if facts.get("stages"):
        tiles.append((duration_words(sum(facts["stages"].values())), "from start to answers"))
    if facts.get("peak_memory_gib") is not None:
        tiles.append((f"{facts['peak_memory_gib']:.1f} GiB", "memory at its peak"))
    return tiles


def _example(example: ReportExample, folder: str | None) -> dict[str, object]:
    kind = example.get("kind") or ""
    return {
        "query": example["query"],
        "kind": charts.kind_words(kind)[0],
        "understood": _understood(example["query"], example.get("understood")),
        "took_ms": example.get("took_ms"),
        "hits": [_hit(hit, folder) for hit in example.get("hits") or ()],
    }


def _understood(text: str, query: str | Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """(name, value) of search's interpretation, without what only repeats the query."""
    named = {"kind": query} if isinstance(query, str) else query or {}
    shown = []
    for name in sorted(named, key=lambda name: name != "kind"):  # kind first
        value = named[name]
        words = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
        if name not in HIDDEN_SETTINGS and value and words != text:
            shown.append(("understood as" if name == "kind" else name.replace("_", " "), words))
    return shown


def _hit(hit: ReportHit, folder: str | None) -> dict[str, object]:
    segment, duration = hit.get("segment"), hit.get("duration")
    start = segment["start_s"] if segment else 0.0
    end = segment["end_s"] if segment else 0.0
    place = None
    if segment and duration and duration > 0:
        left = min(max(start / duration, 0.0), 1.0)
        place = {"left": 100 * left, "width": 100 * max(min(end / duration, 1.0) - left, 0.01)}
    return {
        "title": hit.get("title") or hit["track_id"],
        "artist": hit.get("artist"),
        "album": hit.get("album"),
        "why": [_reason(reason) for reason in hit.get("why") or ()],
        "right": hit.get("right"),
        "href": media_href(hit.get("uri"), folder, start_s=start),
        "start": start if segment else None,
        "end": end,
        "place": place,
    }


def _reason(reason: str | Mapping[str, Any]) -> str:
    """`sound #3` for the third by sound; `tags: piano, calm` for matched tags."""
    if isinstance(reason, str):
        return reason
    if reason.get("matched"):
        return f"{reason['by']}: {', '.join(reason['matched'])}"
    return f"{reason['by']} #{reason['rank']}" if reason.get("rank") else str(reason["by"])


def media_href(uri: str | None, folder: str | None, *, start_s: float) -> str | None:
    """A link that a browser can play, from a page in `folder`; None where there is none.

    Local files are linked relative to the page, percent-encoded byte by byte, so any file name
    works. The fragment makes the player start at `start_s` seconds.
    """
    if not uri:
        return None
    fragment = f"#t={start_s:g}" if start_s > 0 else ""
    if uri.startswith(PLAYABLE):
        return uri + fragment
    if storage.is_remote(uri) or folder is None:
        return None
    path = os.path.relpath(os.path.abspath(storage.local_path(uri)), folder)
    return quote(os.fsencode(path)) + fragment


def duration_words(seconds: float) -> str:
    """`8.4 s`, `2 min 05 s`, `3 h 20 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    total = round(seconds)
    if total < 3600:
        return f"{total // 60} min {total % 60:02d} s"
    return f"{total // 3600} h {total % 3600 // 60:02d} min"


def clock(seconds: float) -> str:
    """A position in a track as `1:07`."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def count_words(value: float) -> str:
    """A count with thousands separators."""
    return f"{value:,.0f}"
