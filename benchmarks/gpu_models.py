"""Random models of the real sizes, or of toy sizes, for `on_gpu.py`; nothing is downloaded.

Their batch norms have statistics of audio. Fresh ones give every input nearly the same vector, and
random ones deviate more in bfloat16 than trained ones (docs/performance.md gives figures).
"""

from __future__ import annotations

import dataclasses
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from transformers import (
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    LlamaConfig,
    LlamaForCausalLM,
    RobertaConfig,
    RobertaModel,
)

from raymtr.caption_specs import ToyLlamaSpec
from raymtr.captions.learning.pairs import Pair
from raymtr.captions.learning.pretrain import train_tokenizer
from raymtr.model.clap import ClapTowers
from raymtr.model.golden import golden_sounds
from raymtr.model.text_tower import MINILM_PACKAGE, TextTower
from raymtr.model.two_towers import TwoTowers, build_towers
from raymtr.recipes import tiny, ttmrpp, ttmrpp_small
from raymtr.specs import Settings

TOY_ROBERTA = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64}
TOY_CLAP = {
    "patch_embeds_hidden_size": 16,
    "depths": [1, 1],
    "num_attention_heads": [2, 2],
    "hidden_size": 32,
    "num_hidden_layers": 2,
}
LARGE_CLAP = {  # LAION's larger_clap_general
    "patch_embeds_hidden_size": 128,
    "depths": [2, 2, 12, 2],
    "num_attention_heads": [4, 8, 16, 32],
    "hidden_size": 1024,
}
LLAMA_1B = {"hidden_size": 2048, "num_hidden_layers": 16, "intermediate_size": 8192}
TOY_LLAMA = {"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128}


def settings_of(*, toy: bool) -> Settings:
    """The paper's recipe, or one with tiny towers and one-second windows."""
    if not toy:
        return ttmrpp()
    small = tiny().towers
    audio = dataclasses.replace(small.audio, window_s=1.0)
    text = dataclasses.replace(ttmrpp().towers.text_tower, max_tokens=32)
    towers = dataclasses.replace(small, audio=audio, text_tower=text)
    train = dataclasses.replace(ttmrpp().train, global_batch=8, precision="fp32")
    return dataclasses.replace(ttmrpp(), towers=towers, train=train)


def roberta_towers(settings: Settings, *, toy: bool) -> TwoTowers:
    """The recipe's audio tower with a random RoBERTa of the real size."""
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=50_265, max_position_embeddings=514, **(TOY_ROBERTA if toy else {})
    )
    if toy:
        config.num_attention_heads = 2
    spec = settings.towers
    text = TextTower(spec.text_tower, RobertaModel(config), small_tokenizer())
    return that_has_heard(TwoTowers(spec, text))


def small_towers(*, toy: bool) -> TwoTowers | None:
    """The towers of the recipe ttmrpp-small with its MiniLM; None if that is not packaged."""
    if find_spec(MINILM_PACKAGE) is None:
        return None
    spec = ttmrpp_small().towers
    if toy:
        spec = dataclasses.replace(spec, audio=dataclasses.replace(spec.audio, window_s=1.0))
    return that_has_heard(build_towers(spec, seed=0))


def clap_towers(*, toy: bool) -> ClapTowers:
    """CLAP's audio tower, 70 million weights, without its text tower."""
    torch.manual_seed(0)
    clap = ClapModel(ClapConfig(audio_config=TOY_CLAP if toy else LARGE_CLAP))
    for weight in clap.parameters():
        if weight.ndim > 1:  # the defaults are so small that all vectors look alike
            nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
    extractor = ClapFeatureExtractor(frequency_min=50, truncation="rand_trunc")
    return ClapTowers(clap, extractor, None).eval()


def llama(device: torch.device, *, toy: bool) -> Any:
    """A causal model of 1.2 billion weights (Llama 3.2's shape), in bfloat16 on a GPU."""
    shape = TOY_LLAMA if toy else LLAMA_1B
    config = LlamaConfig(
        vocab_size=512 if toy else 128_256,
        num_attention_heads=4 if toy else 32,
        num_key_value_heads=2 if toy else 8,
        tie_word_embeddings=True,
        **shape,
    )
    torch.manual_seed(0)
    with device:
        model = LlamaForCausalLM(config)
    return model.to(torch.float32 if toy else torch.bfloat16)


def small_tokenizer() -> Any:
    """A byte-level tokenizer with a few hundred tokens."""
    pair = Pair(tags=("slow", "piano"), caption="a slow piano song", source="", clip="", split="")
    return train_tokenizer([pair], ToyLlamaSpec(vocabulary=400))


def that_has_heard(towers: TwoTowers) -> TwoTowers:
    """`towers`, changed in place: norms with random scales and the statistics of a few sounds."""
    for norm in towers.audio_tower.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, 0.0, 0.3)
            norm.momentum = None  # cumulative statistics of the following batches only
    with torch.no_grad():
        towers.train().embed_audio(torch.from_numpy(golden_sounds(towers.spec.audio)))
    for norm in towers.audio_tower.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = 0.1
    return towers.eval()
