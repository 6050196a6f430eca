"""`raymtr serve`: the endpoint and its page on this machine.

Jobs know the service by its import path only, as a cluster does.
"""

from __future__ import annotations

import argparse
import importlib
import io
import ipaddress
import logging
import os
import signal
import sys
import threading
from contextlib import redirect_stdout
from pathlib import Path
from typing import TypedDict

import ray
from ray import serve

from jobs.cluster import start_ray
from jobs.console import is_verbose
from raymtr.errors import InputError
from raymtr.generation.marker import require_musiclm
from raymtr.ports import try_port
from raymtr.specs import Settings
from raymtr.workspace import Workspace

APP = "serve.app:build_app"
EXAMPLE = "raymtr serve --workspace w --port 8000"
# Our code never blocks Serve's event loop, so it runs there, and replicas speak gRPC. This is what
# Serve's RAY_SERVE_THROUGHPUT_OPTIMIZED sets, except for an HTTP port per replica, which HAProxy
# needs.
SERVE_ENVIRONMENT = {
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(2**31 - 1),  # body_max_mb limits an upload
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serve.starting:proxy_middleware",
}


class ServeAnswer(TypedDict):
    """Where the endpoint answers."""

    address: str
    layout: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `serve`."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--api-keys", metavar="FILE", help="lines of `name sha256-of-the-key`")
    parser.add_argument(
        "--generation-model", default="", help="a MusicLM run or folder, for POST /v1/generate"
    )
    parser.add_argument("--layout", default="fused", choices=("composed", "fused"))


def run(arguments: argparse.Namespace, workspace: Workspace, settings: Settings) -> ServeAnswer:
    """The command-line entry point: serves until interrupted."""
    answer = serve_endpoint(
        workspace,
        host=arguments.host,
        port=arguments.port,
        layout=arguments.layout,
        api_keys=arguments.api_keys,
        generation_model=arguments.generation_model,
    )
    print(f"{answer['address']} serves {workspace.root}; Ctrl-C ends it", flush=True)
    asked_to_end = threading.Event()
    for kind in (signal.SIGINT, signal.SIGTERM):
        signal.signal(kind, lambda *_: asked_to_end.set())
    asked_to_end.wait()
    stop_serving()
    return answer


def stop_serving() -> None:
    """Stops the endpoint. A local Ray started here stops too, with any process slow to end."""
    if "RAY_ADDRESS" in os.environ:
        serve.shutdown()
        return
    # What is late or killed while a local cluster ends does not matter; Ray prints that to stdout.
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    with redirect_stdout(sys.stdout if is_verbose() else io.StringIO()):
        serve.shutdown()
        ray.shutdown()


def serve_endpoint(
    workspace: Workspace,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    layout: str = "fused",
    api_keys: str | None = None,
    generation_model: str = "",
) -> ServeAnswer:
    """Starts the endpoint and returns; Ray keeps it running."""
    local = is_loopback(host)
    if not local and api_keys is None:
        raise InputError(f"--host {host} is open to others: give a file of keys with --api-keys")
    if not 1 <= port <= 65_535:
        raise InputError(f"--port is 1 to 65535, got {port}")
    workspace.require_live()
    if generation_model:
        require_musiclm(workspace.trained(generation_model))
    if "RAY_ADDRESS" not in os.environ:  # else the port is on a machine of the cluster
        try_port(host, port)
    for key, value in SERVE_ENVIRONMENT.items():
        os.environ.setdefault(key, value)  # for processes that Ray starts
    start_ray()
    if not is_verbose():
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
    serve.start(proxy_location="HeadOnly", http_options={"host": host, "port": port})
    module, _, name = APP.partition(":")
    build_app = getattr(importlib.import_module(module), name)
    values: dict[str, object] = {
        "workspace": workspace.root,
        "layout": layout,
        "api_keys": api_keys and str(Path(api_keys).absolute()),
        "open_to_anyone": api_keys is None,
        "generation_model": generation_model,
        "num_cpus": 0.1,  # replicas of one machine share its cores
        "max_replicas": 1,
        "shutdown_wait_s": 0.2,  # no router needs time to notice
    }
    serve.run(build_app(values), name="raymtr", route_prefix="/")
    return {"address": f"http://{host}:{port}", "layout": layout}


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def describe(answer: ServeAnswer) -> str:
    """The message at the end."""
    return f"{answer['address']} is no longer served"


if __name__ == "__main__":
    from jobs.__main__ import run_as_module

    run_as_module(__file__)
