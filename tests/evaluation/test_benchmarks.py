"""A benchmark on disk: what is written is read, and what is malformed is said with its line."""

import json

import numpy as np
import pytest

from raymtr.errors import InputError
from raymtr.evaluation.benchmarks import Benchmark, Query, load_benchmark, save_benchmark

IDS = ("a", "b", "c", "d")


def query(query_id, text, kind="caption"):
    return Query(query_id=query_id, kind=kind, text=text, sentence=f"about {text}")


@pytest.fixture
def benchmark():
    return Benchmark(
        pool=("c", "a", "b"),
        queries=(query("q1", "夜 “rain”"), query("q2", "jazz", "tag")),
        right={"q1": {"a": 3, "b": 1}, "q2": {"c": 1}},
    )


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "queries.jsonl").write_text('{"query_id": "q1", "text": "rain"}\n\n')
    (tmp_path / "qrels.txt").write_text("q1 0 a 2\nq1 0 b 0\n")
    return tmp_path


def test_round_trip(benchmark, tmp_path):
    save_benchmark(benchmark, str(tmp_path))
    assert load_benchmark(str(tmp_path), track_ids=IDS) == benchmark
    assert (tmp_path / "qrels.txt").read_text() == "q1 0 a 3\nq1 0 b 1\nq2 0 c 1\n"
    assert (
        json.loads((tmp_path / "queries.jsonl").read_text().splitlines()[0])["text"] == "夜 “rain”"
    )


def test_grades_follow_the_pool(benchmark):
    assert np.array_equal(benchmark.grades("q1"), [0, 3, 1])


def test_the_smallest_benchmark_takes_text_as_sentence_and_the_catalog_as_pool(folder):
    read = load_benchmark(str(folder), track_ids=["b", "a"])
    assert read.queries == (Query(query_id="q1", kind="query", text="rain", sentence="rain"),)
    assert read.pool == ("a", "b")
    assert read.right == {"q1": {"a": 2}}


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("queries.jsonl", "rain\n", r"queries.jsonl:1: not a JSON object"),
        ("queries.jsonl", "[1]\n", r"queries.jsonl:1: one JSON object per line"),
        ("queries.jsonl", '{"text": "x"}\n', r"queries.jsonl:1: 'query_id' is missing"),
        (
            "queries.jsonl",
            '{"query_id": "q1", "txt": "x"}\n',
            r"unknown key 'txt'; accepted: query_id",
        ),
        ("queries.jsonl", '{"query_id": "q1", "text": ""}\n', r"'text' is a string with words"),
        ("queries.jsonl", '{"query_id": "q 1", "text": "x"}\n', r"must not have spaces"),
        (
            "queries.jsonl",
            '{"query_id": "q1", "text": "x"}\n' * 2,
            r"query_id 'q1' occurs more than once",
        ),
        ("queries.jsonl", "", "q1' is not in queries.jsonl"),
        ("queries.jsonl", b"\xff\xfe", "not UTF-8"),
        (
            "qrels.txt",
            "q1 0 a\n",
            r"qrels.txt:1: expected `query_id 0 track_id grade`, got 'q1 0 a'",
        ),
        ("qrels.txt", "q1 0 a 1\nq1 0 b yes\n", r"qrels.txt:2: expected"),
        ("qrels.txt", "q1 0 a -1\n", "a grade is 0"),
        ("qrels.txt", "q9 0 a 1\n", r"qrels.txt:1: query 'q9' is not in queries.jsonl"),
        ("qrels.txt", "q1 0 a 0\n", "query 'q1' has no right answer"),
        ("qrels.txt", "q1 0 gone 1\n", "not in the pool of 4 tracks, among them gone"),
        ("pool.txt", "b\n", "not in the pool of 1 tracks, among them a"),
        ("pool.txt", "a\nz\n", r"1 tracks of .*pool.txt are not in the catalog, among them z"),
        ("pool.txt", "a\na\n", "pool track 'a' occurs more than once"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(folder, file, text, words):
    (folder / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=words):
        load_benchmark(str(folder), track_ids=IDS)


def test_a_missing_file_is_named_with_what_was_expected(folder):
    (folder / "qrels.txt").unlink()
    with pytest.raises(InputError, match=r"no .*qrels.txt; a benchmark is a folder with queries"):
        load_benchmark(str(folder), track_ids=IDS)


def test_windows_line_ends_and_a_byte_order_mark_are_read(folder):
    text = '\ufeff{"query_id": "q1", "text": "rain"}\r\n'
    (folder / "queries.jsonl").write_bytes(text.encode())
    (folder / "qrels.txt").write_bytes(b"q1\t0\ta\t1\r\n")
    assert load_benchmark(str(folder), track_ids=IDS).right == {"q1": {"a": 1}}


def test_no_queries_is_no_benchmark():
    with pytest.raises(InputError, match="without queries"):
        Benchmark(pool=("a",), queries=(), right={})


def test_two_queries_of_the_same_words_are_rejected():
    twice = (query("q1", "rain"), query("q2", "rain"))
    with pytest.raises(InputError, match="'caption: rain' occurs more than once"):
        Benchmark(pool=("a",), queries=twice, right={"q1": {"a": 1}, "q2": {"a": 1}})
