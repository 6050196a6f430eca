"""The pods that manifests create, from any kind of object: the input of rules about pods."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from k8s.kustomize import Manifest
from k8s.schemas import name_of

UNITS = {"": 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12} | {
    f"{letter}i": 1024.0**power for power, letter in enumerate("KMGT", start=1)
}
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)([a-zA-Z]{0,2})")


@dataclass(frozen=True, kw_only=True)
class Pod:
    """One pod template, and how many of its pods may run."""

    where: str  # for messages: RayJob embed, group cores
    role: Literal["head", "worker", "other"]
    most: int
    template: Manifest
    beside: tuple[Manifest, ...] = ()  # resources of containers that an operator adds
    fewest: int = 1  # initial count
    claims: tuple[str, ...] = ()  # volume claims of a StatefulSet for each pod

    @property
    def spec(self) -> Manifest:
        """The pod's spec."""
        found: Manifest = self.template["spec"]
        return found

    @property
    def labels(self) -> dict[str, str]:
        """The pod's labels, including those that KubeRay sets."""
        found: dict[str, str] = dict(self.template.get("metadata", {}).get("labels", {}))
        if self.role != "other":
            found |= {"ray.io/node-type": self.role, "ray.io/is-ray-node": "yes"}
        return found

    @property
    def containers(self) -> list[Manifest]:
        """Init containers and the others."""
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]

    @property
    def main(self) -> Manifest:
        """The first container; in a pod of Ray, Ray's."""
        found: Manifest = self.spec["containers"][0]
        return found

    def limit(self, resource: str) -> float:
        """The first container's limit."""
        return quantity(self.main.get("resources", {}).get("limits", {}).get(resource, 0))

    def requests(self, resource: str) -> float:
        """The sum of all containers' requests."""
        resources = [c.get("resources", {}) for c in self.spec["containers"]] + list(self.beside)
        return sum(quantity(a.get("requests", {}).get(resource, 0)) for a in resources)


def quantity(text: Any) -> float:
    """`500m`, `2`, `3Gi` as a number. Raises ValueError."""
    match = _QUANTITY.fullmatch(str(text))
    if match is None or match[2] not in UNITS:
        raise ValueError(f"{text!r} is not a quantity")
    return float(match[1]) * UNITS[match[2]]


def cluster_of(thing: Manifest) -> Manifest | None:
    """The Ray cluster that a RayService or a RayJob creates."""
    key = "rayClusterConfig" if thing["kind"] == "RayService" else "rayClusterSpec"
    cluster: Manifest | None = thing["spec"].get(key)
    return cluster


def rays(objects: list[Manifest]) -> Iterator[tuple[Manifest, Manifest]]:
    """Every RayService and RayJob with its cluster."""
    for thing in objects:
        if thing["kind"] in ("RayService", "RayJob"):
            cluster = cluster_of(thing)
            if cluster is not None:
                yield thing, cluster


def pods_of_cluster(name: str, cluster: Manifest) -> list[Pod]:
    """The head, then the worker groups."""
    scaler: Manifest = cluster.get("autoscalerOptions", {}).get("resources", {})
    beside = (scaler,) if cluster.get("enableInTreeAutoscaling") else ()
    head = cluster["headGroupSpec"]["template"]
    found = [Pod(where=f"{name}, head", role="head", most=1, template=head, beside=beside)]
    for group in cluster.get("workerGroupSpecs", []):
        where = f"{name}, group {group['groupName']}"
        most, fewest, template = group["maxReplicas"], group["minReplicas"], group["template"]
        found.append(Pod(where=where, role="worker", most=most, fewest=fewest, template=template))
    return found


def pods(objects: list[Manifest]) -> list[Pod]:
    """Every pod that the objects can create."""
    found = []
    for thing in objects:
        if thing["kind"] in ("RayService", "RayJob"):
            cluster = cluster_of(thing)
            found += pods_of_cluster(name_of(thing), cluster) if cluster else []
        elif thing["kind"] in ("StatefulSet", "Deployment"):
            spec = thing["spec"]
            claims = tuple(c["metadata"]["name"] for c in spec.get("volumeClaimTemplates", []))
            most, where = spec.get("replicas", 1), name_of(thing)
            found.append(
                Pod(where=where, role="other", most=most, template=spec["template"], claims=claims)
            )
        elif thing["kind"] == "CronJob":
            template = thing["spec"]["jobTemplate"]["spec"]["template"]
            found.append(Pod(where=name_of(thing), role="other", most=1, template=template))
    return found
