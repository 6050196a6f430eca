"""The content of the demo's report: queries, hits, figures and facts."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypedDict, cast, final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import raymtr
from jobs.embed_pipeline import EmbedFigures
from raymtr import storage
from raymtr.captions import gguf_base
from raymtr.captions.gguf_base import SMOLLM2
from raymtr.captions.judging.likelihood import Likelihood
from raymtr.captions.writing.realiser import realise
from raymtr.evaluation.quality import Figures, TrainedOn
from raymtr.evaluation.report import Captioned, Facts, ReportExample, ReportHit
from raymtr.specs import Settings
from raymtr.workspace import Workspace

if TYPE_CHECKING:
    from jobs.evaluate_tracks import QualityAnswer

HITS = 5  # shown per query
SHOWN_CAPTIONS = 10  # tracks whose captions the page shows
DESCRIPTIONS = ("slow sad piano", "fast energetic drums", "calm acoustic guitar, no drums")


class FailedFile(TypedDict):
    """A row of a dead_letter table, and its stage."""

    track_id: str
    uri: str
    code: str
    reason: str
    stage: str


class SectionFigures(TypedDict):
    """Whether segments lie in the section that was searched for; shares."""

    queries: int
    right: float
    chance: float


class DemoFigures(TypedDict):
    """The figures of the synthetic catalog, as in `metrics.json`."""

    pool: int  # tracks
    trained_on: TrainedOn | None
    seed: int
    chance: dict[str, Figures]  # by kind of query
    towers: dict[str, Figures]
    search: dict[str, Figures]
    where_in_track: SectionFigures
    stages: dict[str, float]  # seconds
    peak_memory_gib: float


@final
class DemoAnswer(DemoFigures):
    """The figures, example queries with their hits, and the report."""

    examples: list[ReportExample]
    report: str
    quality: QualityAnswer


class MusicFigures(EmbedFigures):
    """How many files of a user's folder were used, and how many failed."""

    music: str
    notes: list[str]
    failures: list[FailedFile]


@final
class MusicFailure(MusicFigures):
    """The answer if no file could be embedded."""


@final
class MusicAnswer(MusicFigures):
    """The figures, example queries with their hits, and the report."""

    examples: list[ReportExample]
    stages: dict[str, float]  # seconds
    peak_memory_gib: float
    report: str


def catalog_of(workspace: Workspace) -> pa.Table:
    """The catalog's tracks."""
    table = storage.read_tables(workspace.tracks)
    assert table is not None, "scan has just written the catalog"
    return table


