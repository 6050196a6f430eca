"""Requests share the encoder's passes: none waits on an idle one, none is lost or mixed up."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import numpy as np
import pytest

from raymtr.index.shards import MadeBy
from serve.encoders import Job, Passes
from serve.messages import Vectors

MADE_BY = MadeBy(fingerprint="f", precision="fp32", dim=1)


class Held:
    """A pass of the encoder that ends when it is told to."""

    def __init__(self) -> None:
        self.seen: list[list[str]] = []
        self.go = threading.Event()

    def run(self, jobs: list[Job[list[str]]]) -> list[Any]:
        said = [sentence for _, (sentence,) in jobs]
        self.seen.append(said)
        assert self.go.wait(600)
        if "bad" in said:
            raise ValueError("bad")
        return [Vectors(np.array([[len(one)]]), len(jobs)) for one in said]


async def until_a_pass_runs(held: Held) -> None:
    while not held.seen:
        await asyncio.sleep(0.001)


def test_what_comes_while_a_pass_runs_shares_the_next() -> None:
    async def ask() -> None:
        held = Held()
        passes = Passes(held.run, most=3)
        first = asyncio.create_task(passes.join((MADE_BY, ["a"])))
        await until_a_pass_runs(held)  # though nobody else has come
        words = ["bb", "ccc", "dddd", "eeeee"]
        later = [asyncio.create_task(passes.join((MADE_BY, [word]))) for word in words]
        await asyncio.sleep(0.01)
        held.go.set()
        vectors = await asyncio.gather(first, *later)
        assert [int(v.rows[0, 0]) for v in vectors] == [1, 2, 3, 4, 5]
        assert held.seen == [["a"], words[:3], words[3:]]
        assert [v.batch for v in vectors] == [1, 3, 3, 3, 1]
        assert (await passes.join((MADE_BY, ["again"]))).batch == 1

    asyncio.run(ask())


def test_a_failed_pass_and_a_request_given_up_harm_no_other() -> None:
    async def ask() -> None:
        held = Held()
        passes = Passes(held.run, most=1)
        bad = asyncio.create_task(passes.join((MADE_BY, ["bad"])))
        await until_a_pass_runs(held)
        given_up = asyncio.create_task(passes.join((MADE_BY, ["never"])))
        good = asyncio.create_task(passes.join((MADE_BY, ["good"])))
        await asyncio.sleep(0.01)
        given_up.cancel()
        held.go.set()
        with pytest.raises(ValueError, match="bad"):
            await bad
        assert int((await good).rows[0, 0]) == 4
        assert held.seen == [["bad"], ["good"]]

    asyncio.run(ask())


def test_an_encoder_whose_every_request_was_given_up_runs_no_empty_pass() -> None:
    async def ask() -> None:
        held = Held()
        passes = Passes(held.run, most=1)
        first = asyncio.create_task(passes.join((MADE_BY, ["a"])))
        await until_a_pass_runs(held)
        given_up = asyncio.create_task(passes.join((MADE_BY, ["never"])))
        await asyncio.sleep(0.01)
        given_up.cancel()
        held.go.set()
        await first
        assert (await passes.join((MADE_BY, ["b"]))).batch == 1
        assert held.seen == [["a"], ["b"]]

    asyncio.run(ask())
