"""Validates manifests against the schemas of their readers: Kubernetes, KubeRay, Ray Serve.

Validation is strict: an unknown key is an error everywhere, because each of the three drops it
silently. Kubernetes' schemas come with the package kubernetes-validate, KubeRay's are in its CRDs.
Kinds of other projects (Gateway API, Prometheus) have no schema here and are listed as unchecked.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pydantic
import yaml

from k8s.kustomize import Manifest

KUBERNETES = "1.34"  # the oldest version that the manifests are checked for
TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
METADATA = {  # not in a CRD, checked by Kubernetes; these are the keys used here
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 41},  # KubeRay appends to it; a label: up to 63
        "namespace": {"type": "string"},
        "labels": TEXTS,
        "annotations": TEXTS,
    },
    "additionalProperties": False,
}
PLURALS = {"RayService": "rayservices", "RayJob": "rayjobs", "RayCluster": "rayclusters"}


def schema_problems(objects: list[Manifest], crds: Path | None) -> Iterator[str]:
    """The errors of the schemas."""
    for thing in objects:
        validator = validator_of(thing["apiVersion"], thing["kind"], crds)
        if validator is None:
            continue
        for error in validator.iter_errors(thing):
            for deepest in _deepest(error):
                path = "/".join(str(part) for part in deepest.absolute_path)
                yield f"{name_of(thing)}: {path}: {deepest.message[:300]}"


def unchecked_kinds(objects: list[Manifest], crds: Path | None) -> list[str]:
    """Kinds without a schema here."""
    kinds = {(o["apiVersion"], o["kind"]) for o in objects}
    return sorted(f"{v} {k}" for v, k in kinds if validator_of(v, k, crds) is None)


def name_of(thing: Manifest) -> str:
    """The name of an object in messages."""
    return f"{thing['kind']} {thing['metadata']['name']}"


@functools.cache
def validator_of(
    version: str, kind: str, crds: Path | None
) -> jsonschema.protocols.Validator | None:
    """The strict validator of a kind; None if there is no schema."""
    if version == "ray.io/v1":
        path = crds / f"ray.io_v1_{PLURALS[kind]}.json" if crds and kind in PLURALS else None
        if path is None or not path.is_file():
            return None
        return jsonschema.Draft202012Validator(_strict(_with_head(json.loads(path.read_text()))))
    if "." in version.partition("/")[0] and ".k8s.io/" not in version:
        return None
    return _kubernetes_validator(version, kind)


def _kubernetes_validator(version: str, kind: str) -> jsonschema.protocols.Validator | None:
    from kubernetes_validate import utils  # type: ignore[import-untyped]
    from referencing import Registry, Resource

    group = version.partition("/")[0].partition(".")[0]
    file = "-".join([kind.lower(), *([group] if "/" in version else []), version.split("/")[-1]])
    folder = f"kubernetes-json-schema/v{KUBERNETES}.0-local-strict"
    try:
        schema = utils.schema_contents(f"{folder}/{file}.json", KUBERNETES)
    except FileNotFoundError:
        return None
    registry = Resource.from_contents(_definitions(folder)) @ Registry()
    return jsonschema.Draft202012Validator(schema, registry=registry)


@functools.cache
def _definitions(folder: str) -> Any:
    from kubernetes_validate import utils

    return utils.schema_contents(f"{folder}/_definitions.json", KUBERNETES)


def _with_head(schema: Manifest) -> Manifest:
    """Adds the fields of every object, which a CRD's schema omits."""
    head = {"apiVersion": {}, "kind": {}, "metadata": METADATA}
    return {**schema, "properties": {**schema["properties"], **head}, "required": ["spec"]}


def _strict(schema: Any) -> Any:
    """A structural schema that refuses unlisted keys, otherwise like the API server's."""
    if isinstance(schema, list):
        return [_strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {key: _strict(value) for key, value in schema.items() if not key.startswith("x-")}
    if schema.get("x-kubernetes-int-or-string"):
        strict.pop("type", None)
    open_ended = schema.get("x-kubernetes-preserve-unknown-fields")
    if "properties" in schema and isinstance(schema["properties"], dict) and not open_ended:
        strict.setdefault("additionalProperties", False)
        if schema["properties"].get("metadata") == {"type": "object"}:
            strict["properties"]["metadata"] = METADATA
    return strict


def _deepest(error: jsonschema.ValidationError) -> Iterator[jsonschema.ValidationError]:
    """The errors inside an anyOf; else the error itself."""
    if error.context:
        yield jsonschema.exceptions.best_match(error.context) or error
    else:
        yield error


def serve_problems(service: Manifest) -> Iterator[str]:
    """Validates `serveConfigV2` against Ray's own schema; Ray itself would drop unknown keys."""
    from ray.serve.schema import ServeDeploySchema

    config = yaml.safe_load(service["spec"].get("serveConfigV2", ""))
    if not isinstance(config, dict):
        yield f"{name_of(service)}: serveConfigV2 is not a mapping"
        return
    for path in unknown_keys(ServeDeploySchema, config):
        yield f"{name_of(service)}: serveConfigV2: Ray Serve knows no {path}"
    try:
        ServeDeploySchema.model_validate(config)
    except pydantic.ValidationError as error:
        for wrong in error.errors():
            where = ".".join(str(part) for part in wrong["loc"])
            yield f"{name_of(service)}: serveConfigV2: {where}: {wrong['msg']}"


def unknown_keys(model: Any, value: Any, where: str = "") -> Iterator[str]:
    """Keys of `value` that a pydantic model would silently ignore."""
    if isinstance(value, list):
        for item in value:
            yield from unknown_keys(model, item, where)
        return
    if not isinstance(value, dict):
        return
    fields = model.model_fields
    for key, item in value.items():
        if key not in fields and key not in {f.alias for f in fields.values()}:
            yield f"{where}{key}"
            continue
        for inner in _models_in(fields[key].annotation) if key in fields else ():
            yield from unknown_keys(inner, item, f"{where}{key}.")


def _models_in(hint: Any) -> list[Any]:
    """The pydantic models a field may hold; none for a mapping of arbitrary values."""
    if isinstance(hint, type) and issubclass(hint, pydantic.BaseModel):
        return [hint]
    return [model for part in getattr(hint, "__args__", ()) for model in _models_in(part)]