def held_out_queries(workspace: Workspace) -> list[tuple[str, str, str | None]]:
    """(kind, query, filter) over the held-out tracks of the synthetic catalog."""
    table = catalog_of(workspace)
    rows = table.filter(pc.equal(table["split"], "test")).to_pylist()
    pieces = [row for row in rows if row["mode"]]  # pieces of one section
    first, middle, last = pieces[0], pieces[len(pieces) // 2], pieces[-1]
    known = next(name for row in rows for name in row["similar_artists"] or ())
    here = "split = 'test'"
    sentences = [realise(row["tags"], 0, held_out=True) for row in (first, middle, last)]
    return [
        *(("caption", sentence.text, here) for sentence in sentences if sentence),
        ("tag", middle["tags"][0], here),
        ("title", f"{first['title']} by {first['artist']}", None),
        ("title", middle["title"], None),
        ("artist", middle["artist"], None),
        ("similar_artist", f"similar to {known}", here),
    ]


def some_captions(workspace: Workspace) -> list[Captioned]:
    """The captions of a few tracks, spread over the whole catalog; ranked where SmolLM2 is here."""
    rows = catalog_of(workspace).to_pylist()
    written: dict[str, list[str]] = {}
    table = storage.read_tables(workspace.captions)
    for row in table.to_pylist() if table else ():
        written.setdefault(row["track_id"], []).append(row["caption"])
    rows = [row for row in rows if row["track_id"] in written]
    chosen = rows[:: max(1, len(rows) // SHOWN_CAPTIONS)][:SHOWN_CAPTIONS]
    likelihood = Likelihood(SMOLLM2) if gguf_base.is_installed() else None
    shown = []
    for row in chosen:
        texts = written[row["track_id"]]
        likeliest = None
        if likelihood is not None:
            nats = likelihood.given_tags(texts, [row["tags"]] * len(texts))
            likeliest = texts[int(nats.argmin())]
        shown.append(Captioned(tags=row["tags"], captions=texts, likeliest=likeliest))
    return shown


def find_sections(workspace: Workspace) -> SectionFigures:
    """Whether segments are right, on long pieces queried by the words of one of their sections.

    `right` is the share of queries whose segment has its middle in that section. `chance` is the
    mean share of the piece that the section takes.
    """
    searcher = raymtr.Searcher(workspace)
    truth = storage.read_json(workspace.path("music", "sections.json"))
    right, chance = [], []
    for track_id, sections in truth.items():
        for section in sections:
            words = ", ".join(section["tags"])
            where = f"track_id = '{track_id}'"
            (hit,) = searcher.search(text=words, where=where, mode="semantic", k=1)["hits"]
            assert hit["segment"] is not None, "these pieces were embedded"
            middle = (hit["segment"]["start_s"] + hit["segment"]["end_s"]) / 2
            right.append(section["start_s"] <= middle < section["end_s"])
            chance.append((section["end_s"] - section["start_s"]) / sections[-1]["end_s"])
    return {
        "queries": len(right),
        "right": float(np.mean(right)),
        "chance": float(np.mean(chance)),
    }


def own_queries(workspace: Workspace, failed: set[str]) -> list[tuple[str, str, str | None]]:
    """(kind, query, filter) that a user's folder should answer, without the `failed` tracks."""
    rows = catalog_of(workspace).slice(0, 1000).to_pylist()
    rows = [row for row in rows if row["track_id"] not in failed]
    titles = [row["title"] for row in rows if row["title"]][:2]
    artists = list(dict.fromkeys(row["artist"] for row in rows if row["artist"]))[:2]
    tags = list(dict.fromkeys(tag for row in rows for tag in row["tags"] or ()))[:2]
    queries = [("title", title) for title in titles]
    queries += [("artist", artist) for artist in artists]
    queries += [("similar_artist", f"similar to {artist}") for artist in artists[:1]]
    queries += [("tag", tag) for tag in tags]
    queries += [("description", words) for words in DESCRIPTIONS]
    return [(kind, query, None) for kind, query in queries]


def ask(
    workspace: Workspace, queries: Sequence[tuple[str, str, str | None]]
) -> list[ReportExample]:
    """Each query with its hits, for the report."""
    searcher = raymtr.Searcher(workspace.root)
    tracks = catalog_of(workspace)
    durations = dict(
        zip(tracks["track_id"].to_pylist(), tracks["duration"].to_pylist(), strict=True)
    )
    examples = []
    for kind, query, where in queries:
        found = searcher.search(text=query, where=where, k=HITS)
        hits = [
            cast(ReportHit, hit | {"duration": durations[hit["track_id"]]}) for hit in found["hits"]
        ]
        examples.append(
            ReportExample(
                query=query,
                kind=kind,
                understood=found["query"],
                took_ms=found["took_ms"]["total"],
                hits=hits,
            )
        )
    return examples


def example_lines(example: ReportExample) -> list[str]:
    """A query with its hits, as text."""
    lines = [f"\n  {example['query']}   [{example['kind']}]"]
    for place, hit in enumerate(example["hits"], 1):
        name = f"{hit['title'] or hit['track_id']} - {hit['artist'] or 'unknown artist'}"
        lines.append(f"    {place}. {name}  {hit['score']:.3f}")
    return lines


def dead_letters(fingerprint: str | None, workspace: Workspace) -> list[FailedFile]:
    """What scan, and embed with that model, could not use, with the reason."""
    rows: list[FailedFile] = []
    for stage, folder in (
        ("scan", f"{workspace.catalog}/dead_letter"),
        ("embed", f"{workspace.embeddings(fingerprint)}/dead_letter" if fingerprint else None),
    ):
        if folder is None:
            continue
        table = storage.read_tables(folder)
        for row in table.to_pylist() if table else ():
            rows.append(
                FailedFile(
                    track_id=row["track_id"],
                    uri=row["uri"],
                    code=row["code"],
                    reason=row["reason"],
                    stage=stage,
                )
            )
    return rows


def where_note(sections: SectionFigures) -> str:
    """The figure of `find_sections` as text."""
    return (
        "Where in the track: for the words of one section of a long piece, the segment of the hit "
        f"lies in that section for {sections['right']:.0%} of {sections['queries']} queries; at "
        f"random {sections['chance']:.0%}."
    )


def training_curve(workspace: Workspace, run: str) -> list[tuple[int, float | None, float | None]]:
    """(step, loss, validation R@10) of the training run called `run`."""
    lines = storage.read_bytes(f"{workspace.run(run)}/metrics.jsonl").decode().splitlines()
    rows = [json.loads(line) for line in lines]
    return [(row["step"], row.get("loss"), row.get("valid_text_to_audio_r_at_10")) for row in rows]


def facts_of(
    workspace: Workspace, settings: Settings, *, embedded: int, fingerprint: str | None, index: str
) -> Facts:
    """A sentence on the build: `embedded` tracks by that model, and the index."""
    table = catalog_of(workspace)
    seconds = pc.sum(table["duration"]).as_py() or 0.0
    return Facts(
        made_at=time.strftime("%d %B %Y, %H:%M"),
        tracks=len(table),
        hours=seconds / 3600,
        artists=pc.count_distinct(table["artist"]).as_py(),
        built={
            "recipe": settings.recipe,
            "tracks embedded": embedded,
            "model fingerprint": fingerprint,
            "index": index,
        },
        versions={"raymtr": raymtr.__version__, "Python": platform.python_version()},
    )
