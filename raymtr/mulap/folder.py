"""A MuLaP model on disk: `mulap.json`, its weights, and its text encoder's config and tokenizer."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from raymtr import storage
from raymtr.errors import InputError, UnusableError
from raymtr.model.identity import WEIGHTS
from raymtr.model.model_folder import load_weights
from raymtr.model.two_towers import TEXT_PART
from raymtr.mulap.marker import MARKER, is_mulap
from raymtr.mulap.network import Mulap, blank_mulap
from raymtr.specs import MulapSpec
from raymtr.tower_specs import TowersSpec
from raymtr.trained_on import RECORD, Record, to_bytes
from raymtr.validation import from_dict, to_dict

FORMAT = 1


def save_mulap(
    model: Mulap, folder: str, *, provenance: Mapping[str, object], trained_on: Record | None = None
) -> None:
    """Write `model` to `folder`, a path or URI; the marker is written last."""
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        weights = {
            name: tensor.detach().to("cpu", copy=True).contiguous()
            for name, tensor in model.state_dict().items()
        }
        save_file(weights, place / WEIGHTS)
        model.text_tower.config.save_pretrained(place / TEXT_PART)
        model.text_tower.tokenizer.save_pretrained(place / TEXT_PART)
        if trained_on is not None:
            (place / RECORD).write_bytes(to_bytes(trained_on))
        record = {
            "format": FORMAT,
            "towers": to_dict(model.towers),
            "mulap": to_dict(model.spec),
            "provenance": dict(provenance),
        }
        record["fingerprint"] = hashlib.blake2b(
            json.dumps(record, sort_keys=True).encode() + (place / WEIGHTS).read_bytes(),
            digest_size=6,
        ).hexdigest()
        (place / MARKER).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        storage.copy_folder(scratch, folder, last=MARKER)


def read_mulap(folder: str) -> tuple[Mulap, str]:
    """The model in `folder`, in evaluation mode, and its fingerprint.

    Raises InputError if the folder has no MuLaP model, UnusableError if it is damaged.
    """
    if not is_mulap(folder):
        raise InputError(
            f"{folder} is not a MuLaP model (it has no {MARKER}), so it has no head that matches "
            "a sentence with audio; train one by `raymtr train --recipe mulap-small`"
        )
    place = Path(storage.local_copy(folder, last=MARKER))
    try:
        record = json.loads((place / MARKER).read_text(encoding="utf-8"))
        if record["format"] > FORMAT:
            raise UnusableError(
                f"model {folder} has format {record['format']}, this raymtr reads up to {FORMAT}; "
                "use the raymtr that wrote it, or a newer one"
            )
        towers, spec = (
            from_dict(TowersSpec, record["towers"]),
            from_dict(MulapSpec, record["mulap"]),
        )
        model = blank_mulap(towers, spec, str(place / TEXT_PART))
        load_weights(model, load_file(place / WEIGHTS))
        return model.eval(), str(record["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise UnusableError(
            f"model {folder} is damaged ({type(error).__name__}: {error}); train it again"
        ) from error
