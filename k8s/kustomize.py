"""Renders a kustomization as `kubectl kustomize` does, for the features used here.

The checks must run without kubectl. Supported: resources (files, folders, Lists), components, the
namespace, images, and patches (JSON 6902 lists, `$patch: delete`). Anything else in a kustomization
is an error and never skipped, so a manifest cannot mean more to a cluster than to the checks. If
kubectl is installed, a test compares both results.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

Manifest = dict[str, Any]

KNOWN_KEYS = {"apiVersion", "kind", "namespace", "resources", "components", "images", "patches"}
WITHOUT_NAMESPACE = {"Namespace", "PriorityClass"}  # of the kinds used here


class KustomizeError(ValueError):
    """A kustomization that is wrong, or uses an unsupported feature."""


def render(folder: Path, *, onto: Iterable[Manifest] = ()) -> list[Manifest]:
    """Every object of the kustomization in `folder`, patched; for a component, those of `onto` too.

    Raises KustomizeError.
    """
    wanted = _read_one(folder / "kustomization.yaml")
    unknown = sorted(set(wanted) - KNOWN_KEYS)
    if unknown:
        raise KustomizeError(f"{folder}: {unknown[0]!r} is not supported here; known: {KNOWN_KEYS}")
    objects = [_unshared(thing) for thing in onto]
    for name in wanted.get("resources", []):
        path = folder / name
        if path.is_dir():
            objects += render(path)
        elif path.is_file():
            objects += read_objects(path)
        else:
            raise KustomizeError(f"{folder}: there is no {name}")
    for name in wanted.get("components", []):
        if not is_component(folder / name):
            raise KustomizeError(f"{folder}: {name} is not a Component")
        objects = render(folder / name, onto=objects)
    for patch in wanted.get("patches", []):
        objects = _patched(objects, patch, folder)
    for image in wanted.get("images", []):
        for thing in objects:
            _set_image(thing, image)
    if "namespace" in wanted:
        for thing in objects:
            _set_namespace(thing, wanted["namespace"])
    names = [(o["kind"], o["metadata"]["name"]) for o in objects]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise KustomizeError(f"{folder}: defined twice: {sorted(twice)}")
    return objects


def is_component(folder: Path) -> bool:
    """Whether it changes objects of others, rather than being complete itself."""
    return bool(_read_one(folder / "kustomization.yaml").get("kind") == "Component")


def read_objects(path: Path) -> list[Manifest]:
    """The objects of one file; a List is expanded."""
    found: list[Manifest] = []
    for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
        if document is None:
            continue
        items = document["items"] if document.get("kind") == "List" else [document]
        found += [_unshared(item) for item in items]
    return found


def _unshared(value: Any) -> Any:
    """A copy without shared references from anchors: a patch of one use must not affect others."""
    if isinstance(value, dict):
        return {key: _unshared(item) for key, item in value.items()}
    return [_unshared(item) for item in value] if isinstance(value, list) else value


def _read_one(path: Path) -> Any:
    if not path.is_file():
        raise KustomizeError(f"{path.parent} has no {path.name}")
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _patched(objects: list[Manifest], patch: Manifest, folder: Path) -> list[Manifest]:
    """The objects after one entry of `patches`; an entry that matches nothing is an error."""
    target = patch.get("target", {})
    if set(patch) - {"target", "patch", "path"} or set(target) - {"kind", "name"} or not target:
        raise KustomizeError(f"{folder}: patches have a target (kind, name) and a patch or a path")
    text = patch["patch"] if "patch" in patch else (folder / patch["path"]).read_text("utf-8")
    change = yaml.safe_load(text)
    chosen = [o for o in objects if _matches(o, target)]
    if not chosen:
        raise KustomizeError(f"{folder}: no object is {target}")
    if isinstance(change, list):
        for thing in chosen:
            for step in change:
                apply_step(thing, step)
        return objects
    if change.get("$patch") == "delete":
        return [thing for thing in objects if not _matches(thing, target)]
    raise KustomizeError(f"{folder}: a patch is a JSON 6902 list or `$patch: delete`")


def _matches(thing: Manifest, target: Manifest) -> bool:
    named = {"kind": thing["kind"], "name": thing["metadata"]["name"]}
    return all(re.fullmatch(pattern, named[key]) for key, pattern in target.items())


def apply_step(thing: Any, step: Manifest) -> None:
    """Applies one operation of RFC 6902 to `thing`, in place. Raises KustomizeError."""
    where, key = _parent(thing, step["path"])
    operation = step["op"]
    try:
        if operation == "test":
            if _item(where, key) != step["value"]:
                raise KustomizeError(f"{step['path']} is {_item(where, key)!r}, not as tested")
        elif operation == "remove":
            del where[_place(where, key)]
        elif operation == "replace":
            _item(where, key)
            where[_place(where, key)] = _unshared(step["value"])
        elif operation in ("add", "copy"):
            value = _item(*_parent(thing, step["from"])) if operation == "copy" else step["value"]
            if isinstance(where, list):
                where.insert(len(where) if key == "-" else int(key), _unshared(value))
            else:
                where[key] = _unshared(value)
        else:
            raise KustomizeError(f"operation {operation!r} is not supported here")
    except (KeyError, IndexError, ValueError) as error:
        raise KustomizeError(f"{operation} {step['path']}: there is no such value") from error


def _parent(thing: Any, pointer: str) -> tuple[Any, str]:
    """The container that a JSON pointer (RFC 6901) ends in, and the last key."""
    *way, last = [p.replace("~1", "/").replace("~0", "~") for p in pointer.split("/")[1:]]
    for key in way:
        try:
            thing = _item(thing, key)
        except (KeyError, IndexError, ValueError) as error:
            raise KustomizeError(f"{pointer}: there is no {key!r}") from error
    return thing, last


def _place(where: Any, key: str) -> Any:
    return int(key) if isinstance(where, list) else key


def _item(where: Any, key: str) -> Any:
    return where[_place(where, key)]


def _set_image(value: Any, image: Manifest) -> None:
    """Sets another name or tag for an image, in all containers."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key in ("containers", "initContainers") and isinstance(item, list):
                for container in item:
                    name, _, tag = container["image"].rpartition(":")
                    if name == image["name"]:
                        container["image"] = (
                            f"{image.get('newName', name)}:{image.get('newTag', tag)}"
                        )
            else:
                _set_image(item, image)
    elif isinstance(value, list):
        for item in value:
            _set_image(item, image)


def _set_namespace(thing: Manifest, namespace: str) -> None:
    if thing["kind"] == "Namespace":
        thing["metadata"]["name"] = namespace
    elif thing["kind"] not in WITHOUT_NAMESPACE:
        thing["metadata"]["namespace"] = namespace
    for subject in thing.get("subjects", []):
        subject["namespace"] = namespace


def by_name(objects: Iterable[Manifest], kind: str) -> dict[str, Manifest]:
    """The objects of one kind by their name."""
    return {o["metadata"]["name"]: o for o in objects if o["kind"] == kind}
