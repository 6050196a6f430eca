"""The rehearsal for a GPU runs whole at toy size, each part with its rows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("vectors", "log-mel", "embedding", "train step", "LoRA step")


@pytest.mark.slow
def test_every_part_has_its_rows_on_a_cpu() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "on_gpu.py"), "--toy"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "TOY SIZE" in done.stdout and "FAILED" not in done.stdout
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line[:2] == "| "]
    assert list(dict.fromkeys(row[0] for row in rows[1:])) == list(PARTS)
    assert all(len(row) == 3 and all(row) for row in rows)
    audio = [row[2] for row in rows if "ModifiedResNet fp32" in row[1]]
    assert audio and all(figures.startswith("byte-equal in any batch") for figures in audio)
