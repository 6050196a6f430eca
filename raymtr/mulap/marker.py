"""The file that marks a MuLaP model, read without torch: a job's driver asks for no more.

It is not `config.json`: a MuLaP model has no joint space, so nothing that looks for a model to
embed or to search with may take it for one.
"""

from __future__ import annotations

from raymtr import storage

MARKER = "mulap.json"


def is_mulap(folder: str) -> bool:
    """Whether `folder` (path or URI) holds a whole MuLaP model."""
    return storage.exists(f"{folder}/{MARKER}")
