"""Models and text encoders in the workspace, fetched once so that no job needs a hub.

    models/<name>/                a text encoder's or language model's own files; for a published
                                  model our own folder, which needs no other
    models/<name>/fetched.json    written last: kind, source, licence, and a digest of the files

A job's pods have no network to a hub, and a worker does not see the folders of another machine. So
one process resolves a name, from a folder, the hub's cache, the hub or a pip package. Every worker
reads the copy.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from pathlib import Path
from typing import TypedDict

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
from raymtr.tower_specs import TextTowerSpec
from raymtr.workspace import FETCHED, Workspace

LOG = logging.getLogger("raymtr")

KNOWN = (*PUBLISHED, NAME)  # names of models with their own entry
ENCODER, LANGUAGE_MODEL, MODEL = "text encoder", "language model", "model"


class FetchedFacts(TypedDict):
    """What was fetched, as its folder records it."""

    name: str
    kind: str
    source: str
    digest: str
    licence: str | None


class FetchAnswer(FetchedFacts):
    """What was fetched, its folder, and whether it is new there."""

    folder: str
    new: bool


def fetch(name: str, workspace: Workspace) -> FetchAnswer:
    """Fetch `name` into the workspace unless it is there; return its facts and its `folder`.

    A name is one of KNOWN, or a folder or hub name of a text encoder or of a causal language model.
    The copy of a folder is named by a digest of its content, so a changed folder is fetched again.
    Raises InputError for an unknown name, UnusableError where a hub is needed and none answers.
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


def fetch_text_tower(spec: TextTowerSpec, workspace: Workspace) -> FetchAnswer:
    """`fetch` the spec's source. Raises InputError also where it is not a text encoder."""
    facts = fetch(spec.source, workspace)
    if facts["kind"] != ENCODER:
        raise InputError(f"text_tower.source={spec.source} is a {facts['kind']}, not a {ENCODER}")
    return facts


def _known(folder: str) -> FetchAnswer | None:
    if not storage.exists(f"{folder}/{FETCHED}"):
        return None
    facts: FetchedFacts = storage.read_json(f"{folder}/{FETCHED}")
    return {**facts, "folder": folder, "new": False}


def _bring_model(name: str, folder: str) -> FetchAnswer:
    """Save a published model as our own folder; TTMR++'s release alone needs a text encoder."""
    storage.delete(folder)  # left by a fetch that was killed
    model = load_model(name)
    model.save(folder)
    about = model.provenance
    facts = FetchedFacts(
        name=name,
        kind=MODEL,
        source=about["source"],
        digest=model.fingerprint,
        licence=about["licence"],
    )
    return _finish(folder, facts)


def _bring_files(name: str, source: Path, folder: str) -> FetchAnswer:
    kind = _kind_of(source)
    if kind == ENCODER:  # check that it is complete and a text encoder before any copy
        find_text_tower(TextTowerSpec(source=str(source), max_tokens=3))
    names = _files_of(source)
    for file in names:
        storage.write_bytes(f"{folder}/{file}", (source / file).read_bytes())
    packaged = MINILM_PACKAGE in source.parts
    facts = FetchedFacts(
        name=name,
        kind=kind,
        source=f"pip package {MINILM_PIP}" if packaged else str(source),
        digest=_digest(source, names),
        licence=_licence_of(source),
    )
    return _finish(folder, facts)


def _finish(folder: str, facts: FetchedFacts) -> FetchAnswer:
    storage.write_json(f"{folder}/{FETCHED}", facts)
    licence = facts["licence"] or "not stated"
    LOG.info("%s (%s) from %s; licence: %s", facts["name"], facts["kind"], facts["source"], licence)
    return {**facts, "folder": folder, "new": True}


def _folder_of(name: str) -> Path:
    """A complete copy of `name` in the hub's cache, from the hub, or from a pip package."""
    for folder, whole in places_of(name):
        if whole or _is_whole(folder):
            return folder
    raise AssertionError("the last place is complete")


def _is_whole(folder: Path) -> bool:
    """Whether the files in the hub's cache suffice to load the model."""
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
    """The model's file names in `folder`; old-format weights only without safetensors."""
    names = sorted({file.name for pattern in FILES for file in folder.glob(pattern)})
    if not any(name.endswith(".safetensors") for name in names):
        names += sorted(file.name for file in folder.glob(OLD_WEIGHTS[0]))
    return names


def _kind_of(folder: Path) -> str:
    """The kind of model. Raises InputError where the folder has no transformers config."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        made_for = " ".join(config.get("architectures") or ())
        known = bool(config["model_type"])
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(
            f"{folder} has no model of transformers ({type(error).__name__}: {error}); names "
            f"that can be fetched: {', '.join(KNOWN)}, and a text encoder or language model, "
            "by folder or by its hub name"
        ) from error
    return LANGUAGE_MODEL if known and "ForCausalLM" in made_for else ENCODER


def _licence_of(folder: Path) -> str | None:
    """The licence in the front matter of the model card."""
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
    """12 hex digits over the names and bytes of the files."""
    digest = hashlib.sha256()
    for name in names:
        with open(folder / name, "rb") as file:
            digest.update(f"{name}\0".encode())
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:12]
