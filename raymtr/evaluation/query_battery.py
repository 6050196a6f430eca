"""A battery of typed queries, each with checks on its first hits, scored by class.

A line of the file is `{"query", "class", "check": [...]}` with optional `id`, `workspace` and
`expected`. A query passes when all its checks hold. Checks: `first` (the first hit fits), `within`
N (one of the first N fits `pred`), `share` of the first `of` hits fit `pred` (of those there are,
at least one), `none` of the first `of` may fit, `hits` [least, most], `kind` (one of), `excluded`
(an exclusion was understood), `says_unknown` and `or_says` (the answer reports what it could not
use, or makes a suggestion), `ms` (at most), `error` and `no_error`.

Predicates: `title`, `artist`, `album` (exact, any case), `title_starts`, `album_starts`,
`title_has`, `artist_has`, `tag_any`, `tag_all` (ignoring spaces, hyphens and case), `year`,
`duration`, `bpm` ([least, most]), `similar_of` (an artist of the graph), any other column of the
catalog (one of), `and`, `or`, `not`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from raymtr.errors import InputError

Track = Mapping[str, Any]
STARTS = {"title_starts": "title", "album_starts": "album"}
HAS = {"title_has": "title", "artist_has": "artist"}
RANGES = {"year": ("year",), "duration": ("duration",), "bpm": ("bpm", "tempo_bpm", "tempo")}
CHECKS = (
    *("first", "within", "share", "none", "hits", "kind", "excluded", "says_unknown", "or_says"),
    *("ms", "error", "no_error"),
)


@dataclass(frozen=True, kw_only=True)
class BatteryQuery:
    """One query and the checks on its answer."""

    query_id: str
    text: str
    kind: str
    checks: tuple[Mapping[str, Any], ...]
    workspace: str | None = None
    expected: str | None = None


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """The result of a search: an answer with its hits as rows of the catalog, or an error."""

    answer: Mapping[str, Any] | None
    tracks: Sequence[Track] = ()
    error: str | None = None


def read_battery(lines: Iterable[str], *, name: str) -> list[BatteryQuery]:
    """The queries of a JSONL file. Raises InputError that names the faulty line."""
    queries = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            checks = tuple(row["check"])
            query = BatteryQuery(
                query_id=str(row.get("id", f"line {number}")),
                text=row["query"],
                kind=row["class"],
                checks=checks,
                workspace=row.get("workspace"),
                expected=row.get("expected"),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{name}, line {number}: expected query, class and a list check, got {line[:80]!r}"
            ) from error
        for check in checks:
            if not isinstance(check, dict) or not set(check) & set(CHECKS):
                raise InputError(
                    f"{name}, line {number}: unknown check {check!r:.80}; "
                    f"accepted: {', '.join(CHECKS)}"
                )
        queries.append(query)
    return queries


def failures(query: BatteryQuery, told: SearchResult, similar: Mapping[str, set[str]]) -> list[str]:
    """The failed checks, as text; empty where the query passes.

    `similar` maps an artist in lower case to the artists similar to it in the graph, in lower case.
    """
    return [
        json.dumps(check, ensure_ascii=False)
        for check in query.checks
        if not _holds(check, told, similar)
    ]


def artists_to_look_up(queries: Iterable[BatteryQuery]) -> set[str]:
    """The artists whose neighbours `failures` needs."""
    found: set[str] = set()

    def walk(value: Any) -> None:
        if isinstance(value, Mapping):
            if "similar_of" in value:
                found.add(value["similar_of"])
            for inner in value.values():
                walk(inner)
        elif isinstance(value, (list, tuple)):
            for inner in value:
                walk(inner)

    for query in queries:
        walk(query.checks)
    return found


def wilson(right: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """The Wilson interval of a share, at 95 % unless `z` says otherwise."""
    if not count:
        return 0.0, 1.0
    share, square = right / count, z * z / count
    middle = (share + square / 2) / (1 + square)
    half = z * math.sqrt(share * (1 - share) / count + square / (4 * count)) / (1 + square)
    return max(0.0, middle - half), min(1.0, middle + half)


class ClassFigures(TypedDict):
    """How many queries of a class are right, and the Wilson interval of the share."""

    right: int
    queries: int
    share: float
    interval: list[float]


def by_class(verdicts: Iterable[tuple[str, bool]]) -> dict[str, ClassFigures]:
    """Figures of each class and of `all`, from (class, passed) pairs."""
    counts: dict[str, list[int]] = {}
    for kind, right in verdicts:
        for name in (kind, "all"):
            entry = counts.setdefault(name, [0, 0])
            entry[0] += right
            entry[1] += 1
    ordered = [name for name in counts if name != "all"] + (["all"] if counts else [])
    return {
        name: {
            "right": counts[name][0],
            "queries": counts[name][1],
            "share": round(counts[name][0] / counts[name][1], 4),
            "interval": [round(edge, 4) for edge in wilson(*counts[name])],
        }
        for name in ordered
    }


def _holds(check: Mapping[str, Any], told: SearchResult, similar: Mapping[str, set[str]]) -> bool:
    if told.answer is None:
        return bool(check.get("error"))
    if "error" in check or "no_error" in check:
        return bool(check.get("no_error"))
    answer, tracks = told.answer, told.tracks
    query = answer["query"]
    if "first" in check:
        return bool(tracks) and fits(tracks[0], check["first"], similar)
    if "within" in check:
        return any(fits(track, check["pred"], similar) for track in tracks[: check["within"]])
    if check.get("or_says") and says_unknown(answer):
        return True
    if "share" in check:
        first = tracks[: check["of"]]
        return bool(first) and (
            sum(fits(track, check["pred"], similar) for track in first)
            >= check["share"] * len(first)
        )
    if "none" in check:
        return not any(fits(track, check["none"], similar) for track in tracks[: check["of"]])
    if "hits" in check:
        least, most = check["hits"]
        return bool(least <= len(tracks) <= most)
    if "kind" in check:
        return query["kind"] in check["kind"]
    if "excluded" in check:
        understood = query.get("exclude") or query.get("understood_exclude")
        return bool(understood) == bool(check["excluded"])
    if "says_unknown" in check:
        return says_unknown(answer) == bool(check["says_unknown"])
    return bool(answer["took_ms"]["total"] <= check["ms"])


def says_unknown(answer: Mapping[str, Any]) -> bool:
    """Whether an answer reports something not understood, or suggests another query."""
    query = answer["query"]
    return bool(query.get("ignored") or query.get("suggestions"))


def fits(track: Track, predicate: Mapping[str, Any], similar: Mapping[str, set[str]]) -> bool:
    """Whether a row of the catalog satisfies every key of a predicate."""
    return all(_fits(track, name, wanted, similar) for name, wanted in predicate.items())


def _fits(track: Track, name: str, wanted: Any, similar: Mapping[str, set[str]]) -> bool:
    if name == "and":
        return all(fits(track, each, similar) for each in wanted)
    if name == "or":
        return any(fits(track, each, similar) for each in wanted)
    if name == "not":
        return not fits(track, wanted, similar)
    if name in STARTS:
        return _text(track, STARTS[name]).startswith(str(wanted).casefold())
    if name in HAS:
        return str(wanted).casefold() in _text(track, HAS[name])
    if name in ("tag_any", "tag_all"):
        tags = {_tag(tag) for tag in track.get("tags") or ()}
        present = [_tag(tag) in tags for tag in wanted]
        return any(present) if name == "tag_any" else all(present)
    if name == "similar_of":
        return _text(track, "artist") in similar.get(wanted.casefold(), ())
    if name in RANGES:
        value = next((track[c] for c in RANGES[name] if track.get(c) is not None), None)
        return value is not None and wanted[0] <= value <= wanted[1]
    return _text(track, name) in {str(value).casefold() for value in wanted}


def _text(track: Track, column: str) -> str:
    value = track.get(column)
    return "" if value is None else str(value).casefold()


def _tag(tag: str) -> str:
    return "".join(tag.casefold().replace("-", " ").split())
