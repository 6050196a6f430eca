"""Settings from recipe, file, environment and `--set key=value`, merged into one `Settings`.

Later sources override earlier ones. Every source names settings by the same dotted path
(`train.steps`). An unknown name is an error that lists the accepted ones.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from raymtr.errors import InputError
from raymtr.recipes import DEFAULT_RECIPE, RECIPES
from raymtr.specs import Settings
from raymtr.validation import from_dict, to_dict

ENVIRONMENT_PREFIX = "RAYMTR_SET_"  # RAYMTR_SET_TRAIN__STEPS=100 is train.steps=100


def load_settings(
    recipe: str | None = None,
    *,
    config: str | None = None,
    environment: Mapping[str, str] | None = None,
    assignments: Iterable[str] = (),
) -> Settings:
    """The settings of a command.

    `config` is a TOML or JSON file of nested settings (it may name its `recipe`). `assignments` are
    `key=value` strings whose values are JSON or bare words. Raises InputError on anything unknown
    or of the wrong type.
    """
    values = read_config(config) if config else {}
    name = recipe or values.get("recipe") or DEFAULT_RECIPE
    if not isinstance(name, str) or name not in RECIPES:
        raise InputError(f"unknown recipe {name!r}; accepted: {', '.join(RECIPES)}")
    tree = to_dict(RECIPES[name]())
    merge(tree, values | {"recipe": name})
    for variable, text in sorted((environment or {}).items()):
        if variable.startswith(ENVIRONMENT_PREFIX):
            key = variable.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", ".")
            assign(tree, key, _parse(text))
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise InputError(f"--set takes key=value, got {assignment!r}")
        assign(tree, key.strip(), _parse(text.strip()))
    if tree["recipe"] != name:
        raise InputError(f"recipe={tree['recipe']} is not a setting; choose it with --recipe")
    return from_dict(Settings, tree)


def read_config(path: str) -> dict[str, Any]:
    """A settings file, TOML or JSON by its suffix."""
    file = Path(path)
    if not file.is_file():
        raise InputError(f"settings file {path} does not exist")
    try:
        text = file.read_text(encoding="utf-8")
        values = json.loads(text) if file.suffix == ".json" else tomllib.loads(text)
    except ValueError as error:
        raise InputError(f"settings file {path} does not parse: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"settings file {path} must contain a table of settings")
    return values


def merge(tree: dict[str, Any], values: Mapping[str, Any]) -> None:
    """Merge nested `values` into `tree`, in place. A mixture, which has free keys, is replaced."""
    for key, value in values.items():
        here = tree.get(key)
        if isinstance(value, Mapping) and isinstance(here, dict) and key != "mixture":
            merge(here, value)
        else:
            tree[key] = value


def assign(tree: dict[str, Any], key: str, value: Any) -> None:
    """Set one dotted `key` in `tree`, in place; other keys do not change."""
    *groups, leaf = key.split(".")
    for depth, group in enumerate(groups):
        below = tree.setdefault(group, {})
        if not isinstance(below, dict):
            raise InputError(f"setting {'.'.join(groups[: depth + 1])!r} is a value, not a group")
        tree = below
    merge(tree, {leaf: value})


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
