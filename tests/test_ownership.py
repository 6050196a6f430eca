from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from raymtr import storage
from raymtr.errors import UnusableError
from raymtr.ownership import RUN, Ownership, _document, index_lock
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


def test_where_there_are_no_locks_a_document_stands_for_one(tmp_path: Path) -> None:
    uri = f"{tmp_path}/owner"
    refused = pytest.raises(UnusableError, match=r"delete .*owner")
    with _document(uri), refused, _document(uri):
        raise AssertionError("two owners")
    assert not storage.exists(uri)


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
