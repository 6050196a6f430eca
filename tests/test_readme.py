"""README.md names every folder and every make target; every file says what it is for."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def listed_folders() -> set[str]:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = re.search(r"## The tree\n\n```\n(.*?)\n```", readme, re.DOTALL)
    assert tree, "README.md has no tree"
    above: list[str] = []
    folders = set()
    for line in tree[1].splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        above = [*above[:depth], line.split()[0]]
        folders.add("".join(above))
    return folders


def test_tree_names_every_folder_with_its_purpose() -> None:
    tops = (
        *("raymtr", "jobs", "serve", "docs", "examples"),
        *("tests", "k8s", "benchmarks", "requirements"),
    )
    inside = {
        path.parent.relative_to(ROOT).as_posix() + "/"
        for top in ("raymtr", "jobs", "serve")
        for path in (ROOT / top).rglob("*")
        if path.suffix in (".py", ".html")
    }
    assert listed_folders() == inside | {f"{top}/" for top in tops}


@pytest.mark.slow
def test_every_file_opens_with_its_purpose() -> None:
    for top in ("raymtr", "jobs", "serve", "benchmarks"):
        for path in (ROOT / top).rglob("*.py"):
            assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path


def test_commands_are_named() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", readme, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"make {target} is no target"
