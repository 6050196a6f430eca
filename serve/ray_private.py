"""The calls into Ray Serve that have no public form. Tried with ray 2.60.

- `taken` waits until a replica has accepted a call. The public `DeploymentResponse` can only be
  awaited to its end, so a request that no replica takes would time out (504) instead of being told
  at once to come again (503).
- `proxy_address` is where Serve's own HTTP proxy listens: `serve.status()` does not say.
"""

from __future__ import annotations

from typing import Any

from ray.serve.context import _get_global_client


async def taken(call: Any) -> None:
    """Returns once a replica has accepted `call`, a `DeploymentResponse`."""
    await call._fetch_future_result_async()


def proxy_address() -> tuple[str, int]:
    """Host and port of this cluster's HTTP proxy."""
    options = _get_global_client().http_config
    return options.host or "", options.port
