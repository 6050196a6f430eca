"""Checks deadlines and disks against the catalog size, by `raymtr plan` and the settings."""

from __future__ import annotations

from collections.abc import Iterator

from jobs.plan import plan_catalog
from k8s.code_rules import job_command
from k8s.kustomize import Manifest, by_name
from k8s.pods import pods_of_cluster, quantity, rays
from k8s.schemas import name_of
from raymtr.capacity import Wanted
from raymtr.errors import InputError

TRACKS = "raymtr/tracks"  # annotation of RayJob embed: the catalog size the manifests target
CACHE_ROOM = 1.1  # of its budget: files being written, and the folders
SPARE = 2  # factor on the plan: machines differ, and interrupted work is repeated


def deadlines(objects: list[Manifest]) -> Iterator[str]:
    """`embed` and `index` end within their deadlines, by the plan of the targeted catalog size.

    Scanning, captions and training are not covered by a plan.
    """
    for thing, cluster in rays(objects):
        if (name := thing["metadata"]["name"]) not in ("embed", "index"):
            continue
        tracks = by_name(objects, "RayJob")["embed"]["metadata"].get("annotations", {}).get(TRACKS)
        if tracks is None:
            yield f"RayJob embed: the annotation {TRACKS} must name the size of its catalog"
            return
        seconds = thing["spec"]["activeDeadlineSeconds"]
        head, *workers = pods_of_cluster(name_of(thing), cluster)
        try:
            settings, _ = job_command(thing, head)
            wanted = Wanted(tracks=int(tracks), hours=seconds / 3600 / SPARE)
            plan = plan_catalog(wanted, settings)
        except InputError as error:
            yield f"{name_of(thing)}: activeDeadlineSeconds: {error}"
            continue
        if name == "index":
            continue
        gpus = sum(int(pod.limit("nvidia.com/gpu")) * pod.most for pod in workers)
        cores = sum(int(pod.limit("cpu")) * pod.most for pod in workers)
        on_gpu = settings.embed.use_gpu
        needed = plan["decode_cores"] + (0 if on_gpu else plan["encode_cores"])
        if cores < needed or (on_gpu and gpus < plan["gpus"]):
            yield (
                f"{name_of(thing)}: to end in activeDeadlineSeconds, with time for {SPARE} times "
                f"as much, {wanted.tracks:,} tracks take {needed} cores and "
                f"{plan['gpus'] if on_gpu else 0} GPUs; it has {cores} and {gpus}"
            )


def caches(objects: list[Manifest]) -> Iterator[str]:
    """Decoded audio is on each machine's own disk, in a volume at least as large as its budget."""
    for thing, cluster in rays(objects):
        if thing["metadata"]["name"] != "train" or thing["kind"] != "RayJob":
            continue
        head, *workers = pods_of_cluster(name_of(thing), cluster)
        try:
            train = job_command(thing, head)[0].train
        except InputError:
            continue  # reported by code_rules.entrypoints
        for pod in workers:
            mounts = {m["mountPath"]: m["name"] for m in pod.main["volumeMounts"]}
            volumes = {v["name"]: v.get("emptyDir", {}) for v in pod.spec["volumes"]}
            volume = volumes.get(mounts.get(train.cache_folder, ""), {})
            size_gib = quantity(volume.get("sizeLimit", 0)) / 2**30
            if size_gib < CACHE_ROOM * train.cache_gib:
                yield (
                    f"{pod.where}: train.cache_gib={train.cache_gib:g} needs an emptyDir of "
                    f"{CACHE_ROOM * train.cache_gib:g} GiB at train.cache_folder="
                    f"{train.cache_folder or '(unset)'}; there are {size_gib:g} GiB"
                )
