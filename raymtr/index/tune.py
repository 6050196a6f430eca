"""Tunes the number of partitions to probe and the refine factor on the finished table.

Text queries lie outside the distribution of audio vectors and lose recall first, so a setting that
is good for audio queries may be bad for text queries. So every index is queried with sentences of
its own catalog, encoded by the model that computed its vectors, and with some of its own vectors.
The results are compared with an exact scan. The cheapest setting that reaches the aim on both kinds
is stored with the build. The aim allows half the misses that the target allows, because a setting
chosen on these probes looks better on them than on others. More partitions recover what routing
lost, more refinement what quantising lost.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from raymtr import storage
from raymtr.embeddings.kept_model import load_kept_model
from raymtr.embeddings.store import EmbeddingStore
from raymtr.index.build import Build, Trial, VectorIndex
from raymtr.index.track_table import TrackTable
from raymtr.vectors import unit

PROBES, PROBED = 128, 10  # queries of each kind, and hits compared per query
LEAST_NPROBES, REFINES = 8, (2, 4, 10)
SEED = 0


@dataclass(frozen=True)
class Probes:
    """Queries to test an index with: unit vectors [P, D] by kind, and their source."""

    vectors: Mapping[str, np.ndarray]
    source: str


def draw_probes(table: TrackTable, shards: EmbeddingStore) -> Probes:
    """Draw vectors of the table, and sentences about the same tracks.

    The model stored with the embeddings encodes the sentences, after it has reproduced its golden
    vectors on this machine. If no model is stored (imported vectors), vectors moved far outside the
    distribution replace the sentences, and `source` says so.
    """
    rng = np.random.default_rng(SEED)
    ids, audio = table.sample(PROBES, rng)
    if storage.exists(f"{shards.model_folder}/config.json"):
        sentences = [row["words"].partition(". ")[0] for row in table.rows(ids, ["words"]).values()]
        if sentences := [sentence for sentence in sentences if sentence]:
            model = load_kept_model(shards.model_folder, shards.made_by)
            text = model.encode_text(sentences)
            return Probes({"text": text, "audio": audio}, "sentences of the catalog")
    noise = rng.normal(size=audio.shape) / np.sqrt(audio.shape[1])
    moved = unit(audio + noise)
    return Probes({"text": moved, "audio": audio}, "vectors moved off the distribution")


def tune_index(uri: str, build: Build, probes: Probes, *, target: float) -> Build:
    """`build` with the cheapest setting that misses at most half of what `target` allows.

    This holds for every kind of probe. If no setting does, the one with the highest recall is
    taken; the checks before publishing refuse the build if that is below `target`.
    """
    aim = (1 + target) / 2
    table = TrackTable(uri, build)
    right = {kind: exact_hits(table, vectors) for kind, vectors in probes.vectors.items()}
    best = build
    for index in settings_by_cost(build.index):
        tried = replace(build, index=index)
        trial = try_index(TrackTable(uri, tried), probes, right)
        tried = replace(tried, trial=trial)
        if best.trial is None or min(trial.recall.values()) > min(best.trial.recall.values()):
            best = tried
        if min(trial.recall.values()) >= aim:
            break
    return best


def settings_by_cost(index: VectorIndex) -> list[VectorIndex]:
    """All settings, from few partitions and little refinement to all partitions.

    An index that was tuned before is not tried with less than its current setting.
    """
    nprobes = [min(LEAST_NPROBES, index.partitions)]
    while nprobes[-1] < index.partitions:
        nprobes.append(min(2 * nprobes[-1], index.partitions))
    settings = [replace(index, nprobes=n, refine=refine) for n in nprobes for refine in REFINES]
    return settings[settings.index(index) if index in settings else 0 :]


def try_index(table: TrackTable, probes: Probes, right: Mapping[str, list[set[str]]]) -> Trial:
    """Measure recall@10 by kind of probe, and the median time of a query."""
    recall, times_ms = {}, []
    for kind, vectors in probes.vectors.items():
        found = 0
        for vector, exact in zip(vectors, right[kind], strict=True):
            began = time.perf_counter()
            hits = table.nearest(vector, limit=PROBED)
            times_ms.append(1e3 * (time.perf_counter() - began))
            found += len(exact & {track_id for track_id, _ in hits})
        recall[kind] = found / sum(map(len, right[kind]))
    return Trial(probes=probes.source, recall=recall, p50_ms=round(statistics.median(times_ms), 3))


def exact_hits(table: TrackTable, probes: np.ndarray) -> list[set[str]]:
    """The ids nearest to each probe by an exact scan, one batch of rows at a time."""
    best: list[list[tuple[float, str]]] = [[] for _ in probes]
    for ids, matrix in table.stream_vectors():
        scores = matrix @ probes.T  # [rows, P]
        top = np.argpartition(-scores, min(PROBED, len(ids)) - 1, axis=0)[:PROBED]
        for probe, rows in enumerate(top.T):
            fresh = [(float(scores[row, probe]), ids[row]) for row in rows]
            best[probe] = sorted([*best[probe], *fresh], reverse=True)[:PROBED]
    return [{track_id for _, track_id in hits} for hits in best]
