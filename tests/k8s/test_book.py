"""The operations book: what it tells to run is run, what needs a cluster is looked up."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.__main__ import main
from k8s import check
from k8s.code_rules import parse_command
from k8s.kustomize import by_name, read_objects, render

pytestmark = pytest.mark.slow

HERE = Path(check.__file__).parent
BOOK = (HERE / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(.*?)\n(.*?)^```$", BOOK, re.MULTILINE | re.DOTALL)
RUN = [text for mark, text in BLOCKS if mark == "sh run"]
CLUSTER = [line for mark, text in BLOCKS if mark == "sh cluster" for line in text.splitlines()]


@pytest.fixture(scope="module")
def objects() -> list[dict]:
    return render(HERE / "base")


def test_every_block_says_where_it_runs() -> None:
    assert {mark for mark, _ in BLOCKS} == {"sh run", "sh cluster"}
    assert len(RUN) >= 4


@pytest.mark.parametrize("block", RUN, ids=lambda block: block.split("\n")[0][:40])
def test_what_needs_only_a_checkout_runs(block: str, tmp_path: Path) -> None:
    first, _, more = block.partition("\n")
    if first == "python -m k8s.check" and not more:
        assert check.main([]) == 0
    elif first.startswith("raymtr ") and not more:
        assert main(first.split()[1:]) == 0
    else:
        (tmp_path / "k8s").symlink_to(HERE)
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        script = f"set -euo pipefail\n{block}"
        subprocess.run(
            ["bash", "-c", script], cwd=tmp_path, env={**os.environ, "PATH": path}, check=True
        )


def test_the_keys_it_makes_open_the_endpoint(tmp_path: Path) -> None:
    import hashlib

    from serve.access import read_keys

    [block] = [text for text in RUN if "secrets/keys" in text]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run(
        ["bash", "-c", block], cwd=tmp_path, env={**os.environ, "PATH": path}, check=True
    )
    keys = read_keys(str(tmp_path / "secrets/keys"))
    for client, scope in (("somebody", "search"), ("prometheus", "metrics")):
        key = (tmp_path / f"secrets/{client}.key").read_bytes()
        found = keys[hashlib.sha256(key).hexdigest()]
        assert (found.name, found.scopes) == (client, {scope})
    modes = {path.stat().st_mode & 0o077 for path in (tmp_path / "secrets").iterdir()}
    assert modes == {0}


def test_commands_of_raymtr_are_taken_by_its_parser() -> None:
    said = [m for line in CLUSTER for m in re.findall(r"(?:^|-- )(raymtr .*)$", line)]
    assert len(said) >= 3
    for line in said:
        parse_command(line)


def test_what_needs_a_cluster_is_shell() -> None:
    for mark, text in BLOCKS:
        if mark == "sh cluster":
            subprocess.run(["bash", "-n"], input=text, text=True, check=True)


def test_what_it_names_is_there(objects: list[dict]) -> None:
    book = "\n".join(CLUSTER)
    stages = re.findall(r"^FROM \S+ AS (\S+)", (HERE / "Dockerfile").read_text(), re.MULTILINE)
    for stage in re.findall(r"--target (\S+)", book):
        assert stage in stages
    for folder in re.findall(r"apply -k (\S+)", book):
        assert (HERE.parent / folder / "kustomization.yaml").is_file(), folder
    for file in re.findall(r"apply -f (k8s/\S+)|python (k8s/\S+)", book):
        assert (HERE.parent / "".join(file)).is_file(), file
    for job in re.findall(r"\b(?:start|finished) (\w+)", book):
        assert job in by_name(objects, "RayJob")
    for job in re.findall(r"--from=cronjob/(\S+)|patch cronjob (\S+)", book):
        assert "".join(job) in by_name(objects, "CronJob")
    made = by_name(read_objects(HERE / "secrets.example.yaml"), "Secret")
    for name, files in re.findall(r"create secret generic (\S+)((?: --from-file=\S+)+)", book):
        assert set(made.pop(name, made.get(name, {})).get("stringData", {})) <= set(
            re.findall(r"--from-file=([\w.-]+)=", files)
        )
    assert not made, f"the book makes no {set(made)}"


def test_every_alert_is_explained(objects: list[dict]) -> None:
    rules = by_name(objects, "PrometheusRule")["raymtr"]["spec"]["groups"][0]["rules"]
    section = BOOK.partition("## Alerts")[2].partition("\n## ")[0]
    explained = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert sorted(explained) == sorted(rule["alert"] for rule in rules)
