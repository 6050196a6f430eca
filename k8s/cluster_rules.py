"""Rules that no schema covers: do manifests fit together, and fit the machines they target?

Each rule takes the rendered objects and yields problems, one sentence each.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from k8s.kustomize import Manifest
from k8s.pods import Pod, pods, quantity, rays
from k8s.schemas import name_of

OBJECT_STORE_SHARE = 0.3  # share of a pod's memory for Ray's object store, in /dev/shm
WRITABLE = ("/tmp", "/home/raymtr")  # Ray's session; its token and torch's caches
SECRET_NAME = re.compile(r"PASSWORD|TOKEN|SECRET|ACCESS_KEY|CREDENTIAL", re.IGNORECASE)
MANAGERS = ("ray.io/kuberay-operator", "kueue.x-k8s.io/multikueue")


def fit(objects: list[Manifest], nodes: dict[str, Manifest]) -> Iterator[str]:
    """Every pod fits the machine its nodeSelector names, and Ray's memory fits its pod."""
    for pod in pods(objects):
        kind = pod.spec.get("nodeSelector", {}).get("raymtr/node")
        if pod.role == "other" and kind is None:
            continue
        if kind not in nodes:
            yield f"{pod.where}: nodeSelector raymtr/node is one of {', '.join(nodes)}, not {kind}"
            continue
        for resource in ("cpu", "memory", "nvidia.com/gpu"):
            asked, there = pod.requests(resource), quantity(nodes[kind].get(resource, 0))
            if asked > there:
                yield f"{pod.where} requests {asked:g} {resource}; a {kind} machine has {there:g}"
        volumes = [v["emptyDir"] for v in pod.spec.get("volumes", []) if "emptyDir" in v]
        disk = sum(quantity(v["sizeLimit"]) for v in volumes if v.get("medium") != "Memory")
        if disk > quantity(nodes[kind]["ephemeral-storage"]):
            yield f"{pod.where}: its emptyDirs of {disk / 2**30:g} GiB are more than a {kind} has"
        if pod.role != "other":
            yield from _memory(pod)


def _memory(pod: Pod) -> Iterator[str]:
    limit = pod.limit("memory")
    if pod.requests("memory") < limit or not limit:
        yield f"{pod.where}: Ray sizes itself by the memory limit, so it must be requested"
    if not pod.limit("cpu"):
        yield f"{pod.where}: Ray sizes itself by the cpu limit, and there is none"
    mounts = {m["mountPath"]: m["name"] for m in pod.main.get("volumeMounts", [])}
    volumes = {v["name"]: v for v in pod.spec.get("volumes", [])}
    shm = volumes.get(mounts.get("/dev/shm", ""), {}).get("emptyDir", {})
    size = quantity(shm.get("sizeLimit", 0)) if shm.get("medium") == "Memory" else 0.0
    if not OBJECT_STORE_SHARE * limit <= size < limit:
        yield f"{pod.where}: /dev/shm must be {OBJECT_STORE_SHARE:.0%} of its memory, not all"


def confinement(objects: list[Manifest]) -> Iterator[str]:
    """No pod runs as root, writes to its image, gains privileges, or has a secret in plain text."""
    for pod in pods(objects):
        context = pod.spec.get("securityContext", {})
        if context.get("runAsNonRoot") is not True or not context.get("runAsUser"):
            yield f"{pod.where}: runAsNonRoot and runAsUser are missing"
        if context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield f"{pod.where}: seccompProfile is not RuntimeDefault"
        for container in pod.containers:
            yield from _container(pod, container)
        yield from _token(pod)
    for thing, cluster in rays(objects):
        if cluster.get("authOptions", {}).get("mode") != "token":
            yield f"{name_of(thing)}: without authOptions all who reach Ray's ports can run code"
        scaler = cluster.get("autoscalerOptions", {}).get("securityContext", {})
        if cluster.get("enableInTreeAutoscaling") and not scaler.get("readOnlyRootFilesystem"):
            yield f"{name_of(thing)}: the autoscaler's container is not confined"


