"""`raymtr evaluate`: runs a benchmark on the live towers and on search.

Two systems get the same queries and the same pool. *towers* compares the text tower's vector with
each track's vector, and uses nothing else. *search* is what a user of `raymtr search` gets,
including names, full text and the artist graph. This file creates ranked lists; raymtr.evaluation
computes the metrics.

Ray is not used: this is seconds of work on existing vectors. Output in `evaluation/`:
`metrics.json`, a TREC run per system, and the benchmark itself, so that others can recompute the
figures or repeat the queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raymtr import storage
from raymtr.embeddings.store import EmbeddingStore, matrix_of
from raymtr.errors import InputError
from raymtr.evaluation import trec
from raymtr.evaluation.benchmarks import QRELS, QUERIES, Benchmark, load_benchmark, save_benchmark
from raymtr.evaluation.catalog_benchmark import catalog_benchmark
from raymtr.evaluation.quality import (
    QualityFigures,
    Run,
    TrainedOn,
    by_system,
    chance,
    measure,
    rank_pool,
    trained_on,
)
from raymtr.progress import Progress
from raymtr.specs import Settings
from raymtr.track import SPLITS
from raymtr.trained_on import read_record
from raymtr.workspace import Workspace

if TYPE_CHECKING:
    from raymtr.search.searcher import Searcher

SYSTEMS = ("towers", "search", "both")
# Seed of the sampled queries and of the intervals. Not train.seed: runs with other seeds must get
# the same queries to be comparable.
SEED = 0
MARK = "*"  # marks figures over tracks that the model was trained on
QUERIES_AT_ONCE = 64  # rows of the score matrix in memory at a time
BELOW_EVERY_COSINE = -2.0  # the score of a track without a vector


@final
class QualityAnswer(QualityFigures):
    """The figures, and where they were written."""

    files: dict[str, str]


def evaluate_tracks(
    workspace: Workspace,
    settings: Settings,
    *,
    split: str = "test",
    benchmark: str | None = None,
    system: str = "both",
    out: str | None = None,
) -> QualityAnswer:
    """Figures of the live tables by kind of query, next to the chance level.

    The benchmark is drawn from the catalog's `split`, or read from the folder `benchmark`. Raises
    InputError if there is no catalog, no live table or no query.
    """
    if system not in SYSTEMS:
        raise InputError(f"system is one of {', '.join(SYSTEMS)}; got {system!r}")
    catalog = storage.read_tables(workspace.tracks)
    if catalog is None:
        raise InputError(f"no catalog in {workspace.root}; run `raymtr scan` first")
    if benchmark is None:
        queries = catalog_benchmark(catalog, seed=SEED, split=split)
    else:
        queries = load_benchmark(benchmark, track_ids=catalog["track_id"].to_pylist())
    from raymtr.search.searcher import Searcher  # loads LanceDB

    searcher = Searcher(workspace)
    rng = np.random.default_rng(SEED)
    runs: dict[str, Run] = {}
    notes = list(queries.notes)
    if system in ("towers", "both"):
        runs["towers"], missing = rank_by_towers(searcher, queries)
        if missing:
            notes.append(f"{missing} tracks of the pool have no vector: towers cannot find them")
    if system in ("search", "both"):
        runs["search"] = rank_by_search(searcher, queries, catalog)
    seen = seen_in_training(searcher, queries, catalog)
    figures: QualityFigures = {
        "pool": len(queries.pool),
        "trained_on": seen,
        "seed": SEED,
        "split": None if benchmark else split,
        "benchmark": benchmark,
        "chance": chance(queries, rng),
        "intervals": {},
        "notes": [*training_notes(seen, len(queries.pool)), *notes],
    }
    if "towers" in runs:
        figures["towers"], figures["intervals"]["towers"] = measure(queries, runs["towers"], rng)
    if "search" in runs:
        figures["search"], figures["intervals"]["search"] = measure(queries, runs["search"], rng)
    folder = out or workspace.path("evaluation")
    return {**figures, "files": write_files(folder, queries, runs, figures)}


def seen_in_training(
    searcher: Searcher, benchmark: Benchmark, catalog: pa.Table
) -> TrainedOn | None:
    """Which of the benchmark's tracks the live model was trained on; None if no model is used."""
    fingerprint = searcher.build.fingerprint
    if fingerprint is None:
        return None
    folder = EmbeddingStore.open(searcher.workspace.embeddings(fingerprint)).model_folder
    return trained_on(benchmark, catalog, read_record(folder))


def training_notes(seen: TrainedOn | None, pool: int) -> list[str]:
    """The same as text, if there is anything to report."""
    if seen is None:
        return []
    if seen["pool"] is None:
        return [
            "this model has no record of what it was trained on (it was made elsewhere, or before "
            "there were records): whether these tracks were among it is unknown"
        ]
    if not seen["pool"]:
        return [f"this model was trained on none of the {pool} tracks of the pool"]
    return [
        f"{MARK} this model was trained on {seen['pool']} of {pool} tracks of the pool, by id or "
        "sound: figures with this mark show how well it remembers, not how well it finds new tracks"
    ]


