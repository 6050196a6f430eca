"""Rules for network policies: deny by default, and each pod can reach only what it needs."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network
from urllib.parse import urlsplit

from k8s.code_rules import environment
from k8s.kustomize import Manifest, by_name
from k8s.pods import Pod, pods

NODE_DNS = "169.254.20.10"  # NodeLocal DNSCache
METADATA = ("169.254.169.254", "169.254.170.23")  # of an instance; EKS Pod Identity
HTTPS, MINIO, API = 443, 9000, 6443
ANYWHERE = "0.0.0.0/0"


def isolation(objects: list[Manifest]) -> Iterator[str]:
    """The default is deny, and every pod has a policy that allows what it needs."""
    policies = list(by_name(objects, "NetworkPolicy").values())
    closed = any(
        p["spec"]["podSelector"] == {} and set(p["spec"]["policyTypes"]) == {"Ingress", "Egress"}
        for p in policies
    )
    if not closed:
        yield "no NetworkPolicy denies traffic by default"
    for pod in pods(objects):
        if not any(p["spec"]["podSelector"] and _is_about(p, pod) for p in policies):
            yield f"{pod.where}: no NetworkPolicy selects it, so it can reach nothing"
        elif pod.labels.get("app.kubernetes.io/component") != "redis":
            yield from _reach(pod, policies)
    for name, budget in by_name(objects, "PodDisruptionBudget").items():
        labels = budget["spec"]["selector"]["matchLabels"].items()
        if not any(labels <= pod.labels.items() for pod in pods(objects)):
            yield f"PodDisruptionBudget {name} selects no pod"


def _reach(pod: Pod, policies: list[Manifest]) -> Iterator[str]:
    about = [p for p in policies if _is_about(p, pod)]
    for protocol in ("UDP", "TCP"):
        if not _opens(about, NODE_DNS, 53, protocol):
            yield f"{pod.where}: names are not resolved where a node caches DNS ({NODE_DNS})"
    known = environment(pod.main)
    if "://" in known.get("WORKSPACE", ""):
        wanted = [(ANYWHERE, HTTPS), (ANYWHERE, MINIO), *((address, 80) for address in METADATA)]
        if port := urlsplit(known.get("AWS_ENDPOINT_URL", "")).port:
            wanted.append((ANYWHERE, port))
        for place, port in wanted:
            if not _opens(about, place, port):
                yield f"{pod.where}: the bucket needs {place} at {port}, and it is closed"
    elif _is_isolated(pod):
        open_to_all = [p for p in (HTTPS, MINIO, API, 80) if _opens(about, ANYWHERE, p)]
        if open_to_all:
            yield f"{pod.where}: it needs no outside access, but all at {open_to_all} is open"
    elif not _opens(about, ANYWHERE, HTTPS):
        yield f"{pod.where}: it needs outside access at port {HTTPS}, which is closed"


def _is_isolated(pod: Pod) -> bool:
    """Whether the pod needs no outside access; pods that fetch or call the Kubernetes API do."""
    component = pod.labels.get("app.kubernetes.io/component")
    return component not in ("fetch", "nightly") and not pod.beside


def _is_about(policy: Manifest, pod: Pod) -> bool:
    selector = policy["spec"]["podSelector"]
    if not selector.get("matchLabels", {}).items() <= pod.labels.items():
        return False
    return all(
        term["operator"] == "In" and pod.labels.get(term["key"]) in term["values"]
        for term in selector.get("matchExpressions", [])
    )


def _opens(policies: list[Manifest], place: str, port: int, protocol: str = "TCP") -> bool:
    """Whether egress under these policies reaches an address range on a port."""
    wanted = IPv4Network(place)
    for rule in (r for p in policies for r in p["spec"].get("egress", [])):
        blocks = [to["ipBlock"]["cidr"] for to in rule.get("to", []) if "ipBlock" in to]
        there = not rule.get("to") or any(wanted.subnet_of(IPv4Network(b)) for b in blocks)
        ports = rule.get("ports")
        if there and (not ports or any(_is_port(p, port, protocol) for p in ports)):
            return True
    return False


def _is_port(rule: Manifest, port: int, protocol: str) -> bool:
    first = rule["port"]
    last = rule.get("endPort", first)
    return bool(first <= port <= last and rule.get("protocol", "TCP") == protocol)
