"""Anybody's columns become plain ones, whole or in slices, or are refused by name."""

from __future__ import annotations

import datetime as dt
import decimal
import logging
from typing import Any

import pyarrow as pa
import pytest

from raymtr.columns import join_parts, plain_columns, plain_table
from raymtr.errors import InputError

DAY = dt.datetime(2020, 1, 2, 3, 4, 5, 678)
UTC = DAY.replace(tzinfo=dt.UTC)
ID = "30303030-3030-3030-3030-303030303030"
EMPTY = pa.struct([])
PLAIN: dict[str, tuple[pa.Array, str, list[Any]]] = {
    "large text": (pa.array(["x", None], pa.large_string()), "string", ["x", None]),
    "text view": (pa.array(["x", None], pa.string_view()), "string", ["x", None]),
    "category": (pa.array(["x", None]).dictionary_encode(), "string", ["x", None]),
    "runs": (pa.RunEndEncodedArray.from_arrays([1, 2], ["x", "y"]), "string", ["x", "y"]),
    "bytes of text": (pa.array(["é".encode(), None]), "string", ["é", None]),
    "uuid": (pa.array([b"0" * 16, None], pa.uuid()), "string", [ID, None]),
    "nothing": (pa.nulls(2), "string", [None, None]),
    "half": (pa.array([1.5, None], pa.float16()), "float", [1.5, None]),
    "not a number": (pa.array([float("nan"), 2.0]), "double", [None, 2.0]),
    "infinite": (pa.array([float("inf"), -float("inf")], pa.float32()), "float", [None, None]),
    "unsigned": (pa.array([2**64 - 1, None], pa.uint64()), "uint64", [2**64 - 1, None]),
    "decimal": (pa.array([decimal.Decimal("1.10"), None]), "double", [1.1, None]),
    "whole decimal": (pa.array([decimal.Decimal("1999"), None]), "int64", [1999, None]),
    "date64": (pa.array([DAY.date(), None], pa.date64()), "date32[day]", [DAY.date(), None]),
    "moment": (pa.array([DAY, None], pa.timestamp("ns")), "timestamp[us]", [DAY, None]),
    "zone": (
        pa.array([DAY, None], pa.timestamp("us", "Europe/Berlin")),
        "timestamp[us, tz=UTC]",
        [UTC, None],
    ),
    "time": (pa.array([dt.time(1, 2), None]), "string", ["01:02:00.000000", None]),
    "length": (pa.array([dt.timedelta(seconds=90), None]), "double", [90.0, None]),
    "large list": (
        pa.array([["x"], None], pa.large_list(pa.large_string())),
        "list<item: string>",
        [["x"], None],
    ),
    "fixed list": (
        pa.array([None, [1, 2]], pa.list_(pa.int8(), 2)),
        "list<item: int8>",
        [None, [1, 2]],
    ),
    "list view": (
        pa.array([["x"], None], pa.list_view(pa.string())),
        "list<item: string>",
        [["x"], None],
    ),
    "list of categories": (
        pa.ListArray.from_arrays([0, 1, 3], pa.array(["a", "b", "a"]).dictionary_encode()),
        "list<item: string>",
        [["a"], ["b", "a"]],
    ),
    "list of nothing": (pa.array([[], None]), "list<item: string>", [[], None]),
    "list of nan": (pa.array([[1.0, float("nan")], []]), "list<item: double>", [[1.0, None], []]),
    "map": (
        pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64())),
        "list<item: struct<key: string, value: int64>>",
        [[{"key": "k", "value": 1}], None],
    ),
    "object of views": (
        pa.array([{"a": "x"}, None], pa.struct([("a", pa.string_view())])),
        "struct<a: string>",
        [{"a": "x"}, None],
    ),
    "object without keys": (pa.array([{}, None], EMPTY), "string", [None, None]),
    "object in object": (
        pa.array([{"x": {}}, None], pa.struct([("x", EMPTY)])),
        "struct<x: string>",
        [{"x": None}, None],
    ),
}


@pytest.mark.parametrize("name", PLAIN)
def test_every_kind_that_can_be_plain_is(name: str) -> None:
    array, kind, values = PLAIN[name]
    for column in (array, pa.chunked_array([array, array.slice(1)]), array.slice(0, 0)):
        table = plain_table(pa.table({"x": column}))
        assert str(table.schema.field("x").type) == kind
        assert table["x"].to_pylist() == [*values, values[1]][: len(column)]
        assert plain_table(table).equals(table)


def nested(depth: int) -> list[Any]:
    return [nested(depth - 1)] if depth else []


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (pa.array([b"\xff\x00"]), r"'x' \(binary\) cannot be kept: Invalid UTF8"),
        (pa.array([[b"\xff"]]), r"'x' \(list<item: binary>\) cannot be kept"),
        (pa.array([{"k": [b"\xff"]}]), "'x' .struct.*cannot be kept"),
        (pa.array([(1, 2, 3)], pa.month_day_nano_interval()), "is not a plain type; leave it out"),
        (pa.array([nested(40)]), "more than 16 deep"),
        (
            pa.Array.from_buffers(
                pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff")]
            ),
            "Invalid UTF8 sequence",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_plain_is_rejected_by_name(array: pa.Array, words: str) -> None:
    with pytest.raises(InputError, match=words):
        plain_table(pa.table({"x": array}))


def test_infinite_numbers_that_become_unknown_are_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        plain_table(pa.table({"bpm": [float("inf"), 1.0], "nan": [float("nan"), 1.0]}))
    assert [record.getMessage() for record in caplog.records] == [
        "column 'bpm': 1 infinite numbers are kept as unknown"
    ]


def test_parts_of_compatible_types_are_one_table() -> None:
    first = pa.table({"n": [1], "s": pa.array(["a"], pa.large_string()), "l": pa.array([[]])})
    second = pa.table({"n": [0.5], "s": pa.array(["b"]).dictionary_encode(), "l": [["x"]]})
    third = pa.table({"n": pa.nulls(1), "more": [True]})
    table = join_parts([plain_columns(part) for part in (first, second, third)])
    assert table.to_pydict() == {
        "n": [1.0, 0.5, None],
        "s": ["a", "b", None],
        "l": [[], ["x"], None],
        "more": [None, None, True],
    }
