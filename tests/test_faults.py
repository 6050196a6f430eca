"""The list of faults names each of them once, and only tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
BOOK = (ROOT / "docs" / "faults.md").read_text()
ROWS = {"A": 10, "B": 11, "C": 10, "D": 3, "E": 7, "F": 10, "G": 6, "H": 16}


def test_every_fault_has_one_row() -> None:
    rows = re.findall(r"^\| ([A-H]\d+) \|", BOOK, re.MULTILINE)
    assert rows == [f"{kind}{n}" for kind, last in ROWS.items() for n in range(1, last + 1)]


def test_the_tests_it_names_are_there() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", BOOK)
    assert len(named) > 80
    for path, name in named:
        assert re.search(rf"^def {name}\(", (ROOT / path).read_text(), re.MULTILINE), (path, name)
