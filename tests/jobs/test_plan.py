from __future__ import annotations

import json

import pytest

from jobs.__main__ import main
from raymtr.specs import SearchSpec


def test_a_plan_needs_no_workspace(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--tracks", "100M", "--hours", "168"]) == 0
    out = capsys.readouterr().out
    assert "keeps 53.7 GB on its disk (train.cache_gib)" in out
    assert "100,000,000 tracks" in out and "ivf_rq" in out and "not measured" in out


def test_a_tower_of_any_kind_has_a_plan() -> None:
    assert main(["plan", "--tracks", "5k", "--hours", "9", "--recipe", "mulan"]) == 0


def test_the_index_is_chosen_as_the_index_chooses(capsys: pytest.CaptureFixture[str]) -> None:
    kinds = {}
    below = SearchSpec().exact_below
    for tracks in (below - 1, below):
        assert main(["plan", "--tracks", str(tracks), "--hours", "9", "--json"]) == 0
        answer = json.loads(capsys.readouterr().out)
        kinds[tracks] = answer["index"]["kind"], answer["recall_at_10"]["text"]
    assert kinds[below - 1] == ("exact", 1.0)
    assert kinds[below][0] == "ivf_rq" and kinds[below][1] < 1
    moved = ["--set", "search.exact_below=10", "--dim", "100", "--json"]
    assert main(["plan", "--tracks", "5k", "--hours", "9", *moved]) == 0
    assert json.loads(capsys.readouterr().out)["index"]["kind"] == "ivf_sq"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--tracks", "0"),
        ("--tracks", "-5"),
        ("--tracks", "100X"),
        ("--hours", "-5"),
        ("--hours", "1e308"),
        ("--minutes-per-track", "1e308"),
        ("--dim", "10M"),
        ("--dim", "x"),
    ],
)
def test_bad_input_is_status_2(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    asked = {"--tracks": "10", "--hours": "1"} | {option: value}
    assert main(["plan", *(word for pair in asked.items() for word in pair)]) == 2
    error = capsys.readouterr().err
    assert option in error and repr(value) in error and "such as" in error
