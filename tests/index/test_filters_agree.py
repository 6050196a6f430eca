"""Filters against a reference evaluator over Arrow: the same rows, or the same refusal.

Each random filter is built as a tree with its text; the reference evaluates the tree as it stands,
three-valued and with exact numbers, over the same Arrow table that LanceDB holds, once without
indices and once with those of a build.
"""

from __future__ import annotations

import itertools
import string
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lancedb.index import Bitmap, BTree, LabelList

from raymtr.errors import InputError
from raymtr.index.filters import DEEPEST, parse_filter
from raymtr.index.track_rows import read_rows

pytestmark = pytest.mark.slow

INDICES = {"year": BTree(), "artist": BTree(), "duration": BTree(), "tags": LabelList()}
INDICES |= {"dataset": Bitmap(), "split": Bitmap()}
TYPES = {
    "track_id": pa.string(),
    "artist": pa.string(),
    "dataset": pa.string(),
    "split": pa.string(),
    "year": pa.int32(),
    "plays": pa.int64(),
    "small": pa.int8(),
    "big": pa.uint64(),
    "duration": pa.float64(),
    "gain": pa.float32(),
    "live": pa.bool_(),
    "day": pa.date32(),
    "seen": pa.timestamp("us"),
    "tags": pa.list_(pa.string()),
    "moods": pa.list_(pa.int64()),
    "marks": pa.list_(pa.float64()),
}
WORDS = ["", "a", "A", "jazz", "it's", '"', "\\", "é", "日本", "z z"]
WHOLE = [0, 1, -1, 5, 127, -128, 1990, 1991, 2**31 - 1, -(2**31), 2**53 + 1, 2**63 - 1, -(2**63)]
BROKEN = [0.1, 1990.5, -0.5, 61.0, 1e-320, 1e300]
DAYS = [date(1950, 5, 5), date(1970, 1, 1), date(2020, 1, 31)]
MOMENTS = [datetime(1950, 5, 5), datetime(2020, 1, 31, 18, 30, 0, 6)]
FITTING: dict[str, list[Any]] = {
    "string": WORDS,
    "int": [*WHOLE, 2**64 - 1],
    "double": [*BROKEN, *map(float, WHOLE[:8])],
    "float": [*BROKEN[:4], 0.0, 1990.0],
    "bool": [True, False],
    "date32": DAYS,
    "timestamp": MOMENTS,
}


def family(kind: pa.DataType) -> str:
    name = str(kind).partition("[")[0]
    return "int" if "int" in name else name


def values_of(kind: pa.DataType, count: int, rng: np.random.Generator) -> list[Any]:
    if pa.types.is_list(kind):
        lists = [values_of(kind.value_type, int(rng.integers(0, 4)), rng) for _ in range(count)]
        return [[v for v in one if v is not None] if rng.random() < 0.8 else None for one in lists]
    fitting = FITTING[family(kind)]
    if family(kind) == "int":
        low, high = (0, 2**64) if kind == pa.uint64() else (-(2 ** (kind.bit_width - 1)),) * 2
        high = high if high > 0 else -low
        fitting = [value for value in fitting if low <= value < high]
    picked = rng.integers(0, len(fitting), count)
    return [None if rng.random() < 0.2 else fitting[int(i)] for i in picked]


def made_table(count: int) -> pa.Table:
    rng = np.random.default_rng(3)
    columns = {name: pa.array(values_of(kind, count, rng), kind) for name, kind in TYPES.items()}
    return pa.table(columns | {"track_id": pa.array([f"t{i:02}" for i in range(count)])})


@dataclass(frozen=True)
class Said:
    """A filter as text, and what it lets through; `wrong` where a value does not fit."""

    text: str
    mask: Callable[[pa.Table], pa.Array]
    wrong: bool = False
    deep: int = 0


def said_literal(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (str, date)):
        return "'" + str(value).replace("'", "''") + "'"
    return str(value)


def met(verb: str, held: Any, values: list[Any]) -> bool | None:
    if held is None:
        return None
    if verb == "has":
        return any(same(item, values[0]) for item in held)
    if verb == "contains":
        return values[0] in held
    if verb == "in":
        return any(same(held, value) for value in values)
    held, value = (exact(held, values[0]), exact(values[0], held))
    return {
        "=": held == value,
        "!=": held != value,
        "<": held < value,
        "<=": held <= value,
        ">": held > value,
        ">=": held >= value,
    }[verb]


def same(held: Any, value: Any) -> bool:
    return bool(exact(held, value) == exact(value, held))


def exact(value: Any, beside: Any) -> Any:
    """Numbers exactly; texts as bytes, which is how LanceDB sorts them; days as moments."""
    if isinstance(value, bool):
        return value
    if isinstance(value, (int, float, Decimal)):
        number = Decimal(value)
        return Decimal(float(number)) if isinstance(beside, float) else number
    if isinstance(value, date) and not isinstance(value, datetime) and isinstance(beside, datetime):
        return datetime(value.year, value.month, value.day)
    return value.encode() if isinstance(value, str) else value


