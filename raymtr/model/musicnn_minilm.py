"""`musicnn-minilm`: a joint space of words and music, built in seconds without a hub.

The audio side is musicnn's two taggers, frozen. The text side is MiniLM, which compares a sentence
with music words. Both end in the taggers' 100 tags (model.heads). Nothing is trained and nothing
was fitted to any catalog: the numbers are priors.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch

from raymtr.model.exact import exact_float32
from raymtr.model.heads import fill_tag_heads, words
from raymtr.model.text_tower import MINILM_PACKAGE
from raymtr.model.two_towers import TwoTowers, build_towers
from raymtr.recipes import DEFAULT_MODEL
from raymtr.tower_recipes import musicnn_minilm
from raymtr.tower_specs import TowersSpec

NAME = DEFAULT_MODEL
PROVENANCE: dict[str, Any] = {
    "source": f"{NAME}: pip package musicnn and all-MiniLM-L6-v2",
    "licence": "ISC (musicnn) and Apache-2.0 (MiniLM)",
}


def build_musicnn_minilm() -> TwoTowers:
    """The towers, bit-identical on every call.

    Raises UnusableError where musicnn's or MiniLM's weights are not installed.
    """
    package = find_spec(MINILM_PACKAGE)
    folder = str(import_module(MINILM_PACKAGE).MODEL_DIR) if package else None
    spec: TowersSpec = musicnn_minilm()
    towers = build_towers(spec, seed=0, text_folder=folder)
    with torch.inference_mode(), exact_float32():
        states = torch.cat([towers.text_tower(**towers.tokenize([word])) for word in words()])
    fill_tag_heads(towers.text_projector, states)
    return towers
