"""Rules for RayJob templates: how they start, retry, queue and end, and on which machines."""

from __future__ import annotations

from collections.abc import Iterator

from k8s import submit
from k8s.code_rules import environment, job_command
from k8s.kustomize import Manifest, by_name
from k8s.pods import Pod, pods, pods_of_cluster, rays
from k8s.schemas import name_of
from raymtr.errors import InputError
from raymtr.tower_recipes import MINILM
from raymtr.workspace import Workspace

MOST_IDLE_S = 3_600  # longest time that existing pods wait for a missing one
SPOT_TAINTS = (  # of machines that may be preempted
    "cloud.google.com/gke-spot",
    "cloud.google.com/gke-preemptible",
    "kubernetes.azure.com/scalesetpriority",
    "raymtr/spot",
)
SPOT_LABELS = ("eks.amazonaws.com/capacityType", "karpenter.sh/capacity-type", *SPOT_TAINTS[:3])
VERBS_WITH_A_JOB = ("scan", "finetune", "caption", "train", "embed", "index")


def templates(objects: list[Manifest]) -> Iterator[str]:
    """Each verb has a template, which stays suspended until it is copied, and whose copies end."""
    jobs = by_name(objects, "RayJob")
    for verb in VERBS_WITH_A_JOB:
        if verb not in jobs:
            yield f"RayJob {verb}: there is none, so nothing can start it"
    for name, job in jobs.items():
        yield from _is_suspended(f"RayJob {name}", job)
        yield from _ends(f"RayJob {name}", job["spec"])
        yield from _tries(f"RayJob {name}", job)
        yield from _queue(f"RayJob {name}", job)


def _is_suspended(name: str, job: Manifest) -> Iterator[str]:
    if not job["spec"].get("suspend"):
        yield f"{name}: it would run as soon as it is applied; templates must be suspended"
    if submit.KUEUE_LABEL in job["metadata"].get("labels", {}):
        yield (
            f"{name}: Kueue takes a suspended job with {submit.KUEUE_LABEL} for one that waits, "
            f"and starts it; templates have the annotation {submit.QUEUE}, their copies the label"
        )


def _ends(name: str, spec: Manifest) -> Iterator[str]:
    if not spec.get("shutdownAfterJobFinishes"):
        for key in ("suspend", "ttlSecondsAfterFinished"):
            if spec.get(key):
                yield f"{name}: {key} needs shutdownAfterJobFinishes"
    if not spec.get("activeDeadlineSeconds"):
        yield f"{name}: a job has a deadline: activeDeadlineSeconds"
    if not 0 < spec.get("preRunningDeadlineSeconds", 0) <= MOST_IDLE_S:
        yield (
            f"{name}: KubeRay waits for every pod, and pods that are ready idle meanwhile: set "
            f"preRunningDeadlineSeconds to at most {MOST_IDLE_S}"
        )


def _tries(name: str, job: Manifest) -> Iterator[str]:
    if job["spec"].get("backoffLimit"):
        yield (
            f"{name}: KubeRay's backoffLimit would retry a wrong setting like a lost cluster; it "
            f"must be 0, and {submit.ATTEMPTS} is used instead"
        )
    attempts = job["metadata"].get("annotations", {}).get(submit.ATTEMPTS, "")
    if not attempts.isdecimal() or int(attempts) < 2:
        yield f"{name}: a job continues after a lost cluster: {submit.ATTEMPTS} must be 2 or more"


def _queue(name: str, job: Manifest) -> Iterator[str]:
    queue = job["metadata"].get("annotations", {}).get(submit.QUEUE)
    if queue == "default":
        yield f"{name}: Kueue puts every job into a LocalQueue named default, templates too"
    cluster = job["spec"]["rayClusterSpec"]
    if queue and cluster.get("enableInTreeAutoscaling"):
        yield f"{name}: Kueue refuses a cluster that Ray scales; a queue needs a fixed one"
    if queue and len(cluster.get("workerGroupSpecs", [])) > 7:
        yield f"{name}: Kueue takes 7 groups of workers at most"


def machines(objects: list[Manifest]) -> Iterator[str]:
    """Workers tolerate spot machines, because every verb resumes; a head does not."""
    for thing, cluster in rays(objects):
        if thing["kind"] != "RayJob":
            continue
        for pod in pods_of_cluster(name_of(thing), cluster):
            tolerated = {t.get("key") for t in pod.spec.get("tolerations", [])}
            missing = [key for key in SPOT_TAINTS if key not in tolerated]
            if pod.role == "worker" and missing:
                yield f"{pod.where}: it does not tolerate spot machines: {', '.join(missing)}"
            if pod.role == "head" and len(missing) < len(SPOT_TAINTS):
                yield f"{pod.where}: a head tolerates spot machines, and its loss ends the cluster"
            if pod.role == "head" and (open_to := set(SPOT_LABELS) - _avoided(pod)):
                labels = ", ".join(sorted(open_to))
                yield f"{pod.where}: a head may land on a spot machine: {labels}"


def _avoided(pod: Pod) -> set[str]:
    """Label keys that a node must not have, in every one of the alternative selector terms."""
    affinity = pod.spec.get("affinity", {}).get("nodeAffinity", {})
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution", {})
    terms = [
        {e["key"] for e in term.get("matchExpressions", []) if e["operator"] == "NotIn"}
        for term in required.get("nodeSelectorTerms", [])
    ]
    return set.intersection(*terms) if terms else set()


def offline(objects: list[Manifest]) -> Iterator[str]:
    """Only the pods that fetch may access a hub, and they fetch what the jobs then read."""
    fetching = [
        container
        for pod in pods(objects)
        for container in pod.containers
        if container.get("command", [])[:2] == ["raymtr", "fetch"]
    ]
    if not fetching:
        yield "nothing fetches models into the workspace, and no job may reach a hub"
    for container in fetching:
        if environment(container).get("HF_HUB_OFFLINE"):
            yield f"{container['name']}: it fetches from a hub, but HF_HUB_OFFLINE forbids it"
    for pod in pods(objects):
        if pod.role != "other" and environment(pod.main).get("HF_HUB_OFFLINE") != "1":
            yield f"{pod.where}: it would contact a hub; set HF_HUB_OFFLINE to 1"
    brought = {environment(container).get("MODEL", "") for container in fetching}
    for job in by_name(objects, "RayJob").values():
        yield from _fetched_before(job, brought)


def _fetched_before(job: Manifest, brought: set[str]) -> Iterator[str]:
    """The model that a job starts from is in the image, or is fetched."""
    head = pods_of_cluster(name_of(job), job["spec"]["rayClusterSpec"])[0]
    try:
        settings, arguments = job_command(job, head)
    except InputError:
        return  # reported by code_rules.entrypoints
    there = {Workspace(arguments.workspace).fetched(name) for name in brought if name}
    base, tower = getattr(arguments, "base", None), settings.towers.text_tower.source
    if base is not None and base not in there:
        yield f"{name_of(job)}: nothing fetches --base {base}; there will be {sorted(there)}"
    if job["metadata"]["name"] == "train" and tower not in {MINILM, *brought}:
        yield f"{name_of(job)}: nothing fetches its text tower {tower}; {sorted(brought)} is"
