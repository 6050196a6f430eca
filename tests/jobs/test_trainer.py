"""What ends a training at once, what may be tried again, and what is a bug."""

from __future__ import annotations

import pytest
from ray.exceptions import ActorDiedError, OutOfMemoryError, RayTaskError
from ray.train import ControllerError, TrainingFailedError, WorkerGroupError
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

from jobs.trainer import FinalErrors, was_lost
from raymtr.errors import InputError, UnusableError

DEAD = WorkerHealthCheckFailedError("A worker health check failed.", failure=ActorDiedError())
GLOO = RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:3")
BORN_DEAD = ActorDiedError(RayTaskError("__init__", "Traceback", KeyError("x")))


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (WorkerGroupError("", {0: DEAD}), True),
        (WorkerGroupError("", {0: KeyError("collateral"), 1: DEAD}), True),
        (WorkerGroupError("", {0: GLOO}), True),
        (WorkerGroupError("", {0: KeyError("a bug")}), False),
        (WorkerGroupError("", {0: RuntimeError("shapes differ")}), False),
        (ControllerError(OutOfMemoryError("")), True),
        (ControllerError(BORN_DEAD), False),
        (ControllerError(KeyError("a bug")), False),
    ],
)
def test_a_loss_is_told_from_a_bug(error: TrainingFailedError, lost: bool) -> None:
    assert was_lost(error) is lost


@pytest.mark.parametrize("final", [InputError("wrong"), UnusableError("not here")])
def test_what_would_be_raised_again_is_final(final: Exception) -> None:
    with pytest.raises(type(final), match=str(final)):
        FinalErrors().after_exception(None, {0: GLOO, 1: final})
    FinalErrors().after_exception(None, {0: GLOO, 1: KeyError("a bug")})
