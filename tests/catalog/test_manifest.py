"""Manifests of every format: what is kept, how it is typed, and what a mistake is told."""

import json
from datetime import date
from pathlib import Path

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
    assert str(read.schema.field("vector_like").type) == "list<item: double>"


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
        ("track_id,duration\na,inf\n", "duration inf in row 1"),
        ("track_id\na\nb\na\n", r"a \(row 1 \(line 2\) and row 3 \(line 4\)\)"),
        ("track_id,title\na,x\n\n,y\n", r"track_id None in row 2 \(line 4\)"),
        ("track_id\nMy Song.mp3\n", "'My Song.mp3' in row 1.*not URL-safe.*A-Z a-z 0-9"),
        ("track_id,title\na,x\nb,y,z\n", "line 3: 3 cells, the header has 2; put cells"),
        ("track_id,title\na,x\nb\n", "line 3: 1 cells, the header has 2"),
        ('track_id,title\na,x\nb,"y\nc,z\n', r"row 2 \(line 3\): a double quote is never closed"),
        ("track_id,title,title\na,x,y\n", "column title occurs more than once"),
        ("track_id,,x\na,1,2\n", "column 2 has no name"),
        ("track_id,score\na,1\n", "'score' has a reserved name"),
        ("track_id,tags\na,[oops\n", r"'tags', row 1 \(line 2\): '\[oops' begins like a list"),
        ("track_id,split\na,dev\n", "split 'dev' in row 1"),
        (b"track_id,title\na,ok\nb,caf\xe9\n", "line 3: byte 0xe9 at 25 is not UTF-8; save"),
        (b"\xff\xfet\0r\0", "m.csv is UTF-16; save .*iconv -f utf-16"),
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
        ([{"track_id": "a"}, "[1]"], r"line 2 is no JSON object: it begins a list, .*jq"),
        ([{"x": 1}, {"x": "y"}], r"'x' contains numbers \(line 1: 1\) and text \(line 2: 'y'\)"),
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
    monkeypatch.setattr("raymtr.catalog.json_lines.JSON_LINES", 3)
    rows = [{"track_id": f"t{i}", "x": 1 if i < 4 else 1.5} for i in range(6)]
    assert column(jsonl(tmp_path, *rows), "x") == [1, 1, 1, 1, 1.5, 1.5]
    with pytest.raises(InputError, match="from line 4 on: a column changes its type"):
        jsonl(tmp_path, *rows[:3], {"track_id": "t9", "x": "text"})


def test_files_that_are_no_tables(tmp_path):
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        read_manifest(put(tmp_path, "m.parquet", "no parquet"))
    with pytest.raises(InputError, match=r"not a table; expected .parquet"):
        read_manifest(put(tmp_path, "m.xlsx", "x"))
    with pytest.raises(InputError, match="no rows at"):
        read_manifest(str(tmp_path / "absent.csv"))
    pq.write_table(pa.table({"track_id": ["a"], "x": [1]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"track_id": ["b"], "x": ["y"]}), tmp_path / "2.parquet")
    (tmp_path / "m.parquet").unlink()
    message = r"column 'x' is int64 in .*1.parquet and string in .*2.parquet"
    with pytest.raises(InputError, match=message):
        read_manifest(str(tmp_path))


def test_a_header_alone_is_unusable(tmp_path):
    with pytest.raises(UnusableError, match="columns but no rows"):
        csv(tmp_path, "track_id,title\n")


def test_a_tsv_does_not_quote_but_a_cell_wholly_in_quotes_loses_them(tmp_path):
    table = csv(tmp_path, 'track_id\ttitle\na\t"half\nb\t"a ""b"" c"\nc\t7" mix\n', "m.tsv")
    assert column(table, "title") == ['"half', 'a "b" c', '7" mix']


CODES = {
    "hex": ["0x1F", "0x2A"],
    "exponent": ["1E5", "12e3"],
    "zero": ["007", "1"],
    "version": ["1.10", "1.2"],
    "plus": ["+5", "6"],
    "minus": ["-0", "1"],
    "point": ["1.", "2.5"],
    "bare": [".5", "2.5"],
    "nan": ["nan", "2"],
    "inf": ["Inf", "2.5"],
    "huge": ["12345678901234567890", "1"],
    "fine": ["0.1234567890123456789", "1"],
    "isrc": ["USRC17607839", "12"],
    "date": ["2020-01-02", "1999"],
    "time": ["3:05", "4"],
    "thousands": ["1 000", "2"],
    "mixed": ["true", "1"],
    "none": ["None", "1"],
    "wide": ["\uff11\uff12", "3"],
}


@pytest.mark.parametrize("name", CODES)
def test_a_cell_that_would_not_come_back_as_it_was_written_stays_text(tmp_path, name):
    table = csv(tmp_path, "track_id,x\na,{}\nb,{}\n".format(*CODES[name]))
    assert column(table, "x") == CODES[name]
    typed = csv(tmp_path, "track_id,x\na,2\nb,2.5\n")
    assert column(typed, "x") == [2.0, 2.5]


