"""The Ray cluster a job runs on: the one of `RAY_ADDRESS`, one already running, or a local one."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import ray
import ray.data
from ray import exceptions

from jobs.console import is_verbose, log_workers, without_level_line
from raymtr.errors import LostError, TooBusyError, UnusableError

LOG = logging.getLogger("raymtr")
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_WAIT_POLICY": "PASSIVE",
    "RAY_DATA_PARQUET_FOOTER_NUM_ACTORS": "1",  # processes that read Parquet footers; default 32
    # A process that waits for the loss of spot machines; its start costs 6 core-seconds.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}
# Ray treats processes that start or answer late as dead. On a busy machine everything is late.
PATIENT = {
    "RAY_worker_register_timeout_seconds": "600",
    "RAY_health_check_failure_threshold": "60",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "600",
}
STARTS = 10  # attempts to start a local cluster; Ray allows each half a minute, a fixed limit
TOO_SLOW = "timed out during startup"
LOSSES = (  # raised on loss of processes or machines; other Ray errors recur on retry
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
# For a local cluster only. The range avoids ports of outgoing connections, Ray's workers and Serve.
PORTS = range(21_000, 29_000)
SHORT_FOLDER = "/tmp"
# A socket path has at most 103 bytes (macOS). Ray appends this suffix to the folder:
LONGEST_FOLDER = 103 - len("/ray/session_2026-01-31_23-59-59_999999_4194304/sockets/plasma_store")


def start_ray() -> None:
    """Joins the cluster of `RAY_ADDRESS`, or starts a local one; a no-op if Ray is running."""
    if ray.is_initialized():
        return
    if not is_verbose():  # Ray Data prints every plan
        logging.getLogger("ray").setLevel(logging.ERROR)
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        # Ray's C++ part writes to this process's stderr, each time an actor pool starts.
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    for key, value in QUIET.items():
        os.environ.setdefault(key, value)
    if address := os.environ.get("RAY_ADDRESS"):
        join_ray(address)
    else:
        _start_here()
    if not is_verbose():
        log_workers()


def _start_here() -> None:
    allow_lancedb()
    try:
        start_local(logging_level=logging.WARNING, _temp_dir=short_folder())
    except OSError as error:
        if isinstance(error, ConnectionError) or error.filename is None:
            raise
        raise UnusableError(
            f"Ray cannot write {error.filename} ({error.strerror}), where it keeps the key of its "
            "cluster: point HOME at a folder that can be written, or RAY_AUTH_TOKEN_PATH at a key"
        ) from error


def allow_lancedb() -> None:
    """Lets Ray start in a process that has loaded LanceDB or Lance, which warn of each fork.

    Ray's children replace themselves by another program at once, so the warning is about
    nothing that runs. Verbs still load LanceDB (`raymtr.index`, `serve.app`) after `start_ray`:
    a fork of a process without its threads is the safer one.
    """
    if "lancedb" in sys.modules:
        warnings.filterwarnings("ignore", message="lancedb fork support is experimental")
        warnings.filterwarnings("ignore", message="lance is not fork-safe")


def start_local(**options: Any) -> None:
    """Starts a local cluster with these `options` of `ray.init`, with retries on a slow machine.

    Raises TooBusyError if Ray timed out each time.
    """
    for key, value in (QUIET | PATIENT).items():
        os.environ.setdefault(key, value)
    others = set(psutil.Process().children())
    for start in range(1, STARTS + 1):
        try:
            with announced_address(), without_level_line():
                ray.init(
                    address="local",  # does not join a cluster left by `ray start`
                    include_dashboard=False,
                    configure_logging=False,
                    **options,
                )
            return
        except Exception as error:
            if TOO_SLOW not in str(error):  # Ray has no class for it
                raise
            LOG.warning("busy machine: Ray did not start in time, attempt %d of %d", start, STARTS)
            for child in set(psutil.Process().children()) - others:
                child.kill()  # Ray leaves the processes it started
    raise TooBusyError(
        f"Ray did not start in time in {STARTS} attempts: run it again when the machine is less "
        "busy, or with RAY_ADDRESS on a running cluster"
    )


@contextmanager
def announced_address() -> Iterator[None]:
    """Passes the address of a cluster that is starting to its processes.

    Ray's helper processes look for a cluster by themselves. On a machine with two clusters they
    fail, and each logs a page. They need the address in their environment, so the port is chosen
    before the cluster exists.
    """
    port = free_port()
    address = f"{ray.util.get_node_ip_address()}:{port}"
    environment = {"RAY_GCS_SERVER_PORT": str(port), "RAY_ADDRESS": address}
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def free_port() -> int:
    """A free port of PORTS."""
    while True:
        port = PORTS[secrets.randbelow(len(PORTS))]
        with socket.socket() as tried:
            try:
                tried.bind(("", port))
            except OSError:
                continue
            return port


def join_ray(address: str) -> None:
    """Joins a cluster. Raises LostError if it does not answer, for which Ray would wait minutes."""
    gone = f"no Ray cluster answers at RAY_ADDRESS={address}; unset it to use this machine alone"
    host, _, port = address.rpartition("://")[2].rpartition(":")
    until = time.monotonic() + ANSWERS_WITHIN_S  # wait for a restarting head
    while port.isdecimal():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            break
        except OSError as error:
            if time.monotonic() > until:
                raise LostError(f"{gone} ({error.strerror or error})") from None
            time.sleep(1)
    try:
        with without_level_line():
            ray.init(logging_level=logging.WARNING)
    except ConnectionError as error:
        raise LostError(gone) from error


def short_folder() -> str | None:
    """A short session folder for Ray, if its default path is too long for sockets.

    Raises UnusableError if there is no alternative.
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
    """Raises UnusableError if the cluster lacks the GPUs, instead of waiting for them."""
    found = int(ray.cluster_resources().get("GPU", 0))
    if found < count:
        raise UnusableError(
            f"{count} GPU requested, {found} in this Ray cluster; add GPU nodes, "
            "or set use_gpu=false to run on CPUs"
        )


def is_lost(error: BaseException | None) -> bool:
    """Whether `error` is the loss of a worker, a node or the cluster, which a retry can fix.

    Ray reports an actor that raises in its constructor like a lost actor, but it would raise again.
    """
    if isinstance(error, exceptions.RayTaskError):  # raised in a task
        return is_lost(error.cause)
    if isinstance(error, exceptions.RayActorError) and error.actor_init_failed:
        return False
    return isinstance(error, (*LOSSES, ConnectionError))
