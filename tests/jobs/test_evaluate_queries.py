from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from builders import publish_catalog

from jobs.__main__ import main


@pytest.fixture(scope="module")
def workspace(make_workspace: Callable) -> str:
    rows = [
        {"track_id": f"t{n}", "title": f"Tune {n}", "artist": "Cy Wren", "tags": [tag, "rock"]}
        for n, tag in enumerate(["metal", "jazz", "piano"])
    ]
    made = make_workspace(rows)
    publish_catalog(made)
    return str(made.root)


def battery(folder: Path) -> str:
    lines = [
        {"query": "Tune 1", "class": "title", "check": [{"first": {"title": ["Tune 1"]}}]},
        {"query": "rock, no metal", "class": "negation", "check": [{"hits": [2, 2]}]},
        {"query": "rock", "class": "negation", "check": [{"none": {"tag_any": ["rock"]}, "of": 9}]},
        {"query": "x", "class": "other", "workspace": "elsewhere", "check": [{"hits": [9, 9]}]},
    ]
    for line in lines[:3]:
        line["workspace"] = "here"
    file = folder / "queries.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(file)


@pytest.mark.slow
def test_right_and_wrong_are_told_by_class(
    workspace: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    command = ["evaluate", "queries", "--file", battery(tmp_path), "--workspace", workspace]
    assert main([*command, "--only", "here", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    shares = {name: (one["right"], one["queries"]) for name, one in answer["classes"].items()}
    assert shares == {"title": (1, 1), "negation": (1, 2), "all": (2, 3)}
    assert [wrong["query"] for wrong in answer["wrong"]] == ["rock"]
    assert main([*command, "--only", "here"]) == 0
    shown = capsys.readouterr().out
    assert "negation" in shown
    assert "'rock'" in shown


def test_a_file_that_cannot_be_evaluated_is_wrong_use(workspace: str, tmp_path: Path) -> None:
    command = ["evaluate", "queries", "--workspace", workspace]
    assert main(command) == 2
    assert main([*command, "--file", str(tmp_path / "none.jsonl")]) == 2
    assert main([*command, "--file", battery(tmp_path), "--only", "nowhere"]) == 2
    assert main(["evaluate", "--file", battery(tmp_path), "--workspace", workspace]) == 2
