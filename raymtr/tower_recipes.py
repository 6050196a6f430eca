"""Recipes of two towers, and of the captioner that goes with them; the others are in recipes.py.

`ttmrpp` is the paper's system (Doh et al., ICASSP 2024, arXiv 2410.03264), `mulan` that of Huang et
al. (ISMIR 2022, arXiv 2208.12415). `ttmrpp_small` is TTMR++ at a size that two CPU cores train in
minutes, with a frozen MiniLM; `raymtr_small` is what came of comparing with it on equal terms.
`laptop` trains only heads, over frozen taggers.
"""

from __future__ import annotations

from dataclasses import replace

from raymtr.caption_specs import CaptionSpec, FinetuneSpec
from raymtr.specs import EmbedSpec, Settings, TrainSpec
from raymtr.tower_specs import (
    MUSICNN_AUDIO,
    MUSICNN_DIM,
    MUSICNN_TAGS,
    AudioSpec,
    AudioTowerSpec,
    TextTowerSpec,
    TowersSpec,
)

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
MULTILINGUAL = "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2"
EVERY_LAYER = "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj"


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


def mulan() -> Settings:
    """MuLan's second form (Huang et al., ISMIR 2022): AST and BERT, its mixture of texts.

    Short texts (metadata), long texts (captions, filtered), playlist titles and tags are mixed
    2 : 2 : 1 : 1. The AST starts from AudioSet's, as MuLan's did. Its batch of 5,120 is embedded in
    chunks by gradient caching. Steps and learning rate are TTMR++'s, since MuLan's data is not
    public.
    """
    paper = ttmrpp()
    return replace(
        paper,
        recipe="mulan",
        towers=TowersSpec(
            audio=AudioSpec(level="removed"),
            audio_tower=AudioTowerSpec(
                kind="ast", heads=12, source="MIT/ast-finetuned-audioset-10-10-0.4593"
            ),
            text_tower=TextTowerSpec(source="google-bert/bert-base-uncased", max_tokens=512),
        ),
        train=replace(
            paper.train,
            global_batch=5_120,
            chunk=64,
            texts={"metadata": 2.0, "caption": 2.0, "playlist": 1.0, "tags": 1.0},
            text_filter=True,
            mixture={},
        ),
    )


def laptop() -> Settings:
    """Heads over frozen taggers and a frozen MiniLM: minutes on two cores.

    The features of a window and of a sentence are computed once, so a step costs only its heads.
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
        embed=EmbedSpec(actors=2),
        finetune=FinetuneSpec(
            rank=32,  # on every linear layer: the toy base has to learn its whole task
            alpha=64,
            targets=EVERY_LAYER,
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


def raymtr_small() -> Settings:
    """`ttmrpp_small` with what is kept of the variants that benchmarks/arena.py compared.

    Every change has its reason. The level is removed, because a quieter copy is the same music, and
    half of the clips are overdriven, because a louder master is too. The bands are normalised, the
    convolutions see the place of each, and a linear part reads the bands' statistics, because a
    small catalog teaches timbre and register at once that way, and slowly by convolutions alone.
    Another reads the tempogram, because metre and tempo show at lags of up to a bar, and a third
    the semitones, because mel bands are too wide for key and register. MiniLM is trained too,
    because with a frozen one tracks are found by their tags less often. A sentence is tags, a
    caption or similar artists: a title cannot be heard. Rows of one artist or of the same words are
    not negatives. What was tried: docs/performance.md.
    """
    small = ttmrpp_small()
    return replace(
        small,
        recipe="raymtr-small",
        towers=replace(
            small.towers,
            audio=replace(small.towers.audio, n_mels=128, semitones=True),
            audio_tower=replace(
                small.towers.audio_tower, band_input=True, band_statistics=True, tempogram=True
            ),
            text_tower=replace(small.towers.text_tower, trainable=True),
        ),
        train=replace(
            small.train,
            false_negatives="masked",
            overdrive_db=18.0,
            texts={"tags": 1.0, "caption": 1.0, "similar_artists": 1.0},
        ),
    )


def raymtr_multilingual() -> Settings:
    """`raymtr_small` with a text tower that reads fifty languages, XLM-R's tokenizer and 118 M.

    It is distilled from an English sentence encoder, so the words of another language are near
    the English ones, and captions in English teach all of them. So it stays frozen.
    """
    small = raymtr_small()
    text_tower = replace(
        small.towers.text_tower, source=MULTILINGUAL, max_tokens=128, trainable=False
    )
    return replace(
        small,
        recipe="raymtr-multilingual",
        towers=replace(small.towers, text_tower=text_tower),
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
