"""Hub codecs and encoders by tiny random models of the same classes, without a hub."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from raymtr.errors import InputError, UnusableError
from raymtr.generation.hub_parts import hub_codec, hub_encoder

RNG = np.random.default_rng(0)
SOUND = RNG.normal(0, 0.1, 24_000).astype(np.float32)


def encodec() -> object:
    from transformers import EncodecConfig, EncodecModel

    return EncodecModel(
        EncodecConfig(
            target_bandwidths=[1.5, 3.0],
            num_filters=4,
            hidden_size=16,
            codebook_dim=16,
            codebook_size=64,
            num_lstm_layers=1,
            upsampling_ratios=[8, 5, 4, 2],
        )
    )


def dac() -> object:
    from transformers import DacConfig, DacModel

    return DacModel(
        DacConfig(
            encoder_hidden_size=4,
            decoder_hidden_size=64,
            downsampling_ratios=[2, 4, 8, 8],
            upsampling_ratios=[8, 8, 4, 2],
            n_codebooks=4,
            codebook_size=64,
            codebook_dim=4,
            sampling_rate=24_000,
        )
    )


def mimi() -> object:
    from transformers import MimiConfig, MimiModel

    return MimiModel(
        MimiConfig(
            num_filters=4,
            hidden_size=32,
            codebook_size=64,
            codebook_dim=16,
            vector_quantization_hidden_dimension=16,
            num_quantizers=8,
            num_semantic_quantizers=1,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=16,
            intermediate_size=32,
            upsample_groups=32,
        )
    )


@pytest.mark.slow
@pytest.mark.parametrize("make", [encodec, dac, mimi])
def test_a_hub_codec_encodes_and_decodes(make: Callable[[], object], tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = make()
    for name, buffer in model.named_buffers():  # type: ignore[attr-defined]
        if "embed" in name and buffer.is_floating_point():  # a new model's codebooks are zeros
            torch.nn.init.normal_(buffer)
    model.save_pretrained(tmp_path)  # type: ignore[attr-defined]
    codec = hub_codec(make.__name__, str(tmp_path), 4)
    tokens = codec.encode(SOUND)
    assert tokens.shape[1] == codec.levels == 4 and 0 <= tokens.min() <= tokens.max() < codec.codes
    assert abs(len(tokens) - len(SOUND) / codec.sample_rate * codec.frame_hz) <= 1
    sound = codec.decode(tokens)
    assert abs(len(sound) - len(tokens) / codec.frame_hz * codec.sample_rate) <= 400
    assert np.isfinite(sound).all()
    fewer = codec.decode(tokens[:, :2])
    assert len(fewer) == len(sound) and not np.allclose(fewer, sound)
    with pytest.raises(InputError, match=r"levels, got tokens\.levels=99"):
        hub_codec(make.__name__, str(tmp_path), 99)


@pytest.mark.slow
def test_hub_encoders_hear(tmp_path: Path) -> None:
    from transformers import HubertConfig, HubertModel, Wav2Vec2BertConfig, Wav2Vec2BertModel

    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    HubertModel(
        HubertConfig(
            **small,
            intermediate_size=32,
            conv_dim=[8] * 7,
            num_conv_pos_embeddings=16,
            num_conv_pos_embedding_groups=2,
        )
    ).save_pretrained(tmp_path / "hubert")
    Wav2Vec2BertModel(
        Wav2Vec2BertConfig(**small, intermediate_size=32, feature_projection_input_dim=160)
    ).save_pretrained(tmp_path / "w2v")
    for kind, folder in (("hubert", "hubert"), ("wav2vec2-bert", "w2v")):
        heard = hub_encoder(kind, str(tmp_path / folder), 2)
        frames = heard.encode_frames(SOUND[:16_000])
        assert frames.shape[1] == heard.width == 16
        assert 45 <= len(frames) <= 51
        with pytest.raises(InputError, match="2 layers"):
            hub_encoder(kind, str(tmp_path / folder), 3)


def test_a_missing_hub_model_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UnusableError, match=r"such weights are kyutai/mimi \(CC-BY-4.0\)"):
        hub_codec("mimi", str(tmp_path / "none"), 4)