def test_cells_of_equal_decimals_are_numbers_and_it_is_said(tmp_path, caplog):
    with caplog.at_level("INFO"):
        table = csv(tmp_path, "track_id,gain,plays\na,-7.50,1\nb,,2\nc,0.25,3\n")
    assert column(table, "gain") == [-7.5, None, 0.25]
    assert (
        "column 'gain' is read as numbers of 2 decimals" in caplog.text
        and "plays" not in caplog.text
    )
    for cells in (["1.10", "1.2"], ["1.10", "2"], ["0.10000000000000000001", "1.00"]):
        assert column(csv(tmp_path, "track_id,x\na,{}\nb,{}\n".format(*cells)), "x") == cells


def test_a_column_that_the_catalog_has_takes_its_type(tmp_path):
    like = pa.schema(
        [
            ("bpm", pa.float64()),
            ("key", pa.string()),
            ("plays", pa.int64()),
            ("live", pa.bool_()),
            ("moods", pa.list_(pa.int64())),
            ("labels", pa.list_(pa.string())),
            ("day", pa.date32()),
            ("gone", pa.int64()),
        ]
    )
    head = "track_id,bpm,key,plays,live,moods,labels,day,gone\n"
    cells = 'a,120,7,9007199254740993,true,"[1, 2]",x|y,2020-01-02,\n'
    cells += "b,nan,007,7.0,,,,,\n"
    rows = [
        {"track_id": "a", "bpm": 120, "key": 7, "plays": 9007199254740993, "live": True}
        | {"moods": [1, 2], "labels": ["x", "y"], "day": "2020-01-02", "gone": None},
        {"track_id": "b", "bpm": float("nan"), "key": 7, "plays": 7, "day": ""},
    ]
    (tmp_path / "m.csv").write_text(head + cells)
    (tmp_path / "m.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    for name, second in (("m.csv", "007"), ("m.jsonl", "7")):
        table = read_manifest(str(tmp_path / name), like=like)
        assert [table.schema.field(field.name).type for field in like] == list(like.types)
        assert column(table, "bpm") == [120.0, None]
        assert column(table, "key") == ["7", second]
        assert column(table, "plays") == [9007199254740993, 7]
        assert column(table, "live") == [True, None]
        assert column(table, "moods") == [[1, 2], None]
        assert column(table, "labels") == [["x", "y"], None]
        assert column(table, "day") == [date(2020, 1, 2), None]
    with pytest.raises(InputError, match=r"'bpm', row 1 \(line 2\): 'fast' does not fit"):
        (tmp_path / "m.csv").write_text("track_id,bpm\na,fast\n")
        read_manifest(str(tmp_path / "m.csv"), like=like)


def test_parts_of_a_folder_read_as_each_alone_does(tmp_path):
    parts = tmp_path / "year=1999"
    parts.mkdir()
    pq.write_table(
        pa.table({"track_id": ["a"], "year": [1980], "bpm": [120], "artist": ["A"]}),
        parts / "0.parquet",
    )
    text = {"track_id": pa.array(["b"], pa.large_string()), "year": [1981.0], "bpm": [99.5]}
    text |= {"artist": pa.array(["B"]).dictionary_encode()}
    pq.write_table(pa.table(text), parts / "1.parquet")
    (parts / "._0.parquet").write_bytes(b"\0\5\x16\7junk")
    table = read_manifest(str(parts))
    assert column(table, "year") == [1980, 1981] and column(table, "bpm") == [120.0, 99.5]
    assert column(table, "artist") == ["A", "B"]
    assert column(read_manifest(str(parts / "1.parquet")), "year") == [1981]
    pq.write_table(pa.table({"track_id": ["c"], "year": ["x"]}), parts / "2.parquet")
    with pytest.raises(InputError, match=r"'year' is int64 in .*0.parquet and string in .*2.par"):
        read_manifest(str(parts))
    pq.write_table(pa.table({"track_id": ["c"], "raw": [b"\xff"]}), parts / "2.parquet")
    with pytest.raises(InputError, match=r"2.parquet: column 'raw' \(binary\) cannot be kept"):
        read_manifest(str(parts))
    pq.write_table(pa.table({"track_id": ["c", "d"], "year": [5, 1990.5]}), parts / "2.parquet")
    with pytest.raises(InputError, match=r"'year', row 2 of .*2.parquet: 1990.5 does not fit"):
        read_manifest(str(parts))


def test_keys_of_hives_folders_are_columns(tmp_path):
    def part(folder, **columns):
        (tmp_path / folder).mkdir(parents=True)
        pq.write_table(pa.table(columns), tmp_path / folder / "part-0.parquet")

    part("year=1999/mood=calm%20blue/lot=007", track_id=["a", "b"])
    part("year=2001/mood=__HIVE_DEFAULT_PARTITION__/lot=12", track_id=["c"])
    part("year=2001/mood=loud/lot=12", track_id=["d"], mood=["its own"])
    part("year=1980/mood=soft/lot=1", track_id=["e"], lot=["B"], year=[1979.0])
    part("_temporary/year=1", track_id=["x"])
    part("other", track_id=["y"])
    for root in (tmp_path, f"{tmp_path}/"):
        table = read_manifest(str(root))
        assert column(table, "track_id") == ["a", "b", "c", "d", "e"]
        assert column(table, "year") == [1999, 1999, 2001, 2001, 1979]
        assert column(table, "mood") == ["calm blue", "calm blue", None, "its own", "soft"]
        assert column(table, "lot") == ["007", "007", "12", "12", "B"]
    below = read_manifest(str(tmp_path / "year=1999"))
    assert column(below, "year") == [None, None] and column(below, "lot") == ["007", "007"]


def test_a_list_column_that_is_empty_in_every_row_is_no_tags(tmp_path):
    for empty in (pa.nulls(2), pa.array([[], None]), pa.array([[None], []])):
        pq.write_table(pa.table({"track_id": ["a", "b"], "tags": empty}), tmp_path / "m.parquet")
        assert column(read_manifest(str(tmp_path / "m.parquet")), "tags") == [None, None]


def test_unknown_numbers_are_null_in_every_format(tmp_path):
    nan = float("nan")
    pq.write_table(
        pa.table({"track_id": ["a", "b"], "year": [nan, 1999.0], "bpm": [nan, 2.5]}),
        tmp_path / "m.parquet",
    )
    lines = '{"track_id":"a","year":NaN,"bpm":NaN}\n{"track_id":"b","year":1999,"bpm":2.5}\n'
    for table in (
        read_manifest(str(tmp_path / "m.parquet")),
        read_manifest(put(tmp_path, "m.jsonl", lines)),
    ):
        assert column(table, "year") == [None, 1999] and column(table, "bpm") == [None, 2.5]
    assert column(csv(tmp_path, "track_id,duration\na,NaN\nb,2.5\n"), "duration") == [None, 2.5]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        (
            "m.csv",
            "track_id;title\na;One\n",
            "one column.*commas in a .csv file, not by semicolons",
        ),
        ("m.tsv", "track_id,title\na,One\n", "tabs in a .tsv file, not by commas"),
        ("m.csv", "track_id,title, title\na,b,c\n", "title occurs more than once"),
        ("m.tsv", "track_id\turi\turi \na\tb\tc\n", "uri occurs more than once"),
        ("m.csv", "track_id,title\r\na,b\r\n".encode("utf-16"), "is UTF-16; .*iconv -f utf-16"),
        ("m.csv", f"track_id,x,year\na,{'x' * 200_000},1\nb,y,19x9\n", r"row 2 \(line 3\): '19x9'"),
        ("m.csv", "track_id,a`b\na,1\n", "'a`b' cannot be named in a filter"),
        ("m.csv", "track_id,a\x1bb\na,1\n", "cannot be named in a filter"),
        ("m.json", '{\n "track_id": "a"\n}\n', r"line 1 is no JSON object.*jq -c \."),
        ("m.json", '[{"track_id":"a"}]\n', r"it begins a list.*jq -c '\.\[\]'"),
        ("m.jsonl", '{"track_id":"a","\\ud83d":1}\n', "line 1 contains half a character"),
        ("m.jsonl", '{"track_id":"a","title":"\\ud83d"}\n', "'title' contains half a character"),
        ("m.jsonl", '{"track_id":"a","x":' + "[" * 3000 + "]" * 3000 + "}", "nested too deep"),
        ("m.jsonl", '{"track_id":"a","x":' + "[" * 50 + "]" * 50 + "}", "'x'.*more than 16 deep"),
    ],
)
def test_the_reason_and_the_cure_are_the_true_ones(tmp_path, name, text, words):
    with pytest.raises(InputError, match=words) as error:
        read_manifest(put(tmp_path, name, text))
    assert "\n" not in str(error.value) and name in str(error.value)


def test_a_name_that_stands_twice_in_parquet_is_said_in_one_sentence(tmp_path):
    ids = pa.array(["a"])
    pq.write_table(
        pa.Table.from_arrays([ids] * 3, ["track_id", "uri", "uri"]), tmp_path / "m.parquet"
    )
    with pytest.raises(InputError, match="column uri occurs more than once"):
        read_manifest(str(tmp_path / "m.parquet"))


def test_a_comma_in_a_name_parts_no_artists(tmp_path: Path) -> None:
    file = tmp_path / "m.csv"
    file.write_text('track_id,artists,tags\na,"Earth, Wind & Fire; Björk","soul, funk"\n')
    row = read_manifest(str(file)).to_pylist()[0]
    assert row["artists"] == ["Earth, Wind & Fire", "Björk"] and row["tags"] == ["soul", "funk"]
