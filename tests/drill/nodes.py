"""Ray clusters of several nodes on one machine, fed as KubeRay feeds them: over the head's HTTP."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import yaml

from jobs.cluster import STARTS, TOO_SLOW

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 400.0
MEMORY = {"object_store_memory": 100 << 20}


class Nodes:
    """A head that does no work and two workers: processes of this machine, a raylet each."""

    def __init__(self, programs: Path, *, cpus: int = 1) -> None:
        """`programs` is a folder for the console command; `cpus` are a worker's."""
        from ray.cluster_utils import Cluster
        from ray.job_submission import JobSubmissionClient

        install_command(programs)
        port, agent = free_ports(2)  # other clusters of this machine may have the usual ones
        head = {
            "num_cpus": 0,
            "include_dashboard": True,
            "dashboard_port": port,
            "dashboard_agent_listen_port": agent,
        }
        self.cpus = cpus
        self.cluster = Cluster(initialize_head=True, head_node_args={**head, **MEMORY})
        self.workers: list[Any] = []
        for _ in range(2):
            self.add()
        self.dashboard = f"http://127.0.0.1:{port}"
        self.client = until(lambda: JobSubmissionClient(self.dashboard))
        self.environment = {
            "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
        }

    def add(self) -> None:
        """One worker more; a busy machine gets more than the half minute that Ray waits for it."""
        others = set(psutil.Process().children())
        for _ in range(STARTS):
            try:
                self.workers.append(self.cluster.add_node(num_cpus=self.cpus, **MEMORY))
                return
            except Exception as error:
                if TOO_SLOW not in str(error):
                    raise
                for child in set(psutil.Process().children()) - others:
                    child.kill()
        raise TimeoutError(f"no worker was up in time in any of {STARTS} starts")

    def lose(self, worker: Any) -> None:
        """A worker is gone without a word, as a machine is whose power fails."""
        self.cluster.remove_node(worker, allow_graceful=False)
        self.workers.remove(worker)

    def serve(self, config: dict[str, Any]) -> None:
        """Hand `serveConfigV2` to the head, again and again until it takes it, as the operator."""
        from ray.dashboard.modules.serve.sdk import ServeSubmissionClient

        def put() -> bool:
            ServeSubmissionClient(self.dashboard).deploy_applications(config)
            return True

        until(put)

    def submit(self, entrypoint: str) -> str:
        """The job's id; the head takes jobs some time after it is up."""
        environment = {"env_vars": self.environment}
        job: str = until(
            lambda: self.client.submit_job(entrypoint=entrypoint, runtime_env=environment)
        )
        return job

    def state(self, job: str) -> str:
        """PENDING, RUNNING, SUCCEEDED, FAILED."""
        return str(self.client.get_job_status(job).value)

    def finished(self, job: str) -> str:
        """The state a job ends in."""
        until(lambda: self.ended(job))
        return self.state(job)

    def ended(self, job: str) -> bool:
        """Whether the job is over."""
        return self.state(job) in ("SUCCEEDED", "FAILED", "STOPPED")


def install_command(programs: Path) -> None:
    """The console command `raymtr`, installed or not."""
    programs.mkdir(exist_ok=True)
    program = programs / "raymtr"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m jobs "$@"\n')
    program.chmod(0o755)


def rendered(kind: str, name: str, *, folder: str = "overlays/dev") -> dict[str, Any]:
    """An object of the manifests in a folder of `k8s`, as it is applied to a cluster."""
    sys.path.insert(0, str(ROOT))
    from k8s.kustomize import by_name, render

    found: dict[str, Any] = by_name(render(ROOT / "k8s" / folder), kind)[name]
    return found


def exit_status(message: str) -> int | None:
    """Of an entrypoint, as the submitter reads it from Ray's message."""
    sys.path.insert(0, str(ROOT))
    from k8s import submit

    return submit.exit_status(message)


def endpoint_config(*, workspace: str, keys: str) -> dict[str, Any]:
    """serveConfigV2 of the dev overlay, at a free port; HAProxy on the head alone.

    These nodes share an address, so only one of them can have the port. In a cluster each worker
    listens, behind a Service that leaves out those that do not answer.
    """
    config: dict[str, Any] = yaml.safe_load(
        rendered("RayService", "raymtr")["spec"]["serveConfigV2"]
    )
    config["proxy_location"] = "HeadOnly"
    config["http_options"]["port"] = free_ports(1)[0]
    config["applications"][0]["args"] |= {"workspace": workspace, "api_keys": keys}
    return config


def pod_environment(own: str) -> dict[str, str]:
    """The endpoint's pods have it; what is the machine's in a pod of its own goes to folder `own`.

    A cluster's address too: left where it is by default, any `ray.init()` of this machine joins.
    """
    cluster = rendered("RayService", "raymtr")["spec"]["rayClusterConfig"]
    [head] = cluster["headGroupSpec"]["template"]["spec"]["containers"]
    metrics, stats, fallback = free_ports(3)
    return {
        **{variable["name"]: variable["value"] for variable in head["env"]},
        "PYTHONPATH": str(ROOT),  # the image has the packages installed
        "RAY_TMPDIR": own,
        "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{own}/admin.sock",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": f"{own}/haproxy.cfg",
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": own,
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{own}/server-state",
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": f"{own}/metrics.sock",
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stats),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(fallback),
    }


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on, all different."""
    held = [socket.socket() for _ in range(count)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def until(answer: Callable[[], Any]) -> Any:
    """What `answer` gives, once it gives something and raises nothing."""
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            if found := answer():
                return found
        except (ConnectionError, RuntimeError):
            pass
        assert time.monotonic() < deadline, f"waited for {answer} in vain"
        time.sleep(0.2)
