"""Tunes the number of partitions to read (nprobes) and the refine factor on the finished table.

Text queries lie outside the distribution of audio vectors and lose recall first, so a setting that
is good for audio queries may be bad for text queries. So every index is queried with sentences of
its own catalog, encoded by the model that computed its vectors, and with some of its own vectors.
The results are compared with an exact scan. The cheapest setting that reaches the required recall
on both kinds is stored with the build. It allows half the misses of `search.target_recall`, because
a setting chosen on these queries looks better on them than on others. Reading more partitions (IVF)
recovers hits of unread partitions; a higher refine factor corrects quantisation errors.
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

TRIAL_QUERIES, RECALL_AT = 128, 10  # queries of each kind; hits compared per query
LEAST_NPROBES, REFINES = 8, (2, 4, 10)
SEED = 0


@dataclass(frozen=True)
class TrialQueries:
    """Queries that measure an index: unit vectors [Q, D] by kind, and their source."""

    vectors: Mapping[str, np.ndarray]
    source: str


def draw_trial_queries(table: TrackTable, shards: EmbeddingStore) -> TrialQueries:
    """Draw vectors of the table, and sentences about the same tracks.

    The model stored with the embeddings encodes the sentences, after it has reproduced its golden
    vectors on this machine. If no model is stored (imported vectors), vectors moved far outside the
    distribution replace the sentences, and `source` states it.
    """
    rng = np.random.default_rng(SEED)
    ids, audio = table.sample(TRIAL_QUERIES, rng)
    if storage.exists(f"{shards.model_folder}/config.json"):
        sentences = [row["words"].partition(". ")[0] for row in table.rows(ids, ["words"]).values()]
        if sentences := [sentence for sentence in sentences if sentence]:
            model = load_kept_model(shards.model_folder, shards.made_by)
            text = model.encode_text(sentences)
            return TrialQueries({"text": text, "audio": audio}, "sentences of the catalog")
    noise = rng.normal(size=audio.shape) / np.sqrt(audio.shape[1])
    moved = unit(audio + noise)
    return TrialQueries({"text": moved, "audio": audio}, "vectors moved off the distribution")


def tune_index(uri: str, build: Build, queries: TrialQueries, *, target: float) -> Build:
    """`build` with the cheapest setting that misses at most half of what `target` allows.

    Every kind of query must reach that recall. If no setting does, the one with the highest recall
    is used; the checks before publishing reject the build if it is below `target`.
    """
    required = (1 + target) / 2
    table = TrackTable(uri, build)
    exact = {kind: exact_hits(table, vectors) for kind, vectors in queries.vectors.items()}
    best = build
    for index in settings_by_cost(build.index):
        trial_build = replace(build, index=index)
        trial = try_index(TrackTable(uri, trial_build), queries, exact)
        trial_build = replace(trial_build, trial=trial)
        if best.trial is None or min(trial.recall.values()) > min(best.trial.recall.values()):
            best = trial_build
        if min(trial.recall.values()) >= required:
            break
    return best


def settings_by_cost(index: VectorIndex) -> list[VectorIndex]:
    """All settings, from few partitions and little refinement to all partitions.

    For an index that was tuned before, they begin with its current setting.
    """
    nprobes = [min(LEAST_NPROBES, index.partitions)]
    while nprobes[-1] < index.partitions:
        nprobes.append(min(2 * nprobes[-1], index.partitions))
    settings = [replace(index, nprobes=n, refine=refine) for n in nprobes for refine in REFINES]
    return settings[settings.index(index) if index in settings else 0 :]


def try_index(
    table: TrackTable, queries: TrialQueries, exact: Mapping[str, list[set[str]]]
) -> Trial:
    """Measure recall@10 by kind of query, and the median time of a query."""
    recall, times_ms = {}, []
    for kind, vectors in queries.vectors.items():
        found = 0
        for vector, nearest in zip(vectors, exact[kind], strict=True):
            began = time.perf_counter()
            hits = table.nearest(vector, limit=RECALL_AT)
            times_ms.append(1e3 * (time.perf_counter() - began))
            found += len(nearest & {track_id for track_id, _ in hits})
        recall[kind] = found / sum(map(len, exact[kind]))
    return Trial(probes=queries.source, recall=recall, p50_ms=round(statistics.median(times_ms), 3))


def exact_hits(table: TrackTable, queries: np.ndarray) -> list[set[str]]:
    """The RECALL_AT nearest ids of each query [Q, D], by an exact scan in batches of rows."""
    best: list[list[tuple[float, str]]] = [[] for _ in queries]
    for ids, matrix in table.stream_vectors():
        scores = matrix @ queries.T  # [rows, Q]
        top = np.argpartition(-scores, min(RECALL_AT, len(ids)) - 1, axis=0)[:RECALL_AT]
        for query, rows in enumerate(top.T):
            batch_hits = [(float(scores[row, query]), ids[row]) for row in rows]
            best[query] = sorted([*best[query], *batch_hits], reverse=True)[:RECALL_AT]
    return [{track_id for _, track_id in hits} for hits in best]
