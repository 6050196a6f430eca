"""CLAP behind the interface of `TwoTowers`: HTSAT for audio, RoBERTa for text.

Only LAION's release through `transformers` is supported (Wu et al., ICASSP 2023, arXiv 2211.06687).
`transformers` normalises the output of both sides; here the vectors stay un-normalised, as
everywhere in raymtr. A track is cut into whole windows. So there are no random crops, which make
the original embed the same file differently on each run. The extractor computes the mel, in float64
on a CPU. This takes a tenth of the tower's time and matches the reference exactly. Some releases
fuse 10 s windows with a view of the whole clip. They receive windows that are never flagged
"longer", as in the reference.

Limitations: no training. A short clip is padded, as for all models, not repeated as in CLAP.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from raymtr.errors import UnusableError
from raymtr.model.text_tower import NoTextTower, TextTower, quiet_transformers
from raymtr.model.two_towers import UnfilledWeights
from raymtr.tower_specs import AudioSpec, TextTowerSpec, TowersSpec

if TYPE_CHECKING:
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, PreTrainedTokenizerBase

KIND = "clap"  # the model type in `transformers`' config.json and in ours
MAX_TOKENS = 77  # as LAION trained
PARTS = "clap"  # folder of a saved model: config of both sides, extractor, tokenizer


class ClapTowers(nn.Module):
    """Audio and text to [B, dim], un-normalised, with the interface of `TwoTowers`."""

    def __init__(
        self,
        clap: ClapModel,
        extractor: ClapFeatureExtractor,
        tokenizer: PreTrainedTokenizerBase | None,
    ) -> None:
        """Wrap a `transformers` ClapModel; without `tokenizer` the text side is omitted."""
        super().__init__()
        self.config, self.extractor = clap.config, extractor
        self.spec = spec_of(clap.config, extractor, tokenizer)
        self.audio_tower, self.audio_projector = clap.audio_model, clap.audio_projection
        # The pooler is a layer over the first token's state, which is a TextTower's output.
        pooled = nn.Sequential(clap.text_model.pooler.dense, nn.Tanh(), clap.text_projection)
        self.text_projector: nn.Module = pooled
        if tokenizer is None:
            self.text_tower: TextTower = NoTextTower(clap.config.text_config.hidden_size)
        else:
            self.text_tower = TextTower(self.spec.text_tower, clap.text_model, tokenizer)
        self.logit_scale = nn.Parameter(clap.logit_scale_a.detach().float())

    def embed_audio(self, waves: Tensor) -> Tensor:
        """float32 waves [B, window_samples] -> [B, dim]."""
        inputs = self.extractor(
            list(waves.cpu().numpy()),
            sampling_rate=self.spec.audio.sample_rate,
            return_tensors="pt",
        )
        features = inputs["input_features"].float().to(waves.device)
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
        """The settings, beside weights and windows, that an audio vector depends on."""
        return {"clap": self.config.audio_config.to_dict(), "extractor": self.extractor.to_dict()}

    def save_parts(self, folder: Path) -> None:
        """Write everything but the weights into the model folder `folder`."""
        self.config.save_pretrained(folder / PARTS)
        self.extractor.save_pretrained(folder / PARTS)
        self.text_tower.tokenizer.save_pretrained(folder / PARTS)


def spec_of(
    config: ClapConfig, extractor: ClapFeatureExtractor, tokenizer: PreTrainedTokenizerBase | None
) -> TowersSpec:
    """The TowersSpec of CLAP towers: their audio settings, token limit and joint dimension."""
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
    """Towers without weights, from the config, extractor and tokenizer in `folder`."""
    from transformers import AutoTokenizer, ClapConfig, ClapFeatureExtractor, ClapModel

    config = ClapConfig.from_pretrained(folder)
    extractor = ClapFeatureExtractor.from_pretrained(folder)
    tokenizer = None if audio_only else AutoTokenizer.from_pretrained(folder)
    with UnfilledWeights():
        return ClapTowers(ClapModel(config), extractor, tokenizer)


def read_clap_release(folder: Path) -> ClapTowers:
    """Read the towers from a folder where `transformers` saved a ClapModel and its processor.

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
            f"{folder} is a damaged CLAP release ({type(error).__name__}: {reason}); fetch it again"
        ) from error
    if missing := sorted(report["missing_keys"]):
        raise UnusableError(f"{folder} lacks weights of CLAP: {', '.join(missing[:3])}, ...")
    return ClapTowers(clap, extractor, tokenizer)
