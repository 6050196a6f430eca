"""Calibrates the cosines of text queries against one table.

Every text has a nearest track, and the cosine to it depends on the model and on the table. So the
cosines of nonsense texts and of the table's own tags are measured once and stored with the build.
A search compares its text's cosine with them, to tell a description from a text without meaning.
"""

from __future__ import annotations

import random

import numpy as np

from raymtr import storage
from raymtr.embeddings.kept_model import load_kept_side
from raymtr.embeddings.store import EmbeddingStore
from raymtr.index.build import Calibration
from raymtr.index.track_table import TrackTable

TEXTS = 64  # of each kind
NONSENSE_QUANTILE = 0.95  # of the cosines of nonsense texts; a description has to exceed it
LETTERS = "abcdefghijklmnopqrstuvwxyz"
SEED = 0


def calibrate(table: TrackTable, shards: EmbeddingStore) -> Calibration | None:
    """The cosines of nonsense and of tags to their nearest tracks.

    None if no model is stored with the vectors (imported vectors) or the table has no tags. Raises
    UnusableError if the stored model has another fingerprint, or does not reproduce its golden
    vectors of texts.
    """
    tags = common_tags(table)
    if not tags or not storage.exists(f"{shards.model_folder}/config.json"):
        return None
    model = load_kept_side(shards.model_folder, shards.made_by, "text")
    cosines = [_nearest(table, model.encode_text(texts)) for texts in (nonsense(), tags)]
    return Calibration(
        nothing=round(float(np.quantile(cosines[0], NONSENSE_QUANTILE)), 6),
        tags=round(float(np.median(cosines[1])), 6),
    )


def nonsense() -> list[str]:
    """Texts of one to three words of random letters, the same each time."""
    rng = random.Random(SEED)
    return [
        " ".join("".join(rng.choices(LETTERS, k=rng.randint(3, 9))) for _ in range(1 + n % 3))
        for n in range(TEXTS)
    ]


def common_tags(table: TrackTable) -> list[str]:
    """The table's most common tags."""
    counts = table.column_values.counts.get("tags", {})
    return sorted(counts, key=lambda tag: (-counts[tag], tag))[:TEXTS]


def _nearest(table: TrackTable, vectors: np.ndarray) -> list[float]:
    return [table.nearest(vector, limit=1)[0][1] for vector in vectors]
