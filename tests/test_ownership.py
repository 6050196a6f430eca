from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from raymtr import ownership, storage
from raymtr.errors import UnusableError
from raymtr.ownership import RUN, Ownership, _lease, index_lock
from raymtr.workspace import Workspace

HOLD = """
import sys, time
from raymtr.ownership import index_lock
from raymtr.workspace import Workspace
with index_lock(Workspace.open(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def workspace(make_workspace: Callable) -> Workspace:
    return make_workspace([{"track_id": "a"}])


def test_a_second_job_is_rejected_until_the_first_is_done(workspace: Workspace) -> None:
    refused = pytest.raises(UnusableError, match=rf"process {os.getpid()} on .*let it finish")
    with index_lock(workspace), refused, index_lock(workspace):
        raise AssertionError("two owners")
    with index_lock(workspace):
        pass


@pytest.mark.slow
def test_a_killed_job_leaves_nothing_locked(workspace: Workspace) -> None:
    command = [sys.executable, "-c", HOLD, workspace.root]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as job:
        assert job.stdout and job.stdout.readline() == "held\n"
        refused = pytest.raises(UnusableError, match=f"process {job.pid} on")
        with refused, index_lock(workspace):
            raise AssertionError("two owners")
        job.kill()
    with index_lock(workspace):
        pass


@pytest.fixture
def short_lease(monkeypatch: pytest.MonkeyPatch) -> float:
    monkeypatch.setattr(ownership, "LEASE_S", 0.9)
    return 0.9


def test_a_lease_is_renewed_and_a_second_job_is_rejected(
    tmp_path: Path, short_lease: float
) -> None:
    uri = f"{tmp_path}/owner"
    refused = pytest.raises(UnusableError, match=rf"process {os.getpid()} on .*let it finish")
    with _lease(uri), refused, _lease(uri):
        raise AssertionError("two owners")
    assert not storage.exists(uri)
    with _lease(uri):
        pass


def test_a_killed_jobs_lease_is_taken_over(tmp_path: Path, short_lease: float) -> None:
    uri = f"{tmp_path}/owner"
    storage.write_json(uri, {"job": "process 1 on gone", "token": "old", "beat": 3})
    began = time.monotonic()
    with _lease(uri):
        assert time.monotonic() - began >= short_lease
    assert not storage.exists(uri)


def test_an_older_versions_lock_is_not_taken_over(tmp_path: Path, short_lease: float) -> None:
    uri = f"{tmp_path}/owner"
    storage.write_bytes(uri, b"process 1 on host 0123abcd")
    refused = pytest.raises(UnusableError, match=r"process 1 on host .* older raymtr .*delete")
    with refused, _lease(uri):
        raise AssertionError("two owners")
    assert storage.exists(uri)


def test_a_job_that_lost_its_lease_stops(tmp_path: Path, short_lease: float) -> None:
    uri = f"{tmp_path}/owner"
    other = {"job": "process 2 on other", "token": "new", "beat": 0}
    with pytest.raises(UnusableError, match="process 2 on other"), _lease(uri):
        storage.write_json(uri, other)  # as a job that took over after a suspension
        for _ in range(100):
            time.sleep(short_lease / 10)
        raise AssertionError("went on without the lease")
    assert storage.read_json(uri) == other


@pytest.mark.slow
def test_a_folder_belongs_to_the_run_that_took_it_last(tmp_path: Path) -> None:
    first, second = (Ownership(str(tmp_path), "embed") for _ in range(2))
    assert not first.complete
    first.take({"made_by": "x"})
    second.take({"made_by": "y"})
    with pytest.raises(UnusableError, match="another embed job has taken over"):
        first.check()
    second.release({"made_by": "y"})
    assert second.complete
    run = storage.read_json(f"{tmp_path}/{RUN}")
    assert run == {"run": second.token, "running": False, "made_by": "y"}


@pytest.mark.slow
def test_a_run_file_of_an_older_version_is_taken_over(tmp_path: Path) -> None:
    storage.write_json(f"{tmp_path}/{RUN}", {"run": "old", "settings": {}})
    owner = Ownership(str(tmp_path), "caption")
    assert not owner.complete
    owner.take({"settings": {}})
    owner.check()
