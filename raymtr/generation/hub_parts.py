"""Adapters of pretrained codecs and encoders of `transformers` to the interfaces used here.

The models differ in channels, in the order of token axes, and in sample rate. `raymtr doctor` lists
their licences.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from raymtr.errors import InputError, UnusableError


class HubModel(NamedTuple):
    """A published model that a part can use."""

    source: str
    class_name: str  # in transformers
    licence: str  # of the weights


HUB_CODECS = {
    "encodec": HubModel("facebook/encodec_24khz", "EncodecModel", "CC-BY-NC-4.0"),
    "dac": HubModel("descript/dac_24khz", "DacModel", "MIT"),
    "mimi": HubModel("kyutai/mimi", "MimiModel", "CC-BY-4.0"),
}
HUB_ENCODERS = {
    "hubert": HubModel("facebook/hubert-base-ls960", "HubertModel", "Apache-2.0"),
    "wav2vec2-bert": HubModel("facebook/w2v-bert-2.0", "Wav2Vec2BertModel", "MIT"),
}


class HubCodec(nn.Module):
    """EncodecModel, DacModel or MimiModel as a Codec of the first `levels` codebooks."""

    def __init__(self, model: Any, levels: int) -> None:
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self.kind = str(model.config.model_type)
        config = model.config
        self.sample_rate = int(config.sampling_rate)
        self.codes = int(config.codebook_size)
        most = _most_levels(model)
        if levels > most:
            raise InputError(f"this {self.kind} has {most} levels, got tokens.levels={levels}")
        self.levels = levels
        hop = int(getattr(config, "hop_length", 0) or self.sample_rate / config.frame_rate)
        self.frame_hz = self.sample_rate / hop
        if int(getattr(config, "audio_channels", 1)) != 1:
            raise InputError(f"the codec must be mono, this {self.kind} is stereo")

    @torch.inference_mode()
    def encode(self, samples: np.ndarray) -> np.ndarray:
        """Mono float32 [S] -> tokens int64 [F, levels]."""
        waves = torch.from_numpy(np.ascontiguousarray(samples, np.float32))[None, None]
        if self.kind == "encodec":
            widest = self.model.config.target_bandwidths[-1]
            codes = self.model.encode(waves, bandwidth=widest).audio_codes[0, 0]
        elif self.kind == "dac":
            hop = self.model.config.hop_length
            waves = torch.nn.functional.pad(waves, (0, -waves.shape[2] % hop))
            codes = self.model.encode(waves).audio_codes[0]
        else:
            codes = self.model.encode(waves).audio_codes[0]
        return np.asarray(codes[: self.levels].T.numpy())

    @torch.inference_mode()
    def decode(self, tokens: np.ndarray) -> np.ndarray:
        """Tokens int64 [F, L] of the first L levels -> mono float32 [S]."""
        codes = torch.from_numpy(np.asarray(tokens, np.int64)).T[None].contiguous()  # [1, L, F]
        if self.kind == "encodec":
            waves = self.model.decode(codes[None], [None]).audio_values
        elif self.kind == "dac":
            waves = self.model.decode(audio_codes=codes).audio_values
        else:
            waves = self.model.decode(codes).audio_values
        return np.asarray(waves.reshape(-1).clamp(-1, 1).numpy())


class HubEncoder(nn.Module):
    """A FrameEncoder: a layer of a HubertModel or Wav2Vec2BertModel, about 50 frames per second."""

    sample_rate = 16_000

    def __init__(self, model: Any, layer: int, features: Any = None) -> None:
        super().__init__()
        if layer > model.config.num_hidden_layers:
            raise InputError(
                f"this encoder has {model.config.num_hidden_layers} layers, got "
                f"tokens.semantic_layer={layer}"
            )
        self.model = model.eval().requires_grad_(False)
        self.layer, self._features = layer, features
        self.width = int(model.config.hidden_size)

    @torch.inference_mode()
    def encode_frames(self, samples: np.ndarray) -> Tensor:
        """Mono float32 [S] at 16 kHz -> float32 [T, width]."""
        if self._features is None:
            waves = torch.from_numpy(np.ascontiguousarray(samples, np.float32))[None]
            inputs = {"input_values": (waves - waves.mean()) / (waves.std() + 1e-7)}
        else:
            inputs = dict(self._features(samples, sampling_rate=16_000, return_tensors="pt"))
        states = self.model(**inputs, output_hidden_states=True).hidden_states
        frames: Tensor = states[self.layer][0].float()
        return frames.clone()


def hub_codec(kind: str, source: str, levels: int) -> HubCodec:
    """The codec `kind` with weights of `source`, a name on the hub or a folder.

    Raises UnusableError if it cannot be loaded.
    """
    return HubCodec(_load(HUB_CODECS[kind], source), levels)


def hub_encoder(kind: str, source: str, layer: int) -> HubEncoder:
    """The encoder `kind` with weights of `source`. Raises UnusableError as `hub_codec`."""
    import transformers

    model = _load(HUB_ENCODERS[kind], source)
    features = None
    if kind == "wav2vec2-bert":
        bands = model.config.feature_projection_input_dim // 2
        features = transformers.SeamlessM4TFeatureExtractor(feature_size=bands, num_mel_bins=bands)
    return HubEncoder(model, layer, features)


def _load(published: HubModel, source: str) -> Any:
    import transformers

    try:
        return getattr(transformers, published.class_name).from_pretrained(source)
    except (OSError, ValueError) as error:
        raise UnusableError(
            f"{source} cannot be loaded as a {published.class_name} ({error}); such weights are "
            f"{published.source} ({published.licence})"
        ) from error


def _most_levels(model: Any) -> int:
    config = model.config
    for name in ("num_quantizers", "n_codebooks"):
        if getattr(config, name, None):
            return int(getattr(config, name))
    return len(model.quantizer.layers)
