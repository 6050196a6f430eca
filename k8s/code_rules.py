"""Checks manifests against the code they run: flags, settings, resources and versions.

The checks use the real parser and the real settings, never a copy of them.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import io
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from jobs.__main__ import VERBS, parser_of
from k8s.kustomize import Manifest
from k8s.pods import Pod, pods, pods_of_cluster, rays
from k8s.schemas import name_of
from raymtr.errors import InputError
from raymtr.settings import load_settings
from raymtr.specs import Settings

ROOT = Path(__file__).resolve().parents[1]
LOCKS = {"cpu": ("requirements/cpu.txt",), "vllm": ("requirements/vllm-gpu.txt",)}  # Dockerfile
SHELL = re.compile(r"[;&|<>$`*?~()\n]")  # Ray passes an entrypoint to a shell
IN_A_SHELL = re.compile(r"\$(\w+)")
IN_A_COMMAND = re.compile(r"\$\((\w+)\)")  # Kubernetes' own syntax


def entrypoints(objects: list[Manifest]) -> Iterator[str]:
    """Each RayJob runs a valid raymtr command, and its cluster has the resources it requests."""
    for thing, cluster in rays(objects):
        name = name_of(thing)
        clusters = pods_of_cluster(name, cluster)
        if thing["kind"] == "RayJob":
            try:
                settings, arguments = job_command(thing, clusters[0])
            except InputError as error:
                yield f"{name}: entrypoint: {error}"
                continue
            yield from _room(name, thing["metadata"]["name"], settings, clusters[1:])
            yield from _reachable(name, arguments, clusters)
            yield from _engines(name, settings, arguments, clusters)
        yield from _start_options(name, cluster)
    for pod in pods(objects):
        for container in pod.containers if pod.role == "other" else ():
            if container.get("command", [])[:1] != ["raymtr"]:
                continue
            known = environment(container)
            try:
                words = [expand(word, known, IN_A_COMMAND) for word in container["command"]]
                _, arguments = parse_command(shlex.join(words), environment=known)
            except InputError as error:
                yield f"{pod.where}: command: {error}"
                continue
            yield from _reachable(pod.where, arguments, [pod])


def job_command(job: Manifest, head: Pod) -> tuple[Settings, argparse.Namespace]:
    """The entrypoint of a RayJob as its head's shell reads it. Raises InputError."""
    known = environment(head.main)
    line = expand(job["spec"]["entrypoint"], known, IN_A_SHELL)
    return parse_command(line, environment=known)


def environment(container: Manifest) -> dict[str, str]:
    """The variables that a container gets as literal values."""
    return {v["name"]: v["value"] for v in container.get("env", []) if "value" in v}


def expand(line: str, known: Mapping[str, str], form: re.Pattern[str]) -> str:
    """`line` with its variables expanded. Raises InputError on one that the pod does not set."""
    for name in form.findall(line):
        if name not in known:
            raise InputError(
                f"{name} is not a variable of its pod; it has: {', '.join(known) or 'none'}"
            )
    return form.sub(lambda found: known[found[1]], line)


def parse_command(
    line: str, *, environment: Mapping[str, str] | None = None
) -> tuple[Settings, argparse.Namespace]:
    """Parses a `raymtr ...` line with the real parser and settings. Raises InputError."""
    if SHELL.search(line):
        raise InputError(f"{line!r} has characters that a shell interprets")
    program, *words = shlex.split(line)
    if program != "raymtr" or not words or words[0] not in VERBS:
        raise InputError(f"{line!r} is not a verb of raymtr")
    verb, *rest = words
    output = io.StringIO()
    parser = parser_of(verb, importlib.import_module(f"jobs.{VERBS[verb][0]}"))
    try:
        with contextlib.redirect_stderr(output), contextlib.redirect_stdout(output):
            arguments = parser.parse_args(rest)
    except SystemExit as error:
        raise InputError(output.getvalue().strip().splitlines()[-1]) from error
    settings = load_settings(
        arguments.recipe,
        config=arguments.config,
        environment=environment or {},
        assignments=arguments.set,
    )
    return settings, arguments


