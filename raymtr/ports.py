"""Finds which processes listen on a port, so that two servers never share one.

Ray Serve binds with SO_REUSEPORT. So the system lets a second Serve, of another Ray cluster, listen
on the same port, and distributes the requests between them: half of the answers would silently come
from another catalog. So `raymtr serve` tries its port before anything starts, and every ingress
replica checks once whether its proxy's port is shared.
"""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass

import psutil

from raymtr.errors import InputError

ANY = ("0.0.0.0", "::", "")
CLUSTER = "--cluster-id="  # an argument on a raylet's command line


@dataclass(frozen=True)
class Listener:
    """A listening process: its id, its name, and the id of its Ray cluster."""

    pid: int | None  # None: another user's process
    name: str
    cluster: str | None  # None: not a Ray process

    def __str__(self) -> str:
        """For messages: `process 4242 (ray::ProxyActor)`."""
        return f"process {self.pid} ({self.name})" if self.pid else "another user's process"


def try_port(host: str, port: int) -> None:
    """Listen for a moment. Raises InputError if that fails; names the process that listens."""
    try:
        [(family, kind, protocol, _, address), *_] = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        )
        with socket.socket(family, kind, protocol) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(address)
            tried.listen(1)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise InputError(
                f"cannot listen on {host}:{port}: {error.strerror or error}"
            ) from error
        by = " and ".join(map(str, listeners(host, port)))
        who = f" by {by}" if by else ""
        raise InputError(f"{host}:{port} is in use{who}; end it or choose another --port") from None


def listeners(host: str, port: int) -> list[Listener]:
    """The processes that listen where a server on `host` would; empty if the system hides them."""
    try:
        sockets = psutil.net_connections("tcp")
    except psutil.AccessDenied:  # macOS reports them only to root
        return []
    pids = {
        one.pid
        for one in sockets
        if one.status == psutil.CONN_LISTEN
        and one.laddr.port == port
        and (host in ANY or one.laddr.ip in (*ANY, host) or host == "localhost")
    }
    return [_listener(pid) for pid in sorted(pids, key=lambda pid: pid or 0)]


def own_cluster() -> str | None:
    """The id of the Ray cluster that this process belongs to; None outside Ray."""
    return _listener(psutil.Process().pid).cluster


def _listener(pid: int | None) -> Listener:
    if pid is None:
        return Listener(None, "", None)
    try:
        process = psutil.Process(pid)
        words = process.cmdline()
        called = " ".join(words[:3]) if words else process.name()
        parents = [one.cmdline() for one in process.parents()]
    except psutil.Error:
        return Listener(pid, "gone by now", None)
    stated = (word for words in parents for word in words if word.startswith(CLUSTER))
    cluster = next(stated, None)
    return Listener(pid, called[:80], cluster and cluster.removeprefix(CLUSTER))
