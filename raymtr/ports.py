"""Who listens on a port of this machine: two servers that share one would mix their answers.

Ray Serve binds with SO_REUSEPORT, so the system lets a second Serve, of another Ray cluster, listen
where one listens already, and deals the requests out between them: half of the answers would come
from another catalog, and no request would know. So `raymtr serve` tries its port before anything
starts, and every ingress replica looks once whether its proxy's port is shared.
"""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass

import psutil

from raymtr.errors import InputError

ANY = ("0.0.0.0", "::", "")
CLUSTER = "--cluster-id="  # of a raylet's command line


@dataclass(frozen=True)
class Listener:
    """A process that listens: its id, what it is called, and the id of its Ray cluster."""

    pid: int | None  # None: another user's
    name: str
    cluster: str | None  # None: no process of Ray

    def __str__(self) -> str:
        """`process 4242 (ray::ProxyActor)`."""
        return f"process {self.pid} ({self.name})" if self.pid else "another user's process"


def try_port(host: str, port: int) -> None:
    """Listen for a moment. Raises InputError, naming who does already, where that cannot be."""
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
    """Who listens where a server on `host` would; none are known where the system does not tell."""
    try:
        sockets = psutil.net_connections("tcp")
    except psutil.AccessDenied:  # macOS tells root alone
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
    """The id of the Ray cluster this process works in."""
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