def _room(name: str, job: str, settings: Settings, workers: list[Pod]) -> Iterator[str]:
    """The workers have the cores and GPUs that a job's settings request."""
    train, tune = settings.train, settings.finetune
    embed, caption = settings.embed, settings.caption
    requested = {  # count, cores of each, GPUs of each
        "finetune": (tune.workers, tune.threads, int(tune.use_gpu)),
        "train": (train.workers, train.threads, int(train.use_gpu)),
        "embed": (embed.actors, embed.threads, int(embed.use_gpu)),
        "generate": (embed.actors, embed.threads, int(embed.use_gpu)),
        "caption": (caption.actors, caption.threads, caption.use_gpu * caption.tensor_parallel),
    }
    if job not in requested:
        return
    count, threads, each = requested[job]
    # Workers that can host one: GPU pods if GPUs are requested. One core of each worker stays free
    # for tasks, which then find one for any placement of the actors.
    room = 0
    for pod in workers:
        cores, gpus = int(pod.limit("cpu")), int(pod.limit("nvidia.com/gpu"))
        if bool(gpus) == bool(each):
            room += min((cores - 1) // threads, gpus // each if each else cores) * pod.most
    if room < count:
        yield f"{name}: {count} of {threads} cores and {each} GPUs are requested, {room} fit"
    there = sum(int(pod.limit("nvidia.com/gpu")) * pod.most for pod in workers)
    if there != count * each:
        yield f"{name}: {count * each} GPUs are used, its workers have {there}"


def _reachable(name: str, arguments: argparse.Namespace, cluster: list[Pod]) -> Iterator[str]:
    """Folders that a job reads or writes are mounted in each of its pods."""
    keys = ("source", "pairs", "base", "model", "prompts")
    others = [getattr(arguments, key, None) for key in keys]
    for path in (arguments.workspace, *others):
        if path is None or not path.startswith("/"):
            continue
        for pod in cluster:
            mounts = {m["mountPath"]: m for m in pod.main["volumeMounts"]}
            holding = [m for m in mounts if path == m or path.startswith(f"{m}/")]
            if not holding:
                yield f"{name}: {path} is not mounted in {pod.where}"
            elif path == arguments.workspace and mounts[holding[0]].get("readOnly"):
                yield f"{name}: {path} is read only in {pod.where}"


def _engines(
    name: str, settings: Settings, arguments: argparse.Namespace, cluster: list[Pod]
) -> Iterator[str]:
    """The images contain the packages that the settings need."""
    wanted = []
    if getattr(arguments, "engine", None) == "vllm":
        wanted += [("--engine vllm", "vllm", pod) for pod in cluster]
    if "pairs" in arguments and settings.finetune.quantization != "none":
        wanted += [("finetune.quantization", "bitsandbytes", pod) for pod in cluster[1:]]
    for setting, package, pod in wanted:
        if package not in packages_of(pod.main["image"]):
            yield f"{name}: {setting} needs {package}, which {pod.main['image']} lacks"


@functools.cache
def packages_of(image: str, root: Path = ROOT) -> frozenset[str]:
    """The packages in the locks of an image, identified by the last part of its name."""
    kind = image.rpartition("/")[2].partition(":")[0]
    locks = LOCKS["cpu"] + (LOCKS["vllm"] if kind == "raymtr-vllm" else ())
    lines = "".join((root / lock).read_text(encoding="utf-8") for lock in locks)
    return frozenset(re.findall(r"^([\w.-]+)==", lines, re.MULTILINE))


def _start_options(name: str, cluster: Manifest) -> Iterator[str]:
    from ray.scripts.scripts import start

    known = {text for option in start.params for text in option.opts}
    for group in (cluster["headGroupSpec"], *cluster.get("workerGroupSpecs", [])):
        for key in group.get("rayStartParams", {}):
            if f"--{key}" not in known:
                yield f"{name}: rayStartParams: `ray start` knows no --{key}"


def versions(objects: list[Manifest], root: Path = ROOT) -> Iterator[str]:
    """One Ray version in lock, package, image and manifests; one torch version; one tag."""
    lock = (root / "requirements/cpu.txt").read_text(encoding="utf-8")
    locked = dict(re.findall(r"^([\w.-]+)==(\S+)$", lock, re.MULTILINE))
    ray = locked["ray"]
    package = (root / "pyproject.toml").read_text(encoding="utf-8")
    for extra, version in re.findall(r"ray\[([\w,]+)\]==([\d.]+)", package):
        if version != ray:
            yield f"pyproject.toml: ray[{extra}] is {version}, the lock's {ray}"
    for thing, cluster in rays(objects):
        if cluster.get("rayVersion") != ray:
            yield f"{name_of(thing)}: rayVersion is {cluster.get('rayVersion')}, the image's {ray}"
    dockerfile = (root / "k8s/Dockerfile").read_text(encoding="utf-8")
    torch = re.search(r"^TORCH\s*:=\s*(\S+)", (root / "Makefile").read_text(), re.MULTILINE)
    assert torch, "Makefile names no TORCH"
    for found in re.findall(r"torch==[\d.]+", dockerfile):
        if found != torch[1]:
            yield f"Dockerfile: {found}, the Makefile's {torch[1]}"
    if re.search(r"pip install[^\n&]*\bray\b", dockerfile):
        yield "Dockerfile: Ray is installed beside the lock"
    raymtr = re.search(r'^version = "(.+)"', package, re.MULTILINE)
    for pod in pods(objects):
        name, _, tag = pod.main["image"].rpartition(":")
        if "/raymtr-" in name and raymtr and tag.partition("-")[0] != raymtr[1]:
            yield f"{pod.where}: image {tag} is not raymtr {raymtr[1]}"
