"""The file that marks a MuLaP model, read without torch, which a job's driver does not load.

It is not `config.json`: a MuLaP model has no joint space, so it must not be found by code that
looks for a model to embed or search with.
"""

from __future__ import annotations

from raymtr import storage

MARKER = "mulap.json"


def is_mulap(folder: str) -> bool:
    """Whether `folder` (path or URI) has a complete MuLaP model."""
    return storage.exists(f"{folder}/{MARKER}")
