"""Clips from `generate --prompts`, by the fingerprint of the model that generated them."""

from __future__ import annotations

from typing import TypedDict

import pyarrow.compute as pc

from raymtr import storage
from raymtr.errors import InputError
from raymtr.workspace import Workspace


class ClipRow(TypedDict):
    """The columns of a clip's manifest row that evaluations use."""

    uri: str
    prompt: str
    model: str
    parts: str  # their fingerprint


def clips_of(workspace: Workspace, fingerprint: str | None) -> list[ClipRow]:
    """Manifest rows of one model's clips that did not fail; by default those of the only model.

    Raises InputError if there are no clips, or clips of several models and no fingerprint.
    """
    root = workspace.generated
    found = [n for n in storage.list_folders(root) if storage.exists(f"{root}/{n}/manifest")]
    models = ", ".join(found) or "none"
    if fingerprint is None and len(found) > 1:
        raise InputError(f"{root} has clips of several models; choose with --clips: {models}")
    if not found or (fingerprint is not None and fingerprint not in found):
        raise InputError(
            f"no clips of {fingerprint or 'any model'} in {root} (there are: {models}); run "
            "`raymtr generate --prompts FILE`"
        )
    table = storage.read_tables(f"{root}/{fingerprint or found[0]}/manifest")
    assert table is not None, "a manifest folder has a file"
    rows: list[ClipRow] = table.filter(pc.is_null(table["code"])).to_pylist()
    return rows
