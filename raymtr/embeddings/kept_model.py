"""The model that vectors are made with: which it is, and where it is kept beside them."""

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
    """What the model at `source`, a path or a name, is; loaded only where it has to be."""
    if known := read_identity(source, precision):
        return known
    from raymtr.model.pretrained import load_model  # torch

    return load_model(source, precision=precision, audio_only=True)


def keep_model(source: str, model: Identity | Model, folder: str) -> None:
    """Keep the model beside its vectors, for the actors and for every search to come."""
    if isinstance(model, Identity) or storage.exists(f"{source}/{GOLDEN}"):
        storage.copy_folder(source, folder, last=CONFIG)
    else:  # other people's form of a checkpoint, read whole; saved in ours
        model.save(folder)


def open_store(workspace: Workspace, model: Identity | Model) -> EmbeddingStore:
    """The folder of this model's vectors; it need not exist yet."""
    made_by = ModelRef(fingerprint=model.fingerprint, precision=model.precision, dim=model.spec.dim)
    return EmbeddingStore(workspace.embeddings(model.fingerprint), made_by)
