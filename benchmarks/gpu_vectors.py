"""Part of `on_gpu.py`: does a vector depend on its batch, and how far is it from a CPU's?"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from gpu_models import clap_towers, roberta_towers, settings_of, small_towers

from raymtr.model.clap import ClapTowers
from raymtr.model.golden import cosines, golden_sounds
from raymtr.model.model import Model

SENTENCES = [f"a {word} piano song with no drums" for word in ("slow", "fast", "sad", "warm")]
Embed = Callable[[Any], np.ndarray]  # of windows [N, S], or of N sentences


def vectors(device: torch.device, toy: bool) -> Iterator[tuple[str, str]]:
    """Every tower at every precision."""
    settings = settings_of(toy=toy)
    towers: dict[str, Any] = {
        settings.recipe: roberta_towers(settings, toy=toy),
        "ttmrpp-small": small_towers(toy=toy),
        "CLAP": clap_towers(toy=toy),
    }
    for name, made in towers.items():
        if made is None:
            yield name, "not measured: its MiniLM is not packaged here"
            continue
        sounds = golden_sounds(made.spec.audio)[: 2 if toy else None]
        with torch.inference_mode():
            exact = made.embed_audio(torch.from_numpy(sounds)).numpy()
        tower = f"{name} {type(made.audio_tower).__name__}"
        for precision in ("fp32", "bf16"):
            model = Model(made, precision=precision, device=str(device), normalize=False)
            yield f"{tower} {precision}", compared(model.embed_windows, sounds, exact)
        there = copy.deepcopy(made).to(device)
        yield f"{tower} TF32", compared(lambda w, t=there: plain_audio(t, w), sounds, exact)
        if not isinstance(made, ClapTowers):
            yield from text_vectors(name, made, device)


def text_vectors(name: str, towers: Any, device: torch.device) -> Iterator[tuple[str, str]]:
    """The same for a text tower, with sentences of one length."""
    exact = Model(towers, normalize=False).encode_text(SENTENCES)
    tower = f"{name} {type(towers.text_tower.encoder).__name__}"
    for precision in ("fp32", "bf16"):
        model = Model(towers, precision=precision, device=str(device), normalize=False)
        yield f"{tower} {precision}", compared(model.encode_text, SENTENCES, exact)
    there = copy.deepcopy(towers).to(device)
    yield f"{tower} TF32", compared(lambda s: plain_text(there, s), SENTENCES, exact)


@contextmanager
def tf32() -> Iterator[None]:
    """Enables TF32 for float32 on a GPU, which raymtr never does; a CPU has none."""
    switches = (torch.backends.cudnn.conv, torch.backends.cuda.matmul)
    before = [switch.fp32_precision for switch in switches]
    for switch in switches:
        switch.fp32_precision = "tf32"
    try:
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.fp32_precision = value


@torch.inference_mode()
def plain_audio(towers: Any, waves: np.ndarray) -> np.ndarray:
    """The towers' own forward, in one batch, with TF32."""
    with tf32():
        there = torch.from_numpy(waves.copy()).to(towers.logit_scale.device)
        return towers.embed_audio(there).cpu().numpy()


@torch.inference_mode()
def plain_text(towers: Any, sentences: list[str]) -> np.ndarray:
    """The same for text."""
    with tf32():
        tokens = towers.tokenize(sentences)
        there = {key: ids.to(towers.logit_scale.device) for key, ids in tokens.items()}
        return towers.embed_text(**there).cpu().numpy()


def compared(embed: Embed, inputs: Any, exact: np.ndarray) -> str:
    """Each input alone, all together, and in reverse order; then against `exact`."""
    together, backwards = embed(inputs), embed(inputs[::-1])[::-1]
    alone = np.concatenate([embed(inputs[i : i + 1]) for i in range(len(inputs))])
    apart = max(float(np.abs(together - other).max()) for other in (alone, backwards))
    found = cosines(together, exact)
    same = "byte-equal in any batch" if apart == 0 else f"batches differ by {apart:.1e}"
    return f"{same}; 1 - cosine at most {1 - found.min():.1e}, mean {1 - found.mean():.1e}"