def rank_by_towers(searcher: Searcher, benchmark: Benchmark) -> tuple[Run, int]:
    """The pool ranked by cosine for every query, and how many of its tracks have no vector."""
    fingerprint = searcher.build.fingerprint
    if fingerprint is None:
        raise InputError(
            "this catalog was indexed by its words alone, no model made vectors for it; "
            "`--system search` can be measured"
        )
    vectors = EmbeddingStore.open(searcher.workspace.embeddings(fingerprint)).read_tracks()
    place = pc.index_in(pa.array(benchmark.pool), value_set=vectors["track_id"])
    embedded = np.asarray(place.is_valid())
    tracks = matrix_of(vectors["vector"].take(place.drop_null()))  # [embedded, D]
    texts = searcher.model("text").encode_text(
        [query.sentence for query in benchmark.queries]
    )  # [Q, D]
    run: dict[str, Sequence[str]] = {}
    for first in range(0, len(texts), QUERIES_AT_ONCE):
        chunk = slice(first, first + QUERIES_AT_ONCE)
        scores = np.full((len(texts[chunk]), len(embedded)), BELOW_EVERY_COSINE)
        scores[:, embedded] = texts[chunk] @ tracks.T
        run.update(rank_pool(benchmark, benchmark.queries[chunk], scores))
    return run, int((~embedded).sum())


def rank_by_search(searcher: Searcher, benchmark: Benchmark, catalog: pa.Table) -> Run:
    """All tracks of the pool that search finds for every query, best first."""
    where = pool_filter(benchmark.pool, catalog)
    pool = set(benchmark.pool)
    progress = Progress("search", len(benchmark.queries), unit="queries")
    run: dict[str, Sequence[str]] = {}
    rankings = searcher.rank_texts([query.text for query in benchmark.queries], where=where)
    for query, ranked in zip(benchmark.queries, rankings, strict=True):
        run[query.query_id] = [track_id for track_id, _ in ranked if track_id in pool]
        progress.advance(1)
    return run


def pool_filter(pool: Sequence[str], catalog: pa.Table) -> str | None:
    """The filter that selects the pool, if the pool is a split.

    For any other pool the whole catalog is searched, and tracks outside the pool are skipped.
    """
    for split in SPLITS:
        ids = catalog.filter(pc.equal(catalog["split"], split))["track_id"].to_pylist()
        if set(ids) == set(pool):
            return f"split = '{split}'"
    return None


def write_files(
    folder: str, benchmark: Benchmark, runs: dict[str, Run], figures: QualityFigures
) -> dict[str, str]:
    """Writes the benchmark, a TREC run per system and the figures; returns the URIs."""
    save_benchmark(benchmark, folder)
    files = {"queries": f"{folder}/{QUERIES}", "qrels": f"{folder}/{QRELS}"}
    for name, run in runs.items():
        files[f"run_{name}"] = f"{folder}/run.{name}.txt"
        lines = trec.run_lines(run, tag=f"raymtr-{name}")
        storage.write_bytes(files[f"run_{name}"], "".join(f"{n}\n" for n in lines).encode())
    files["metrics"] = f"{folder}/metrics.json"
    storage.write_json(files["metrics"], figures)
    return files


def describe(answer: QualityAnswer) -> str:
    """A line per system and kind of query, then the chance level."""
    systems = by_system(answer)
    source = answer["benchmark"] or f"split {answer['split']}"
    learnt = answer["trained_on"]["queries"] if answer["trained_on"] else {}
    lines = [
        f"{answer['pool']} tracks in the pool ({source}); R@10 with its 95 % interval, "
        "ranks from 1",
        "",
        f"{'kind':15}{'queries':>8}  {'':8}{'R@1':>6}{'R@5':>7}{'R@10':>7}{'':14}{'MedR':>6}"
        f"{'nDCG@10':>9}",
    ]
    for kind, luck in answer["chance"].items():
        mark = MARK if learnt.get(kind) else ""
        head = f"{kind:15}{luck['queries']:>8}{mark:2}"
        for name, by_kind in [*systems.items(), ("chance", answer["chance"])]:
            figures = by_kind[kind]
            interval = answer["intervals"].get(name, {}).get(kind, {}).get("r_at_10")
            shown = f" [{interval[0]:.2f}, {interval[1]:.2f}]" if interval else ""
            lines.append(
                f"{head:25}{name:8}{figures['r_at_1']:6.3f}{figures['r_at_5']:7.3f}"
                f"{figures['r_at_10']:7.3f}{shown:14}{figures['median_rank']:6g}"
                f"{figures['ndcg_at_10']:9.3f}"
            )
            head = ""
    lines += [""] + [f"note: {note}" for note in answer["notes"]]
    return "\n".join([*lines, f"written to {answer['files']['metrics']}"])
