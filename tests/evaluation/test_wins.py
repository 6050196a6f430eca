"""Blind pairs of two models' clips: a page that does not tell, and wins with an interval."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from jobs.__main__ import main
from raymtr import storage
from raymtr.generation.sound_file import manifest_of, wav_bytes
from raymtr.workspace import Workspace

MODELS = ("m1f3", "m2c9")
PROMPTS = [f"sound <{n}>" for n in range(12)]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Clips of two models for the same prompts; the first has one more, and one that failed."""
    workspace = Workspace.open(str(tmp_path / "w"), create=True)
    for number, model in enumerate(MODELS):
        rows: list[dict[str, object]] = []
        for n, prompt in enumerate([*PROMPTS, *["only here"] * (model == "m1f3")]):
            uri = f"{workspace.generated}/{model}/clips/{n}.wav"
            samples = np.full(800, 0.01 * n + 0.5 * number, np.float32)
            made_by = {"model": model, "parts": "p", "joint_model": "j"}
            storage.write_bytes(
                uri,
                wav_bytes(samples, 8_000, prompt=prompt, seed=n, made_by=made_by),  # type: ignore[arg-type]
            )
            rows.append({"clip_id": str(n), "uri": uri, "prompt": prompt, **made_by})
        rows.append({"clip_id": "bad", "prompt": "bad", "code": "bad_model", "model": model})
        storage.write_table(f"{workspace.generated}/{model}/manifest/a.parquet", manifest_of(rows))
    return workspace


def evaluate(workspace: Workspace, *options: str) -> int:
    compared = ["--clips", "m1f3", "--against", "m2c9"]
    return main(["evaluate", "generation", "--workspace", workspace.root, *compared, *options])


def test_the_page_hides_who_made_what(workspace: Workspace) -> None:
    assert evaluate(workspace, "--blind", "12") == 0
    folder = Path(workspace.path("evaluation"))
    page = (folder / "wins.html").read_text()
    key = json.loads((folder / "wins-key.json").read_text())
    assert sorted(row["prompt"] for row in key) == sorted(PROMPTS)
    assert page.count("<fieldset ") == 12 and "<option>same</option>" in page
    assert not any(word in page for word in (*MODELS, "/clips/0.wav", "sound <0>", "http"))
    assert len({row["a"] for row in key}) == 2  # either model may be on the left
    files = re.findall(r'src="([^"]+)"', page)
    assert len(files) == 24
    for row in key:
        for side in "ab":
            own = Path(row[f"{side}_uri"]).read_bytes()
            assert (folder / f"clips/{row['item']}{side}.wav").read_bytes() == own
            assert f"/{row[side]}/" in row[f"{side}_uri"]


def test_choices_come_back_as_wins(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(workspace, "--blind", "12")
    key = json.loads(Path(workspace.path("evaluation", "wins-key.json")).read_text())

    def side_of(row: dict[str, str], model: str) -> str:
        return "a" if row["a"] == model else "b"

    lines = [f"{row['item']},{side_of(row, 'm1f3')}" for row in key[:8]]
    lines += [f"{row['item']},{side_of(row, 'm2c9')}" for row in key[8:10]]
    lines += [f"{key[10]['item']},same"]
    scores = tmp_path / "scores.csv"

    def read(*rows: str) -> int:
        scores.write_text("\n".join(["item,better", *rows]))
        capsys.readouterr()
        return evaluate(workspace, "--scores", str(scores), "--json")

    assert read(*lines) == 0
    wins = json.loads(capsys.readouterr().out)["wins"]
    assert (wins["wins"], wins["losses"], wins["same"], wins["pairs"]) == (8, 2, 1, 11)
    assert wins["share"] == 0.8
    assert wins["interval"] == [0.4902, 0.9433]  # Wilson's for 8 of 10
    assert evaluate(workspace, "--scores", str(scores)) == 0
    assert "wins 0.80 of the decided (0.49 to 0.94 at 95 %)" in capsys.readouterr().out
    for rows, words in (
        (["p99,a"], "line 2 of the scores"),
        (["p1,c"], "better is a, b, same"),
        (["p1,ab"], "line 2 of the scores"),
        (["p1,a", "p1,b"], "p1 twice"),
    ):
        assert read(*rows) == 2 and words in capsys.readouterr().err


def test_what_cannot_be_compared_is_told(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["evaluate", "generation", "--workspace", workspace.root]
    both = ["--clips", "m1f3", "--against", "m2c9"]
    scores = tmp_path / "scores.csv"
    scores.write_text("item,better\n")
    for options, words in (
        ([*both, "--blind", "13"], "--blind takes 1 to 12 pairs"),
        ([*both, "--scores", str(scores)], "--blind N writes a page and its key"),
        ([*both, "--blind", "3", "--scores", str(scores)], "takes one of"),
        (both, "takes one of"),
        (["--clips", "m1f3", "--blind", "3"], "a blind comparison has two models"),
        (["--clips", "m1f3", "--against", "three", "--blind", "3"], "no clips of three"),
    ):
        assert main([*common, *options]) == 2
        assert words in capsys.readouterr().err
    assert main(["evaluate", "queries", "--workspace", workspace.root, "--blind", "3"]) == 2
    assert "--blind belongs to" in capsys.readouterr().err
    evaluate(workspace, "--blind", "3")
    other = ["--clips", "m2c9", "--against", "else", "--scores", str(scores)]
    assert main([*common, *other]) == 2
    assert "compares m1f3 and m2c9, not m2c9 and else" in capsys.readouterr().err
