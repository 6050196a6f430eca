"""Captions find their pairs, missing ones are told, and differences have the right sign."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raymtr.captions.judging.faithfulness import MusicTerms
from raymtr.captions.judging.score import TokenEncoder
from raymtr.captions.learning.pairs import read_pairs
from raymtr.errors import InputError
from raymtr.evaluation.caption_benchmark import (
    compare,
    made_here,
    read_captions,
    side_by_side,
    table_lines,
)

SOUNDS = ("piano", "violin", "guitar", "drums", "flute", "choir", "harp", "banjo", "oboe", "tuba")
ROWS = [
    {"ytid": f"c{i}", "tags": [sound, "calm"], "caption": f"A calm song, played on the {sound}."}
    for i, sound in enumerate(SOUNDS)
]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def pairs(tmp_path):
    return read_pairs(write(tmp_path / "pairs.jsonl", ROWS))


def test_captions_find_their_pair_by_clip_by_tags_or_by_line(tmp_path, pairs):
    by_clip = [{"track_id": row["ytid"], "caption": row["caption"]} for row in ROWS]
    by_tags = [{"tags": row["tags"][::-1], "caption": row["caption"]} for row in ROWS]
    by_line = [{"caption": row["caption"]} for row in ROWS]
    wanted = [[row["caption"]] for row in ROWS]
    assert read_captions(write(tmp_path / "1.jsonl", by_clip[::-1]), pairs) == wanted
    assert read_captions(write(tmp_path / "2.jsonl", by_tags[::-1]), pairs) == wanted
    assert read_captions(write(tmp_path / "3.jsonl", by_line), pairs) == wanted


def test_the_captions_of_a_workspace_are_found_by_their_provenance(tmp_path, pairs):
    rows = [
        {
            "track_id": f"other{i}",
            "caption": f"{text} {row['caption']}",
            "provenance": json.dumps({"source": "model", "tags": row["tags"]}),
        }
        for i, row in enumerate(ROWS)
        for text in ("One.", "Two.")
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "part-00000.parquet")
    found = read_captions(str(tmp_path), pairs)
    assert found[3] == [f"One. {ROWS[3]['caption']}", f"Two. {ROWS[3]['caption']}"]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"text": "x"}], "no column caption; columns seen: text"),
        ([{"ytid": "else", "caption": "x"}], "has captions of none of the 10 pairs"),
        ([{"caption": "x"}], "1 rows for 10 pairs"),
        ([{"caption": "x", "provenance": "a friend"}], "1 rows for 10 pairs"),
    ],
)
def test_captions_of_something_else_are_rejected(tmp_path, pairs, rows, words):
    with pytest.raises(InputError, match=words):
        read_captions(write(tmp_path / "captions.jsonl", rows), pairs)


@pytest.mark.slow
def test_systems_side_by_side(pairs):
    rng = np.random.default_rng(0)
    systems = {
        "exact": [[pair.caption, pair.caption] for pair in pairs],
        "silent": [[], *([pair.caption] for pair in pairs[1:])],
        **made_here(pairs, rng),
    }
    answer = compare(
        pairs,
        systems,
        encoder=TokenEncoder(),
        vocabulary=MusicTerms.of_tags(SOUNDS),
        baseline="template",
        rng=rng,
    )
    json.dumps(answer, allow_nan=False)
    figures = answer["systems"]
    assert figures["exact"]["bert_f1"]["mean"] == pytest.approx(1.0)
    assert figures["silent"]["bert_f1"]["mean"] == pytest.approx(0.9)
    assert figures["exact"]["captions"] == 20 and figures["silent"]["captions"] == 9
    for name in ("realiser", "template", "tags"):
        assert figures[name]["coverage"]["mean"] == 1.0
        assert figures[name]["invention"]["mean"] == 0.0
    assert set(answer["differences"]) == {"exact", "silent", "realiser", "tags"}
    assert answer["differences"]["exact"]["rouge_l"]["low"] > 0
    assert answer["notes"] == ["silent has no caption for 1 of 10 pairs: they count as empty"]
    lines = table_lines(answer)
    assert any(line.startswith("exact") and "1.000" in line for line in lines)
    assert "layer 6" in lines[0] and max(map(len, lines)) <= 140
    first = json.loads(next(iter(side_by_side(pairs, systems))))
    assert first["captions"]["silent"] == [] and first["reference"] == ROWS[0]["caption"]
    with pytest.raises(
        InputError, match="one of exact, silent, realiser, template, tags; got 'lora'"
    ):
        compare(
            pairs,
            systems,
            encoder=TokenEncoder(),
            vocabulary=MusicTerms.of_tags([]),
            baseline="lora",
            rng=rng,
        )
