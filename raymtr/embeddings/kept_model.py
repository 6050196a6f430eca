"""The model that computes the vectors: its identity, and its copy kept beside them."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from raymtr import storage
from raymtr.embeddings.store import EmbeddingStore, ModelRef
from raymtr.errors import UnusableError
from raymtr.model.identity import CONFIG, GOLDEN, Identity, read_identity
from raymtr.specs import Precision
from raymtr.workspace import Workspace

if TYPE_CHECKING:
    from raymtr.model.model import Model, Side


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
    return EmbeddingStore.of_model(workspace, made_by)


def load_kept_model(
    folder: str,
    made_by: ModelRef,
    *,
    device: str = "cpu",
    audio_only: bool = False,
    text_int8: bool = False,
    sides: Collection[Side] | None = None,
) -> Model:
    """The model that is kept in `folder` beside its vectors, in their precision, and checked.

    With `text_int8` texts are encoded in int8 (`Model.quantize_text`). The golden vectors of
    `sides` (all) are reproduced here; the caller checks other sides before it uses them. Raises
    UnusableError if it is not the model `made_by`, or does not give its golden vectors.
    """
    from raymtr.model.model import SIDES
    from raymtr.model.pretrained import load_model

    model = load_model(folder, precision=made_by.precision, device=device, audio_only=audio_only)
    if model.fingerprint != made_by.fingerprint:
        raise UnusableError(
            f"the vectors are of model {made_by.fingerprint}, {folder} holds {model.fingerprint}: "
            "run `raymtr embed` and `raymtr index` with one model"
        )
    if text_int8:
        model.quantize_text()
    if wanted := SIDES if sides is None else sides:
        model.check_golden(wanted)
    return model
