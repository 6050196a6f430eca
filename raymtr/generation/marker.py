"""The file that marks a MusicLM model. Checking it needs no torch, which job drivers avoid."""

from __future__ import annotations

from raymtr import storage
from raymtr.errors import InputError
from raymtr.workspace import Workspace

MARKER = "musiclm.json"
CURE = "train it with `raymtr train --recipe musiclm-depth`"


def require_musiclm(folder: str) -> None:
    """Raise InputError if `folder` (path or URI) has no complete MusicLM model."""
    if not storage.exists(f"{folder}/{MARKER}"):
        raise InputError(f"{folder} is no MusicLM model (it has no {MARKER}); {CURE}")


def choose_musiclm(workspace: Workspace, model: str | None) -> str:
    """Folder of the requested MusicLM model, or of the newest run's model.

    Raises InputError if no run has finished.
    """
    if model:
        return workspace.trained(model)
    if newest := workspace.newest_model(MARKER):
        return newest
    raise InputError(
        f"no MusicLM run has finished in {workspace.root}: run `raymtr tokenize` and `raymtr train`"
        " with --recipe musiclm-depth, or name a model with --model"
    )
