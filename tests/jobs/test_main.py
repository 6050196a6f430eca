"""The command line's promises: exit statuses, and messages that name the cure."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.__main__ import VERBS, main


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {verb} " in out for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_helps_with_an_example(verb: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "jobs", verb, "--help"], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert f"example: raymtr {verb}" in run.stdout.replace("\n", " ")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["sing"], "unknown verb 'sing'"),
        (["scan", "x"], "--workspace is missing"),
        (["embed", "--workspace", "{tmp}/none"], "no workspace at"),
        (["scan", "x", "--workspace", "{tmp}", "--set", "train.stepz=3"], "train.stepz"),
        (["scan", "x", "--workspace", "{tmp}", "--recipe", "huge"], "unknown recipe 'huge'"),
        (["scan", "{tmp}/gone", "--workspace", "{tmp}/w"], "gone"),
    ],
)
def test_wrong_use_is_status_2(
    argv: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([a.replace("{tmp}", str(tmp_path)) for a in argv]) == 2
    assert words in capsys.readouterr().err


def test_a_workspace_of_another_layout_is_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "workspace.json").write_text(json.dumps({"layout": 99}))
    assert main(["index", "--workspace", str(tmp_path)]) == 1
    assert "layout 99" in capsys.readouterr().err


def test_an_empty_folder_is_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "music").mkdir()
    assert main(["scan", str(tmp_path / "music"), "--workspace", str(tmp_path / "w")]) == 1
    assert "no audio" in capsys.readouterr().err
