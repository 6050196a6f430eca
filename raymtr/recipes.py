"""Recipes: named full settings as functions; a variant calls one and changes a few fields.

`ttmrpp` is the paper's system (Doh et al., ICASSP 2024, arXiv 2410.03264). `ttmrpp-small` is the
same at a size that two CPU cores train in minutes, with a frozen MiniLM. `laptop` trains only
heads, over frozen taggers. `mulap` and `mulap-small` train MuLaP, whose objective is another one
(train.objective). `tiny` is for tests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from raymtr.specs import (
    MUSICNN_AUDIO,
    MUSICNN_DIM,
    MUSICNN_TAGS,
    AudioSpec,
    AudioTowerSpec,
    CaptionSpec,
    EmbedSpec,
    FinetuneSpec,
    MulapSpec,
    Settings,
    TextTowerSpec,
    TowersSpec,
    ToyLlamaSpec,
    TrainSpec,
)

MINILM = "sentence-transformers/all-MiniLM-L6-v2"


def ttmrpp() -> Settings:
    """TTMR++ as published: 32,768 steps of 768 pairs, ratios by dataset, ResNet-50 and RoBERTa.

    One difference: a clip's level is removed, because the published towers embed a quieter copy as
    a different piece.
    """
    return Settings(
        recipe="ttmrpp",
        towers=TowersSpec(audio=AudioSpec(level="removed")),
        train=TrainSpec(
            mixture={
                "msd": 0.40,
                "audioset": 0.25,
                "music4all": 0.25,
                "fma": 0.09,
                "musiccaps": 0.01,
            },
            precision="bf16",
            use_gpu=True,
        ),
        embed=EmbedSpec(use_gpu=True, precision="bf16"),
        finetune=FinetuneSpec(precision="bf16", use_gpu=True, quantization="8bit"),
        caption=CaptionSpec(use_gpu=True),
    )


def laptop() -> Settings:
    """Heads over frozen taggers and a frozen MiniLM: trains in about five minutes on two cores.

    The taggers' features of a window are computed once, so a step costs only its heads.
    """
    small = ttmrpp_small()
    return replace(
        small,
        recipe="laptop",
        towers=replace(
            small.towers,
            audio=AudioSpec(**MUSICNN_AUDIO, level="removed"),
            audio_tower=AudioTowerSpec(
                kind="musicnn-msd", trainable=False, dim=MUSICNN_DIM["musicnn-msd"]
            ),
            heads="two_layers",
        ),
        train=replace(
            small.train,
            steps=200,
            warmup_steps=20,
            global_batch=128,
            checkpoint_every=50,
            validate_every=50,
        ),
    )


def ttmrpp_small() -> Settings:
    """A narrow ResNet, trained from scratch with a frozen MiniLM: minutes on two cores.

    Windows of half the paper's length and a coarser spectrogram (23 ms frames, 64 bands) cost an
    eighth per clip. Other variants tried on the synthetic catalog are in docs/performance.md.
    """
    return Settings(
        recipe="ttmrpp-small",
        towers=TowersSpec(
            audio=AudioSpec(window_s=5.0, hop=512, n_mels=64, level="removed"),
            audio_tower=AudioTowerSpec(layers=(1, 1, 1, 1), width=16, heads=8, dim=256),
            text_tower=TextTowerSpec(source=MINILM, max_tokens=64, pooling="mean", trainable=False),
        ),
        train=TrainSpec(
            steps=160,
            global_batch=64,
            learning_rate=1e-3,
            min_learning_rate=1e-6,
            warmup_steps=16,
            threads=2,
            checkpoint_every=40,
            validate_every=40,
        ),
        embed=EmbedSpec(actors=2, tracks_per_block=64),  # each block has 20 ms of overhead
        finetune=FinetuneSpec(
            rank=32,  # on every linear layer: the toy base has to learn its whole task
            alpha=64,
            targets="q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj",
            dropout=0.0,  # dropout costs a third of a step on a CPU
            steps=1_800,
            batch=32,
            learning_rate=2e-3,
            max_tokens=160,
            faithful=1.0,
            sentences=0.25,
            mixture={"lp_musiccaps_attribute_prediction": 0.2},  # this source invents by design
            threads=2,
        ),
        caption=CaptionSpec(
            temperature=0.5,
            tag_bias=5.0,  # a small model omits half of its tags
            presence_penalty=0.75,  # and repeats the others
            draws=8,
            passes=3,
            threads=2,
        ),
    )


def musicnn_minilm() -> TowersSpec:
    """Towers without training: frozen taggers and a frozen MiniLM, joined by the taggers' tags."""
    return TowersSpec(
        audio=AudioSpec(**MUSICNN_AUDIO, level="removed"),
        audio_tower=AudioTowerSpec(kind="musicnn", trainable=False, dim=MUSICNN_DIM["musicnn"]),
        text_tower=TextTowerSpec(source=MINILM, max_tokens=128, pooling="mean", trainable=False),
        dim=MUSICNN_TAGS,
        heads="tags",
    )


