"""Full-text queries on the table of tracks, with a deterministic order of the results."""

from __future__ import annotations

from collections.abc import Sequence

from lancedb.query import FullTextOperator, FullTextQuery, MatchQuery
from lancedb.table import Table

from raymtr.index.conditions import Condition
from raymtr.index.filters import Filter, joined
from raymtr.index.track_rows import Row

Ranked = list[tuple[str, float]]  # track ids with their scores, best first

TIED = 2_000  # least number of matches to read, because many may tie at the end of the list


def contains(text: str, column: str, boost: float = 1.0) -> MatchQuery:
    """A query for rows whose `column` has at least one word of `text`, spelt the same."""
    return MatchQuery(  # with all arguments, because mypy does not see LanceDB's defaults
        text,
        column,
        boost=boost,
        fuzziness=0,
        max_expansions=50,
        operator=FullTextOperator.OR,
        prefix_length=0,
        document_granularity=None,
    )


def best_matches(
    tracks: Table,
    words: FullTextQuery,
    limit: int,
    where: Filter | None,
    names: Sequence[str] = (),
) -> Ranked:
    """The best `limit` results of a query, by BM25, whose names contain all words of `names`.

    LanceDB returns ties in any order and may cut its list within them. So more rows than `limit`
    are read, only as row ids, which is cheap, and ties are sorted in table order.
    """
    query = tracks.search(words).select(["_score"]).with_row_id(True)
    if where is not None:
        query = query.where(where.sql(), prefilter=True)
    found = query.limit(max(limit, TIED)).to_arrow()
    found = found.sort_by([("_score", "descending"), ("_rowid", "ascending")])
    ranked: Ranked = []
    columns = ["track_id", *(["names"] if names else [])]  # each costs one read per row
    for start in range(0, len(found), limit):
        part = found.slice(start, limit)
        rows = _by_row_id(tracks, part["_rowid"].to_pylist(), columns)
        for row, score in zip(rows, part["_score"].to_pylist(), strict=True):
            if all(word in (row["names"] or "") for word in names):
                ranked.append((row["track_id"], score))
        if len(ranked) >= limit:
            break
    return ranked[:limit]


def names_with(tracks: Table, words: Sequence[str], limit: int, where: Filter | None) -> Ranked:
    """Tracks whose names contain all words, by a scan in table order; every score is 1."""
    names: Filter = joined("and", *(Condition("names", "contains", (word,)) for word in words))
    condition = names if where is None else joined("and", names, where)
    query = tracks.search().where(condition.sql()).select(["track_id"])
    found = query.with_row_id(True).limit(TIED).to_arrow().sort_by("_rowid")
    return [(track_id, 1.0) for track_id in found["track_id"].to_pylist()[:limit]]


def _by_row_id(tracks: Table, row_ids: list[int], columns: list[str]) -> list[Row]:
    """Rows in the order of their LanceDB row ids."""
    taken = tracks.take_row_ids(row_ids).with_row_id().select(columns).to_arrow()
    rows = {row["_rowid"]: row for row in taken.to_pylist()}
    return [rows[row_id] for row_id in row_ids]
