"""Track, the one record of the system, and its Arrow schema.

Jobs pass tracks as Arrow tables and rows as plain dicts (that is what Ray Data hands out), so
this file holds the schema, the rule that turns any row into it, and nothing about where rows come
from. Columns a source has beyond these are kept as extras: they stay in the table under their own
names, typed as they came, and can be filtered on.
"""

from __future__ import annotations

from typing import TypedDict

import pyarrow as pa

from raymtr.errors import InputError


class Track(TypedDict, total=False):
    """One recording. `track_id` is URL-safe and unique; everything else may be absent."""

    track_id: str
    uri: str | None  # None: a track known by words alone
    title: str | None
    artist: str | None
    album: str | None
    year: int | None
    duration: float | None  # seconds
    tags: list[str] | None
    similar_artists: list[str] | None  # most similar first
    dataset: str | None  # which source of the training mixture it belongs to
    split: str | None  # train, valid or test; by artist


SCHEMA = pa.schema(
    [
        pa.field("track_id", pa.string(), nullable=False),
        pa.field("uri", pa.string()),
        pa.field("title", pa.string()),
        pa.field("artist", pa.string()),
        pa.field("album", pa.string()),
        pa.field("year", pa.int32()),
        pa.field("duration", pa.float64()),
        pa.field("tags", pa.list_(pa.string())),
        pa.field("similar_artists", pa.list_(pa.string())),
        pa.field("dataset", pa.string()),
        pa.field("split", pa.string()),
    ]
)
KNOWN = tuple(SCHEMA.names)
SPLITS = ("train", "valid", "test")
RESERVED = frozenset({"vector", "score", "fingerprint", "words", "names", "row_index"})

DEAD_LETTER = pa.schema(
    [
        pa.field("track_id", pa.string()),
        pa.field("uri", pa.string()),
        pa.field("code", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
    ]
)


def extras_of(table: pa.Table) -> list[str]:
    """Names of the columns beyond the known ones."""
    return [name for name in table.column_names if name not in KNOWN]


def check_tracks(table: pa.Table) -> pa.Table:
    """`table` in the catalog's form: known columns first and typed, extras after, sorted by id.

    Raises InputError on a missing, empty or repeated track_id, a column that does not fit its
    type, an unknown split, or an extra with a reserved name.
    """
    if "track_id" not in table.column_names:
        raise InputError(f"no track_id column; seen: {', '.join(table.column_names)}")
    clash = [n for n in extras_of(table) if n in RESERVED or n.startswith("_")]
    if clash:
        raise InputError(f"columns {', '.join(clash)} have reserved names; rename them")
    columns = {}
    for field in SCHEMA:
        if field.name not in table.column_names:
            columns[field.name] = pa.nulls(len(table), field.type)
            continue
        try:
            columns[field.name] = table[field.name].cast(field.type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            seen = table[field.name].type
            raise InputError(
                f"column {field.name!r} must be {field.type}, is {seen}: {error}"
            ) from error
    for name in extras_of(table):
        columns[name] = table[name]
    _check_ids(columns["track_id"])
    splits = set(pa.chunked_array(columns["split"]).unique().to_pylist()) - {None, *SPLITS}
    if splits:
        raise InputError(f"split is one of {', '.join(SPLITS)}, got {', '.join(sorted(splits))}")
    return pa.table(columns).sort_by("track_id")


def _check_ids(ids: pa.ChunkedArray) -> None:
    values = ids.to_pylist()
    if any(not value for value in values):
        raise InputError("track_id is empty in some rows; each track needs an id of its own")
    if len(set(values)) != len(values):
        seen: set[str] = set()
        twice = sorted({v for v in values if v in seen or seen.add(v)})  # type: ignore[func-returns-value]
        raise InputError(
            f"{len(twice)} track_id stand more than once, among them {', '.join(twice[:3])}"
        )
