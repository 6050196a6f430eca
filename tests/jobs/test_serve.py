"""What `raymtr serve` refuses before it starts anything."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from jobs.serve import is_loopback, serve_endpoint
from raymtr.errors import InputError
from tests.builders import publish_catalog


def test_an_open_address_wants_keys(make_workspace: Callable) -> None:
    workspace = make_workspace([{"track_id": "a", "title": "A"}])
    with pytest.raises(InputError, match="--api-keys"):
        serve_endpoint(workspace, host="0.0.0.0")
    with pytest.raises(InputError, match="raymtr index"):
        serve_endpoint(workspace)


def test_a_generation_model_that_is_none_is_rejected(make_workspace: Callable) -> None:
    workspace = make_workspace([{"track_id": "a", "title": "A"}])
    publish_catalog(workspace)
    with pytest.raises(InputError, match=r"lm is no MusicLM model \(it has no musiclm.json\)"):
        serve_endpoint(workspace, generation_model="lm")


def test_only_this_machines_addresses_are_loopback() -> None:
    hosts = ["localhost", "127.0.0.1", "127.9.9.9", "::1", "0.0.0.0", "192.0.2.1", "example.org"]
    assert [is_loopback(host) for host in hosts] == [True] * 4 + [False] * 3
