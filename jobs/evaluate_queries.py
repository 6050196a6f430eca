"""`raymtr evaluate queries --file F`: the share of queries that are answered right, by class.

The file contains queries as people type them, with checks on the first hits (format:
raymtr.evaluation.query_battery). If it names workspaces, `--only` selects those of one. Output:
`evaluation/queries.json`.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, TypedDict, final

from raymtr import storage
from raymtr.errors import InputError
from raymtr.evaluation.query_battery import (
    BatteryQuery,
    ClassFigures,
    SearchResult,
    artists_to_look_up,
    by_class,
    failures,
    read_battery,
)
from raymtr.names import name_key
from raymtr.progress import Progress
from raymtr.search.answer_parts import QueryEcho
from raymtr.workspace import Workspace

if TYPE_CHECKING:
    from raymtr.search.searcher import Searcher

OWN = ("file", "only")  # arguments of queries alone
HITS = 10


WrongAnswer = TypedDict(
    "WrongAnswer",
    {
        "id": str,
        "query": str,
        "class": str,
        "expected": str | None,
        "failed": list[str],
        "understood": QueryEcho | None,
        "error": str | None,
        "hits": list[dict[str, Any]],  # some fields of the first tracks
    },
)


class BatteryFigures(TypedDict):
    """Shares of right answers by class, and every wrong answer."""

    file: str
    workspace: str | None
    classes: dict[str, ClassFigures]
    wrong: list[WrongAnswer]
    p50_ms: float | None


@final
class QueriesAnswer(BatteryFigures):
    """The figures, and where they were written."""

    files: dict[str, str]


def add_arguments(parser: argparse._ArgumentGroup) -> None:
    """Adds the arguments of `queries`."""
    parser.add_argument("--file", metavar="JSONL", help="queries with checks, a line each")
    parser.add_argument(
        "--only", metavar="NAME", help="of the file only the lines whose `workspace` is this"
    )


def run(arguments: argparse.Namespace, workspace: Workspace) -> QueriesAnswer:
    """The command-line entry point."""
    if arguments.file is None:
        raise InputError("`raymtr evaluate queries` needs --file: queries with checks, JSON lines")
    return evaluate_queries(workspace, arguments.file, only=arguments.only, out=arguments.out)


def evaluate_queries(
    workspace: Workspace, file: str, *, only: str | None = None, out: str | None = None
) -> QueriesAnswer:
    """Shares of right answers by class with their Wilson intervals, and every wrong answer.

    Raises InputError if the file is missing or malformed, or contains no query to run.
    """
    if not storage.exists(file):
        raise InputError(f"there is nothing at {file}; expected queries with checks, JSON lines")
    queries = read_battery(storage.read_bytes(file).decode().splitlines(), name=file)
    if only is not None:
        queries = [query for query in queries if query.workspace == only]
    if not queries:
        raise InputError(f"no query in {file}" + (f" is of workspace {only!r}" if only else ""))
    from raymtr.search.searcher import Searcher  # LanceDB

    searcher = Searcher(workspace)
    similar = _neighbours(searcher, artists_to_look_up(queries))
    progress = Progress("queries", len(queries), unit="queries")
    verdicts, wrong, took = [], [], []
    for query in queries:
        outcome = _ask(searcher, query)
        failed = failures(query, outcome, similar)
        verdicts.append((query.kind, not failed))
        if outcome.answer is not None:
            took.append(outcome.answer["took_ms"]["total"])
        if failed:
            wrong.append(_wrong(query, outcome, failed))
        progress.advance(1)
    figures: BatteryFigures = {
        "file": file,
        "workspace": only,
        "classes": by_class(verdicts),
        "wrong": wrong,
        "p50_ms": round(sorted(took)[len(took) // 2], 3) if took else None,
    }
    written = f"{out or workspace.path('evaluation')}/queries.json"
    storage.write_json(written, figures)
    return {**figures, "files": {"metrics": written}}


def _ask(searcher: Searcher, query: BatteryQuery) -> SearchResult:
    try:
        answer = searcher.search(query.text, k=HITS)
    except InputError as error:
        return SearchResult(answer=None, error=str(error))
    ids = [hit["track_id"] for hit in answer["hits"]]
    rows = searcher.table.rows(ids)
    return SearchResult(answer=answer, tracks=[rows[track_id] for track_id in ids])


def _neighbours(searcher: Searcher, artists: set[str]) -> dict[str, set[str]]:
    """For each artist, its neighbours in the artist graph, in lower case."""
    found = {}
    for artist in artists:
        key = name_key(artist) or ""
        tracks = [row["track_id"] for row in searcher.table.named([key])]
        rows = searcher.table.rows(tracks, ["artist", "similar_artists"]).values()
        names = {
            name.casefold()
            for row in rows
            if name_key(row["artist"]) == key
            for name in row["similar_artists"] or ()
        }
        naming = searcher.table.rows(list(searcher.table.similar_to(key)), ["artist"])
        names |= {row["artist"].casefold() for row in naming.values() if row["artist"]}
        found[artist.casefold()] = names
    return found


def _wrong(query: BatteryQuery, told: SearchResult, failed: list[str]) -> WrongAnswer:
    return {
        "id": query.query_id,
        "query": query.text[:200],
        "class": query.kind,
        "expected": query.expected,
        "failed": failed,
        "understood": told.answer["query"] if told.answer else None,
        "error": told.error,
        "hits": [
            {name: track.get(name) for name in ("title", "artist", "tags", "year", "duration")}
            for track in told.tracks[:5]
        ],
    }


def describe(answer: QueriesAnswer) -> str:
    """A line per class, then a line per wrong query."""
    lines = [f"{'class':48}{'right':>7}{'of':>5}{'share':>8}  95 % (Wilson)"]
    for name, figures in answer["classes"].items():
        low, high = figures["interval"]
        lines.append(
            f"{name[:47]:48}{figures['right']:>7}{figures['queries']:>5}"
            f"{figures['share']:8.1%}  {low:.1%} to {high:.1%}"
        )
    if answer["wrong"]:
        lines += ["", "wrong:"]
    for wrong in answer["wrong"]:
        lines.append(
            f"  {wrong['id']}  {wrong['query'][:60]!r}  {'; '.join(wrong['failed'])[:160]}"
        )
    return "\n".join([*lines, "", f"written to {answer['files']['metrics']}"])
