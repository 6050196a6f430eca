"""The cluster a job runs on: one that is gone, folders and homes that Ray cannot use."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from jobs import cluster
from raymtr.errors import LostError, UnusableError

START = """
import json, os, ray
import jobs.__main__
from jobs.cluster import start_ray
start_ray()
print(json.dumps({"folder": ray._private.worker.global_worker.node.get_session_dir_path()}))
"""


def test_a_cluster_that_is_gone_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setattr(cluster, "ANSWERS_WITHIN_S", 0.0)
    for named in (address, f"ray://{address}"):
        with pytest.raises(LostError, match=f"no Ray cluster answers at RAY_ADDRESS={named}"):
            cluster.join_ray(named)


def test_it_is_reported_within_a_minute() -> None:
    assert cluster.ANSWERS_WITHIN_S + 10 < 60


def test_a_long_folder_for_temporary_files_gets_a_short_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", "/tmp")
    assert cluster.short_folder() is None
    monkeypatch.setenv("TMPDIR", f"/tmp/{'long' * 40}")
    assert cluster.short_folder() == "/tmp/ray"
    monkeypatch.setattr(cluster, "SHORT_FOLDER", "/nowhere")
    with pytest.raises(UnusableError, match="set RAY_TMPDIR"):
        cluster.short_folder()


@pytest.mark.ray
def test_ray_starts_under_a_long_folder_and_says_which_home_it_cannot_write(
    tmp_path: Path,
) -> None:
    long = tmp_path / ("long" * 40)
    long.mkdir()

    def start(**environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", START],
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=300,
        )

    done = start(TMPDIR=str(long))
    assert done.returncode == 0, done.stderr[-2_000:]
    assert json.loads(done.stdout.splitlines()[-1])["folder"].startswith("/tmp/ray/")
    refused = start(HOME="/proc/nonexist")
    assert "RAY_AUTH_TOKEN_PATH" in refused.stderr.splitlines()[-1]


BESIDE = """
import os, subprocess, sys
from jobs.cluster import start_ray
other = None
if len(sys.argv) == 1:
    other = subprocess.Popen([sys.executable, "-c", sys.stdin.read(), "other"],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "up\\n"
start_ray()
assert "RAY_ADDRESS" not in os.environ, "the driver's own environment stays as it was"
if other is None:
    print("up", flush=True)
    sys.stdin.read()
    sys.exit()
import ray
from ray._private.services import canonicalize_bootstrap_address_or_die

@ray.remote(num_cpus=0)
def helper():
    return canonicalize_bootstrap_address_or_die(None)

assert ray.get(helper.remote()) == ray.get_runtime_context().gcs_address
ray.shutdown()
other.stdin.close()
other.wait()
"""


@pytest.mark.slow
def test_a_cluster_beside_another_tells_its_processes_which_is_theirs() -> None:
    """Ray Train's cleaner asks so, and fails where a machine has two and nobody told it."""
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-c", BESIDE],
        input=BESIDE,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_object_store_grows_with_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    from jobs.__main__ import object_store_bytes

    sizes = []
    for cores in (2, 64):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        sizes.append(object_store_bytes() >> 20)
    assert sizes == [512, 8_192]
