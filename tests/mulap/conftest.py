"""A small MuLaP: two text layers of a random BERT, two audio layers, a ResNet of four blocks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from raymtr.mulap.network import Mulap, build_mulap
from raymtr.specs import MulapSpec
from raymtr.tower_specs import AudioSpec, AudioTowerSpec, TextTowerSpec, TowersSpec

VOCABULARY = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "slow", "fast", "low", "high", "tone")
SPEC = MulapSpec(
    clip_s=2.0,
    text_layers=3,
    audio_layers=2,
    audio_width=16,
    cross_width=16,
    heads=2,
    dropout=0.0,
)


def save_text_encoder(folder: Path) -> None:
    """A BERT of three layers without dropout, and a tokenizer of whole words with a mask token."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    numbers = {word: number for number, word in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=40,
        **{f"{name}_token": token for name, token in names.items()},
    )
    fast.save_pretrained(folder)
    torch.manual_seed(5)
    config = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=40,
        initializer_range=0.3,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    BertModel(config).save_pretrained(folder)


@pytest.fixture(scope="session")
def mulap_text(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("mulap_text")
    save_text_encoder(folder)
    return str(folder)


@pytest.fixture(scope="session")
def mulap_towers(mulap_text: str) -> TowersSpec:
    return TowersSpec(
        audio=AudioSpec(sample_rate=8000, window_s=0.5, n_fft=256, hop=100, n_mels=32),
        audio_tower=AudioTowerSpec(layers=(1, 1, 1, 1), width=8, heads=4, dim=24),
        text_tower=TextTowerSpec(source=mulap_text, max_tokens=20),
    )


@pytest.fixture
def make_mulap(mulap_towers: TowersSpec, mulap_text: str) -> Callable[..., Mulap]:
    """A function: a new model of a seed."""

    def make(towers: TowersSpec = mulap_towers, spec: MulapSpec = SPEC, seed: int = 0) -> Mulap:
        return build_mulap(towers, spec, seed=seed, text_folder=mulap_text)

    return make
