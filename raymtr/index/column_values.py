"""What the columns of a table hold: its tags, its categories, its names in other scripts.

A search needs them to understand a query. Collecting them scans the table, so it is done once, when
the table is published, and every replica reads the file. A table without the file is scanned: one
of an older build, or one whose rows were published before their indices.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from raymtr import storage
from raymtr.index.build import Build

TAG_COLUMNS = ("tags", "heard", "heard_tags", "labels")  # lists of tags; optional
TRANSLITERATED = ("title", "artist")  # columns whose names are asked for in Latin letters too
MOST_VALUES = 1_000  # distinct values of a text column that is a set of categories
KEPT = "values"  # folder of the database
SCHEMA = pa.schema(
    [("what", pa.string()), ("column", pa.string()), ("value", pa.string()), ("tracks", pa.int64())]
)

Stream = Callable[[str], Iterator[pa.RecordBatch]]  # one column of all rows


@dataclass(frozen=True)
class ColumnValues:
    """The values of one table's columns."""

    filled: frozenset[str]  # columns in which some track has a value
    # Column -> value -> its tracks: all of TAG_COLUMNS, and text columns, or lists of texts, of at
    # most MOST_VALUES values.
    counts: Mapping[str, Mapping[str, int]]
    other_scripts: Mapping[str, frozenset[str]]  # TRANSLITERATED -> names that are not ASCII

    @property
    def tags(self) -> dict[str, Mapping[str, int]]:
        """Tag column -> tag -> its tracks."""
        return {name: self.counts[name] for name in TAG_COLUMNS if name in self.counts}

    @classmethod
    def collect(cls, schema: pa.Schema, filled: Iterable[str], stream: Stream) -> ColumnValues:
        """The values of the `filled` columns of `schema`, read from their `stream`."""
        filled = frozenset(filled)
        texts = [field.name for field in schema if field.name in filled and _is_text(field.type)]
        counted = {name: _count(name, stream(name)) for name in texts}
        names = {name: _other_scripts(stream(name)) for name in TRANSLITERATED if name in filled}
        return cls(
            filled,
            {name: counts for name, counts in counted.items() if counts},
            {name: found for name, found in names.items() if found},
        )

    @classmethod
    def merged(cls, parts: Iterable[ColumnValues]) -> ColumnValues:
        """The values of a table from those of its shards."""
        parts = list(parts)
        filled = frozenset[str]().union(*(part.filled for part in parts))
        counts: dict[str, Mapping[str, int]] = {}
        for name in {name for part in parts for name in part.counts}:
            total: Counter[str] = Counter()
            for part in parts:
                total.update(part.counts.get(name, {}))
            # A shard that has the column without its values has too many.
            complete = all(name in part.counts or name not in part.filled for part in parts)
            if complete and (name in TAG_COLUMNS or len(total) <= MOST_VALUES):
                counts[name] = dict(total)
        names = {
            name: frozenset[str]().union(*(part.other_scripts.get(name, ()) for part in parts))
            for name in TRANSLITERATED
        }
        return cls(filled, counts, {name: found for name, found in names.items() if found})

    def write(self, database: str, build: Build) -> None:
        """Keep the values with the table of `build`, or of a table shard of one."""
        rows: list[tuple[str, str, str | None, int | None]] = []
        rows += [("filled", name, None, None) for name in sorted(self.filled)]
        for name, counts in self.counts.items():
            rows += [("count", name, value, tracks) for value, tracks in counts.items()]
        for name, names in self.other_scripts.items():
            rows += [("name", name, value, None) for value in sorted(names)]
        columns = zip(*rows, strict=True) if rows else ([], [], [], [])
        arrays = [
            pa.array(list(cells), kind) for cells, kind in zip(columns, SCHEMA.types, strict=True)
        ]
        storage.write_table(_file(database, build), pa.table(arrays, schema=SCHEMA))

    @classmethod
    def read(cls, database: str, build: Build) -> ColumnValues | None:
        """The values that were kept with a table; None if there are none."""
        if not storage.exists(file := _file(database, build)):
            return None
        filled: set[str] = set()
        counts: dict[str, dict[str, int]] = {}
        names: dict[str, set[str]] = {}
        for row in storage.read_table(file).to_pylist():
            if row["what"] == "filled":
                filled.add(row["column"])
            elif row["what"] == "count":
                counts.setdefault(row["column"], {})[row["value"]] = row["tracks"]
            else:
                names.setdefault(row["column"], set()).add(row["value"])
        return cls(frozenset(filled), counts, {n: frozenset(v) for n, v in names.items()})


def drop_values(database: str, wanted: Callable[[str, int], bool]) -> None:
    """Delete the kept values of tables that are not `wanted`, by name and version of the table."""
    folder = f"{database}/{KEPT}"
    for file in storage.list_files(folder, suffix=".parquet"):
        table, _, version = file.removesuffix(".parquet").rpartition("-")
        if not wanted(table, int(version)):
            storage.delete(f"{folder}/{file}")


def _file(database: str, build: Build) -> str:
    return f"{database}/{KEPT}/{build.name}-{build.versions['tracks']}.parquet"


def _is_text(kind: pa.DataType) -> bool:
    return bool(pt.is_string(kind.value_type if pt.is_list(kind) else kind))


def _count(column: str, batches: Iterable[pa.RecordBatch]) -> dict[str, int] | None:
    """How many tracks have each text of a column; None as soon as there are too many texts."""
    counts: Counter[str] = Counter()
    for batch in batches:
        cells = batch[column]
        texts = pc.list_flatten(cells) if pt.is_list(cells.type) else cells
        pairs = texts.value_counts()
        values, numbers = pairs.field("values"), pairs.field("counts")
        counts.update(dict(zip(values.to_pylist(), numbers.to_pylist(), strict=True)))
        if column not in TAG_COLUMNS and len(counts) > MOST_VALUES:
            return None
    return {text: count for text, count in counts.items() if text}


def _other_scripts(batches: Iterable[pa.RecordBatch]) -> frozenset[str]:
    found: set[str] = set()
    for batch in batches:
        names = batch.column(0).unique().drop_null()
        found.update(names.filter(pc.invert(pc.string_is_ascii(names))).to_pylist())
    return frozenset(found)
