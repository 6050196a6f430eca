"""How a route asks the retriever, and what is counted on the way.

The replica that a route runs in knows where the retriever is: see `Ingress` in serve.app.
"""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from serve.messages import Refusal, RefusedError, Searched
from serve.meters import Meters


class NotTakenError(Exception):
    """No replica had room for a call in time."""


NOT_TAKEN = (BackPressureError, NotTakenError)
LOST = (RayActorError, DeploymentUnavailableError)  # a replica died; Serve starts another


async def ask(http: FastAPI, verb: str, *arguments: Any) -> Any:
    """What the retriever says.

    Raises RefusedError: its own, 503 where it is full or lost, 504 where it is late.
    """
    replica: Any = serve.get_replica_context().servable_object
    timeout_s = http.state.timeout_s
    try:
        answer = await asyncio.wait_for(replica.ask(verb, *arguments), timeout_s)
    except NOT_TAKEN as error:
        raise RefusedError(Refusal(503, "busy", "no replica has room now", 1)) from error
    except LOST as error:
        raise RefusedError(Refusal(503, "replica_lost", "what answered is gone", 1)) from error
    except TimeoutError as error:
        late = f"no answer within {timeout_s:g} s"
        raise RefusedError(Refusal(504, "timeout", late)) from error
    if isinstance(answer, Refusal):
        raise RefusedError(answer)
    return answer


async def answer_of(call: Any, queue_timeout_s: float) -> Any:
    """What a deployment answers to a call that a replica takes soon.

    Raises NotTakenError where none does: all are full, or dead and not replaced yet. To wait longer
    would tell the client late (504) what it can be told early: come again.
    """
    try:
        # Ray's own wait for a replica to have the call; a public one there is not.
        await asyncio.wait_for(call._fetch_future_result_async(), queue_timeout_s)
    except TimeoutError as error:
        raise NotTakenError from error
    try:
        return await call
    except asyncio.CancelledError:
        call.cancel()  # else a replica works on what nobody waits for
        raise


async def ask_search(http: FastAPI, asked: dict[str, Any]) -> dict[str, Any]:
    """The answer to a search, its stages counted."""
    searched: Searched = await ask(http, "search", asked)
    meters_of(http).searched(searched)
    return searched.answer


def meters_of(http: FastAPI) -> Meters:
    """What this replica counts with."""
    found: Meters = http.state.meters
    return found
