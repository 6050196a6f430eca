"""The parts that make tokens, as one folder: codec, semantic encoder, joint tokens, melody tokens.

    parts.json          format, settings, the joint model's fingerprint, this folder's fingerprint
    parts.safetensors   weights of the parts that were trained here, musicnn's included
    codec/, semantic/   a hub's model, where one was chosen

A folder is complete once it has parts.json. Tokens, and models over tokens, name its fingerprint.
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
from raymtr.generation.hub_parts import HubCodec, HubHeard, hub_codec, hub_heard
from raymtr.generation.joint import JointTokens, fit_joint
from raymtr.generation.melody import MelodyTokens, TuneClip, fit_melody
from raymtr.generation.quantizer import fit_quantizer
from raymtr.generation.semantic import MusicnnHeard, SemanticTokens, musicnn_heard
from raymtr.generation_specs import TokensSpec
from raymtr.model.musicnn import Musicnn
from raymtr.validation import from_dict, to_dict

MARKER, WEIGHTS, FORMAT = "parts.json", "parts.safetensors", 1


class Parts(nn.Module):
    """What turns sound into tokens, and tokens of the codec into sound."""

    codec: MelCodec | HubCodec
    semantic: SemanticTokens
    joint: JointTokens
    melody: MelodyTokens | None  # None: these settings ask for none

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
            own = {
                name: tensor.detach().contiguous().clone()
                for name, tensor in self.state_dict().items()
                if not name.startswith(("codec.model.", "semantic.heard.model."))
            }
            save_file(own, place / WEIGHTS)
            if isinstance(self.codec, HubCodec):
                self.codec.model.save_pretrained(place / "codec")
            if isinstance(self.semantic.heard, HubHeard):
                self.semantic.heard.model.save_pretrained(place / "semantic")
            said: dict[str, Any] = {
                "format": FORMAT,
                "tokens": to_dict(self.spec),
                "joint_model": self.joint_model,
                "joint_dim": len(self.joint.audio_mean),
            }
            self.fingerprint = said["fingerprint"] = _fingerprint(place, said)
            (place / MARKER).write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
            storage.copy_folder(scratch, folder, last=MARKER)
        return self.fingerprint


def _fingerprint(place: Path, said: dict[str, Any]) -> str:
    digest = hashlib.blake2b(json.dumps(said, sort_keys=True).encode(), digest_size=6)
    for file in sorted(place.rglob("*.safetensors")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def read_parts(folder: str) -> Parts:
    """The parts in `folder`. Raises UnusableError where it is damaged or incomplete."""
    place = Path(storage.local_copy(folder, last=MARKER))
    try:
        said = json.loads((place / MARKER).read_text(encoding="utf-8"))
        if said["format"] > FORMAT:
            raise UnusableError(f"{folder} was written by a newer raymtr; use that one")
        spec = from_dict(TokensSpec, said["tokens"])
        codec: MelCodec | HubCodec
        if spec.codec == "mel":
            codec = MelCodec(spec)
        else:
            codec = hub_codec(spec.codec, str(place / "codec"), spec.levels)
        if spec.semantic == "musicnn":
            heard: MusicnnHeard | HubHeard = MusicnnHeard(Musicnn())
        else:
            heard = hub_heard(spec.semantic, str(place / "semantic"), spec.semantic_layer)
        parts = Parts(
            spec,
            codec,
            SemanticTokens(heard, spec),
            JointTokens(spec, said["joint_dim"]),
            MelodyTokens(spec.melody) if spec.melody.steps else None,
            joint_model=said["joint_model"],
            fingerprint=said["fingerprint"],
        )
        missing, unknown = parts.load_state_dict(load_file(place / WEIGHTS), strict=False)
        lost = [n for n in missing if not n.startswith(("codec.model.", "semantic.heard.model."))]
        if lost or unknown:
            raise ValueError(f"weights do not fit: {[*lost, *unknown][:3]}")
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise UnusableError(
            f"the parts in {folder} are damaged ({type(error).__name__}: {error}); run `raymtr "
            "tokenize` again in a new workspace, or bring the folder back"
        ) from error
    return parts


def open_heard(spec: TokensSpec) -> MusicnnHeard | HubHeard:
    """The encoder under the semantic tokens. Raises UnusableError where it cannot be loaded."""
    if spec.semantic == "musicnn":
        return musicnn_heard()
    return hub_heard(spec.semantic, spec.semantic_source, spec.semantic_layer)


def codec_rate(spec: TokensSpec) -> int:
    """The sample rate of the codec, in Hz. Raises UnusableError where it cannot be loaded."""
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

    `clips` are mono at the codec's rate, float32 [S] each; `frames` [N, width] what the semantic
    encoder heard in them; `audio` [M, D] vectors of their windows, `text` [T, D] of sentences;
    `tunes` are those of the clips that a melody part, where one is asked for, learns from.
    Raises UnusableError where there is too little to fit.
    """
    codec: MelCodec | HubCodec
    if spec.codec == "mel":
        codec, _ = fit_mel_codec(clips, spec)
    else:
        codec = hub_codec(spec.codec, spec.codec_source, spec.levels)
    semantic = SemanticTokens(open_heard(spec), spec)
    semantic.quantizer = fit_quantizer(
        frames, 1, spec.semantic_codes, rounds=spec.rounds, seed=spec.seed
    )
    joint = fit_joint(audio, text, spec)
    melody = fit_melody(tunes, spec.melody, spec.seed) if spec.melody.steps else None
    return Parts(spec, codec, semantic, joint, melody, joint_model=joint_model)
