"""Who may write: ownership of a folder by a token, and the lock on the published tables.

Two rules. A folder of shards belongs to the run that took it last: its token is in `run.json`, and
an earlier owner stops at its next commit. The published tables have a lock: a second job fails at
once.

The lock is a file lock on a local disk, which the system releases when the process ends for any
reason. An object store has no locks: there a document is the lock. A killed job leaves it behind,
so the error says how to remove it.
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from raymtr import storage
from raymtr.errors import UnusableError
from raymtr.workspace import Workspace

RUN = "run.json"  # the file of a folder that names its owner
TAKEOVER_S = 1.0  # longer than another owner takes from its check of the token to its commit


class Ownership:
    """The right of one run to write below `folder`; `job` names the kind of job in errors."""

    def __init__(self, folder: str, job: str) -> None:
        self.folder, self._job = folder, job
        self.token = uuid.uuid4().hex

    @property
    def complete(self) -> bool:
        """Whether the last owner finished; False where there was none."""
        file = f"{self.folder}/{RUN}"
        return storage.exists(file) and not storage.read_json(file).get("running", True)

    def take(self, facts: Mapping[str, Any]) -> None:
        """Become the owner; `facts` are kept in `run.json` beside the token.

        Where an earlier owner has not finished, waits until it must have seen the token.
        """
        left_behind = storage.exists(f"{self.folder}/{RUN}") and not self.complete
        self._write(facts, running=True)
        if left_behind:
            time.sleep(TAKEOVER_S)

    def check(self) -> None:
        """Raises UnusableError if another run has become the owner."""
        if storage.read_json(f"{self.folder}/{RUN}")["run"] != self.token:
            raise UnusableError(
                f"another {self._job} job has taken over {self.folder}; let one of them finish "
                "alone"
            )

    def release(self, facts: Mapping[str, Any]) -> None:
        """Mark the run as complete, so that the next owner need not wait for this one."""
        self.check()
        self._write(facts, running=False)

    def _write(self, facts: Mapping[str, Any], *, running: bool) -> None:
        run = {"run": self.token, "running": running, **facts}
        storage.write_json(f"{self.folder}/{RUN}", run)


@contextmanager
def index_lock(workspace: Workspace) -> Iterator[None]:
    """Hold the lock on the tables. Raises UnusableError if another job holds it."""
    lock = f"{workspace.db}/owner"
    with _document(lock) if storage.is_remote(lock) else _file_lock(storage.local_path(lock)):
        yield


@contextmanager
def _file_lock(path: str) -> Iterator[None]:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise UnusableError(
                f"another index job ({file.read().strip() or 'just started'}) is changing these "
                "tables; let it finish, then run this one again"
            ) from error
        file.truncate(0)
        file.write(_process())
        file.flush()
        yield


@contextmanager
def _document(uri: str) -> Iterator[None]:
    mine = f"{_process()} {uuid.uuid4().hex}"
    if not storage.exists(uri):
        storage.write_bytes(uri, mine.encode())
    owner = storage.read_bytes(uri).decode()
    if owner != mine:
        raise UnusableError(
            f"another index job ({owner}) is changing these tables; let it finish, or, if it was "
            f"killed, delete {uri}"
        )
    try:
        yield
    finally:
        storage.delete(uri)


def _process() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"
