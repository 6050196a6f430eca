"""The file that marks a MusicLM model, read without torch: a job's driver asks for no more."""

from __future__ import annotations

from raymtr import storage

MARKER = "musiclm.json"


def is_musiclm(folder: str) -> bool:
    """Whether `folder` (path or URI) holds a whole MusicLM model."""
    return storage.exists(f"{folder}/{MARKER}")
