"""How a route asks the retriever, and what is counted on the way.

Routes reach it through `app.state.retriever`, anything whose methods have `.remote`.
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

LOST = (RayActorError, DeploymentUnavailableError)  # a replica died; Serve starts another


async def ask(http: FastAPI, verb: str, *arguments: Any) -> Any:
    """What the retriever says.

    Raises RefusedError: its own, 503 where it is full or lost, 504 where it is late.
    """
    state = http.state
    if not hasattr(state, "retriever"):
        name = serve.get_replica_context().app_name
        state.retriever = serve.get_deployment_handle("Retriever", name)
    try:
        call = getattr(state.retriever, verb).remote(*arguments)
        answer = await asyncio.wait_for(call, state.timeout_s)
    except BackPressureError as error:
        raise RefusedError(Refusal(503, "busy", "more requests wait than fit", 1)) from error
    except LOST as error:
        raise RefusedError(Refusal(503, "replica_lost", "what answered is gone", 1)) from error
    except TimeoutError as error:
        late = f"no answer within {state.timeout_s:g} s"
        raise RefusedError(Refusal(504, "timeout", late)) from error
    if isinstance(answer, Refusal):
        raise RefusedError(answer)
    return answer


async def ask_search(http: FastAPI, asked: dict[str, Any]) -> dict[str, Any]:
    """The answer to a search, its stages counted."""
    searched: Searched = await ask(http, "search", asked)
    meters_of(http).searched(searched)
    return searched.answer


def meters_of(http: FastAPI) -> Meters:
    """What this replica counts with."""
    found: Meters = http.state.meters
    return found
