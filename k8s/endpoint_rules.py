"""Checks manifests against the endpoint they start: settings, deployments, routes and metrics."""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from k8s.code_rules import IN_A_SHELL, environment, expand
from k8s.kustomize import Manifest, by_name, render
from k8s.pods import Pod, pods
from k8s.schemas import name_of
from raymtr.errors import InputError
from raymtr.validation import from_dict, to_dict
from serve.settings import ServeSettings, read_settings

# From the cluster's own exporters, which are not in this repository: kube-state-metrics and
# kubelet.
OF_THE_CLUSTER = ("kube_", "kubelet_")
METRIC = re.compile(r"\b((?:raymtr|ray|kube|kubelet)_[a-z0-9_]+)")
SUFFIX = re.compile(r"_(bucket|sum|count|total)$")
GRPC_MOST_BYTES = 4 << 20  # gRPC's default message limit
MAY_DIFFER = {  # between the base and an overlay: where it runs, and its size
    *("layout", "device", "text_int8", "num_cpus", "num_gpus"),
    *("num_replicas", "min_replicas", "max_replicas"),
}
CLOSED = ("/metrics", "/-/routes", "/-/healthz")  # metrics, and Serve's own routes


def serve_settings(objects: list[Manifest]) -> Iterator[str]:
    """The endpoint's arguments are valid settings, and each named deployment exists."""
    for service in by_name(objects, "RayService").values():
        name, cluster = name_of(service), pods([service])
        config = yaml.safe_load(service["spec"]["serveConfigV2"])
        for application in config.get("applications", []):
            try:
                args = expanded_args(application["args"], cluster)
                deployments = _bound(application.get("import_path", ""), json.dumps(args))
                settings = read_settings(args)
            except (ImportError, AttributeError, KeyError, ValueError, InputError) as error:
                yield f"{name}: {application.get('import_path')}: {error}"
                continue
            bound = {one.name: one for one in deployments}
            for deployment in application.get("deployments", []):
                if deployment.get("name") not in bound:
                    yield f"{name}: no deployment {deployment.get('name')}; {set(bound)}"
                together = deployment.get("max_replicas_per_node") != 1
                if deployment.get("num_replicas", 1) > 1 and together:
                    yield (
                        f"{name}: Serve may put all replicas of {deployment['name']} on one node, "
                        "and lose them with it: max_replicas_per_node is 1"
                    )
            longest_s = settings.request_timeout_s
            if settings.generation_model:
                longest_s = max(longest_s, settings.generate_timeout_s)
            if config.get("http_options", {}).get("request_timeout_s", 0) <= longest_s:
                yield f"{name}: the proxy gives up before the endpoint does"
            if settings.open_to_anyone or not settings.api_keys:
                yield f"{name}: anyone can search; name a file with api_keys"
            yield from _room(name, list(bound.values()), cluster)
            yield from _mounted(name, settings, cluster)
            yield from _uploads_fit(name, settings, cluster)


def expanded_args(args: dict[str, Any], cluster: list[Pod]) -> dict[str, Any]:
    """The arguments as the pods read them. Raises InputError if the pods would differ."""
    workspaces = {expand(str(args["workspace"]), environment(p.main), IN_A_SHELL) for p in cluster}
    if len(workspaces) != 1:
        raise InputError(f"pods have different workspaces: {', '.join(sorted(workspaces))}")
    return {**args, "workspace": workspaces.pop()}


@functools.cache
def _bound(path: str, args: str) -> tuple[Any, ...]:
    """The deployments that the application at `path` binds for arguments in JSON."""
    module, _, attribute = path.partition(":")
    return tuple(
        _deployments(getattr(importlib.import_module(module), attribute)(json.loads(args)))
    )


def _deployments(application: Any) -> Iterator[Any]:
    """The deployments in the graph that an application is bound from, without duplicates."""
    bound = application._bound_deployment
    yield bound
    for argument in (*bound.init_args, *bound.init_kwargs.values()):
        if hasattr(argument, "_bound_deployment"):
            yield from _deployments(argument)


def _room(name: str, deployments: list[Any], cluster: list[Pod]) -> Iterator[str]:
    """The initial workers hold the minimum of replicas, all workers the maximum."""
    workers = [pod for pod in cluster if pod.role == "worker"]
    for key, resource in (("num_cpus", "cpu"), ("num_gpus", "nvidia.com/gpu")):
        requested = {"fewest": 0.0, "most": 0.0}
        for one in deployments:
            scaling = one._deployment_config.autoscaling_config
            each = (one.ray_actor_options or {}).get(key) or 0.0
            requested["fewest"] += each * (scaling.min_replicas if scaling else 1)
            requested["most"] += each * (scaling.max_replicas if scaling else 1)
        there = {
            "fewest": sum(pod.limit(resource) * pod.fewest for pod in workers),
            "most": sum(pod.limit(resource) * pod.most for pod in workers),
        }
        for which, needed in requested.items():
            if needed > there[which]:
                yield (
                    f"{name}: the {which} replicas request {needed:g} {resource}, "
                    f"its {which} workers have {there[which]:g}"
                )
        if key == "num_gpus" and there["most"] and not requested["most"]:
            yield f"{name}: its workers have GPUs, but no replica requests one"


