"""Models and text towers in the workspace: brought there once, so that no job asks a hub.

    models/<name>/                a text encoder's or language model's own files; of a published
                                  model our own folder, which needs no other
    models/<name>/fetched.json    written last: kind, source, licence, and a digest of the files

A job's pods have no network to a hub, and a worker knows no folder of another machine. So a name
is resolved by one process, from a folder, the hub's cache, the hub or a pip package, and every
worker reads the copy.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from pathlib import Path
from typing import Any

import yaml

from raymtr import storage
from raymtr.errors import InputError
from raymtr.model.hub import looks_like_folder
from raymtr.model.identity import CONFIG
from raymtr.model.musicnn_minilm import NAME
from raymtr.model.pretrained import PUBLISHED, load_model
from raymtr.model.text_tower import (
    FILES,
    MINILM_PACKAGE,
    MINILM_PIP,
    OLD_WEIGHTS,
    find_text_tower,
    places_of,
)
from raymtr.specs import TextTowerSpec
from raymtr.workspace import FETCHED, Workspace

LOG = logging.getLogger("raymtr")

KNOWN = (*PUBLISHED, NAME)  # models that have a name of their own
ENCODER, LANGUAGE_MODEL, MODEL = "text encoder", "language model", "model"


def fetch(name: str, workspace: Workspace) -> dict[str, Any]:
    """Bring `name` into the workspace, unless it is there; what it is, and its `folder` there.

    A name is one of KNOWN, or a folder or hub name of a text encoder or of a causal language
    model. A folder's copy is named by its content, so that a changed one is brought anew. Raises
    InputError where the name means nothing, UnusableError where it needs a hub and none answers.
    """
    if name in KNOWN:
        return _known(folder := workspace.fetched(name)) or _bring_model(name, folder)
    if os.path.isdir(name):
        source = Path(name).resolve()
        called = re.sub(r"[^A-Za-z0-9_.-]", "-", source.name).lstrip(".-") or "folder"
        folder = workspace.fetched(f"{called}-{_digest(source, _files_of(source))}")
        return _known(folder) or _bring_files(name, source, folder)
    if looks_like_folder(name):
        raise InputError(f"there is no folder {name}")
    folder = workspace.fetched(name)
    return _known(folder) or _bring_files(name, _folder_of(name), folder)


def fetch_text_tower(spec: TextTowerSpec, workspace: Workspace) -> dict[str, Any]:
    """`fetch` of the spec's source. Raises InputError also where that is no text encoder."""
    facts = fetch(spec.source, workspace)
    if facts["kind"] != ENCODER:
        raise InputError(f"text_tower.source={spec.source} is a {facts['kind']}, no {ENCODER}")
    return facts


def _known(folder: str) -> dict[str, Any] | None:
    if not storage.exists(f"{folder}/{FETCHED}"):
        return None
    return {**storage.read_json(f"{folder}/{FETCHED}"), "folder": folder, "new": False}


def _bring_model(name: str, folder: str) -> dict[str, Any]:
    """A published model, saved as our own: TTMR++'s release alone still needs a text encoder."""
    storage.delete(folder)  # of a fetch that was killed
    model = load_model(name)
    model.save(folder)
    facts = {"digest": model.fingerprint, "licence": model.provenance["licence"]}
    return _finish(folder, name, MODEL, model.provenance["source"], facts)


def _bring_files(name: str, source: Path, folder: str) -> dict[str, Any]:
    kind = _kind_of(source)
    if kind == ENCODER:  # whole, and of the right kind, or nothing is copied
        find_text_tower(TextTowerSpec(source=str(source), max_tokens=3))
    names = _files_of(source)
    for file in names:
        storage.write_bytes(f"{folder}/{file}", (source / file).read_bytes())
    facts = {"digest": _digest(source, names), "licence": _licence_of(source)}
    return _finish(folder, name, kind, str(source), facts)


def _finish(
    folder: str, name: str, kind: str, source: str, facts: dict[str, Any]
) -> dict[str, Any]:
    if MINILM_PACKAGE in Path(source).parts:
        source = f"pip package {MINILM_PIP}"
    facts = {"name": name, "kind": kind, "source": source, **facts}
    storage.write_json(f"{folder}/{FETCHED}", facts)
    licence = facts["licence"] or "not stated"
    LOG.info("%s (%s) from %s; licence: %s", name, kind, source, licence)
    return {**facts, "folder": folder, "new": True}


def _folder_of(name: str) -> Path:
    """The hub's whole copy, or a package's, of what `name` names."""
    for folder, whole in places_of(name):
        if whole or _is_whole(folder):
            return folder
    raise AssertionError("the last place is whole")


def _is_whole(folder: Path) -> bool:
    """Whether the hub's cache holds enough of a repository to be read."""
    names = _files_of(folder)
    shards = [f for f in names if f.endswith(".index.json")]
    wanted = {
        part
        for index in shards
        for part in json.loads((folder / index).read_text())["weight_map"].values()
    }
    weights = [f for f in names if f.endswith((".safetensors", ".bin"))]
    return CONFIG in names and bool(weights) and wanted <= set(names)


def _files_of(folder: Path) -> list[str]:
    """Names of the files that belong to a model in `folder`; old weights where it has no others."""
    names = sorted({file.name for pattern in FILES for file in folder.glob(pattern)})
    if not any(name.endswith(".safetensors") for name in names):
        names += sorted(file.name for file in folder.glob(OLD_WEIGHTS[0]))
    return names


def _kind_of(folder: Path) -> str:
    """Raises InputError where the folder holds no configuration that transformers wrote."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        made_for = " ".join(config.get("architectures") or ())
        known = bool(config["model_type"])
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(
            f"{folder} holds no model of transformers ({type(error).__name__}: {error}); names "
            f"that can be fetched: {', '.join(KNOWN)}, and a text encoder or language model, "
            "by folder or by its hub name"
        ) from error
    return LANGUAGE_MODEL if known and "ForCausalLM" in made_for else ENCODER


def _licence_of(folder: Path) -> str | None:
    """As the model card's head states it."""
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    head = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
    try:
        facts = yaml.safe_load(head[1]) if head else None
    except yaml.YAMLError:
        facts = None
    licence = facts.get("license") if isinstance(facts, dict) else None
    return str(licence) if licence else None


def _digest(folder: Path, names: list[str]) -> str:
    """12 hex digits of all these files' names and bytes."""
    digest = hashlib.sha256()
    for name in names:
        with open(folder / name, "rb") as file:
            digest.update(f"{name}\0".encode())
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:12]