def mulap() -> Settings:
    """MuLaP as published (Manco et al., ICASSP 2022): musicnn from random weights and BERT.

    The paper trains 100 epochs; `steps` are 100 epochs of 64,000 tracks, and want to be set to 100
    times the tracks over `global_batch`, a tenth of it as `warmup_steps`. As in the other recipes,
    a clip's level is removed.
    """
    return Settings(
        recipe="mulap",
        towers=TowersSpec(
            audio=AudioSpec(**MUSICNN_AUDIO, level="removed"),
            audio_tower=AudioTowerSpec(
                kind="musicnn-msd", weights="random", dim=MUSICNN_DIM["musicnn-msd"]
            ),
            text_tower=TextTowerSpec(source="bert-base-uncased"),
        ),
        train=TrainSpec(
            objective="mulap",
            steps=100_000,
            global_batch=64,
            learning_rate=1e-4,
            min_learning_rate=0.0,
            warmup_steps=10_000,
            schedule="linear",
            beta2=0.98,
            use_gpu=True,
        ),
        embed=EmbedSpec(use_gpu=True),
    )


def mulap_small() -> Settings:
    """MuLaP over a narrow ResNet from scratch and a MiniLM whose first four layers are frozen.

    Minutes on two cores. The streams are narrower than the paper's, because a catalog of some
    hundred tracks does not fill them.
    """
    small = ttmrpp_small()
    return replace(
        small,
        recipe="mulap-small",
        towers=replace(
            small.towers,
            audio=AudioSpec(window_s=3.0, hop=512, n_mels=64, level="removed"),
        ),
        mulap=MulapSpec(
            clip_s=10.0,
            audio_layers=2,
            audio_width=128,
            cross_width=256,
            heads=4,
            words_weight=1.0,  # of some hundred steps: at the paper's weights these learn little
            chunks_weight=1.0,  # but to regress
            match_weight=4.0,
        ),
        train=replace(
            small.train,
            objective="mulap",
            steps=300,
            global_batch=32,
            learning_rate=1e-3,
            min_learning_rate=0.0,
            warmup_steps=30,
            schedule="linear",
            beta2=0.98,
            checkpoint_every=50,
            validate_every=50,
        ),
    )


def tiny() -> Settings:
    """Seconds, not quality: the smallest towers that have every part."""
    return Settings(
        recipe="tiny",
        towers=TowersSpec(
            audio=AudioSpec(level="removed"),
            audio_tower=AudioTowerSpec(layers=(1, 1, 1, 1), width=8, heads=4, dim=64),
            text_tower=TextTowerSpec(source=MINILM, max_tokens=32, pooling="mean", trainable=False),
        ),
        train=TrainSpec(
            steps=4,
            global_batch=4,
            learning_rate=1e-3,
            warmup_steps=1,
            checkpoint_every=2,
            validate_every=2,
        ),
        embed=EmbedSpec(tracks_per_block=2),
        finetune=FinetuneSpec(
            steps=4,
            batch=4,
            learning_rate=2e-3,
            checkpoint_every=2,
            validate_every=2,
            toy=ToyLlamaSpec(width=64, layers=1, heads=1, inner=64, vocabulary=600, steps=4),
        ),
        caption=CaptionSpec(max_new_tokens=24, draws=2, batch=8),
    )


def quick_captions(settings: Settings) -> Settings:
    """`settings` with fewer draws per caption."""
    return replace(settings, caption=replace(settings.caption, draws=4))


RECIPES: dict[str, Callable[[], Settings]] = {
    "ttmrpp": ttmrpp,
    "ttmrpp-small": ttmrpp_small,
    "laptop": laptop,
    "mulap": mulap,
    "mulap-small": mulap_small,
    "tiny": tiny,
}
DEFAULT_RECIPE = "laptop"
DEFAULT_MODEL = "musicnn-minilm"  # used where none is named and no run has finished
