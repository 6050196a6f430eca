"""Runs a training loop on Ray Train, and decides which errors end a run and which are retried.

A worker that raises InputError or UnusableError would raise it again, so the run ends at once, and
the driver raises the worker's message. After the loss of a worker, all workers restart from the
last checkpoint. They do so after any other error too, because a store that drops a connection
raises such errors.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch.distributed as dist
from ray.train.v2._internal.exceptions import (
    WorkerHealthCheckFailedError,
    WorkerHealthCheckTimeoutError,
)
from ray.train.v2.api.callback import UserCallback
from ray.train.v2.api.config import (  # mypy reads `ray.train` as the old version of these
    CheckpointConfig,
    FailureConfig,
    LoggingConfig,
    RunConfig,
    ScalingConfig,
)
from ray.train.v2.api.exceptions import TrainingFailedError
from ray.train.v2.api.result import Result
from ray.train.v2.torch.torch_trainer import TorchTrainer

from jobs.cluster import is_lost
from raymtr import storage
from raymtr.errors import InputError, LostError, UnusableError

T = TypeVar("T")
LOG = logging.getLogger("raymtr")

MOST_FAILURES = 3  # worker failures before the run ends
PEER_IS_GONE = "onnection closed by peer", "onnection reset by peer", "roken pipe"  # of gloo


class FinalErrors(UserCallback):
    """Ends the run if a worker raised an error that would recur; runs in Ray's controller."""

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Raises the error. Ray treats that as final, not as a worker failure."""
        for error in worker_exceptions.values():
            if isinstance(error, (InputError, UnusableError)):
                raise error
        rank, error = min(worker_exceptions.items())
        LOG.warning("worker %d failed (%s); all start again from the last checkpoint", rank, error)


def run_trainer(
    loop: Callable[[dict[str, Any]], T | None],
    config: dict[str, Any],
    *,
    folder: str,
    scaling: ScalingConfig,
    keep_checkpoints: int | None = None,
) -> T:
    """Runs `loop` on Ray Train's workers, for the run stored in `folder`; rank 0's answer.

    Raises a worker's InputError or UnusableError; LostError if workers kept being lost;
    TrainingFailedError, a bug, if they kept raising another error.
    """
    parent, _, name = folder.rpartition("/")
    filesystem, path = storage.open_filesystem(parent)
    trainer = TorchTrainer(
        loop,
        train_loop_config=config,
        scaling_config=scaling,
        run_config=RunConfig(
            name=name,
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=MOST_FAILURES),
            checkpoint_config=CheckpointConfig(num_to_keep=keep_checkpoints),
            callbacks=[FinalErrors()],
            # One message replaces the pages that Ray logs about an error raised here.
            logging_config=LoggingConfig(log_level="CRITICAL"),
        ),
    )
    try:
        result = cast(Result, trainer.fit())  # `fit` is annotated with the older version
        answer = cast(T, result.return_value)
    except TrainingFailedError as error:
        cause = getattr(error, "controller_failure", None)
        if isinstance(cause, (InputError, UnusableError)):
            raise cause from None
        if was_lost(error):
            raise LostError(f"workers were lost {MOST_FAILURES + 1} times: {error}") from error
        raise
    return answer


def was_lost(error: TrainingFailedError) -> bool:
    """Whether training ended by the loss of workers, and not by an error that one raised.

    If a worker is lost, the others fail as well, while they communicate with it.
    """
    if hasattr(error, "preemption_info"):
        return True
    causes = [getattr(error, "controller_failure", None)]
    causes += getattr(error, "worker_failures", {}).values()
    return any(_is_loss(cause) for cause in causes)


def _is_loss(error: Exception | None) -> bool:
    if isinstance(error, WorkerHealthCheckFailedError):
        return is_lost(error.health_check_failure)
    peer_is_gone = isinstance(error, RuntimeError) and any(w in str(error) for w in PEER_IS_GONE)
    lost = (WorkerHealthCheckTimeoutError, dist.DistError)
    return peer_is_gone or isinstance(error, lost) or is_lost(error)
