"""Rules for long-term operation: disruption budgets, schedules, probes, namespaces.

Kubernetes accepts each of these mistakes silently. They show when a node is drained, when a nightly
run does not start, when a process hangs, or when the objects are to be deleted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from zoneinfo import available_timezones

from k8s.kustomize import Manifest, by_name
from k8s.pods import Pod, pods
from k8s.schemas import name_of

WITHOUT_A_NAMESPACE = {  # cluster-scoped kinds
    *("Namespace", "PriorityClass", "StorageClass", "PersistentVolume", "IngressClass"),
    *("ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition", "RuntimeClass"),
    *("ClusterQueue", "ResourceFlavor", "WorkloadPriorityClass", "Topology", "GatewayClass"),
}
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
CRON = (  # each field's name, minimum, maximum, and words for its numbers
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of month", 1, 31, ()),
    ("month", 1, 12, MONTHS),
    ("day of week", 0, 6, DAYS),
)
MACROS = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")
PROBES = {"head": ("startup", "liveness", "readiness"), "other": ("liveness", "readiness")}
PROBES["worker"] = PROBES["head"]


def budgets(objects: list[Manifest]) -> Iterator[str]:
    """A PodDisruptionBudget allows an eviction; otherwise no node under it can be drained."""
    for name, budget in by_name(objects, "PodDisruptionBudget").items():
        spec = budget["spec"]
        labels = spec.get("selector", {}).get("matchLabels", {}).items()
        about = [pod for pod in pods(objects) if labels <= pod.labels.items()]
        fewest = sum(pod.fewest for pod in about)
        if not fewest:
            continue  # reported by references, or nothing runs there
        if "maxUnavailable" in spec:
            may_go = _share(spec["maxUnavailable"], fewest)
        else:
            may_go = fewest - _share(spec.get("minAvailable", 0), fewest)
        if may_go < 1:
            yield (
                f"PodDisruptionBudget {name}: none of its {fewest} pods may ever be evicted, so no "
                "node under them can be drained: maxUnavailable is 1 or more"
            )


def _share(value: int | str, pods: int) -> int:
    """`1` or `"50%"` of a number of pods; Kubernetes rounds up."""
    text = str(value)
    return math.ceil(int(text[:-1]) * pods / 100) if text.endswith("%") else int(text)


def schedules(objects: list[Manifest]) -> Iterator[str]:
    """A CronJob has a valid schedule and time zone, and never runs twice at once."""
    for name, job in by_name(objects, "CronJob").items():
        spec = job["spec"]
        for problem in cron_problems(spec["schedule"]):
            yield f"CronJob {name}: schedule {spec['schedule']!r}: {problem}"
        if (zone := spec.get("timeZone", "Etc/UTC")) not in available_timezones():
            yield f"CronJob {name}: there is no timeZone {zone}"
        if not spec.get("suspend") and spec.get("concurrencyPolicy", "Allow") == "Allow":
            yield (
                f"CronJob {name}: a run of more than a day would overlap with the next one: "
                "concurrencyPolicy is Forbid or Replace"
            )


def cron_problems(schedule: str) -> Iterator[str]:
    """The errors Kubernetes would report in a schedule: five fields, or a macro."""
    if schedule.startswith("@"):
        if schedule not in MACROS:
            yield f"it is not a macro; known: {', '.join(MACROS)}"
        return
    fields = schedule.split()
    if len(fields) != len(CRON):
        yield f"{len(fields)} fields, expected {len(CRON)}: {', '.join(one[0] for one in CRON)}"
        return
    for text, (field, least, most, words) in zip(fields, CRON, strict=True):
        for part in text.split(","):
            if not _is_part(part.lower(), least, most, words):
                yield f"{field} {part!r} is not within {least} to {most}"


def _is_part(part: str, least: int, most: int, words: tuple[str, ...]) -> bool:
    """Whether it is `*`, `5`, `1-5` or `mon`, each with an optional step."""
    span, slash, step = part.partition("/")
    if slash and not (step.isdecimal() and int(step) > 0):
        return False
    if span in ("*", "?"):
        return True
    ends = [
        int(end) if re.fullmatch(r"\d+", end) else words.index(end) + least if end in words else -1
        for end in span.split("-")
    ]
    return len(ends) <= 2 and all(least <= end <= most for end in ends) and ends == sorted(ends)


def probes(objects: list[Manifest]) -> Iterator[str]:
    """The main container of every long-running pod has the probes of its role."""
    short_lived = {name_of(thing) for thing in objects if thing["kind"] == "CronJob"}
    for pod in pods(objects):
        if pod.where not in short_lived:
            yield from _probes(pod)


def _probes(pod: Pod) -> Iterator[str]:
    for kind in PROBES[pod.role]:
        if not pod.main.get(f"{kind}Probe"):
            yield f"{pod.where}: {pod.main['name']} has no {kind}Probe, so a hang is not detected"


def namespaces(objects: list[Manifest]) -> Iterator[str]:
    """All objects are in one namespace, which is among them."""
    known = by_name(objects, "Namespace")
    for thing in objects:
        namespace = thing["metadata"].get("namespace")
        if thing["kind"] in WITHOUT_A_NAMESPACE:
            continue
        if namespace is None:
            yield f"{name_of(thing)}: it names no namespace, so kubectl's current one would be used"
        elif known and namespace not in known:
            yield f"{name_of(thing)}: namespace {namespace} is not {' or '.join(known)}"
