"""Check the manifests without a cluster.

    python -m k8s.check [FOLDER ...] [--crds FOLDER]

Renders each kustomization (by default the base, every component over it, and every overlay),
validates the result against the schemas of Kubernetes, KubeRay and Ray Serve, and checks it against
the code it runs. Prints one problem per line and exits with 1 if there is any. Kubernetes' schemas
come from the package kubernetes-validate, which `make test` installs. KubeRay's CRDs are read from
--crds, a folder of `ray.io_v1_rayjobs.json` and so on; without it their kinds are listed as
unchecked.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import yaml

from k8s import (
    cluster_rules,
    code_rules,
    endpoint_rules,
    job_rules,
    network_rules,
    size_rules,
    upkeep_rules,
)
from k8s.kustomize import KustomizeError, Manifest, is_component, read_objects, render
from k8s.references import references
from k8s.schemas import schema_problems, serve_problems, unchecked_kinds

HERE = Path(__file__).resolve().parent
CRDS = HERE.parents[1] / "shared" / "kuberay-crds"


def kustomizations() -> list[Path]:
    """The base, the components and the overlays."""
    found = [*HERE.glob("components/*/"), *HERE.glob("overlays/*/")]
    return [HERE / "base", *sorted(path for path in found if path.name != "__pycache__")]


def objects_of(folder: Path) -> list[Manifest]:
    """The objects of a kustomization; for a component, the base with its changes."""
    return render(folder, onto=render(HERE / "base") if is_component(folder) else ())


def problems(objects: list[Manifest], *, crds: Path | None) -> Iterator[str]:
    """All problems of the objects of one kustomization.

    Schemas come first. Objects that they refuse are not checked further, because rules rely on the
    shape.
    """
    refused = list(schema_problems(objects, crds))
    for thing in objects:
        if thing["kind"] == "RayService":
            refused += serve_problems(thing)
    if refused:
        yield from refused
        return
    secrets = read_objects(HERE / "secrets.example.yaml")
    nodes = yaml.safe_load((HERE / "nodes.yaml").read_text(encoding="utf-8"))
    yield from references(objects, secrets)
    yield from cluster_rules.fit(objects, nodes)
    yield from cluster_rules.confinement(objects)
    yield from network_rules.isolation(objects)
    yield from cluster_rules.operator_rules(objects)
    yield from upkeep_rules.budgets(objects)
    yield from upkeep_rules.schedules(objects)
    yield from upkeep_rules.probes(objects)
    yield from upkeep_rules.namespaces(objects)
    yield from job_rules.templates(objects)
    yield from job_rules.machines(objects)
    yield from job_rules.offline(objects)
    yield from code_rules.entrypoints(objects)
    yield from code_rules.versions(objects)
    yield from size_rules.deadlines(objects)
    yield from size_rules.caches(objects)
    yield from endpoint_rules.serve_settings(objects)
    yield from endpoint_rules.one_configuration(objects)
    yield from endpoint_rules.metrics(objects)
    yield from endpoint_rules.routes(objects)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 without a problem, 1 with one, 2 if a package is missing."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    parser = argparse.ArgumentParser(prog="python -m k8s.check", description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path, default=kustomizations())
    parser.add_argument("--crds", type=Path, default=CRDS)
    arguments = parser.parse_args(argv)
    if find_spec("kubernetes_validate") is None:
        sys.stderr.write(
            "k8s.check needs Kubernetes' schemas, from the package kubernetes-validate, which is "
            "not installed: `pip install -r requirements/dev.txt` (`make test` does so)\n"
        )
        return 2
    crds = arguments.crds if arguments.crds.is_dir() else None
    found = 0
    for folder in arguments.folders:
        try:
            objects = objects_of(folder)
            here = list(problems(objects, crds=crds))
        except KustomizeError as error:
            objects, here = [], [str(error)]
        name = "/".join(folder.resolve().parts[-2:])
        for problem in here:
            sys.stdout.write(f"{name}: {problem}\n")
        unchecked = ", ".join(unchecked_kinds(objects, crds)) or "none"
        sys.stderr.write(
            f"{name}: {len(objects)} objects, {len(here)} problems; "
            f"kinds without a schema here: {unchecked}\n"
        )
        found += len(here)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
