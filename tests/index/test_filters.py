from __future__ import annotations

from collections.abc import Callable

import lancedb
import numpy as np
import pyarrow as pa
import pytest

from raymtr.errors import InputError
from raymtr.index.filters import parse_filter
from raymtr.index.track_rows import read_rows

SCHEMA = pa.schema(
    [
        pa.field("track_id", pa.string()),
        pa.field("artist", pa.string()),
        pa.field("year", pa.int32()),
        pa.field("duration", pa.float64()),
        pa.field("tags", pa.list_(pa.string())),
        pa.field("Live Take", pa.bool_()),
        pa.field("added", pa.timestamp("s")),
    ]
)
ROWS = [
    ("a", "Björk", 1997, 200.5, ["pop", "it's odd"], True),
    ("b", "O'Jays", 1972, None, ["soul"], False),
    ("c", "The Who", None, 180.0, None, None),
    ("d", None, 1999, 61.0, [], True),
    ("e", "' OR 1=1 --", 2001, 300.0, ["jazz", "soul"], False),
]


@pytest.fixture(scope="module")
def find(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """A function: a filter -> the ids it lets through, joined."""
    columns = dict(
        zip(SCHEMA.names, [*map(list, zip(*ROWS, strict=True)), [None] * 5], strict=True)
    )
    db = lancedb.connect(tmp_path_factory.mktemp("filters"))
    table = db.create_table("t", pa.table(columns, schema=SCHEMA))

    def ids(text: str) -> str:
        found = read_rows(table, parse_filter(text, SCHEMA).sql(), ["track_id"])
        return "".join(sorted(found["track_id"].to_pylist()))

    return ids


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("year > 1990", "ade"),
        ("year >= 1997 and year < 2001", "ad"),
        ("year = 1972 or year == 1999", "bd"),
        ("year != 1997", "bde"),  # as in SQL, an unknown year is neither
        ("not year = 1997", "bde"),
        ("year is null", "c"),
        ("year is not null and not (year > 1998)", "ab"),
        ("year in (1972, 1999)", "bd"),
        ("artist not in ('Björk')", "bce"),
        ("tags has 'soul'", "be"),
        ("tags has 'soul' and tags has 'jazz'", "e"),
        ("tags has 'it''s odd'", "a"),
        ('tags has "it\'s odd"', "a"),
        ("artist = 'O''Jays'", "b"),
        ("artist contains 'Who'", "c"),
        ("artist = ''' OR 1=1 --'", "e"),
        ("duration > 180", "ae"),
        ("duration <= 61.0", "d"),
        ("duration < 1e3", "acde"),
        ("year > -5", "abde"),
        ("`Live Take` = true", "ad"),
        ("`Live Take` = FALSE AND Year is null", None),
        ("year > 1990 or year < 1980 and tags has 'soul'", "abde"),
        ("(year > 1990 or year < 1980) and tags has 'soul'", "be"),
    ],
)
def test_a_filter_finds_its_rows(find: Callable[[str], str], text: str, ids: str | None) -> None:
    if ids is None:
        with pytest.raises(InputError, match="unknown column 'Year'"):
            find(text)
    else:
        assert find(text) == ids


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("genre = 'x'", r"unknown column 'genre'.*track_id, artist, year"),
        ("year = 'x'", "'x' does not fit"),
        ("year > true", "does not fit"),
        ("artist = 5", "does not fit"),
        ("tags = 'soul'", "tags has 'x'"),
        ("artist has 'x'", "artist = 'x'"),
        ("year contains 'x'", "does not fit"),
        ("added > 5", "filters know"),
        ("year >", "a value was expected at the end"),
        ("year > 1990 and", "a column was expected"),
        ("year > 1990 tags", "unexpected 'tags'"),
        ("year ~ 5", "cannot read"),
        ("year > 1990; drop table t", "cannot read"),
        ("(year > 1990", r"'\)' was expected"),
        ("artist = 'x", "cannot read"),
        ("artist = x", "text stands in quotes"),
        ("year = 99999999999999999999999", "does not fit"),
        ("year is 5", "null"),
        ("", "a column was expected"),
        ("1=1", "a column was expected"),
        ("lower(artist) = 'x'", "unknown column 'lower'"),
        ("(" * 600 + "year = 1", "cannot read"),
    ],
)
def test_what_is_no_filter_is_refused(find: Callable[[str], str], text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find(text)


def test_any_literal_is_only_a_literal(find: Callable[[str], str]) -> None:
    """Random text of SQL's own signs, put where a value stands, never matches or breaks out."""
    rng = np.random.default_rng(0)
    signs = [*"'\"`;()-=%_\\ \n\t\x00aé\u2019OR1", " or ", "--", "''", "1=1", "\\'"]
    for _ in range(150):
        hostile = "".join(rng.choice(signs, size=rng.integers(1, 12)))
        quoted = "'" + hostile.replace("'", "''") + "'"
        assert find(f"artist = {quoted}") == ""
        assert find(f"tags has {quoted}") == ""
        assert find(f"artist in ({quoted}, 'Björk')") == "a"


def test_random_filters_mean_what_python_means(find: Callable[[str], str]) -> None:
    rng = np.random.default_rng(1)
    for _ in range(60):
        text, truth = _random_filter(rng, depth=3)
        expected = "".join(row[0] for row in ROWS if truth(row))
        assert find(text) == expected, text


Truth = Callable[[tuple], bool | None]


def _random_filter(rng: np.random.Generator, depth: int) -> tuple[str, Truth]:
    """A filter as text and as a three-valued Python function of a row."""
    kind = rng.integers(3 + 3 * (depth > 0))
    if kind == 0:
        year = int(rng.choice([1972, 1997, 1998, 2001]))
        return f"year >= {year}", lambda row: None if row[2] is None else row[2] >= year
    if kind == 1:
        tag = str(rng.choice(["soul", "jazz", "pop", "none"]))
        return f"tags has '{tag}'", lambda row: None if row[4] is None else tag in row[4]
    if kind == 2:
        return "artist is null", lambda row: row[1] is None
    text, truth = _random_filter(rng, depth - 1)
    if kind == 3:
        return f"not ({text})", lambda row: None if truth(row) is None else not truth(row)
    other, also = _random_filter(rng, depth - 1)
    if kind == 4:
        return f"({text} and {other})", lambda row: _both(truth(row), also(row))
    return f"({text} or {other})", lambda row: _either(truth(row), also(row))


def _both(one: bool | None, other: bool | None) -> bool | None:
    return False if False in (one, other) else None if None in (one, other) else True


def _either(one: bool | None, other: bool | None) -> bool | None:
    return True if True in (one, other) else None if None in (one, other) else False
