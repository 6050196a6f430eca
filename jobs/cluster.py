"""The Ray cluster a job runs on: the one it is told of, the one already up, or a local one."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import ray
import ray.data
from ray import exceptions

from jobs.console import hear_workers, is_verbose
from raymtr.errors import LostError, TooBusyError, UnusableError

LOG = logging.getLogger("raymtr")
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_WAIT_POLICY": "PASSIVE",
    "RAY_DATA_PARQUET_FOOTER_NUM_ACTORS": "1",  # processes that read ends of files; 32 by default
}
# Ray takes what starts or answers late for dead, and a busy machine is late in everything.
PATIENT = {
    "RAY_worker_register_timeout_seconds": "600",
    "RAY_health_check_failure_threshold": "60",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "600",
}
STARTS = 10  # of a local cluster; Ray gives each half a minute, whatever it is told
TOO_SLOW = "timed out during startup"
LOSSES = (  # what Ray raises when processes or machines go away; its other errors stay when retried
    exceptions.RayActorError,
    exceptions.WorkerCrashedError,
    exceptions.LocalRayletDiedError,
    exceptions.NodeDiedError,
    exceptions.ObjectLostError,
    exceptions.OutOfMemoryError,
    exceptions.RpcError,
    exceptions.RaySystemError,
    exceptions.TaskPlacementGroupRemoved,
    exceptions.ActorPlacementGroupRemoved,
    exceptions.TaskUnschedulableError,
    exceptions.ActorUnschedulableError,
)
ANSWERS_WITHIN_S = 30.0
# Of a local cluster's own: no connection that goes out gets one, and Ray's workers and Serve none.
PORTS = range(21_000, 29_000)
SHORT_FOLDER = "/tmp"
# A socket's path has at most 103 bytes (macOS), of which Ray takes this much behind the folder:
LONGEST_FOLDER = 103 - len("/ray/session_2026-01-31_23-59-59_999999_4194304/sockets/plasma_store")


def start_ray() -> None:
    """Join the cluster of `RAY_ADDRESS`, or start a local one; a no-op where Ray is up already."""
    if ray.is_initialized():
        return
    if not is_verbose():  # Data prints every plan
        logging.getLogger("ray").setLevel(logging.ERROR)
        logging.getLogger("ray.data").setLevel(logging.ERROR)
    for key, value in QUIET.items():
        os.environ.setdefault(key, value)
    if address := os.environ.get("RAY_ADDRESS"):
        join_ray(address)
    else:
        _start_here()
    if not is_verbose():
        hear_workers()


def _start_here() -> None:
    try:
        start_local(logging_level=logging.WARNING, _temp_dir=short_folder())
    except OSError as error:
        if isinstance(error, ConnectionError) or error.filename is None:
            raise
        raise UnusableError(
            f"Ray cannot write {error.filename} ({error.strerror}), where it keeps the key of its "
            "cluster: point HOME at a folder that can be written, or RAY_AUTH_TOKEN_PATH at a key"
        ) from error


def start_local(**options: Any) -> None:
    """Start a local cluster with these `options` of `ray.init`, however long the machine takes.

    Raises TooBusyError where Ray gave up each time.
    """
    for key, value in (QUIET | PATIENT).items():
        os.environ.setdefault(key, value)
    others = set(psutil.Process().children())
    for start in range(1, STARTS + 1):
        try:
            with told_where_it_is():
                ray.init(
                    address="local",  # never joins another's that `ray start` left on this machine
                    include_dashboard=False,
                    configure_logging=False,
                    **options,
                )
            return
        except Exception as error:
            if TOO_SLOW not in str(error):  # Ray has no class for it
                raise
            LOG.warning("a busy machine: Ray was not up in time, start %d of %d", start, STARTS)
            for child in set(psutil.Process().children()) - others:
                child.kill()  # Ray leaves what it did start
    raise TooBusyError(
        f"Ray was not up in time in any of {STARTS} starts: run it again when the machine is less "
        "busy, or with RAY_ADDRESS on a cluster that is up"
    )


@contextmanager
def told_where_it_is() -> Iterator[None]:
    """A cluster that starts meanwhile tells its processes its address.

    Helpers of Ray look for a cluster by themselves, and give up, a page of log each, where a
    machine has two. It has to be in what they inherit, so the port is chosen before there is one.
    """
    port = free_port()
    address = f"{ray.util.get_node_ip_address()}:{port}"
    told = {"RAY_GCS_SERVER_PORT": str(port), "RAY_ADDRESS": address}
    before = {name: os.environ.get(name) for name in told}
    os.environ.update(told)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def free_port() -> int:
    """One of PORTS on which nobody listens."""
    while True:
        port = PORTS[secrets.randbelow(len(PORTS))]
        with socket.socket() as tried:
            try:
                tried.bind(("", port))
            except OSError:
                continue
            return port


def join_ray(address: str) -> None:
    """Join a cluster. Raises LostError where nobody answers, for which Ray itself waits minutes."""
    gone = f"no Ray cluster answers at RAY_ADDRESS={address}; unset it to use this machine alone"
    host, _, port = address.rpartition("://")[2].rpartition(":")
    until = time.monotonic() + ANSWERS_WITHIN_S  # a head that restarts is waited for
    while port.isdecimal():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            break
        except OSError as error:
            if time.monotonic() > until:
                raise LostError(f"{gone} ({error.strerror or error})") from None
            time.sleep(1)
    try:
        ray.init(logging_level=logging.WARNING)
    except ConnectionError as error:
        raise LostError(gone) from error


def short_folder() -> str | None:
    """Ray's folder for a session, where its usual one has too long a name for sockets in it.

    Raises UnusableError where there is no other.
    """
    usual = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or tempfile.gettempdir()
    if len(os.fsencode(usual)) <= LONGEST_FOLDER:
        return None
    if not os.access(SHORT_FOLDER, os.W_OK):
        raise UnusableError(
            f"the folder for temporary files has a name too long for sockets: {usual}; set "
            f"RAY_TMPDIR to one of at most {LONGEST_FOLDER} bytes"
        )
    return f"{SHORT_FOLDER}/ray"


def require_gpus(count: int) -> None:
    """Refuse, in words, to wait for GPUs this cluster does not have. Raises UnusableError."""
    found = int(ray.cluster_resources().get("GPU", 0))
    if found < count:
        raise UnusableError(
            f"{count} GPU asked for, {found} in this Ray cluster; add GPU nodes, "
            "or set use_gpu=false to run on CPUs"
        )


def is_lost(error: BaseException | None) -> bool:
    """Whether `error` is the loss of a worker, of a node or of the cluster: curable by time alone.

    An actor that raises as it starts is reported like one that was lost, but it would do so again.
    """
    if isinstance(error, exceptions.RayTaskError):  # what was raised in a task
        return is_lost(error.cause)
    if isinstance(error, exceptions.RayActorError) and error.actor_init_failed:
        return False
    return isinstance(error, (*LOSSES, ConnectionError))
