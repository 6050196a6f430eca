"""What `raymtr serve` refuses before it starts anything."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from jobs.serve import is_loopback, serve_endpoint
from raymtr.errors import InputError


def test_an_open_address_wants_keys(make_workspace: Callable) -> None:
    workspace = make_workspace([{"track_id": "a", "title": "A"}])
    with pytest.raises(InputError, match="--api-keys"):
        serve_endpoint(workspace, host="0.0.0.0")
    with pytest.raises(InputError, match="raymtr index"):
        serve_endpoint(workspace)


def test_only_this_machines_addresses_are_loopback() -> None:
    hosts = ["localhost", "127.0.0.1", "127.9.9.9", "::1", "0.0.0.0", "192.0.2.1", "example.org"]
    assert [is_loopback(host) for host in hosts] == [True] * 4 + [False] * 3
