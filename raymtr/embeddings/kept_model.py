"""The model that computes the vectors: its identity, and its copy stored beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raymtr import storage
from raymtr.embeddings.store import EmbeddingStore, ModelRef
from raymtr.errors import UnusableError
from raymtr.model.checked import passed, remember
from raymtr.model.identity import CONFIG, GOLDEN, Identity, read_identity
from raymtr.validation import Precision
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
) -> Model:
    """The model that is kept in `folder` beside its vectors, in their precision, and checked.

    With `text_int8` texts are encoded in int8 (`Model.quantize_text`). Raises
    UnusableError if it is not the model `made_by`, or does not give its golden vectors.
    """
    from raymtr.model.pretrained import load_model

    model = load_model(folder, precision=made_by.precision, device=device, audio_only=audio_only)
    _require_fingerprint(model.fingerprint, made_by, folder)
    if text_int8:
        model.quantize_text()
    model.check_golden()
    return model


def load_kept_side(folder: str, made_by: ModelRef, side: Side) -> Model:
    """As `load_kept_model`, on the CPU, with one side's tower; the other may be absent.

    Its golden vectors are reproduced once per machine (`model.checked`).
    """
    from raymtr.model.pretrained import load_model

    def load(*, whole: bool) -> Model:
        return load_model(
            folder,
            precision=made_by.precision,
            audio_only=side == "audio" and not whole,
            text_only=side == "text" and not whole,
        )

    if side in passed(folder, made_by.fingerprint, made_by.precision):
        return load(whole=False)
    identity = read_identity(folder, made_by.precision)
    model = load(whole=identity is None)
    found = identity.fingerprint if identity else model.fingerprint
    _require_fingerprint(found, made_by, folder)
    model.check_golden([side])
    remember(folder, made_by.fingerprint, made_by.precision, side)
    return model


def _require_fingerprint(found: str, made_by: ModelRef, folder: str) -> None:
    if found != made_by.fingerprint:
        raise UnusableError(
            f"the vectors are of model {made_by.fingerprint}, {folder} has {found}: "
            "run `raymtr embed` and `raymtr index` with one model"
        )
