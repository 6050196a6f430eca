"""The Ray cluster a job runs on: the one it is told of, the one already up, or a local one."""

from __future__ import annotations

import logging
import os

import ray
import ray.data
from ray import exceptions

from raymtr.errors import UnusableError

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_WAIT_POLICY": "PASSIVE",
}
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


def start_ray() -> None:
    """Join the cluster of `RAY_ADDRESS`, or start a local one; a no-op where Ray is up already."""
    if ray.is_initialized():
        return
    logging.getLogger("ray").setLevel(logging.ERROR)  # Data prints every plan
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    for key, value in QUIET.items():
        os.environ.setdefault(key, value)
    if os.environ.get("RAY_ADDRESS"):
        ray.init(logging_level=logging.WARNING)
        return
    ray.init(
        address="local",  # never joins another's that `ray start` left on this machine
        include_dashboard=False,
        object_store_memory=512 << 20,
        logging_level=logging.WARNING,
        configure_logging=False,
    )


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
