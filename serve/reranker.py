"""The re-ranker deployment: match probabilities of queries and their first hits, in batches.

    Retriever -> Reranker

Without it (`reranker=false`) each retriever loads the MuLaP run itself.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Sequence
from typing import Any

from ray.serve.handle import DeploymentHandle, DeploymentResponse
from typing_extensions import override

from raymtr.errors import InputError, UnusableError
from raymtr.mulap.matcher import Question, RunMatcher
from raymtr.search.rerank import Matcher
from raymtr.workspace import Workspace
from serve.backend import NO_CAPACITY, REPLICA_LOST, result_of, unary_response
from serve.batching import DynamicBatcher
from serve.messages import Problem
from serve.settings import ServeSettings

RUNS_KEPT = 2  # loaded: the run in use, and the one before or after it
Scores = dict[str, float] | Problem  # by track id


class Reranker:
    """Scores the questions of all retrievers together; a run is loaded at first use."""

    def __init__(self, settings: ServeSettings) -> None:
        workspace = Workspace.open(settings.workspace)

        @functools.lru_cache(RUNS_KEPT)
        def load(run: str) -> RunMatcher:
            return RunMatcher(workspace, run, device=settings.device)

        self._load = load
        self._batcher = DynamicBatcher(self._score_batch, max_batch_size=settings.max_batch_size)

    async def score(self, run: str, question: Question) -> Scores:
        """The probability of each track of the question that has features."""
        return await self._batcher.submit((run, question))

    def _score_batch(self, jobs: Sequence[tuple[str, Question]]) -> list[Scores]:
        answers: dict[int, Scores] = {}
        for run in {run for run, _ in jobs}:
            places = [place for place, job in enumerate(jobs) if job[0] == run]
            try:
                found = self._load(run).answer([jobs[place][1] for place in places])
            except InputError as error:
                answers |= dict.fromkeys(places, Problem(422, "invalid_request", str(error)))
            except (UnusableError, OSError) as error:
                answers |= dict.fromkeys(places, Problem(503, "model_unavailable", str(error), 5))
            else:
                answers |= dict(zip(places, found, strict=True))
        return [answers[place] for place in range(len(jobs))]


class RemoteMatcher(Matcher):
    """The `Matcher` of a run behind the deployment's handle."""

    def __init__(
        self, handle: DeploymentHandle[Any], loop: asyncio.AbstractEventLoop, run: str
    ) -> None:
        """`loop` runs the calls; `probabilities` is called by other threads."""
        self._handle, self._loop, self.run = handle, loop, run

    @override
    def probabilities(
        self, sentence: str, track_ids: Sequence[str], within_s: float
    ) -> dict[str, float]:
        question = Question(sentence, track_ids)
        scores = asyncio.run_coroutine_threadsafe(self._score(question, within_s), self._loop)
        found = scores.result()
        if isinstance(found, Problem):
            error = InputError if found.status == 422 else UnusableError
            raise error(found.detail)
        return found

    async def _score(self, question: Question, within_s: float) -> Scores:
        call: DeploymentResponse[Scores] = unary_response(
            self._handle.score.remote(self.run, question)
        )
        try:
            return await asyncio.wait_for(result_of(call, within_s), within_s)
        except TimeoutError:
            call.cancel()
            raise
        except NO_CAPACITY as error:
            raise UnusableError("all its replicas are busy") from error
        except REPLICA_LOST as error:
            raise UnusableError("its replica stopped") from error
