"""Recipes: named full settings as functions; a variant calls one and changes a few fields.

Those of two towers are in tower_recipes.py. `mulap` and `mulap-small` train MuLaP, `musiclm` and
`musiclm-small` MusicLM on tokens: each has its own objective (train.objective).
`captions-135m`, `captions-1b` and `captions-7b` tune captioners on real bases of that size. `tiny`
is for tests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from raymtr.caption_specs import CaptionSpec, FinetuneSpec, ToyLlamaSpec
from raymtr.generation_specs import MelodySpec, MusicLMSpec, TokensSpec
from raymtr.specs import EmbedSpec, MulapSpec, Settings, TrainSpec
from raymtr.tower_recipes import (
    EVERY_LAYER,
    MINILM,
    laptop,
    mulan,
    raymtr_multilingual,
    raymtr_small,
    ttmrpp,
    ttmrpp_small,
)
from raymtr.tower_specs import (
    MUSICNN_AUDIO,
    MUSICNN_DIM,
    AudioSpec,
    AudioTowerSpec,
    TextTowerSpec,
    TowersSpec,
)

REAL_BASE = CaptionSpec(
    temperature=0.7, max_new_tokens=160
)  # no tag bonus: with a pretrained base it produces word salad


def captions_135m() -> Settings:
    """`laptop`, with a captioner on a base of about 135 M weights, such as SmolLM2, on two cores.

    At the end of these steps the validation loss on MusicCaps' pairs hardly falls: from 2.92 to
    1.90 in the first 920, then to 1.89.
    """
    return replace(
        laptop(),
        recipe="captions-135m",
        finetune=FinetuneSpec(
            rank=16,
            alpha=32,
            dropout=0.0,
            targets=EVERY_LAYER,
            upper_layers=12,
            steps=1_150,
            batch=8,
            learning_rate=6e-4,
            judged=True,
            validate_every=115,
            checkpoint_every=115,
            patience=2,
            threads=2,
        ),
        caption=replace(REAL_BASE, threads=2),
    )


def captions_1b() -> Settings:
    """`laptop`, with a captioner on a base of 1 to 3 billion weights, on one GPU."""
    return replace(
        laptop(),
        recipe="captions-1b",
        finetune=FinetuneSpec(
            rank=16,
            alpha=32,
            targets=EVERY_LAYER,
            steps=1_500,
            batch=16,
            learning_rate=2e-4,
            max_tokens=320,
            judged=True,
            checkpointing=True,
            patience=3,
            preference_steps=100,
            precision="bf16",
            use_gpu=True,
        ),
        caption=replace(REAL_BASE, use_gpu=True),
    )


def captions_7b() -> Settings:
    """`ttmrpp`, with its captioner's base of 7 billion weights in 8 bit, in less GPU memory."""
    base = ttmrpp()
    return replace(
        base,
        recipe="captions-7b",
        finetune=replace(
            base.finetune,
            batch=24,
            accumulate=4,
            checkpointing=True,
            learning_rate=1e-4,
            max_tokens=320,
            judged=True,
            patience=3,
            preference_steps=100,
        ),
        caption=replace(REAL_BASE, use_gpu=True),
    )


def mulap() -> Settings:
    """MuLaP as published (Manco et al., ICASSP 2022): musicnn from random weights and BERT.

    The paper trains 100 epochs; `steps` are 100 epochs of 64,000 tracks. For another catalog set
    them to 100 times the tracks over `global_batch`, and `warmup_steps` to a tenth of that. As in
    the other recipes, a clip's level is removed.
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

    The streams are narrower than the paper's, because a catalog of some
    hundred tracks does not fill them.
    """
    small = ttmrpp_small()
    return replace(
        small,
        recipe="mulap-small",
        towers=replace(
            small.towers,
            audio=AudioSpec(window_s=3.0, hop=512, n_mels=64, level="removed"),
            audio_tower=replace(small.towers.audio_tower, band_input=True, band_statistics=True),
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
            align_weight=4.0,  # without it the matching head stays at chance
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


def musiclm() -> Settings:
    """MusicLM as published (arXiv 2301.11325): three stages of 430 M weights.

    The paper does not state its training: batch, steps and rates are those of models of that size.
    Its codec and semantic encoder are not released. The parts here are those that are trained on
    the catalog; a hub's are chosen by `tokens.codec` and `tokens.semantic`.
    """
    return Settings(
        recipe="musiclm",
        train=TrainSpec(
            objective="musiclm",
            steps=200_000,
            global_batch=64,
            learning_rate=3e-4,
            min_learning_rate=3e-5,
            warmup_steps=2_000,
            beta2=0.95,
            precision="bf16",
            use_gpu=True,
        ),
        embed=EmbedSpec(),
    )


def musiclm_small() -> Settings:
    """MusicLM at a size that two cores train in half an hour, on clips of ten seconds.

    Fewer levels and codes, because a catalog of a thousand clips does not fill the paper's; the
    condition is weighed in sampling, which the paper does not do.
    """
    return Settings(
        recipe="musiclm-small",
        tokens=TokensSpec(
            levels=4,
            codes=256,
            semantic_codes=256,
            semantic_hz=12.5,
            joint_levels=4,
            joint_codes=64,
            fit_tracks=400,
            rounds=10,
            decoder_width=192,
            decoder_layers=5,
            decoder_steps=900,
            decoder_batch=6,
            melody=MelodySpec(
                batch=32,
                learning_rate=1e-3,
                layers=4,
                heads=4,
                width=128,
                inner=256,
                dim=64,
                levels=4,
                codes=64,
                rounds=10,
            ),
        ),
        musiclm=MusicLMSpec(
            layers=4,
            heads=4,
            width=128,
            inner=512,
            coarse=2,
            semantic_s=10.0,
            coarse_s=5.0,
            fine_s=2.0,
            unconditional=0.1,
            guidance=2.0,
            story_prefix_s=0.0,  # with half a second the next text is hardly heard
        ),
        train=TrainSpec(
            objective="musiclm",
            steps=1_200,
            global_batch=8,
            learning_rate=2e-3,
            min_learning_rate=1e-5,
            warmup_steps=60,
            beta2=0.95,
            checkpoint_every=100,
            validate_every=100,
        ),
        embed=EmbedSpec(),
    )


def musiclm_depth() -> Settings:
    """`musiclm_small` with a transformer over frames and one over the levels of a frame.

    It has the same tokens and no semantic stage. Its temperatures are higher than the paper's, with
    which notes are held too long.
    """
    small = musiclm_small()
    return replace(
        small,
        recipe="musiclm-depth",
        musiclm=replace(
            small.musiclm,
            hears_semantic=False,
            depth_layers=2,
            acoustic_s=10.0,
            guidance=3.0,
            coarse_temperature=1.0,
            fine_temperature=0.8,
        ),
        train=replace(small.train, steps=1_500),
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
        embed=EmbedSpec(windows_per_block=6),
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
    "mulan": mulan,
    "ttmrpp-small": ttmrpp_small,
    "raymtr-small": raymtr_small,
    "raymtr-multilingual": raymtr_multilingual,
    "laptop": laptop,
    "mulap": mulap,
    "mulap-small": mulap_small,
    "musiclm": musiclm,
    "musiclm-small": musiclm_small,
    "musiclm-depth": musiclm_depth,
    "captions-135m": captions_135m,
    "captions-1b": captions_1b,
    "captions-7b": captions_7b,
    "tiny": tiny,
}
DEFAULT_RECIPE = "laptop"
DEFAULT_MODEL = "musicnn-minilm"  # used where none is named and no run has finished
