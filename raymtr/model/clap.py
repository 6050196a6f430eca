"""CLAP behind the same verbs: an HTSAT and a RoBERTa in the places of our two towers.

Only LAION's release through `transformers` is read (Wu et al., ICASSP 2023, arXiv 2211.06687).
`transformers` ends both sides in unit vectors; here they end before that, as everywhere in
raymtr, and a track is cut into whole windows, so nothing is left of the random crops that make the
same file embed differently from run to run. The extractor computes the mel, in float64 on a CPU:
a tenth of the tower's time, and exactly the reference. A release whose windows of 10 s are fused
with a picture of the whole clip sees, as its reference does, windows that are never "longer".

Given up: training it, and CLAP's habit of repeating a short clip (it is padded, as for all models).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from raymtr.errors import UnusableError
from raymtr.model.text_tower import NoTextTower, TextTower, quiet_transformers
from raymtr.model.two_towers import UnfilledWeights
from raymtr.specs import AudioSpec, TextTowerSpec, TowersSpec

KIND = "clap"  # as `transformers` calls it in config.json, and we in ours
MAX_TOKENS = 77  # what LAION trained with
PARTS = "clap"  # folder of a saved model: config of both sides, extractor


class ClapTowers(nn.Module):
    """Audio and text to [B, dim], un-normalised, with the surface of `TwoTowers`."""

    def __init__(self, clap: Any, extractor: Any, tokenizer: Any | None) -> None:
        """Around a `transformers` ClapModel; without `tokenizer` its text side is left out."""
        super().__init__()
        self.config, self.extractor = clap.config, extractor
        self.spec = spec_of(clap.config, extractor, tokenizer)
        self.audio_tower, self.audio_projector = clap.audio_model, clap.audio_projection
        # The pooler is a layer over the first token's state, which is what a TextTower gives.
        pooled = nn.Sequential(clap.text_model.pooler.dense, nn.Tanh(), clap.text_projection)
        self.text_projector: nn.Module = pooled
        if tokenizer is None:
            self.text_tower: TextTower = NoTextTower(clap.config.text_config.hidden_size)
        else:
            self.text_tower = TextTower(self.spec.text_tower, clap.text_model, tokenizer)
        self.logit_scale = nn.Parameter(clap.logit_scale_a.detach().float())

    def embed_audio(self, waves: Tensor) -> Tensor:
        """float32 waves [B, window_samples] -> [B, dim]."""
        made = self.extractor(
            list(waves.cpu().numpy()),
            sampling_rate=self.spec.audio.sample_rate,
            return_tensors="pt",
        )
        features = made["input_features"].float().to(waves.device)
        longer = torch.zeros(len(waves), 1, dtype=torch.bool, device=waves.device)
        states = self.audio_tower(input_features=features, is_longer=longer).pooler_output
        vectors: Tensor = self.audio_projector(states)
        return vectors

    def embed_text(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Tokens [B, T] -> [B, dim]."""
        vectors: Tensor = self.text_projector(self.text_tower(input_ids, attention_mask))
        return vectors

    def tokenize(self, sentences: list[str]) -> dict[str, Tensor]:
        """`input_ids` and `attention_mask`, int64 [B, T], on the CPU."""
        return self.text_tower.tokenize(sentences)

    def rules(self) -> dict[str, Any]:
        """What an audio vector depends on beside weights and windows."""
        return {"clap": self.config.audio_config.to_dict(), "extractor": self.extractor.to_dict()}

    def save_parts(self, folder: Path) -> None:
        """Everything but the weights, into the model folder `folder`."""
        self.config.save_pretrained(folder / PARTS)
        self.extractor.save_pretrained(folder / PARTS)
        self.text_tower.tokenizer.save_pretrained(folder / PARTS)


def spec_of(config: Any, extractor: Any, tokenizer: Any | None) -> TowersSpec:
    """What such towers hear and how wide their joint space is, in our words."""
    longest = getattr(tokenizer, "model_max_length", MAX_TOKENS)
    return TowersSpec(
        audio=AudioSpec(
            sample_rate=int(extractor.sampling_rate),
            window_s=float(extractor.max_length_s),
            n_fft=int(extractor.fft_window_size),
            hop=int(extractor.hop_length),
            n_mels=int(extractor.feature_size),
        ),
        text_tower=TextTowerSpec(source=KIND, max_tokens=min(MAX_TOKENS, longest), trainable=False),
        dim=int(config.projection_dim),
    )


def blank_clap(folder: Path, *, audio_only: bool) -> ClapTowers:
    """Towers as the config, extractor and tokenizer in `folder` say, for weights to be loaded."""
    from transformers import AutoTokenizer, ClapConfig, ClapFeatureExtractor, ClapModel

    config = ClapConfig.from_pretrained(folder)
    extractor = ClapFeatureExtractor.from_pretrained(folder)
    tokenizer = None if audio_only else AutoTokenizer.from_pretrained(folder)
    with UnfilledWeights():
        return ClapTowers(ClapModel(config), extractor, tokenizer)


def read_clap_release(folder: Path) -> ClapTowers:
    """The towers of a folder as `transformers` saves a ClapModel and its processor.

    Raises UnusableError where a file is missing or damaged.
    """
    from transformers import AutoTokenizer, ClapFeatureExtractor, ClapModel

    try:
        with quiet_transformers():
            extractor = ClapFeatureExtractor.from_pretrained(folder)
            tokenizer = AutoTokenizer.from_pretrained(folder)
            clap, report = ClapModel.from_pretrained(
                folder, dtype=torch.float32, output_loading_info=True
            )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UnusableError(
            f"{folder} is a damaged CLAP release ({type(error).__name__}: {reason}); fetch it anew"
        ) from error
    if missing := sorted(report["missing_keys"]):
        raise UnusableError(f"{folder} lacks weights of CLAP: {', '.join(missing[:3])}, ...")
    return ClapTowers(clap, extractor, tokenizer)
