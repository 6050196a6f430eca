"""A self-contained MusicLM model on disk.

musiclm.json            format, settings, fingerprints; written last
semantic.safetensors    and coarse, fine, or acoustic: the weights of each stage
parts/, joint/          the parts, and the towers of the joint tokens
trained_on.npy          what the stages were trained on
"""

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
from raymtr.generation import parts as parts_folder
from raymtr.generation.marker import CURE, MARKER, require_musiclm
from raymtr.generation.musiclm import MusicLM
from raymtr.generation.parts import read_parts
from raymtr.generation.stages import Stages, stage_names
from raymtr.generation_specs import MusicLMSpec, TokensSpec
from raymtr.model.identity import CONFIG
from raymtr.model.model_folder import load_weights
from raymtr.model.pretrained import load_model
from raymtr.trained_on import RECORD, Record, to_bytes
from raymtr.validation import from_dict, to_dict

FORMAT = 2  # 1 had settings and weights that are gone


def save_musiclm(
    stages: Stages,
    tokens_folder: str,
    folder: str,
    *,
    provenance: Mapping[str, object],
    trained_on: Record | None = None,
) -> None:
    """Write the stages, and the parts and towers of `tokens_folder`, to `folder`; paths or URIs."""
    parts = storage.read_json(f"{tokens_folder}/parts/{parts_folder.MARKER}")
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        digest = hashlib.blake2b(digest_size=6)
        for name in stage_names(stages.spec):
            weights = {
                key: tensor.detach().to("cpu", copy=True).contiguous()
                for key, tensor in stages.of(name).state_dict().items()
            }
            save_file(weights, place / f"{name}.safetensors")
            digest.update((place / f"{name}.safetensors").read_bytes())
        if trained_on is not None:
            (place / RECORD).write_bytes(to_bytes(trained_on))
        config = {
            "format": FORMAT,
            "tokens": to_dict(stages.tokens),
            "musiclm": to_dict(stages.spec),
            "codec_codes": stages.codec_codes,
            "parts": parts["fingerprint"],
            "joint_model": parts["joint_model"],
            "provenance": dict(provenance),
        }
        digest.update(json.dumps(config, sort_keys=True).encode())
        config["fingerprint"] = digest.hexdigest()
        (place / MARKER).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        storage.copy_folder(f"{tokens_folder}/parts", f"{folder}/parts", last=parts_folder.MARKER)
        storage.copy_folder(f"{tokens_folder}/model", f"{folder}/joint", last=CONFIG)
        storage.copy_folder(scratch, folder, last=MARKER)


def read_musiclm(folder: str, *, device: str = "cpu") -> MusicLM:
    """The model in `folder`, ready to generate.

    Raises InputError if the folder has no such model, lacks a stage, or its parts are not those of
    its tokens. Raises UnusableError if a file is damaged.
    """
    require_musiclm(folder)
    place = Path(storage.local_copy(folder, last=MARKER))
    try:
        config = json.loads((place / MARKER).read_text(encoding="utf-8"))
        if config["format"] != FORMAT:
            age = "a newer" if config["format"] > FORMAT else "an older"
            raise UnusableError(
                f"{folder} was written by {age} raymtr; use that version, or {CURE}"
            )
        tokens, spec = (
            from_dict(TokensSpec, config["tokens"]),
            from_dict(MusicLMSpec, config["musiclm"]),
        )
        names = stage_names(spec)
        missing = [name for name in names if not (place / f"{name}.safetensors").is_file()]
        if missing:
            raise InputError(f"model {folder} lacks its stage {', '.join(missing)}; {CURE}")
        parts = read_parts(str(place / "parts"))
        if parts.fingerprint != config["parts"]:
            raise InputError(
                f"model {folder} was trained on tokens of the parts {config['parts']}, but its "
                f"folder has {parts.fingerprint}: restore the parts, or {CURE}"
            )
        stages = Stages(tokens, spec, codec_codes=int(config["codec_codes"]))
        for name in names:
            load_weights(stages.of(name), load_file(place / f"{name}.safetensors"))
        fingerprint = str(config["fingerprint"])
    except (InputError, UnusableError):
        raise
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise UnusableError(
            f"model {folder} is damaged ({type(error).__name__}: {error}); {CURE}"
        ) from error
    joint = load_model(str(place / "joint"))
    return MusicLM(stages, parts, joint, fingerprint=fingerprint, device=device)
