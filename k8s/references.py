"""Rule: every secret, config map, claim, account, class and service that is named exists."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from k8s.kustomize import Manifest, by_name
from k8s.pods import Pod, pods, rays
from k8s.schemas import name_of


def references(objects: list[Manifest], secrets: list[Manifest]) -> Iterator[str]:
    """Named objects that do not exist. `secrets` are created by hand; their keys must exist too."""
    keys = {s["metadata"]["name"]: set(s.get("stringData", {})) for s in secrets}
    maps = {n: set(o.get("data", {})) for n, o in by_name(objects, "ConfigMap").items()}
    for thing in objects:
        yield from _read_by(name_of(thing), thing, "secretKeyRef", keys)
        yield from _read_by(name_of(thing), thing, "configMapKeyRef", maps)
        yield from _read_by(name_of(thing), thing, "credentials", keys)
    for pod in pods(objects):
        named = {
            "PersistentVolumeClaim": [],
            "ServiceAccount": [pod.spec[k] for k in ("serviceAccountName",) if k in pod.spec],
            "PriorityClass": [pod.spec[k] for k in ("priorityClassName",) if k in pod.spec],
        }
        for volume in pod.spec.get("volumes", []):
            if "persistentVolumeClaim" in volume:
                named["PersistentVolumeClaim"].append(volume["persistentVolumeClaim"]["claimName"])
            yield from _volume(pod, volume, keys, maps)
        for kind, names in named.items():
            for name in set(names) - set(by_name(objects, kind)):
                yield f"{pod.where}: there is no {kind} {name}"
        yield from _mounts(pod)
    for name, binding in by_name(objects, "RoleBinding").items():
        for one in (binding["roleRef"], *binding["subjects"]):
            if one["name"] not in by_name(objects, one["kind"]):
                yield f"RoleBinding {name}: there is no {one['kind']} {one['name']}"
    yield from _services(objects, keys)


def _read_by(name: str, value: Any, kind: str, known: dict[str, set[str]]) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _read_by(name, item, kind, known)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key == kind and item.get("key") not in known.get(item.get("name"), ()):
                yield f"{name}: {kind}: there is no {item.get('name')}/{item.get('key')}"
            yield from _read_by(name, item, kind, known)


def _volume(
    pod: Pod, volume: Manifest, keys: dict[str, set[str]], maps: dict[str, set[str]]
) -> Iterator[str]:
    for kind, name, known in (("secret", "secretName", keys), ("configMap", "name", maps)):
        if kind not in volume:
            continue
        named = volume[kind].get(name)
        if named not in known:
            yield f"{pod.where}: volume {volume['name']}: there is no {kind} {named}"
            continue
        for item in volume[kind].get("items", []):
            if item["key"] not in known[named]:
                yield f"{pod.where}: volume {volume['name']}: {named} has no key {item['key']}"


def _mounts(pod: Pod) -> Iterator[str]:
    volumes = [*pod.claims, *(volume["name"] for volume in pod.spec.get("volumes", []))]
    for container in pod.containers:
        for mount in container.get("volumeMounts", []):
            if mount["name"] not in volumes:
                yield f"{pod.where}: {container['name']} mounts {mount['name']}, not a volume"


def _services(objects: list[Manifest], keys: dict[str, set[str]]) -> Iterator[str]:
    """Routes, monitors, Redis' address and certificates name what exists."""
    services = by_name(objects, "Service")
    created = {f"{name}-serve-svc" for name in by_name(objects, "RayService")}  # created by KubeRay
    for name, route in by_name(objects, "HTTPRoute").items():
        for rule in route["spec"]["rules"]:
            for backend in rule.get("backendRefs", []):
                if backend["name"] not in created | set(services):
                    yield f"HTTPRoute {name}: there is no Service {backend['name']}"
        for parent in route["spec"]["parentRefs"]:
            gateway = by_name(objects, "Gateway").get(parent["name"], {"spec": {"listeners": []}})
            listeners = [listener["name"] for listener in gateway["spec"]["listeners"]]
            if parent.get("sectionName") not in listeners:
                yield f"HTTPRoute {name}: {parent['name']} has no listener of that name"
    for name, gateway in by_name(objects, "Gateway").items():
        issued = "cert-manager.io/cluster-issuer" in gateway["metadata"].get("annotations", {})
        for listener in gateway["spec"]["listeners"]:
            for certificate in listener.get("tls", {}).get("certificateRefs", []):
                if certificate["name"] not in keys and not issued:
                    yield f"Gateway {name}: nothing creates the secret {certificate['name']}"
    for name, monitor in by_name(objects, "ServiceMonitor").items():
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        chosen = [s for s in services.values() if wanted <= s["metadata"]["labels"].items()]
        ports = {port["name"] for service in chosen for port in service["spec"]["ports"]}
        for endpoint in monitor["spec"]["endpoints"]:
            if endpoint["port"] not in ports:
                yield f"ServiceMonitor {name}: no Service it selects has a port {endpoint['port']}"
    for name, service in services.items():
        if not any(service["spec"]["selector"].items() <= p.labels.items() for p in pods(objects)):
            yield f"Service {name} selects no pod"
    for thing, cluster in rays(objects):
        address = cluster.get("gcsFaultToleranceOptions", {}).get("redisAddress")
        host, _, port = (address or "").partition(":")
        ports = {p["port"] for p in services.get(host, {"spec": {"ports": []}})["spec"]["ports"]}
        if address and int(port or 0) not in ports:
            yield f"{name_of(thing)}: no Service answers at redisAddress {address}"
