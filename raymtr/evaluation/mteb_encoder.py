"""A model as an encoder of MTEB (the package `mteb`), to run it on MTEB's audio and text tasks.

    mteb.evaluate(MtebEncoder(raymtr.load_model("w/towers/first/model"), "me/first"), tasks)

MTEB fetches its datasets from the hub. Its encoder protocol (version 2) is implemented here without
a base class, so that this file imports without `mteb`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from raymtr.errors import InputError, UnusableError
from raymtr.vectors import unit

if TYPE_CHECKING:
    from raymtr.model.model import Model


class MtebEncoder:
    """MTEB's EncoderProtocol over `model`; `name` is `owner/model` in MTEB's results."""

    def __init__(self, model: Model, name: str) -> None:
        """Raises UnusableError without the package, InputError for a name without an owner."""
        try:
            from mteb.models import ModelMeta
        except ImportError as error:
            raise UnusableError(f"this needs MTEB: pip install 'mteb>=2.26' ({error})") from error
        if len(name.split("/")) != 2 or not all(name.split("/")):
            raise InputError(f"the name of a model in MTEB is owner/model, got {name!r}")
        self._model = model
        parameters = sum(p.numel() for p in model.towers.parameters())
        self.mteb_model_meta = ModelMeta(
            loader=None,
            name=name,
            revision=model.fingerprint,
            release_date=None,
            languages=None,
            modalities=["audio", "text"],
            n_parameters=parameters,
            memory_usage_mb=4 * parameters / 2**20,
            max_tokens=float(model.spec.text_tower.max_tokens),
            embed_dim=model.spec.dim,
            license=None,
            open_weights=None,
            public_training_code=None,
            public_training_data=None,
            framework=["PyTorch"],
            similarity_fn_name="cosine",
            use_instructions=False,
            training_datasets=None,
        )

    def encode(self, inputs: Any, **task: Any) -> np.ndarray:
        """Unit vectors, float32 [N, dim], of a DataLoader over a dataset of `text` or `audio`.

        A row with both is the unit vector of their sum. Raises InputError for other columns.
        """
        columns = inputs.dataset.features
        sides = [side for side in ("text", "audio") if side in columns]
        if not sides:
            raise InputError(f"MTEB asks for {', '.join(columns)}; this reads text and audio")
        return unit(np.sum([getattr(self, f"_{side}")(inputs) for side in sides], axis=0))

    def _text(self, inputs: Any) -> np.ndarray:
        return np.concatenate([self._model.encode_text(list(batch["text"])) for batch in inputs])

    def _audio(self, inputs: Any) -> np.ndarray:
        inputs.collate_fn = list  # of rows, whose sounds differ in length
        vectors = []
        for rows in inputs:
            sounds = [row["audio"] for row in rows]
            pairs = [(np.asarray(s["array"], np.float32), s["sampling_rate"]) for s in sounds]
            vectors.append(self._model.encode_audio(pairs))
        return np.concatenate(vectors)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Cosines [N, M]."""
        return _rows(embeddings1) @ _rows(embeddings2).T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Cosines of the rows of both, [N]."""
        return (_rows(embeddings1) * _rows(embeddings2)).sum(dim=1)


def _rows(embeddings: Any) -> Tensor:
    """Unit rows [N, dim] of an array or a tensor [N, dim] or [dim]."""
    rows = torch.as_tensor(embeddings, dtype=torch.float32)
    return torch.nn.functional.normalize(rows.reshape(-1, rows.shape[-1]), dim=1)
