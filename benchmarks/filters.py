"""Time until a filter is answered or refused: chains, deep brackets, random nests.

    python benchmarks/filters.py [--filters 2000] [--rows 2000]

For a LanceDB table with the indices of a build, each filter runs completely: text, conditions, SQL,
matching rows. Figures are milliseconds of CPU, of all threads of this process, and of wall time,
which on a shared machine is mostly waiting. Target: at most 100.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time

import lancedb
import numpy as np
import pyarrow as pa
from figures import Figures
from lancedb.index import Bitmap, BTree, LabelList

from raymtr.errors import InputError
from raymtr.index.filters import parse_filter
from raymtr.index.track_rows import read_rows

TARGET_MS = 100.0
WORDS = ["jazz", "rock", "calm", "choir", "it''s"]
INDICES = {"year": BTree(), "artist": BTree(), "tags": LabelList(), "dataset": Bitmap()}
CHAINS = {
    "60 nots": "not " * 60 + "year > 1990",
    "400 brackets": "(" * 400 + "year > 1990" + ")" * 400,
    "125 ors": " or ".join(f"plays > {n}" for n in range(125)),
    "95 ands of texts": " and ".join(f"not artist contains '{n}'" for n in range(95)),
    "50 negated lists": " and ".join(f"not plays in ({n}, {n + 1})" for n in range(50)),
    "16 levels": "".join(f"(plays = {n} {('or', 'and')[n % 2]} " for n in range(16))
    + "year > 1990"
    + ")" * 16,
}


def made_table(rows: int) -> pa.Table:
    """Tracks with nulls in every column."""
    rng = random.Random(0)

    def some(value: object) -> object:
        return value if rng.random() < 0.9 else None

    return pa.table(
        {
            "track_id": [f"t{row}" for row in range(rows)],
            "artist": [some(rng.choice(WORDS)) for _ in range(rows)],
            "dataset": [some(rng.choice("ab")) for _ in range(rows)],
            "year": pa.array([some(rng.randint(1950, 2025)) for _ in range(rows)], pa.int32()),
            "plays": pa.array([some(rng.randint(0, 99)) for _ in range(rows)], pa.int64()),
            "duration": pa.array([some(rng.uniform(9, 400)) for _ in range(rows)], pa.float64()),
            "live": pa.array([some(rng.random() < 0.5) for _ in range(rows)], pa.bool_()),
            "tags": [some(rng.sample(WORDS, rng.randint(0, 3))) for _ in range(rows)],
        }
    )


def condition(rng: random.Random) -> str:
    """One column against a value."""
    word, number = f"'{rng.choice(WORDS)}'", str(rng.choice([1990, 1990.5, 7, -3, 1e300]))
    column = rng.choice(["artist", "dataset", "year", "plays", "duration", "live", "tags"])
    if rng.random() < 0.1:
        return f"{column} is {rng.choice(['', 'not '])}null"
    if column == "tags":
        return f"tags has {word}"
    if column == "live":
        return f"live = {rng.choice(['true', 'false'])}"
    if column in ("artist", "dataset"):
        return f"{column} {rng.choice(['=', '!=', '<', 'contains'])} {word}"
    if rng.random() < 0.2:
        return f"{column} in ({', '.join(str(rng.randint(0, 2025)) for _ in range(5))})"
    return f"{column} {rng.choice(['=', '!=', '<', '<=', '>', '>='])} {number}"


def nested(rng: random.Random, depth: int) -> str:
    """A filter of at most `depth` levels."""
    if depth == 0 or rng.random() < 0.1:
        return condition(rng)
    if rng.random() < 0.25:
        return f"not ({nested(rng, depth - 1)})"
    parts = [nested(rng, depth - 1) for _ in range(rng.randint(1, 3))]
    return "(" + f" {rng.choice(['and', 'or'])} ".join(parts) + ")"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--filters", type=int, default=2_000)
    parser.add_argument("--rows", type=int, default=2_000)
    arguments = parser.parse_args()
    rng = random.Random(1)
    filters = CHAINS | {
        f"random {n}": nested(rng, rng.randint(1, 12)) for n in range(arguments.filters)
    }
    with tempfile.TemporaryDirectory() as folder:
        table = lancedb.connect(folder).create_table("tracks", made_table(arguments.rows))
        for column, index in INDICES.items():
            table.create_index(column, config=index)
        measure(table, filters)


def measure(table: lancedb.table.Table, filters: dict[str, str]) -> None:
    """Prints the time of each chain, and the percentiles of the rest."""
    read_rows(table, "(year > 1990)", ["track_id"])
    cpu, wall, refused = [], [], 0
    for name, text in filters.items():
        began, began_wall = time.process_time(), time.perf_counter()
        outcome = ""
        try:
            rows = read_rows(table, parse_filter(text, table.schema).sql(), ["track_id"])
            outcome = f"{len(rows)}"
        except InputError:
            refused += 1
        cpu.append(1e3 * (time.process_time() - began))
        wall.append(1e3 * (time.perf_counter() - began_wall))
        if name in CHAINS:
            print(f"{name:20} CPU {cpu[-1]:6.1f} ms  {f'{outcome} rows' if outcome else 'refused'}")
    figures = Figures()
    figures.add("filters", len(filters))
    figures.add("refused", refused)
    for name, taken in (("CPU", cpu), ("wall", wall)):
        p50, p99, most = np.percentile(taken, [50, 99, 100]).tolist()
        figures.add(f"{name}, p50", p50, unit="ms")
        figures.add(f"{name}, p99", p99, unit="ms")
        target = f"at most {TARGET_MS}"
        figures.add(f"{name}, most", most, unit="ms", asked=target, met=most <= TARGET_MS)
    figures.save()


if __name__ == "__main__":
    main()
