"""Manifests against the code they run: flags, settings, room for what they ask, versions.

Asked of the code itself, the real parser and the real settings, never of a copy of what it says.
"""

from __future__ import annotations

import argparse
import contextlib
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
from raymtr.settings import ENVIRONMENT_PREFIX, load_settings
from raymtr.specs import Settings

ROOT = Path(__file__).resolve().parents[1]
SHELL = re.compile(r"[;&|<>$`*?~()\n]")  # Ray hands an entrypoint to a shell


def entrypoints(objects: list[Manifest]) -> Iterator[str]:
    """What each RayJob runs is a command of ours, and its cluster has what it asks for."""
    for thing, cluster in rays(objects):
        name = name_of(thing)
        clusters = pods_of_cluster(name, cluster)
        if thing["kind"] == "RayJob":
            try:
                settings, arguments = parse_command(
                    thing["spec"]["entrypoint"], environment=_environment(clusters[0])
                )
            except InputError as error:
                yield f"{name}: entrypoint: {error}"
                continue
            yield from _room(name, thing["metadata"]["name"], settings, clusters[1:])
            yield from _reachable(name, arguments, clusters)
        yield from _start_options(name, cluster)
    for pod in pods(objects):
        command = pod.main.get("command", [])
        if pod.role == "other" and command[:1] == ["raymtr"]:
            try:
                _, arguments = parse_command(shlex.join(command))
            except InputError as error:
                yield f"{pod.where}: command: {error}"
                continue
            yield from _reachable(pod.where, arguments, [pod])


def parse_command(
    line: str, *, environment: Mapping[str, str] | None = None
) -> tuple[Settings, argparse.Namespace]:
    """A `raymtr ...` line through the real parser and the real settings. Raises InputError."""
    if SHELL.search(line):
        raise InputError(f"{line!r} has what a shell would read otherwise")
    program, *words = shlex.split(line)
    if program != "raymtr" or not words or words[0] not in VERBS:
        raise InputError(f"{line!r} is no verb of raymtr")
    verb, *rest = words
    said = io.StringIO()
    parser = parser_of(verb, importlib.import_module(f"jobs.{VERBS[verb][0]}"))
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            arguments = parser.parse_args(rest)
    except SystemExit as error:
        raise InputError(said.getvalue().strip().splitlines()[-1]) from error
    settings = load_settings(
        arguments.recipe,
        config=arguments.config,
        environment=environment or {},
        assignments=arguments.set,
    )
    return settings, arguments


def _environment(pod: Pod) -> dict[str, str]:
    env = pod.main.get("env", [])
    return {v["name"]: v["value"] for v in env if v["name"].startswith(ENVIRONMENT_PREFIX)}


def _room(name: str, job: str, settings: Settings, workers: list[Pod]) -> Iterator[str]:
    """The cores and GPUs that a job's settings ask for are there."""
    cores = {pod.where: int(pod.limit("cpu")) for pod in workers}
    gpus = sum(int(pod.limit("nvidia.com/gpu")) * pod.most for pod in workers)
    asked = {
        "embed": (settings.embed.actors, settings.embed.threads, settings.embed.use_gpu),
        "train": (settings.train.workers, settings.train.threads, settings.train.use_gpu),
        "caption": (settings.caption.actors, settings.caption.threads, settings.caption.use_gpu),
    }
    if job not in asked:
        return
    count, threads, on_gpu = asked[job]
    # Those that may hold one: GPU pods where GPUs are asked for. A core of each stays for tasks,
    # which then find one however the actors are spread.
    holding = [p for p in workers if bool(p.limit("nvidia.com/gpu")) == on_gpu]
    room = sum((cores[p.where] - 1) // threads * p.most for p in holding)
    if room < count:
        yield f"{name}: {count} of {threads} cores are asked for, its workers hold {room}"
    if gpus != (count if on_gpu else 0):
        yield f"{name}: {count if on_gpu else 0} GPUs are used, its workers have {gpus}"


def _reachable(name: str, arguments: argparse.Namespace, cluster: list[Pod]) -> Iterator[str]:
    """Folders a job reads or writes are mounted in each of its pods."""
    source = getattr(arguments, "source", None)
    for path in (arguments.workspace, source):
        if path is None or "://" in path:
            continue
        for pod in cluster:
            mounts = {m["mountPath"]: m for m in pod.main["volumeMounts"]}
            if path not in mounts:
                yield f"{name}: {path} is no mount of {pod.where}"
            elif path == arguments.workspace and mounts[path].get("readOnly"):
                yield f"{name}: {path} is read only in {pod.where}"


def _start_options(name: str, cluster: Manifest) -> Iterator[str]:
    from ray.scripts.scripts import start

    known = {text for option in start.params for text in option.opts}
    for group in (cluster["headGroupSpec"], *cluster.get("workerGroupSpecs", [])):
        for key in group.get("rayStartParams", {}):
            if f"--{key}" not in known:
                yield f"{name}: rayStartParams: `ray start` knows no --{key}"


def versions(objects: list[Manifest], root: Path = ROOT) -> Iterator[str]:
    """One Ray in lock, package, image and manifests; one torch; one tag."""
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
