"""The README's tree is the tree: a line for each file, no line for what is gone."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def listed_files() -> set[str]:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = re.search(r"## The tree\n\n```\n(.*?)\n```", readme, re.DOTALL)
    assert tree, "README.md has no tree"
    folders: list[str] = []
    files = set()
    for line in tree[1].splitlines():
        name = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 2
        folders = folders[:depth]
        if name.endswith("/"):
            folders.append(name)
        else:
            files.add("".join(folders) + name)
    return files


def test_tree_names_every_file_with_its_purpose() -> None:
    there = {
        path.relative_to(ROOT).as_posix()
        for top in ("raymtr", "jobs", "serve")
        for path in (ROOT / top).rglob("*")
        if path.suffix in (".py", ".j2", ".html", ".js", ".css") and path.name != "__init__.py"
    }
    assert listed_files() == there


def test_commands_are_named() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", readme, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"make {target} is no target"
