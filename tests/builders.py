"""Builders that several test files share, beside the fixtures of conftest.py."""

from __future__ import annotations

import shutil

from raymtr import storage
from raymtr.embeddings.rewrite import partition_shards
from raymtr.embeddings.store import EmbeddingStore, find_embeddings
from raymtr.index.build import Build
from raymtr.index.build_tables import tracks_table
from raymtr.index.publish import publish
from raymtr.specs import SearchSpec
from raymtr.workspace import Workspace


def divide(workspace: Workspace, count: int) -> EmbeddingStore:
    """Rewrite the workspace's embeddings in `count` partitions."""
    shards = find_embeddings(workspace)
    shards.take()
    partition_shards(shards, count)
    shards.note(partitions=count)
    shards.release()
    return shards


def publish_catalog(
    workspace: Workspace, *, model: str | None = None, search: SearchSpec | None = None
) -> Build:
    """Publish the catalog with its vectors, if it has any.

    `model` is the folder of the model of the vectors, which is copied beside them.
    """
    embedded = storage.list_folders(workspace.path("embeddings"))
    shards = find_embeddings(workspace) if embedded else None
    if model is not None and shards is not None:
        shutil.copytree(model, shards.model_folder)
    tracks = tracks_table(storage.read_tables(workspace.tracks), None)
    return publish(workspace, [tracks], shards, search=search or SearchSpec())
