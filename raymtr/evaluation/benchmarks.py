"""A benchmark: queries, a pool of tracks, and the relevant tracks of each query.

A query has two wordings. `text` is what a person types and what search receives. `sentence` is what
the text tower reads, where the towers were trained on another form of the same words. The relevant
tracks are the same, so both columns of a report are comparable.

On disk it is a folder of three small text files, which users can write themselves:

    queries.jsonl   one {"query_id", "text"} per line; "kind" and "sentence" are optional
    qrels.txt       TREC's `query_id 0 track_id grade`; grade 0 is not relevant
    pool.txt        one track_id per line; without it the pool is every track of the catalog

`raymtr evaluate` writes the same three files, so a benchmark drawn once can be run again.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raymtr import storage
from raymtr.errors import InputError
from raymtr.evaluation import trec

QUERIES, QRELS, POOL = "queries.jsonl", "qrels.txt", "pool.txt"


@dataclass(frozen=True, kw_only=True)
class Query:
    """One query in both wordings."""

    query_id: str
    kind: str
    text: str
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Queries over `pool`; `right` maps a query's id to its relevant tracks and grades (> 0).

    Raises InputError where two queries are equal, or one has no relevant track in the pool.
    """

    pool: tuple[str, ...]
    queries: tuple[Query, ...]
    right: Mapping[str, Mapping[str, int]]
    notes: tuple[str, ...] = ()  # what was left out, and why

    def __post_init__(self) -> None:
        _refuse_repeats("query_id", [q.query_id for q in self.queries])
        _refuse_repeats("query", [f"{q.kind}: {q.text}" for q in self.queries])
        _refuse_repeats("pool track", self.pool)
        if not self.queries:
            raise InputError("a benchmark without queries; it takes at least one")
        pool = set(self.pool)
        for query in self.queries:
            answers = self.right.get(query.query_id)
            if not answers:
                raise InputError(f"query {query.query_id!r} has no right answer; give it one")
            outside = sorted(set(answers) - pool)
            if outside:
                raise InputError(
                    f"{len(outside)} right answers of query {query.query_id!r} are not in the "
                    f"pool of {len(pool)} tracks, among them {', '.join(outside[:3])}"
                )

    def kinds(self) -> list[str]:
        """The kinds of query, in order of their first query."""
        return list(dict.fromkeys(q.kind for q in self.queries))

    def of_kind(self, kind: str) -> list[Query]:
        """The queries of one kind."""
        return [q for q in self.queries if q.kind == kind]

    def grades(self, query_id: str) -> NDArray[np.int64]:
        """Grade of every pool track for one query, [N]; 0 is not relevant."""
        answers = self.right[query_id]
        return np.array([answers.get(track_id, 0) for track_id in self.pool], np.int64)


def _refuse_repeats(what: str, values: Sequence[str]) -> None:
    twice = [value for value, count in Counter(values).items() if count > 1]
    if twice:
        raise InputError(f"{what} {twice[0]!r} occurs more than once; keep one of them")


def save_benchmark(benchmark: Benchmark, folder: str) -> None:
    """Write the three files of `benchmark` into the folder (path or URI)."""
    lines = [json.dumps(asdict(query), ensure_ascii=False) for query in benchmark.queries]
    storage.write_bytes(f"{folder}/{QUERIES}", _text(lines))
    storage.write_bytes(f"{folder}/{QRELS}", _text(trec.qrels_lines(benchmark.right)))
    storage.write_bytes(f"{folder}/{POOL}", _text(benchmark.pool))


def _text(lines: Sequence[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def load_benchmark(folder: str, *, track_ids: Sequence[str]) -> Benchmark:
    """The benchmark in `folder` (path or URI), over a catalog with these track ids.

    Raises InputError, naming file and line, on what is missing, malformed or not in the catalog.
    """
    queries = [
        _query(document, where)
        for where, line in _lines(f"{folder}/{QUERIES}")
        for document in [_json_object(line, where)]
    ]
    known = {query.query_id for query in queries}
    right: dict[str, dict[str, int]] = {}
    for where, line in _lines(f"{folder}/{QRELS}"):
        query_id, track_id, grade = trec.parse_qrel(line, where)
        if query_id not in known:
            raise InputError(f"{where}: query {query_id!r} is not in {QUERIES}")
        if grade > 0:
            right.setdefault(query_id, {})[track_id] = grade
    pool = _pool(folder, track_ids)
    return Benchmark(pool=tuple(pool), queries=tuple(queries), right=right)


def _pool(folder: str, track_ids: Sequence[str]) -> list[str]:
    if not storage.exists(f"{folder}/{POOL}"):
        return sorted(track_ids)
    pool = [line for _, line in _lines(f"{folder}/{POOL}")]
    unknown = sorted(set(pool) - set(track_ids))
    if unknown:
        raise InputError(
            f"{len(unknown)} tracks of {folder}/{POOL} are not in the catalog, among them "
            f"{', '.join(unknown[:3])}"
        )
    return pool


def _lines(uri: str) -> list[tuple[str, str]]:
    """Non-blank lines, each with its location."""
    if not storage.exists(uri):
        raise InputError(f"no {uri}; a benchmark is a folder with {QUERIES} and {QRELS}")
    try:
        lines = storage.read_bytes(uri).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{uri} is not UTF-8 text: {error.reason}") from error
    return [(f"{uri}:{n}", line.strip()) for n, line in enumerate(lines, start=1) if line.strip()]


def _json_object(line: str, where: str) -> dict[str, Any]:
    try:
        document = json.loads(line)
    except ValueError as error:
        raise InputError(f"{where}: not a JSON object: {error}") from error
    if not isinstance(document, dict):
        raise InputError(f"{where}: one JSON object per line, got {line[:40]!r}")
    return document


def _query(document: Mapping[str, Any], where: str) -> Query:
    accepted = tuple(Query.__dataclass_fields__)
    unknown = [name for name in document if name not in accepted]
    if unknown:
        raise InputError(f"{where}: unknown key {unknown[0]!r}; accepted: {', '.join(accepted)}")
    for name in ("query_id", "text"):
        if name not in document:
            raise InputError(f"{where}: {name!r} is missing")
    filled = {"kind": "query", **document}
    filled.setdefault("sentence", filled["text"])
    for name, value in filled.items():
        if not isinstance(value, str) or not value.strip():
            raise InputError(f"{where}: {name!r} is a string with words in it, got {value!r}")
    if filled["query_id"].split() != [filled["query_id"]]:
        raise InputError(f"{where}: query_id {filled['query_id']!r} must not have spaces in it")
    return Query(**filled)
