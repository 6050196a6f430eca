"""A small pair file, and a captioner of the tiny recipe made from it without Ray."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from raymtr.caption_specs import FinetuneSpec, ToyLlamaSpec

TAGS = [
    "piano",
    "violin",
    "drums",
    "slow",
    "fast",
    "happy",
    "sad",
    "jazz",
    "rock",
    "waltz",
    "guitar",
    "choir",
    "calm",
    "loud",
]


@pytest.fixture(scope="session")
def small_spec() -> FinetuneSpec:
    """Big enough to learn a little in a few seconds."""
    toy = ToyLlamaSpec(width=64, layers=2, heads=1, inner=96, vocabulary=600, steps=60)
    return FinetuneSpec(
        steps=30, batch=8, learning_rate=5e-3, max_tokens=64, toy=replace(toy, learning_rate=5e-3)
    )


@pytest.fixture(scope="session")
def pair_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """120 pairs of 60 clips: a human caption and a machine's of each, in JSON Lines."""
    rows = []
    for clip in range(60):
        tags = [TAGS[(clip * step) % len(TAGS)] for step in (1, 3, 5)]
        tags = list(dict.fromkeys(tags))
        for source in ("x_human", "machine"):
            caption = f"A {' '.join(tags)} piece, written by a {source.strip('x_')} for {clip}."
            rows.append(
                {
                    "ytid": f"c{clip}",
                    "tags": tags,
                    "caption": caption,
                    "source": source,
                    "split": ("train", "eval")[clip % 2],
                }
            )
    file = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(file)


@pytest.fixture(scope="session")
def make_captioner(pair_file: str, small_spec: FinetuneSpec) -> Callable[[Path], str]:
    """A function: an empty folder -> the path of an untrained captioner in it, its base beside."""

    def make(folder: Path, *, seed: int = 0) -> str:
        from raymtr import storage
        from raymtr.captions.base_model import add_lora, base_identity
        from raymtr.captions.learning.pairs import read_pairs
        from raymtr.captions.learning.pretrain import build_toy, train_tokenizer
        from raymtr.captions.prompt import prompt_hash

        tokenizer = train_tokenizer(read_pairs(pair_file), small_spec.toy)
        model = build_toy(tokenizer, small_spec.toy, seed=seed)
        model.save_pretrained(folder / "base")
        tokenizer.save_pretrained(folder / "base")
        add_lora(model, small_spec).save_pretrained(folder)
        facts = {
            "base": "base",
            "base_identity": base_identity(str(folder / "base")),
            "prompt": prompt_hash(),
        }
        storage.write_json(f"{folder}/captioner.json", facts)
        return str(folder)

    return make
