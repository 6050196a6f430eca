"""Documents name what exists: verbs, routes, settings, files, make targets."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from jobs.__main__ import VERBS
from raymtr.specs import Settings
from raymtr.track import KNOWN

ROOT = Path(__file__).resolve().parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [*DOCS, ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "benchmarks/README.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_settings_of_a_page_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    blocks = "\n".join(re.findall(r"^```.*?^```", text, re.MULTILINE | re.DOTALL))
    verbs = re.findall(r"`raymtr ([a-z]+)", text)
    verbs += re.findall(r"^raymtr ([a-z]+)", blocks, re.MULTILINE)
    assert set(verbs) <= set(VERBS)
    groups = {field.name for field in fields(Settings)}
    for group, key in re.findall(r"--set '?([a-z_]+)\.([a-z_]+)", text):
        known = Settings.__dataclass_fields__[group].default_factory()  # type: ignore[misc]
        assert group in groups and hasattr(known, key), f"{page}: {group}.{key}"
    for script in re.findall(r"benchmarks/(\w+\.py)", text):
        assert (ROOT / "benchmarks" / script).is_file(), f"{page}: {script}"


def test_every_verb_and_every_known_column_is_documented() -> None:
    index = (ROOT / "docs/index.md").read_text(encoding="utf-8")
    assert not [verb for verb in VERBS if f"| `{verb}` |" not in index]
    formats = (ROOT / "docs/data-formats.md").read_text(encoding="utf-8")
    assert not [column for column in KNOWN if f"`{column}`" not in formats]


def test_every_route_is_documented() -> None:
    serving = (ROOT / "docs/serving.md").read_text(encoding="utf-8")
    routes = [
        route
        for file in (ROOT / "serve").rglob("*.py")
        for route in re.findall(r"@http\.(?:get|post)\(\"(/[^\"]*)\"", file.read_text())
    ]
    assert len(routes) > 10
    for route in routes:
        parts = [part for part in re.split(r"\{[^}]*\}", route) if part != "/"]
        known = [line for line in serving.splitlines() if all(part in line for part in parts)]
        assert known, f"{route} is not in docs/serving.md"


def test_every_benchmark_is_listed() -> None:
    listed = (ROOT / "benchmarks/README.md").read_text(encoding="utf-8")
    helpers = {
        "alternate.py",
        "figures.py",
        "watched.py",
        "delayed_s3.py",
        "gpu_models.py",
        "gpu_speed.py",
        "gpu_vectors.py",
    }
    scripts = {file.name for file in (ROOT / "benchmarks").glob("*.py")} - helpers
    assert not [name for name in scripts if f"`{name}`" not in listed]


def test_the_readme_is_short() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150
