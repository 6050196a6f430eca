"""`raymtr demo`: every job in order on one small Ray cluster, with figures and a report.

Without arguments it creates a synthetic catalog, trains on it, and measures the result on artists
held out of training. With `--music` it runs the same path over the user's own folder, never
training on it: with `--model`, or with pretrained taggers. This is the only job that imports other
jobs. Each step is the verb of the same name.
"""

from __future__ import annotations

import argparse
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from jobs.cluster import start_ray
from jobs.demo_packages import require_synthesiser, require_taggers
from jobs.demo_show import (
    DemoAnswer,
    DemoFigures,
    MusicAnswer,
    MusicFailure,
    MusicFigures,
    ask,
    dead_letters,
    example_lines,
    facts_of,
    find_sections,
    held_out_queries,
    own_queries,
    some_captions,
    training_curve,
    where_note,
)
from jobs.embed_catalog import embed_catalog
from jobs.embed_pipeline import EmbedAnswer
from jobs.memory_watch import MemoryWatch
from jobs.scan_catalog import scan_catalog
from jobs.train_towers import TrainAnswer, train_towers
from jobs.write_captions import CaptionAnswer, write_captions
from raymtr import storage
from raymtr.errors import InputError
from raymtr.evaluation.report import Facts, write_report
from raymtr.recipes import DEFAULT_MODEL, quick_captions
from raymtr.specs import Settings
from raymtr.tower_specs import MUSICNN_DIM
from raymtr.workspace import Workspace

if TYPE_CHECKING:  # loads LanceDB, which must not be in a process that forks
    from jobs.build_index import PublishedBuild

EXAMPLE = "raymtr demo --music ~/Music"
LOG = logging.getLogger("raymtr")

SYNTHETIC_WORKSPACE, MUSIC_WORKSPACE = "demo-workspace", "music-workspace"
RUN = "demo"
MODEL_NOTE = (
    f"The model is {DEFAULT_MODEL}: taggers trained on 100 tags of real songs (musicnn), and "
    "music words mapped to these tags. It cannot distinguish what no tag covers; MODEL=ttmrpp, or "
    "a model folder of your own, can."
)
PIECES = 600
MODEL_TRACKS = 66  # pieces it captions, three times each; the realiser writes for the others


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `demo`."""
    parser.add_argument("--music", metavar="FOLDER", help="a folder of your own audio")
    parser.add_argument("--model", help="with --music: a model folder or name, such as ttmrpp")
    parser.add_argument("--captioner", metavar="FOLDER", help="a fine-tuned captioner")


def run(
    arguments: argparse.Namespace, workspace: Workspace | None, settings: Settings
) -> DemoAnswer | MusicAnswer | MusicFailure:
    """The command-line entry point."""
    if arguments.model and not arguments.music:
        raise InputError("--model goes with --music; the demo alone trains its own towers")
    if arguments.music:
        root = arguments.workspace or MUSIC_WORKSPACE
        return demo_on_music(
            root,
            settings,
            music=arguments.music,
            model=arguments.model,
            captioner=arguments.captioner,
        )
    root = arguments.workspace or SYNTHETIC_WORKSPACE
    return demo_on_synthetic(root, settings, captioner=arguments.captioner)


@dataclass
class StageTimer:
    """The stages that ran so far and their times in seconds."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Announces a stage and records its time."""
        LOG.info("== %s", name)
        started = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - started, 2)
        LOG.info("   %s took %.0f s", name, self.seconds[name])


def demo_on_synthetic(root: str, settings: Settings, *, captioner: str | None = None) -> DemoAnswer:
    """Creates a catalog, trains on it and evaluates; writes `metrics.json` and `report.html`."""
    stages = StageTimer()
    workspace = Workspace.open(root, create=True)
    with MemoryWatch() as memory:
        with stages.timed("start Ray"):
            start_ray()
        # They load LanceDB: after Ray's start, see `allow_lancedb`.
        from jobs.build_index import build_index
        from jobs.evaluate_tracks import evaluate_tracks

        captioned, trained = make_towers(workspace, settings, stages, captioner=captioner)
        with stages.timed("embed"):
            embedded = embed_catalog(workspace, settings, model=trained["model"])
        with stages.timed("index"):
            built = build_index(workspace, settings, fingerprint=embedded["fingerprint"])
        with stages.timed("evaluate"):
            quality = evaluate_tracks(workspace, settings, split="test", system="both")
        with stages.timed("search"):
            examples = ask(workspace, held_out_queries(workspace))
            sections = find_sections(workspace)
    figures: DemoFigures = {
        "pool": quality["pool"],
        "trained_on": quality["trained_on"],
        "seed": quality["seed"],
        "chance": quality["chance"],
        "towers": quality["towers"],
        "search": quality["search"],
        "where_in_track": sections,
        "stages": stages.seconds,
        "peak_memory_gib": round(memory.peak_gib, 3),
    }
    storage.write_json(workspace.path("metrics.json"), figures)
    facts = _built_facts(workspace, settings, embedded, built) | Facts(
        name="raymtr: a synthetic catalog, searched by words",
        lead=(
            "Every piece was composed and rendered for this run; the artists in the queries "
            "below were never trained on, unless a query says so."
        ),
        quality=quality,
        examples=examples,
        stages=stages.seconds,
        peak_memory_gib=memory.peak_gib,
        training=training_curve(workspace, RUN),
        captions=some_captions(workspace),
        notes=[where_note(sections), caption_note(captioned, captioner)],
        errors=dead_letters(embedded["fingerprint"], workspace),
    )
    report = workspace.path("report.html")
    write_report(report, facts)
    return {**figures, "examples": examples, "report": report, "quality": quality}


