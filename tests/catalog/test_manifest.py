"""Manifests of every format: what is kept, how it is typed, and what a mistake is told."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raymtr.catalog.manifest import read_manifest
from raymtr.errors import InputError, UnusableError
from raymtr.track import KNOWN

ROWS = [
    {"track_id": "a1", "uri": "x/a.wav", "title": "One", "year": 1999, "tags": ["rock", "pop"]},
    {"track_id": "b2", "uri": None, "title": None, "year": None, "tags": None},
]


def put(folder, name, text):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def csv(folder, text, name="m.csv"):
    return read_manifest(put(folder, name, text))


def jsonl(folder, *rows):
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    return read_manifest(put(folder, "m.jsonl", "\n".join(lines) + "\n"))


def column(table, name):
    return table[name].to_pylist()


def test_all_formats_give_the_same_tracks(tmp_path):
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "m.parquet")
    parts = tmp_path / "parts"
    parts.mkdir()
    for i, row in enumerate(ROWS):
        pq.write_table(pa.Table.from_pylist([row]), parts / f"{i}.parquet")
    text = "track_id,uri,title,year,tags\na1,x/a.wav,One,1999,rock|pop\nb2,,,,\n"
    base = {"uri": [str(tmp_path / "x/a.wav"), None]}
    for table in (
        read_manifest(str(tmp_path / "m.parquet")),
        csv(tmp_path, text),
        csv(tmp_path, text.replace(",", "\t"), "m.tsv"),
        csv(tmp_path, "\ufeff" + text.replace("\n", "\r\n"), "bom.csv"),
        jsonl(tmp_path, *ROWS),
        read_manifest(str(parts)).set_column(1, "uri", pa.array(base["uri"])),
    ):
        assert column(table, "track_id") == ["a1", "b2"]
        assert column(table, "uri") == base["uri"]
        assert column(table, "title") == ["One", None]
        assert column(table, "year") == [1999, None]
        assert column(table, "tags") == [["rock", "pop"], None]


def test_ids_in_text_keep_their_zeros_and_extras_their_types(tmp_path):
    table = csv(
        tmp_path,
        "track_id,bpm,gain,live,code,mood,none\n00123,120,-3.5,true,007,calm,\n12,,1,FALSE,1,,\n",
    )
    assert column(table, "track_id") == ["00123", "12"]
    types = {name: str(table.schema.field(name).type) for name in table.column_names[len(KNOWN) :]}
    assert types == {
        "bpm": "int64", "gain": "double", "live": "bool",
        "code": "string", "mood": "string", "none": "string",
    }  # fmt: skip
    assert column(table, "code") == ["007", "1"]
    assert column(table, "bpm") == [120, None]


@pytest.mark.parametrize(
    ("cell", "tags"),
    [
        ('"rock, pop ,,"', ["rock", "pop"]),
        ("rock;drum & bass", ["rock", "drum & bass"]),
        ("a|b", ["a", "b"]),
        ('"[""rock, live"", ""pop""]"', ["rock, live", "pop"]),
        ('"[\'rock\', ""rock \'n\' roll""]"', ["rock", "rock 'n' roll"]),
        ("[]", None),
        ('" "', None),
    ],
)
def test_lists_in_a_cell(tmp_path, cell, tags):
    assert column(csv(tmp_path, f"track_id,tags\na,{cell}\n"), "tags") == [tags]


def test_uris_are_taken_from_the_manifests_folder(tmp_path):
    rows = [
        "a.wav",
        "./b c#%.wav",
        "../d.wav",
        "/abs/e.wav",
        "s3://bucket/f.wav",
        "file:///g%20h.wav",
    ]
    table = jsonl(tmp_path, *({"track_id": f"t{i}", "uri": uri} for i, uri in enumerate(rows)))
    assert column(table, "uri") == [
        f"{tmp_path}/a.wav",
        f"{tmp_path}/b c#%.wav",
        f"{tmp_path}/../d.wav",
        *rows[3:],
    ]


def test_words_without_uris_and_quoted_cells_over_lines(tmp_path):
    table = csv(tmp_path, 'track_id,title\na,"say ""hi"",\nyou"\n\nb,  x \n')
    assert column(table, "uri") == [None, None]
    assert column(table, "title") == ['say "hi",\nyou', "x"]


def test_parquet_of_other_writers(tmp_path):
    table = pa.table(
        {
            "track_id": pa.array([7, 12]),
            "title": pa.array(["A", "B"], pa.large_string()),
            "artist": pa.array(["x", "x"]).dictionary_encode(),
            "year": pa.array([1999.0, None]),
            "tags": pa.array([["a", ""], []], pa.large_list(pa.large_string())),
            "vector_like": pa.array([[1.0], [2.0]]),
            "nothing": pa.nulls(2),
        }
    )
    pq.write_table(table, tmp_path / "m.parquet")
    read = read_manifest(str(tmp_path / "m.parquet"))
    assert column(read, "track_id") == ["12", "7"]
    assert column(read, "artist") == ["x", "x"]
    assert column(read, "tags") == [None, ["a"]]
    assert str(read.schema.field("nothing").type) == "string"
    assert str(read.schema.field("vector_like").type) == "list<element: double>"


def test_json_rows_may_lack_keys_and_mix_whole_numbers_with_others(tmp_path):
    table = jsonl(
        tmp_path, {"track_id": "a", "x": 1}, "", {"track_id": "b", "x": 2.5, "y": {"z": 1}}
    )
    assert column(table, "x") == [1.0, 2.5]
    assert column(table, "y") == [None, {"z": 1}]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id,title\n1,x\n", "no track_id column; columns seen: id, title"),
        ("track_id,year\na,1999\nb,abc\n", r"'year', row 2 \(line 3\): 'abc' .*expected a whole"),
        ('track_id,title,year\na,"x\ny",1\nb,z,abc\n', r"row 2 \(line 4\): 'abc'"),
        ("track_id,duration\na,-3\n", r"duration -3.0 in row 1 \(line 2\)"),
        ("track_id,duration\na,nan\n", "duration nan in row 1"),
        ("track_id\na\nb\na\n", r"a \(row 1 \(line 2\) and row 3 \(line 4\)\)"),
        ("track_id,title\na,x\n\n,y\n", r"track_id None in row 2 \(line 4\)"),
        ("track_id\nMy Song.mp3\n", "'My Song.mp3' in row 1.*not URL-safe.*A-Z a-z 0-9"),
        ("track_id,title\na,x\nb,y,z\n", "line 3: 3 cells, the header has 2; put cells"),
        ("track_id,title\na,x\nb\n", "line 3: 1 cells, the header has 2"),
        ('track_id,title\na,x\nb,"y\nc,z\n', r"row 2 \(line 3\): a double quote is never closed"),
        ("track_id,title,title\na,x,y\n", "column title stands more than once"),
        ("track_id,,x\na,1,2\n", "column 2 has no name"),
        ("track_id,score\na,1\n", "'score' has a reserved name"),
        ("track_id,tags\na,[oops\n", r"'tags', row 1 \(line 2\): '\[oops' begins like a list"),
        ("track_id,split\na,dev\n", "split 'dev' in row 1"),
        (b"track_id,title\na,ok\nb,caf\xe9\n", "line 3: byte 0xe9 at 25 is not UTF-8; save"),
        (b"\xff\xfet\0r\0", "line 1: byte 0xff at 0"),
        ("", "is empty"),
    ],
)  # fmt: skip
def test_a_wrong_csv_says_where_and_what(tmp_path, text, words):
    with pytest.raises(InputError, match=words) as error:
        csv(tmp_path, text)
    assert "m.csv" in str(error.value) or "column" in str(error.value)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"track_id": "a"}, "{oops"], "m.jsonl line 2 is no JSON"),
        ([{"track_id": "a"}, "[1]"], "line 2: expected a JSON object"),
        ([{"x": 1}, {"x": "y"}], r"'x' holds numbers \(line 1: 1\) and text \(line 2: 'y'\)"),
        ([{"track_id": "a"}, "", {"track_id": "b", "year": "abc"}], "'year', line 3: 'abc'"),
        ([{"track_id": "a", "x": 2**70}], "column 'x'"),
        ([{"track_id": "a"}, {"track_id": "a"}], r"a \(line 1 and line 2\)"),
        (["  "], "is empty"),
    ],
)  # fmt: skip
def test_wrong_json_lines_say_where_and_what(tmp_path, rows, words):
    with pytest.raises(InputError, match=words):
        jsonl(tmp_path, *rows)


def test_a_column_that_changes_far_below_is_named_by_line(tmp_path, monkeypatch):
    monkeypatch.setattr("raymtr.catalog.tabular.JSON_LINES", 3)
    rows = [{"track_id": f"t{i}", "x": 1 if i < 4 else 1.5} for i in range(6)]
    assert column(jsonl(tmp_path, *rows), "x") == [1, 1, 1, 1, 1.5, 1.5]
    with pytest.raises(InputError, match="from line 4 on: a column changes its type"):
        jsonl(tmp_path, *rows[:3], {"track_id": "t9", "x": "text"})


def test_files_that_are_no_tables(tmp_path):
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        read_manifest(put(tmp_path, "m.parquet", "no parquet"))
    with pytest.raises(InputError, match=r"no file of rows; expected .parquet"):
        read_manifest(put(tmp_path, "m.xlsx", "x"))
    with pytest.raises(InputError, match="no rows at"):
        read_manifest(str(tmp_path / "absent.csv"))
    pq.write_table(pa.table({"track_id": ["a"], "x": [1]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"track_id": ["b"], "x": ["y"]}), tmp_path / "2.parquet")
    (tmp_path / "m.parquet").unlink()
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        read_manifest(str(tmp_path))


def test_a_header_alone_is_unusable(tmp_path):
    with pytest.raises(UnusableError, match="columns but no rows"):
        csv(tmp_path, "track_id,title\n")


def test_a_tsv_does_not_quote_but_a_cell_wholly_in_quotes_loses_them(tmp_path):
    table = csv(tmp_path, 'track_id\ttitle\na\t"half\nb\t"a ""b"" c"\nc\t7" mix\n', "m.tsv")
    assert column(table, "title") == ['"half', 'a "b" c', '7" mix']
