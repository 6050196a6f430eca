"""The operations book, followed to search results on a cluster of several nodes.

What the book has people do is taken from the book: the order of its steps, the keys it makes, the
questions it asks with curl. What stands in for `kubectl` is what KubeRay does with each object of
the dev overlay: a RayJob's entrypoint goes to the head over HTTP, and so does the RayService's
configuration. The claims `workspace` and `music` are folders here, which the pods' variables name.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from nodes import ROOT, Nodes, endpoint_config, exit_status, rendered, until

from jobs.__main__ import WRONG_USE
from raymtr.synthetic.synthesize import synthesize

PIECES = 24
BOOK = (ROOT / "k8s/README.md").read_text(encoding="utf-8")
HOST = "https://search.example.org"

pytestmark = [
    pytest.mark.drill,
    pytest.mark.skipif(shutil.which("curl") is None, reason="the book asks with curl"),
]


def step(number: int) -> str:
    """The text of a numbered step."""
    found: str = BOOK.split(f"\n**{number}. ")[1].split(f"\n**{number + 1}. ")[0]
    return found.split("\n## ")[0]


def blocks(text: str, mark: str) -> list[str]:
    """The fenced blocks of a kind."""
    return re.findall(rf"^```{mark}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_a_newcomer_gets_search_results(nodes: Callable[..., Nodes], tmp_path: Path) -> None:
    music, workspace = tmp_path / "music", tmp_path / "workspace"
    synthesize(str(music), pieces=PIECES)
    [keys] = blocks(step(4), "sh run")
    subprocess.run(["bash", "-c", f"set -eu\n{keys}"], cwd=tmp_path, check=True)
    cluster = nodes(cpus=2)
    cluster.environment |= {"WORKSPACE": str(workspace), "MUSIC": str(music / "audio")}
    took = {}
    for verb in re.findall(r"^start (\w+) && finished \1$", step(6), re.MULTILINE):
        began = time.monotonic()
        entrypoint: str = rendered("RayJob", verb)["spec"]["entrypoint"]
        job = cluster.submit(entrypoint)
        assert cluster.finished(job) == "SUCCEEDED", cluster.client.get_job_logs(job)[-3000:]
        took[verb] = round(time.monotonic() - began)
    assert list(took) == ["scan", "caption", "train", "embed", "index"]

    config = endpoint_config(workspace=str(workspace), keys=str(tmp_path / "secrets/keys"))
    cluster.serve(config)
    address = f"http://127.0.0.1:{config['http_options']['port']}"
    began = time.monotonic()
    ready, search = re.findall(r"^curl .*$", step(7), re.MULTILINE)

    def said(command: str) -> str | None:
        line = command.replace(HOST, address)
        done = subprocess.run(
            ["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, timeout=90
        )
        return done.stdout if done.returncode == 0 else None

    until(lambda: said(ready))
    took["serve"] = round(time.monotonic() - began)
    answer = json.loads(said(search) or "{}")
    assert len(answer["hits"]) == 10
    assert answer["query"]["kind"] == "description"
    assert all(Path(hit["uri"]).is_file() for hit in answer["hits"])
    sys.stderr.write(f"\n{PIECES} pieces, seconds of each step: {took}\n")


def test_the_submitter_reads_what_ray_says(nodes: Callable[..., Nodes]) -> None:
    """KubeRay hands Ray's message on as it is; a verb's own refusals must be told by it."""
    cluster = nodes()
    ends = {"raymtr embed --work-space w": WRONG_USE, "exit 75": 75, "kill -9 $$": -9}
    jobs = {cluster.submit(command): status for command, status in ends.items()}
    for job, status in jobs.items():
        assert cluster.finished(job) == "FAILED"
        assert exit_status(cluster.client.get_job_info(job).message) == status
