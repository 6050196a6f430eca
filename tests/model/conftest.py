"""A text encoder of a few kilobytes and towers of a few more, made on the spot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from raymtr.model.two_towers import TwoTowers, build_towers
from raymtr.tower_specs import AudioSpec, AudioTowerSpec, TextTowerSpec, TowersSpec

WORDS = (
    "a",
    "slow",
    "fast",
    "sad",
    "happy",
    "piano",
    "guitar",
    "jazz",
    "song",
    "with",
    "no",
    "drums",
)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def text_folder(
    tmp_path_factory: pytest.TempPathFactory, save_tokenizer: Callable[[Path], int]
) -> str:
    """A random two-layer BERT (pooler included) and a tokenizer of whole words."""
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("text_encoder")
    torch.manual_seed(5)
    config = BertConfig(
        vocab_size=save_tokenizer(folder),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=40,
        initializer_range=0.3,
    )
    BertModel(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def save_tokenizer() -> Callable[[Path], int]:
    """Writes a tokenizer of whole words to a folder; the size of its vocabulary."""
    return _save_tokenizer


def _save_tokenizer(folder: Path) -> int:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = {word: i for i, word in enumerate([*special, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=40,
    )
    fast.save_pretrained(folder)
    return len(vocabulary)


@pytest.fixture(scope="session")
def spec(text_folder: str) -> TowersSpec:
    """Narrow towers over one-second windows."""
    return TowersSpec(
        audio=AudioSpec(window_s=1.0),
        audio_tower=AudioTowerSpec(layers=(2, 1, 1, 1), width=8, heads=4, dim=48),
        text_tower=TextTowerSpec(source=text_folder, max_tokens=32, pooling="mean"),
        dim=24,
    )


@pytest.fixture
def make_towers(spec: TowersSpec, waves: np.ndarray) -> Callable[..., TwoTowers]:
    """Towers of `spec` whose batch norms have seen sound, as after training.

    Fresh ones give every sound nearly the same vector, and a test that compares nothing.
    """

    def make(wanted: TowersSpec = spec, seed: int = 0) -> TwoTowers:
        towers = build_towers(wanted, seed=seed)
        generator = torch.Generator().manual_seed(seed)
        for norm in towers.audio_tower.modules():
            if isinstance(norm, nn.BatchNorm2d):
                nn.init.uniform_(norm.weight, 0.5, 1.5, generator=generator)
                nn.init.normal_(norm.bias, 0.0, 0.3, generator=generator)
                norm.momentum = None  # statistics of exactly what follows
        with torch.no_grad():
            towers.train().embed_audio(torch.from_numpy(waves))
        return towers.eval()

    return make


@pytest.fixture(scope="session")
def waves() -> np.ndarray:
    """Four one-second windows, very unlike one another: float32 [4, 22050]."""
    seconds = np.arange(22_050) / 22_050
    noise = np.random.default_rng(3).normal(0.0, 0.1, size=(2, 22_050))
    tones = [0.5 * np.sin(2 * np.pi * hz * seconds) for hz in (220.0, 3_000.0)]
    return np.stack([tones[0], noise[0], tones[1] * 1e-3, noise[1] * seconds]).astype(np.float32)