def _token(pod: Pod) -> Iterator[str]:
    """Only a head with the autoscaler, and pods that submit jobs, have an API token.

    A cloud identity does not need this token, because it brings its own.
    """
    mounts = pod.spec.get("automountServiceAccountToken") is not False
    scales = pod.role == "head" and bool(pod.beside)
    named = pod.role == "other" and "serviceAccountName" in pod.spec
    if mounts and not scales and not named:
        what = "pod" if pod.role == "other" else pod.role
        yield f"{pod.where}: a {what} needs no token of the API"
    if scales and not mounts:
        yield f"{pod.where}: its autoscaler cannot use the API without a token"


def _container(pod: Pod, container: Manifest) -> Iterator[str]:
    where = f"{pod.where}, {container['name']}"
    confined = container.get("securityContext", {})
    if confined.get("allowPrivilegeEscalation") is not False:
        yield f"{where}: allowPrivilegeEscalation is not false"
    if confined.get("readOnlyRootFilesystem") is not True:
        yield f"{where}: readOnlyRootFilesystem is not true"
    if confined.get("capabilities", {}).get("drop") != ["ALL"]:
        yield f"{where}: capabilities are not dropped"
    if re.fullmatch(r".+:[\w.-]+(@sha256:[0-9a-f]{64})?", container["image"]) is None:
        yield f"{where}: image {container['image']} has no tag"
    for variable in container.get("env", []):
        if SECRET_NAME.search(variable["name"]) and "value" in variable:
            yield f"{where}: {variable['name']} is in plain text"
    if pod.role != "other":
        mounts = {
            m["mountPath"] for m in container.get("volumeMounts", []) if not m.get("readOnly")
        }
        for path in WRITABLE:
            if path not in mounts:
                yield f"{where}: {path} is not writable"


def operator_rules(objects: list[Manifest]) -> Iterator[str]:
    """The CRDs' CEL rules and the operator's own checks, which a cluster would run."""
    for thing, cluster in rays(objects):
        name, spec = name_of(thing), thing["spec"]
        for owner in (spec, cluster):
            if owner.get("managedBy", MANAGERS[0]) not in MANAGERS:
                yield f"{name}: managedBy is one of {', '.join(MANAGERS)}"
        if "deletionStrategy" in spec:
            yield from _deletion(name, spec["deletionStrategy"])
        groups = cluster.get("workerGroupSpecs", [])
        for group, count in Counter(g["groupName"] for g in groups).items():
            if count > 1:
                yield f"{name}: two groups are named {group}"
        for group in groups:
            if not group["minReplicas"] <= group.get("replicas", 0) <= group["maxReplicas"]:
                yield f"{name}: group {group['groupName']}: minReplicas <= replicas <= maxReplicas"
        if cluster["headGroupSpec"]["rayStartParams"].get("num-cpus") != "0":
            yield f'{name}: the head must do no work: set rayStartParams num-cpus to "0"'
        if thing["kind"] == "RayService":
            fewest = sum(group["minReplicas"] for group in groups)
            surge = spec.get("upgradeStrategy", {}).get("type") == "NewCluster"
            if not spec.get("excludeHeadPodFromServeSvc") or not (fewest >= 2 or surge):
                yield f"{name}: two workers or a new cluster at upgrades, and none on the head"


def _deletion(name: str, strategy: Manifest) -> Iterator[str]:
    old = [key for key in ("onSuccess", "onFailure") if key in strategy]
    rules = strategy.get("deletionRules")
    if old and rules is not None:
        yield f"{name}: deletionStrategy: onSuccess/onFailure and deletionRules exclude each other"
    if len(old) != 2 and rules is None:
        yield f"{name}: deletionStrategy needs both onSuccess and onFailure, or deletionRules"
    for rule in rules or []:
        states = [k for k in ("jobStatus", "jobDeploymentStatus") if k in rule.get("condition", {})]
        if len(states) != 1:
            yield f"{name}: a deletion condition has either jobStatus or jobDeploymentStatus"
