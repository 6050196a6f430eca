"""Who may write: ownership of a folder by a token, and the lock on the published tables.

Two rules. A folder of shards belongs to the run that took it last: its token is in `run.json`, and
an earlier owner stops at its next commit. The published tables have a lock: a second job fails at
once.

The lock is a file lock on a local disk, which the system releases when the process ends for any
reason. An object store has no locks: there a document is a lease, which its holder renews. A killed
job leaves it behind; the next job watches it for LEASE_S and takes it over if nobody renews it. No
clocks are compared. A holder that was suspended for so long finds another's lease and stops. So
does one of two jobs that took a free lease in the same moment, within LEASE_S / 3.
"""

from __future__ import annotations

import ctypes
import fcntl
import itertools
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from raymtr import storage
from raymtr.errors import UnusableError
from raymtr.workspace import Workspace

LOG = logging.getLogger("raymtr")
LEASE_S = 30.0  # an object store's lock that was not renewed for so long is a killed job's
RUN = "run.json"  # the file of a folder that names its owner
TAKEOVER_S = 1.0  # longer than another owner takes from its check of the token to its commit


class Ownership:
    """The right of one run to write below `folder`; `job` names the kind of job in errors."""

    def __init__(self, folder: str, job: str, *, file: str = RUN) -> None:
        self.folder, self._job, self.file = folder, job, f"{folder}/{file}"
        self.token = uuid.uuid4().hex

    @property
    def record(self) -> dict[str, Any]:
        """What the last owner wrote; {} where there was none."""
        try:
            return dict(storage.read_json(self.file))
        except FileNotFoundError:
            return {}

    @property
    def complete(self) -> bool:
        """Whether the last owner finished; False where there was none."""
        return self.record.get("running") is False

    def take(self, facts: Mapping[str, Any]) -> None:
        """Become the owner; `facts` are kept in the file beside the token.

        Where an earlier owner has not finished, waits until it must have seen the token.
        """
        before = self.record
        self.note({"run": self.token, "running": True, **facts})
        if before and before.get("running") is not False:
            time.sleep(TAKEOVER_S)

    def note(self, facts: Mapping[str, Any]) -> None:
        """Add facts to the file."""
        storage.write_json(self.file, {**self.record, **facts})

    def check(self) -> None:
        """Raises UnusableError if another run has become the owner."""
        if self.record.get("run") != self.token:
            raise UnusableError(
                f"another {self._job} job has taken over {self.folder}; let one of them finish "
                "alone"
            )

    def release(self, facts: Mapping[str, Any]) -> None:
        """Mark the run as complete, so that the next owner need not wait for this one."""
        self.check()
        self.note({"running": False, **facts})


@contextmanager
def index_lock(workspace: Workspace) -> Iterator[None]:
    """Hold the lock on the tables. Raises UnusableError if another job holds it."""
    lock = f"{workspace.db}/owner"
    with _lease(lock) if storage.is_remote(lock) else _file_lock(storage.local_path(lock)):
        yield


@contextmanager
def _file_lock(path: str) -> Iterator[None]:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise _busy(file.read().strip() or "just started") from error
        file.truncate(0)
        file.write(_process())
        file.flush()
        yield


class _LeaseLost(BaseException):
    """Raised in the thread that held a lease; no handler of ordinary errors catches it."""


@contextmanager
def _lease(uri: str) -> Iterator[None]:
    mine = uuid.uuid4().hex
    if storage.exists(uri):
        _await_death(uri)
    _renew(uri, mine, 0)
    over, holder = threading.Event(), threading.get_ident()

    def keep() -> None:
        for beat in itertools.count(1):
            if over.wait(LEASE_S / 3):
                return
            try:
                if _lease_token(uri) != mine:
                    # A signal would not do: jobs in the background ignore it.
                    lost = ctypes.py_object(_LeaseLost)
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(holder), lost)
                    return
                _renew(uri, mine, beat)
            except OSError as error:  # by the next beat the store may answer again
                LOG.warning("cannot renew the lease at %s: %s", uri, error)

    keeper = threading.Thread(target=keep, daemon=True, name="index lease")
    try:
        if _lease_token(uri) != mine:
            raise _taken(uri)
        keeper.start()
        yield
    except _LeaseLost:
        raise _taken(uri) from None
    finally:
        over.set()
        if keeper.ident:
            keeper.join()
        if _lease_token(uri) == mine:
            storage.delete(uri)


def _await_death(uri: str) -> None:
    """Return when the lease at `uri` was not renewed for LEASE_S, or is gone.

    Raises UnusableError as soon as it is renewed, and for a lock of an older version.
    """
    before, began = storage.read_bytes(uri), time.monotonic()
    if not before.startswith(b"{"):  # an older raymtr's lock, which nobody renews
        raise UnusableError(
            f"another index job ({before.decode()}) of an older raymtr is changing these tables; "
            f"let it finish, or, if it was killed, delete {uri}"
        )
    LOG.info("another job's lease is at %s; watching for %g s if it lives", uri, LEASE_S)
    while time.monotonic() - began < LEASE_S:
        time.sleep(LEASE_S / 30)
        if not storage.exists(uri):
            return
        if storage.read_bytes(uri) != before:
            raise _taken(uri)
    LOG.warning("the lease at %s was not renewed for %g s: taking it over", uri, LEASE_S)


def _renew(uri: str, token: str, beat: int) -> None:
    storage.write_json(uri, {"job": _process(), "token": token, "beat": beat})


def _lease_token(uri: str) -> str | None:
    return storage.read_json(uri)["token"] if storage.exists(uri) else None


def _taken(uri: str) -> UnusableError:
    return _busy(storage.read_json(uri)["job"] if storage.exists(uri) else "just finished")


def _busy(job: str) -> UnusableError:
    return UnusableError(
        f"another index job ({job}) is changing these tables; let it finish, then run this one "
        "again"
    )


def _process() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"