def _built_facts(
    workspace: Workspace, settings: Settings, embedded: EmbedAnswer, built: PublishedBuild
) -> Facts:
    index = built["index"]
    return facts_of(
        workspace,
        settings,
        embedded=embedded["embedded"],
        fingerprint=embedded["fingerprint"],
        index=f"{index['kind']}: {index['why']}",
    )


def make_towers(
    workspace: Workspace, settings: Settings, stages: StageTimer, *, captioner: str | None = None
) -> tuple[CaptionAnswer, TrainAnswer]:
    """The synthetic catalog, its captions and the towers trained on it; finished work is reused."""
    from raymtr.synthetic.synthesize import synthesize

    require_synthesiser()
    if settings.towers.audio_tower.kind in MUSICNN_DIM:
        require_taggers()
    music = workspace.path("music")
    with stages.timed("synthesize"):
        synthesize(music, pieces=PIECES, seed=0, processes=os.cpu_count() or 1)
    with stages.timed("scan"):
        graph = f"{music}/similar_artists.tsv"
        scan_catalog(workspace, settings, f"{music}/manifest.parquet", artists=graph)
    with stages.timed("caption"):
        captioned = write_captions(
            workspace,
            quick_captions(settings),
            captioner=captioner,
            engine="transformers",  # starting an engine would take longer than these few captions
            model_tracks=MODEL_TRACKS if captioner else None,
        )
    with stages.timed("train"):
        try:
            return captioned, train_towers(workspace, settings, run=RUN)
        except InputError as error:
            cure = f"remove {workspace.run(RUN)} to train the demonstration again"
            raise InputError(f"{error}; {cure}") from error


def caption_note(captioned: CaptionAnswer, captioner: str | None) -> str:
    """A sentence that says who wrote the captions used for training."""
    by = captioned["by"]
    if captioner is None:
        return f"Captions: {by.get('realised', 0)}, written from the tags by a grammar."
    return (
        f"Captions: {by.get('model', 0)} by the captioner {captioner}, {by.get('realised', 0)} by "
        f"the grammar (coverage {captioned['coverage']:.2f}, invention "
        f"{captioned['invention']:.2f})."
    )


def demo_on_music(
    root: str, settings: Settings, *, music: str, model: str | None, captioner: str | None = None
) -> MusicAnswer | MusicFailure:
    """Scans, embeds, indexes and searches a user's folder with finished towers; never trains."""
    stages = StageTimer()
    note: list[str] = []
    with MemoryWatch() as memory:
        workspace = Workspace.open(root, create=True)
        with stages.timed("scan"):
            scan_catalog(workspace, settings, music)
        with stages.timed("start Ray"):
            start_ray()
        from jobs.build_index import build_index  # after Ray's start, as above

        if captioner is not None:
            with stages.timed("caption"):
                write_captions(workspace, settings, captioner=captioner)
        if model is None:
            model, note = DEFAULT_MODEL, [MODEL_NOTE]
            require_taggers()
            LOG.info("%s", MODEL_NOTE)
        with stages.timed("embed"):
            embedded = embed_catalog(workspace, settings, model=model)
        errors = dead_letters(embedded["fingerprint"], workspace)
        figures: MusicFigures = {
            "music": music,
            "notes": note,
            **embedded,
            # One embedded file is success here. Failed files are listed and do not fail the run.
            "error_rate": 0.0 if embedded["embedded"] else 1.0,
            "failures": errors,
        }
        if not embedded["embedded"]:
            failure: MusicFailure = {**figures}
            return failure
        with stages.timed("index"):
            built = build_index(workspace, settings, fingerprint=embedded["fingerprint"])
        with stages.timed("search"):
            examples = ask(workspace, own_queries(workspace, {row["track_id"] for row in errors}))
    facts = _built_facts(workspace, settings, embedded, built) | Facts(
        name=f"raymtr: {os.path.basename(os.path.abspath(music))}, searched by words",
        examples=examples,
        stages=stages.seconds,
        peak_memory_gib=memory.peak_gib,
        notes=note,
        errors=errors,
    )
    report = workspace.path("report.html")
    write_report(report, facts)
    answer: MusicAnswer = {
        **figures,
        "examples": examples,
        "stages": stages.seconds,
        "peak_memory_gib": round(memory.peak_gib, 3),
        "report": report,
    }
    return answer


def describe(answer: DemoAnswer | MusicAnswer | MusicFailure) -> str:
    """Queries with their hits, then the figures."""
    from jobs.evaluate_tracks import describe as describe_quality

    lines = []
    if "examples" in answer:
        lines += [line for example in answer["examples"] for line in example_lines(example)]
    if "quality" in answer:
        lines += ["", describe_quality(answer["quality"]), where_note(answer["where_in_track"])]
    else:
        if failures := answer["failures"]:
            lines.append(f"\n{len(failures)} files could not be used:")
            lines += [f"  {row['code']:10} {row['uri']}: {row['reason']}" for row in failures]
        lines += [f"\n{note}" for note in answer["notes"]]
    if "stages" in answer:
        took = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in answer["stages"].items())
        lines.append(f"\n{took}; peak memory {answer['peak_memory_gib']:.2f} GiB")
        lines.append(f"report: {answer['report']}")
    return "\n".join(lines)


if __name__ == "__main__":
    from jobs.__main__ import run_as_module

    run_as_module(__file__)
