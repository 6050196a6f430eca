"""The record's rules: what becomes a catalog table, and what is refused with which words."""

import pyarrow as pa
import pytest

from raymtr.errors import InputError
from raymtr.track import KNOWN, SCHEMA, artist_key, check_tracks, extras_of


def test_known_columns_come_first_typed_and_rows_sorted_by_id():
    table = check_tracks(
        pa.table({"mood": ["calm", None], "year": ["2001", None], "track_id": ["b", "a"]})
    )
    assert table.column_names == [*KNOWN, "mood"]
    assert [table.schema.field(f.name).type for f in SCHEMA] == [f.type for f in SCHEMA]
    assert table["track_id"].to_pylist() == ["a", "b"]
    assert table["year"].to_pylist() == [None, 2001]
    assert extras_of(table) == ["mood"]


def test_whole_numbers_written_as_floats_are_years_but_fractions_are_not():
    assert check_tracks(pa.table({"track_id": ["a"], "year": [1999.0]}))["year"].to_pylist() == [
        1999
    ]
    with pytest.raises(InputError, match=r"'year', row 2: 1999.5 does not fit; expected a whole"):
        check_tracks(pa.table({"track_id": ["a", "b"], "year": [1999.0, 1999.5]}))


def test_the_first_misfit_of_many_rows_is_named():
    years = ["1999"] * 1000
    years[637] = years[900] = "abc"
    table = pa.table({"track_id": [f"t{i}" for i in range(1000)], "year": years})
    with pytest.raises(InputError, match=r"row 638: 'abc'"):
        check_tracks(table)
    with pytest.raises(InputError, match=r"line 640: 'abc'"):
        check_tracks(table, place=lambda row: f"line {row + 3}")


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"title": ["x"]}, "no track_id column; columns seen: title"),
        ({"track_id": ["a", "b", "a"]}, r"1 track_id occur more than once.* a \(row 1 and row 3\)"),
        ({"track_id": ["a", None]}, "track_id None in row 2"),
        ({"track_id": ["a", ""]}, "track_id '' in row 2"),
        ({"track_id": ["ok", "a/b"]}, "'a/b' in row 2 is not URL-safe: expected 1 to 128 of"),
        ({"track_id": ["ok", ".."]}, "'..' in row 2 is not URL-safe"),
        ({"track_id": ["a\n"]}, "not URL-safe"),
        ({"track_id": ["x" * 129]}, "not URL-safe"),
        ({"track_id": [1.5]}, "'track_id', row 1: 1.5 does not fit; expected text"),
        ({"track_id": ["a"], "duration": [-1.0]}, "duration -1.0 in row 1: expected seconds"),
        ({"track_id": ["a"], "duration": [float("nan")]}, "duration nan in row 1"),
        ({"track_id": ["a"], "duration": ["3:45"]}, "'3:45' does not fit; expected a number"),
        ({"track_id": ["a"], "year": [True]}, "'year', row 1: True"),
        ({"track_id": ["a"], "tags": ["rock"]}, "expected a list of texts"),
        ({"track_id": ["a"], "split": ["dev"]}, "'dev' in row 1: expected one of train, valid"),
        ({"track_id": ["a"], "score": [1.0]}, "'score' has a reserved name"),
        ({"track_id": ["a"], "_id": [1]}, "'_id' has a reserved name"),
        ({"track_id": ["a"], "audio.rate": [1]}, "a dot"),
        ({"track_id": ["a"], "Title": ["x"]}, "'Title' differs from another name only in case"),
        ({"track_id": ["a"], "": [1]}, "column 2 has no name"),
    ],
)  # fmt: skip
def test_what_is_rejected_says_what_was_seen_and_expected(columns, words):
    with pytest.raises(InputError, match=words):
        check_tracks(pa.table(columns))


def test_numbers_are_ids_as_they_are_written():
    assert check_tracks(pa.table({"track_id": [7, 12]}))["track_id"].to_pylist() == ["12", "7"]


def test_a_table_without_rows_is_a_table():
    assert check_tracks(pa.table({"track_id": pa.array([], pa.string())})).num_rows == 0


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Beyoncé", "BEYONCE"),
        ("The  Beatles ", "beatles"),
        ("Mo\u0308tley Crüe", "Mötley Crue"),
        ("Guns N’ Roses", "guns n' roses"),
        ("Røyksopp", "royksopp"),
        ("Ｐｅｒｆｕｍｅ", "Perfume"),
        ("Sigur Rós", "sigur ros"),
    ],
)
def test_spellings_of_one_artist_share_a_key(one, other):
    assert artist_key(one) == artist_key(other)


def test_names_that_differ_keep_their_keys_apart():
    names = [
        "The The",
        "The",
        "Theory",
        "ガラ",
        "カラ",
        "!!!",
        "Björk",
        "Bjork Band",
        "Air",
        "Aïr 2",
    ]
    assert (
        len({artist_key(name) for name in names}) == len(names) - 1
    )  # "The The" is "the", as "The"
    assert artist_key("The The") == "the"
    assert artist_key("!!!") == "!!!"
