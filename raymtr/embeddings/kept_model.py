"""The model that computes the vectors: its identity, and its copy stored beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raymtr import storage
from raymtr.embeddings.store import EmbeddingStore, ModelRef
from raymtr.model.identity import CONFIG, GOLDEN, Identity, read_identity
from raymtr.specs import Precision
from raymtr.workspace import Workspace

if TYPE_CHECKING:
    from raymtr.model.model import Model


def identify(source: str, precision: Precision) -> Identity | Model:
    """Identify the model at `source`, a path or a name; load it only if that is necessary."""
    if known := read_identity(source, precision):
        return known
    from raymtr.model.pretrained import load_model  # torch

    return load_model(source, precision=precision, audio_only=True)


def keep_model(source: str, model: Identity | Model, folder: str) -> None:
    """Store the model beside its vectors, for the actors and for later searches."""
    if isinstance(model, Identity) or storage.exists(f"{source}/{GOLDEN}"):
        storage.copy_folder(source, folder, last=CONFIG)
    else:  # a checkpoint of another format: it was loaded whole and is saved in raymtr's format
        model.save(folder)


def open_store(workspace: Workspace, model: Identity | Model) -> EmbeddingStore:
    """The store of this model's vectors; its folder need not exist yet."""
    made_by = ModelRef(fingerprint=model.fingerprint, precision=model.precision, dim=model.spec.dim)
    return EmbeddingStore(workspace.embeddings(model.fingerprint), made_by)
