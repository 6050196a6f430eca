"""Manifests against the endpoint they bring up: its settings, its deployments, its routes, and the
figures that boards and alerts ask for.
"""

from __future__ import annotations

import functools
import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from k8s.kustomize import Manifest, by_name
from k8s.pods import Pod, pods
from k8s.schemas import name_of
from raymtr.errors import InputError

# Counted by the cluster's own exporters, which are not here: kube-state-metrics and the kubelet.
OF_THE_CLUSTER = ("kube_", "kubelet_")
METRIC = re.compile(r"\b((?:raymtr|ray|kube|kubelet)_[a-z0-9_]+)")
SUFFIX = re.compile(r"_(bucket|sum|count|total)$")
GRPC_MOST_BYTES = 4 << 20  # of a message, where nothing is set
CLOSED = ("/metrics", "/-/routes", "/-/healthz")  # figures, and Serve's own


def serve_settings(objects: list[Manifest]) -> Iterator[str]:
    """The endpoint's arguments are its settings, and each named deployment is one of its own."""
    for name, service in by_name(objects, "RayService").items():
        config = yaml.safe_load(service["spec"]["serveConfigV2"])
        http = config.get("http_options", {})
        for application in config.get("applications", []):
            module, _, attribute = application.get("import_path", "").partition(":")
            try:
                built = getattr(importlib.import_module(module), attribute)(application["args"])
                settings = importlib.import_module("serve.settings").read_settings(
                    application["args"]
                )
            except (ImportError, AttributeError, KeyError, ValueError, InputError) as error:
                yield f"RayService {name}: {application.get('import_path')}: {error}"
                continue
            known = set(_deployments(built))
            for deployment in application.get("deployments", []):
                if deployment.get("name") not in known:
                    yield f"RayService {name}: no deployment {deployment.get('name')}; {known}"
            if http.get("request_timeout_s", 0) <= settings.request_timeout_s:
                yield f"RayService {name}: the proxy gives up before the endpoint does"
            if settings.open_to_anyone or not settings.api_keys:
                yield f"RayService {name}: anyone may ask; name a file with api_keys"
            yield from _mounted(f"RayService {name}", settings, pods([service]))
            yield from _uploads_fit(f"RayService {name}", settings, pods([service]))


def _deployments(application: Any) -> Iterator[str]:
    """Names in the graph that an application is bound from."""
    bound = application._bound_deployment
    yield bound.name
    for argument in (*bound.init_args, *bound.init_kwargs.values()):
        if hasattr(argument, "_bound_deployment"):
            yield from _deployments(argument)


def _uploads_fit(name: str, settings: Any, cluster: list[Pod]) -> Iterator[str]:
    """Replicas that speak gRPC hand each other what the endpoint takes."""
    for pod in cluster:
        env = {one["name"]: one.get("value", "") for one in pod.main.get("env", [])}
        if env.get("RAY_SERVE_THROUGHPUT_OPTIMIZED") == "1":
            most = int(env.get("RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH", GRPC_MOST_BYTES))
            if most <= settings.body_max_mb * (1 << 20):
                yield f"{name}: {pod.where} hands on {most} bytes, body_max_mb is more"


def _mounted(name: str, settings: Any, cluster: list[Pod]) -> Iterator[str]:
    for pod in cluster:
        mounts = {m["mountPath"] for m in pod.main.get("volumeMounts", [])}
        for path in (settings.workspace, str(Path(settings.api_keys or "/none").parent)):
            if "://" not in path and path not in mounts:
                yield f"{name}: {path} is no mount of {pod.where}"


def metrics(objects: list[Manifest]) -> Iterator[str]:
    """Every metric of an alert or a board is one that raymtr or Ray exports."""
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
    """Our own, from the counters themselves; Ray's, from the boards it ships and its code."""
    import ray

    from serve.meters import Meters

    registry = Meters().registry
    own = {family.name for family in registry.collect()}
    home = Path(ray.__file__).parent
    boards = (home / "dashboard/modules/metrics/dashboards").glob("*_panels.py")
    text = "".join(path.read_text(encoding="utf-8") for path in boards)
    shown = {SUFFIX.sub("", name) for name in re.findall(r"\bray_[a-z0-9_]+", text)}
    counted = {
        f"ray_{name}"
        for path in (home / "serve/_private").glob("*.py")
        for name in re.findall(r'"(serve_[a-z_]+)"', path.read_text(encoding="utf-8"))
    }
    return frozenset(own | shown | counted)


def routes(objects: list[Manifest]) -> Iterator[str]:
    """The gateway lets through every route of the endpoint but CLOSED."""
    for name, route in by_name(objects, "HTTPRoute").items():
        rules = [rule for rule in route["spec"]["rules"] if rule.get("backendRefs")]
        if not rules:
            continue
        matches = [match["path"] for rule in rules for match in rule["matches"]]
        for path in sorted(endpoint_routes() - set(CLOSED)):
            if not any(_lets(match, path) for match in matches):
                yield f"HTTPRoute {name}: {path} is not let through"
        for path in CLOSED:
            if any(_lets(match, path) for match in matches):
                yield f"HTTPRoute {name}: {path} is open to the world"


@functools.cache
def endpoint_routes() -> frozenset[str]:
    """The paths that the endpoint's own application answers, up to their first parameter."""
    from serve.http import build_http
    from serve.settings import ServeSettings

    http = build_http(ServeSettings(workspace="/workspace", open_to_anyone=True))
    paths = (getattr(route, "path", "") for route in http.routes)
    return frozenset(path.partition("{")[0] for path in paths if path)


def _lets(match: Manifest, path: str) -> bool:
    value = match["value"]
    if match["type"] == "Exact":
        return bool(path == value)
    return path == value or path.startswith(value.rstrip("/") + "/")
