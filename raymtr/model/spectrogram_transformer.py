"""AST, the Audio Spectrogram Transformer (Gong et al., Interspeech 2021), as an audio tower.

It is `transformers`' ASTModel, so its weights load as they are, from a folder or the hub. MuLan's
second audio tower is an AST (Huang et al., ISMIR 2022). Patches of 16 by 16 of the log-mel, their
positions, transformer layers; a window's vector is the mean of the two class tokens' last states.

The log-mel is this project's, not the Kaldi filterbank of AST's authors. With `audio.level=removed`
its values lie between -1 and 1, where AST's inputs lie mostly, so training adapts to the rest.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from raymtr.errors import InputError
from raymtr.model.hub import cached_folder, download, looks_like_folder, require_hub
from raymtr.tower_specs import PATCH, AudioSpec, AudioTowerSpec

FILES = ("config.json", "*.safetensors")  # patterns in a hub repository
CLASS_TOKENS = 2
POSITIONS = "embeddings.position_embeddings"
SIZES = {  # setting of AudioTowerSpec -> ASTConfig's name
    "dim": "hidden_size",
    "depth": "num_hidden_layers",
    "heads": "num_attention_heads",
    "inner": "intermediate_size",
    "stride": "time_stride",
}


class SpectrogramTransformer(nn.Module):
    """Log-mel [B, n_mels, frames] -> [B, dim]."""

    def __init__(self, spec: AudioTowerSpec, audio: AudioSpec) -> None:
        super().__init__()
        from transformers import ASTConfig, ASTModel

        self.spec = spec
        sizes = {theirs: getattr(spec, ours) for ours, theirs in SIZES.items()}
        config = ASTConfig(
            **sizes,
            patch_size=PATCH,
            frequency_stride=spec.stride,
            num_mel_bins=audio.n_mels,
            max_length=audio.frames,
        )
        self.encoder = ASTModel(config)

    def forward(self, mel: Tensor) -> Tensor:
        """Return one vector for each spectrogram."""
        pooled: Tensor = self.encoder(mel.transpose(1, 2)).pooler_output
        return pooled

    def read_weights(self) -> None:
        """Load the pretrained weights that `spec.source` names; without one they stay random.

        Positions are interpolated to this tower's patches. Raises InputError if the folder is not
        an AST or has other sizes, UnusableError if a hub is needed and none answers.
        """
        if not self.spec.source:
            return
        from transformers import ASTModel

        folder = _folder_of(self.spec.source)
        try:
            theirs = ASTModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
        except (OSError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())[:300]
            raise InputError(f"{folder} has no AST that transformers reads: {reason}") from error
        self._require_sizes(theirs.config)
        weights = theirs.state_dict()
        weights[POSITIONS] = interpolated(weights[POSITIONS], grid(theirs.config), self._grid())
        self.encoder.load_state_dict(weights)

    def _grid(self) -> tuple[int, int]:
        return grid(self.encoder.config)

    def _require_sizes(self, config: Any) -> None:
        """Raise InputError where a size of the weights differs from the spec's."""
        if config.model_type != self.encoder.config.model_type:
            raise InputError(f"{self.spec.source} is a {config.model_type}, not an AST")
        for ours, theirs in (*SIZES.items(), ("stride", "frequency_stride"), ("", "patch_size")):
            wanted, seen = getattr(self.encoder.config, theirs), getattr(config, theirs)
            if wanted != seen:
                cure = f"set towers.audio_tower.{ours}={seen}" if ours else "another size of patch"
                raise InputError(
                    f"the AST in {self.spec.source} has {theirs} {seen}, but the settings have "
                    f"{wanted}; {cure}"
                )


def grid(config: Any) -> tuple[int, int]:
    """The patches of an ASTConfig's input: over frequency, over time."""
    frequency = (config.num_mel_bins - config.patch_size) // config.frequency_stride + 1
    time = (config.max_length - config.patch_size) // config.time_stride + 1
    return frequency, time


def interpolated(positions: Tensor, before: tuple[int, int], after: tuple[int, int]) -> Tensor:
    """Position embeddings [1, 2 + F T, D] for another grid of patches, bilinear as in AST's paper.

    Those of the two class tokens stay. The same grid gives the same embeddings.
    """
    if before == after:
        return positions
    tokens, patches = positions[:, :CLASS_TOKENS], positions[:, CLASS_TOKENS:]
    image = patches.reshape(1, *before, -1).permute(0, 3, 1, 2)  # [1, D, F, T]
    image = functional.interpolate(image, size=after, mode="bilinear", align_corners=False)
    return torch.cat([tokens, image.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


def _folder_of(source: str) -> Path:
    """The folder of `source` on this machine: a folder, the hub's cache, or the hub."""
    if Path(source).is_dir():
        return Path(source)
    if looks_like_folder(source):
        raise InputError(f"audio_tower.source: there is no folder {source}")
    if cached := cached_folder(source, FILES):
        return cached
    require_hub(source, cure="give audio_tower.source a folder, or leave it empty")
    return download(source, FILES)
