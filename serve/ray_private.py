"""Calls into Ray Serve that have no public equivalent. Tested with ray 2.60.

- `wait_until_accepted` waits until a replica has accepted a call. The public `DeploymentResponse`
  can only be awaited to its end. A request that no replica accepts would then time out (504)
  instead of failing early with 503 and `Retry-After`.
- `proxy_address` is the address of Serve's own HTTP proxy, which `serve.status()` does not report.
"""

from __future__ import annotations

from typing import TypeVar

from ray.serve.context import _get_global_client
from ray.serve.handle import DeploymentResponse

T = TypeVar("T")


async def wait_until_accepted(call: DeploymentResponse[T]) -> None:
    """Returns once a replica has accepted `call`, a `DeploymentResponse`."""
    await call._fetch_future_result_async()


def proxy_address() -> tuple[str, int]:
    """Host and port of this cluster's HTTP proxy."""
    client = _get_global_client()
    assert client is not None  # by default it raises instead of returning None
    options = client.http_config
    return options.host or "", options.port
