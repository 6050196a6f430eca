"""A port that somebody has is refused in words, also one that the system would let two share."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from raymtr.errors import InputError
from raymtr.ports import listeners, try_port


@pytest.fixture(params=["alone", "for others to share"])
def taken(request: pytest.FixtureRequest) -> Iterator[int]:
    """A port this process listens on; with SO_REUSEPORT as Ray Serve's proxy does."""
    with socket.socket() as holder:
        if request.param != "alone":
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder.getsockname()[1]


def test_a_port_in_use_is_rejected_and_its_holder_named(taken: int) -> None:
    with pytest.raises(InputError, match=rf"127.0.0.1:{taken} is in use by process {os.getpid()}"):
        try_port("127.0.0.1", taken)
    assert [one.pid for one in listeners("0.0.0.0", taken)] == [os.getpid()]
    assert listeners("127.0.0.2", taken) == []
    assert listeners("127.0.0.1", taken)[0].cluster is None


def test_a_free_port_is_free_again_after_it_was_tried() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for _ in range(2):
        try_port("127.0.0.1", port)


def test_an_address_that_is_no_host_of_this_machine_is_told_so() -> None:
    with pytest.raises(InputError, match=r"cannot listen on 192\.0\.2\.77:8000"):
        try_port("192.0.2.77", 8000)