def one_configuration(objects: list[Manifest]) -> Iterator[str]:
    """Overlays repeat serveConfigV2 in full, because it is one text; only MAY_DIFFER differs."""
    for service in by_name(objects, "RayService").values():
        mine, base = _configuration(service), _configuration(_base_service())
        for path in sorted(set(mine) | set(base)):
            if path.rpartition(".")[2] not in MAY_DIFFER and mine.get(path) != base.get(path):
                yield (
                    f"{name_of(service)}: serveConfigV2: {path} is {mine.get(path)}, "
                    f"the base's {base.get(path)}"
                )


@functools.cache
def _base_service() -> Manifest:
    return by_name(render(Path(__file__).parent / "base"), "RayService")["raymtr"]


def _configuration(service: Manifest) -> dict[str, Any]:
    """Its settings by path, with the defaults of omitted ones."""
    config = yaml.safe_load(service["spec"]["serveConfigV2"])
    for application in config.get("applications", []):
        with contextlib.suppress(InputError):  # reported by serve_settings
            application["args"] = to_dict(from_dict(ServeSettings, application["args"]))
    return dict(_leaves(config))


def _leaves(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, f"{where}.{key}" if where else key)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _leaves(item, f"{where}.{item.get('name', number)}")
    else:
        yield where, value


def _uploads_fit(name: str, settings: Any, cluster: list[Pod]) -> Iterator[str]:
    """Replicas that use gRPC can send each other the largest accepted upload."""
    for pod in cluster:
        env = {one["name"]: one.get("value", "") for one in pod.main.get("env", [])}
        if env.get("RAY_SERVE_THROUGHPUT_OPTIMIZED") == "1":
            most = int(env.get("RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH", GRPC_MOST_BYTES))
            if most <= settings.body_max_mb * (1 << 20):
                yield f"{name}: {pod.where} passes on {most} bytes, body_max_mb is more"


def _mounted(name: str, settings: Any, cluster: list[Pod]) -> Iterator[str]:
    for pod in cluster:
        mounts = {m["mountPath"] for m in pod.main.get("volumeMounts", [])}
        for path in (settings.workspace, str(Path(settings.api_keys or "/none").parent)):
            if "://" not in path and path not in mounts:
                yield f"{name}: {path} is not mounted in {pod.where}"


def metrics(objects: list[Manifest]) -> Iterator[str]:
    """Every metric of an alert or a dashboard is exported by raymtr or Ray."""
    known = exported_metrics()
    for thing in objects:
        texts = []
        if thing["kind"] == "PrometheusRule":
            rules = [rule for group in thing["spec"]["groups"] for rule in group["rules"]]
            texts = [rule["expr"] for rule in rules]
        elif thing["kind"] == "ConfigMap":
            boards = [json.loads(text) for text in thing["data"].values()]
            texts = [t["expr"] for b in boards for p in b["panels"] for t in p["targets"]]
        for text in texts:
            for metric in METRIC.findall(text):
                plain = SUFFIX.sub("", metric)
                if not metric.startswith(OF_THE_CLUSTER) and not {metric, plain} & known:
                    yield f"{name_of(thing)}: nothing exports {metric}"


@functools.cache
def exported_metrics() -> frozenset[str]:
    """Our metrics, from the counters themselves; Ray's, from its dashboards and its code."""
    import ray

    from serve.metrics import Metrics

    registry = Metrics().registry
    ours = {family.name for family in registry.collect()}
    home = Path(ray.__file__).parent
    boards = (home / "dashboard/modules/metrics/dashboards").glob("*_panels.py")
    text = "".join(path.read_text(encoding="utf-8") for path in boards)
    shown = {SUFFIX.sub("", name) for name in re.findall(r"\bray_[a-z0-9_]+", text)}
    counted = {
        f"ray_{name}"
        for path in (home / "serve/_private").glob("*.py")
        for name in re.findall(r'"(serve_[a-z_]+)"', path.read_text(encoding="utf-8"))
    }
    return frozenset(ours | shown | counted)


def routes(objects: list[Manifest]) -> Iterator[str]:
    """The gateway lets through every route of the endpoint except CLOSED."""
    for name, route in by_name(objects, "HTTPRoute").items():
        rules = [rule for rule in route["spec"]["rules"] if rule.get("backendRefs")]
        if not rules:
            continue
        matches = [match["path"] for rule in rules for match in rule["matches"]]
        for path in sorted(endpoint_routes() - set(CLOSED)):
            if not any(_allows(match, path) for match in matches):
                yield f"HTTPRoute {name}: {path} is not let through"
        for path in CLOSED:
            if any(_allows(match, path) for match in matches):
                yield f"HTTPRoute {name}: {path} is open to the world"


@functools.cache
def endpoint_routes() -> frozenset[str]:
    """The paths that the endpoint's application serves, up to their first parameter."""
    from serve.http import build_http
    from serve.settings import ServeSettings

    http = build_http(ServeSettings(workspace="/workspace", open_to_anyone=True))
    paths = (getattr(route, "path", "") for route in http.routes)
    return frozenset(path.partition("{")[0] for path in paths if path)


def _allows(match: Manifest, path: str) -> bool:
    value = match["value"]
    if match["type"] == "Exact":
        return bool(path == value)
    return path == value or path.startswith(value.rstrip("/") + "/")
