"""The parts (tokenizers) in one folder: codec, semantic tokens, joint tokens, melody tokens.

    parts.json          format, settings, the joint model's fingerprint, this folder's fingerprint
    parts.safetensors   weights of the parts that were trained here, including musicnn
    codec/, semantic/   the model from a hub, if the settings select one

A folder is complete once it has parts.json. Tokens and MusicLM models record its fingerprint.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from raymtr import storage
from raymtr.errors import UnusableError
from raymtr.generation.codec import MelCodec, fit_mel_codec
from raymtr.generation.hub_parts import HubCodec, HubEncoder, hub_codec, hub_encoder
from raymtr.generation.joint import JointTokens, fit_joint
from raymtr.generation.melody import MelodyTokens, TuneClip, fit_melody
from raymtr.generation.quantizer import fit_quantizer
from raymtr.generation.semantic import MusicnnEncoder, SemanticTokens, musicnn_encoder
from raymtr.generation_specs import TokensSpec
from raymtr.model.musicnn import Musicnn
from raymtr.validation import from_dict, to_dict

MARKER, WEIGHTS, FORMAT = "parts.json", "parts.safetensors", 1


class Parts(nn.Module):
    """Encodes audio to tokens; the codec also decodes its tokens to audio."""

    codec: MelCodec | HubCodec
    semantic: SemanticTokens
    joint: JointTokens
    melody: MelodyTokens | None  # None if melody.steps is 0

    def __init__(
        self,
        spec: TokensSpec,
        codec: MelCodec | HubCodec,
        semantic: SemanticTokens,
        joint: JointTokens,
        melody: MelodyTokens | None = None,
        *,
        joint_model: str,
        fingerprint: str = "",
    ) -> None:
        """`joint_model` is the fingerprint of the towers; `fingerprint` that of these parts."""
        super().__init__()
        self.spec, self.joint_model, self.fingerprint = spec, joint_model, fingerprint
        self.codec, self.semantic, self.joint, self.melody = codec, semantic, joint, melody
        self.eval().requires_grad_(False)

    def save(self, folder: str) -> str:
        """Write the parts to `folder`, a path or URI; returns their fingerprint."""
        with tempfile.TemporaryDirectory() as scratch:
            place = Path(scratch)
            weights = {
                name: tensor.detach().contiguous().clone()
                for name, tensor in self.state_dict().items()
                if not name.startswith(("codec.model.", "semantic.heard.model."))
            }
            save_file(weights, place / WEIGHTS)
            if isinstance(self.codec, HubCodec):
                self.codec.model.save_pretrained(place / "codec")
            if isinstance(self.semantic.heard, HubEncoder):
                self.semantic.heard.model.save_pretrained(place / "semantic")
            config: dict[str, Any] = {
                "format": FORMAT,
                "tokens": to_dict(self.spec),
                "joint_model": self.joint_model,
                "joint_dim": len(self.joint.audio_mean),
            }
            self.fingerprint = config["fingerprint"] = _fingerprint(place, config)
            (place / MARKER).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
            storage.copy_folder(scratch, folder, last=MARKER)
        return self.fingerprint


def _fingerprint(place: Path, config: dict[str, Any]) -> str:
    digest = hashlib.blake2b(json.dumps(config, sort_keys=True).encode(), digest_size=6)
    for file in sorted(place.rglob("*.safetensors")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def read_parts(folder: str) -> Parts:
    """The parts in `folder`. Raises UnusableError if it is damaged or incomplete."""
    place = Path(storage.local_copy(folder, last=MARKER))
    try:
        config = json.loads((place / MARKER).read_text(encoding="utf-8"))
        if config["format"] > FORMAT:
            raise UnusableError(f"{folder} was written by a newer raymtr; use that version")
        spec = from_dict(TokensSpec, config["tokens"])
        codec: MelCodec | HubCodec
        if spec.codec == "mel":
            codec = MelCodec(spec)
        else:
            codec = hub_codec(spec.codec, str(place / "codec"), spec.levels)
        if spec.semantic == "musicnn":
            encoder: MusicnnEncoder | HubEncoder = MusicnnEncoder(Musicnn())
        else:
            encoder = hub_encoder(spec.semantic, str(place / "semantic"), spec.semantic_layer)
        parts = Parts(
            spec,
            codec,
            SemanticTokens(encoder, spec),
            JointTokens(spec, config["joint_dim"]),
            MelodyTokens(spec.melody) if spec.melody.steps else None,
            joint_model=config["joint_model"],
            fingerprint=config["fingerprint"],
        )
        missing, unknown = parts.load_state_dict(load_file(place / WEIGHTS), strict=False)
        required = [
            n for n in missing if not n.startswith(("codec.model.", "semantic.heard.model."))
        ]
        if required or unknown:
            raise ValueError(f"weights do not fit: {[*required, *unknown][:3]}")
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise UnusableError(
            f"the parts in {folder} are damaged ({type(error).__name__}: {error}); run `raymtr "
            "tokenize` again in a new workspace, or restore the folder"
        ) from error
    return parts


def open_frame_encoder(spec: TokensSpec) -> MusicnnEncoder | HubEncoder:
    """The encoder of the semantic tokens. Raises UnusableError if it cannot be loaded."""
    if spec.semantic == "musicnn":
        return musicnn_encoder()
    return hub_encoder(spec.semantic, spec.semantic_source, spec.semantic_layer)


def codec_rate(spec: TokensSpec) -> int:
    """The sample rate of the codec in Hz. Raises UnusableError if it cannot be loaded."""
    if spec.codec == "mel":
        return MelCodec.sample_rate
    return hub_codec(spec.codec, spec.codec_source, spec.levels).sample_rate


def fit_parts(
    clips: Sequence[np.ndarray],
    frames: Tensor,
    audio: np.ndarray,
    text: np.ndarray,
    spec: TokensSpec,
    *,
    joint_model: str,
    tunes: Sequence[TuneClip] = (),
) -> Parts:
    """Parts fitted to training tracks.

    `clips` are mono at the codec's rate, float32 [S] each. `frames` [N, width] are the output of
    the semantic encoder for them, `audio` [M, D] the vectors of their windows, `text` [T, D] the
    vectors of sentences. `tunes` are the training clips of the melody part, if the settings have
    one. Raises UnusableError if there is too little data.
    """
    codec: MelCodec | HubCodec
    if spec.codec == "mel":
        codec, _ = fit_mel_codec(clips, spec)
    else:
        codec = hub_codec(spec.codec, spec.codec_source, spec.levels)
    semantic = SemanticTokens(open_frame_encoder(spec), spec)
    semantic.quantizer = fit_quantizer(
        frames, 1, spec.semantic_codes, rounds=spec.rounds, seed=spec.seed
    )
    joint = fit_joint(audio, text, spec)
    melody = fit_melody(tunes, spec.melody, spec.seed) if spec.melody.steps else None
    return Parts(spec, codec, semantic, joint, melody, joint_model=joint_model)
