"""Prometheus metrics of one ingress replica.

All metrics are recorded here. The encoders and the retriever return the cost of a request with
their answers. So `/metrics` covers the whole path, and no second port has to be scraped. With
several ingress replicas, each records its own requests and has to be scraped separately.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from serve.messages import A, LiveState, Searched, Vectors

BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The counters of one replica, in their own registry."""

    def __init__(self) -> None:
        self.registry = own = CollectorRegistry()
        self._requests = Counter("raymtr_requests", "answers", ["path", "status"], registry=own)
        self._seconds = Histogram(
            "raymtr_request_seconds", "time to an answer", ["path"], buckets=BUCKETS_S, registry=own
        )
        self._stages = Histogram(
            "raymtr_stage_seconds", "time of a stage", ["stage"], buckets=BUCKETS_S, registry=own
        )
        self._batches = Histogram(
            "raymtr_encoder_batch_requests", "per batch", buckets=BATCH_BUCKETS, registry=own
        )
        self._cache = Counter(
            "raymtr_query_cache",
            "searches by what was cached: the answer, the vectors (hit), nothing (miss)",
            ["outcome"],
            registry=own,
        )
        self._partial = Counter(
            "raymtr_partial_answers",
            "searches that a table shard did not answer in time",
            registry=own,
        )
        self._clips = Counter(
            "raymtr_generated_clips",
            "clips by outcome: whole, or broken_off before the end",
            ["outcome"],
            registry=own,
        )
        self._rows = Gauge("raymtr_index_rows", "rows of a live table", ["table"], registry=own)
        self._unindexed = Gauge(
            "raymtr_index_unindexed_rows", "vectors not yet in the vector index", registry=own
        )
        self._overdue = Gauge(
            "raymtr_overdue_calls",
            "kinds of table calls that run past their request's deadline, in the retriever",
            registry=own,
        )
        self._index = Gauge(
            "raymtr_index_info", "the live build", ["table_version", "model"], registry=own
        )

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Counts one response. `path` is a route pattern, never user input."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def searched(self, searched: Searched[A]) -> None:
        """Records the stages of one search; a cached answer has none."""
        if searched.remembered:
            self._cache.labels("answer").inc()
            return
        self._partial.inc(searched.answer["partial"])
        took_ms = searched.answer["took_ms"]
        for stage, took in (
            ("encode", took_ms["encode"]),
            ("search", took_ms["search"]),
            ("rank", took_ms["rank"]),
        ):
            self._stages.labels(stage).observe(took / 1e3)
        if searched.vectors is not None:
            self.encoded(searched.vectors)

    def encoded(self, vectors: Vectors) -> None:
        """Counts one request for text vectors."""
        self._cache.labels("hit" if vectors.cached else "miss").inc()
        if not vectors.cached:
            self._batches.observe(vectors.batch)

    def generated(self, outcome: str) -> None:
        """Counts one clip whose first window was sent: `whole`, or `broken_off`."""
        self._clips.labels(outcome).inc()

    def indexed(self, state: LiveState) -> None:
        """Records the live build."""
        for table, rows in state["rows"].items():
            self._rows.labels(table).set(rows)
        self._unindexed.set(state["unindexed_rows"])
        self._overdue.set(state["overdue_calls"])
        self._index.clear()
        self._index.labels(state["table_version"], state["model"] or "").set(1)

    def text(self) -> bytes:
        """The metrics in Prometheus' text format, followed by process metrics (memory, CPU)."""
        return generate_latest(self.registry) + generate_latest()