def fits(kind: pa.DataType, verb: str, value: Any) -> bool:
    if pa.types.is_list(kind) != (verb == "has"):
        return False
    kind = kind.value_type if verb == "has" else kind
    if verb == "contains":
        return pa.types.is_string(kind) and isinstance(value, str)
    if verb in ("<", "<=", ">", ">=") and pa.types.is_boolean(kind):
        return False
    wanted = {"string": str, "bool": bool, "date32": date, "timestamp": date}
    if family(kind) in wanted:
        fitting = isinstance(value, wanted[family(kind)])
        return fitting and not (family(kind) == "date32" and isinstance(value, datetime))
    return isinstance(value, (int, float, Decimal)) and not isinstance(value, bool)


@st.composite
def conditions(draw: st.DrawFn) -> Said:
    column = draw(st.sampled_from(sorted(TYPES)))
    kind = TYPES[column]
    if draw(st.integers(0, 9)) == 0:
        return Said(f"{column} is null", lambda t: t[column].is_null().combine_chunks())
    is_list = pa.types.is_list(kind)
    verbs = ["has"] if is_list else ["=", "!=", "<", "<=", ">", ">=", "in"]
    if family(kind) == "string":
        verbs.append("contains")
    stray = draw(st.integers(0, 30)) == 0
    verb = draw(st.sampled_from([*verbs, "has", "contains"] if stray else verbs))
    inner = family(kind.value_type if is_list else kind)
    pool = list(itertools.chain(*FITTING.values())) if stray else FITTING[inner]
    if inner in ("int", "double", "float"):
        numbers = st.decimals(allow_nan=False, allow_infinity=False, places=2)
        values = st.one_of(st.sampled_from(pool), numbers, st.sampled_from([*WHOLE, *BROKEN]))
    else:
        values = st.sampled_from(pool)
    given = draw(st.lists(values, min_size=1, max_size=4 if verb == "in" else 1))
    shown = ", ".join(map(said_literal, given))
    text = f"{column} in ({shown})" if verb == "in" else f"{column} {verb} {shown}"
    if inner == "float":  # what the column holds of a number that is written
        given = [narrowed(value) for value in given]
    if inner == "string":  # a day is in quotes, so it is a text there
        given = [str(value) if isinstance(value, date) else value for value in given]
    wrong = not all(fits(kind, verb, value) for value in given)

    def mask(table: pa.Table) -> pa.Array:
        return pa.array([met(verb, held, given) for held in table[column].to_pylist()], pa.bool_())

    return Said(text, mask, wrong)


def narrowed(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        return value
    with np.errstate(over="ignore"):
        return float(np.float32(float(value)))


def negated(item: Said) -> Said:
    return Said(f"not ({item.text})", lambda t: pc.invert(item.mask(t)), item.wrong, item.deep)


def both(items: list[Said], word: str) -> Said:
    join = pc.and_kleene if word == "and" else pc.or_kleene

    def mask(table: pa.Table) -> pa.Array:
        found = items[0].mask(table)
        for item in items[1:]:
            found = join(found, item.mask(table))
        return found

    text = f" {word} ".join(f"({item.text})" for item in items)
    wrong = any(item.wrong for item in items)
    return Said(text, mask, wrong, 1 + max(item.deep for item in items))


def grown(inner: st.SearchStrategy[Said]) -> st.SearchStrategy[Said]:
    several = st.lists(inner, min_size=1, max_size=3)
    return st.one_of(
        inner.map(negated),
        st.builds(both, several, st.sampled_from(["and", "or"])),
    )


PIECES = [
    "not",
    "(",
    ")",
    "and",
    "or",
    "year",
    "`year`",
    "tags",
    "has",
    "in",
    "is",
    "null",
    ">",
    "=",
    "1990.5",
    "-1e9",
    "'x'",
    ",",
    "true",
]
FILTERS = st.recursive(conditions(), grown, max_leaves=25)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The same rows twice: as they are, and with the indices of a build."""
    db = lancedb.connect(tmp_path_factory.mktemp("agree"))
    bare, indexed = (db.create_table(name, made_table(40)) for name in ("bare", "indexed"))
    for column, config in INDICES.items():
        indexed.create_index(column, config=config)
    return [bare, indexed]


@settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(said=FILTERS)
def test_a_filter_lets_through_what_the_reference_does(tables: list[Any], said: Said) -> None:
    rows = made_table(40)
    try:
        tree = parse_filter(said.text, rows.schema)
    except InputError as error:
        assert said.wrong or (said.deep > DEEPEST and "levels deep" in str(error)), said.text
        return
    assert not said.wrong, said.text
    expected = rows.filter(said.mask(rows))["track_id"].to_pylist()
    for table in tables:
        found = read_rows(table, tree.sql(), ["track_id"])["track_id"].to_pylist()
        assert sorted(found) == expected, (said.text, tree.sql())


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(text=st.text(st.sampled_from(string.printable + "é\ud800"), max_size=300))
def test_any_text_is_a_filter_or_rejected_in_words(text: str) -> None:
    try:
        parse_filter(text, pa.schema(TYPES.items())).sql()
    except InputError as error:
        str(error).encode()


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(st.lists(st.sampled_from(PIECES), max_size=499))
def test_any_row_of_words_is_a_filter_or_rejected_in_words(words: list[str]) -> None:
    try:
        parse_filter(" ".join(words), pa.schema(TYPES.items())).sql()
    except InputError as error:
        str(error).encode()
