"""The lock on a workspace's tables: one job at a time changes them, a second one fails at once.

On a local disk it is a file lock, which the system releases when the process ends for any reason.
An object store has no locks: there a document is the lock. A killed job leaves it behind, so the
error says how to remove it.
"""

from __future__ import annotations

import fcntl
import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from raymtr import storage
from raymtr.errors import UnusableError
from raymtr.workspace import Workspace


@contextmanager
def index_lock(workspace: Workspace) -> Iterator[None]:
    """Hold the lock on the tables. Raises UnusableError if another job holds it."""
    lock = f"{workspace.db}/owner"
    with _document(lock) if storage.is_remote(lock) else _held(storage.local_path(lock)):
        yield


@contextmanager
def _held(path: str) -> Iterator[None]:
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
        file.write(_who())
        file.flush()
        yield


@contextmanager
def _document(uri: str) -> Iterator[None]:
    mine = f"{_who()} {uuid.uuid4().hex}"
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


def _who() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"
