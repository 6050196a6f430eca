"""`raymtr demo`: every job in order on one small Ray cluster, with figures and a report.

Without arguments it creates a synthetic catalog, trains on it, and measures the result on artists
held out of training. With `--music` it runs the same path over the user's own folder, never
training on it: with `--model`, or with pretrained taggers. This is the only job that imports other
jobs. Each step is the verb of the same name.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jobs.cluster import start_ray
from jobs.demo_show import (
    ask,
    dead_letters,
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
from raymtr.errors import InputError, UnusableError
from raymtr.evaluation.report import Facts, write_report
from raymtr.recipes import DEFAULT_MODEL, quick_captions
from raymtr.specs import Settings
from raymtr.workspace import Workspace

if TYPE_CHECKING:  # loads LanceDB, which must not be in a process that forks
    from jobs.build_index import PublishedBuild

EXAMPLE = "raymtr demo --music ~/Music"
LOG = logging.getLogger("raymtr")

SYNTHETIC_WORKSPACE, MUSIC_WORKSPACE = "demo-workspace", "music-workspace"
RUN = "demo"
SYNTHESISER = "tinysoundfont==0.3.7"
MODEL_NOTE = (
    f"The model is {DEFAULT_MODEL}: taggers trained on 100 tags of real songs (musicnn), and "
    "music words mapped to these tags. It cannot tell apart what no tag covers; MODEL=ttmrpp, or "
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
) -> dict[str, Any]:
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
class Stages:
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


def demo_on_synthetic(
    root: str, settings: Settings, *, captioner: str | None = None
) -> dict[str, Any]:
    """Creates a catalog, trains on it and evaluates; writes `metrics.json` and `report.html`."""
    stages = Stages()
    workspace = Workspace.open(root, create=True)
    with MemoryWatch() as memory:
        with stages.timed("start Ray"):
            start_ray()
        # They load LanceDB: after Ray's start, see `allow_lancedb`.
        from jobs.build_index import build_index
        from jobs.evaluate import evaluate

        captioned, trained = make_towers(workspace, settings, stages, captioner=captioner)
        with stages.timed("embed"):
            embedded = embed_catalog(workspace, settings, model=trained["model"])
        with stages.timed("index"):
            built = build_index(workspace, settings, fingerprint=embedded["fingerprint"])
        with stages.timed("evaluate"):
            quality = evaluate(workspace, settings, split="test", system="both")
        with stages.timed("search"):
            examples = ask(workspace, held_out_queries(workspace))
            sections = find_sections(workspace)
    kept = ("pool", "trained_on", "seed", "chance", "towers", "search")
    figures = {key: quality[key] for key in kept}
    answer = {
        **figures,
        "where_in_track": sections,
        "stages": stages.seconds,
        "peak_memory_gib": round(memory.peak_gib, 3),
    }
    storage.write_json(workspace.path("metrics.json"), answer)
    facts = _built_facts(workspace, settings, embedded, built) | Facts(
        name="raymtr: a catalog made on the spot, searched by words",
        lead=(
            "Every piece was composed and rendered for this run; the artists asked for below "
            "were never trained on, unless a query says so."
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
    return answer | {"examples": examples, "report": report, "quality": quality}


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
    workspace: Workspace, settings: Settings, stages: Stages, *, captioner: str | None = None
) -> tuple[CaptionAnswer, TrainAnswer]:
    """The synthetic catalog, its captions and the towers trained on it; finished work is reused."""
    from raymtr.synthetic.synthesize import synthesize

    require_synthesiser()
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
            cure = f"remove {workspace.run(RUN)} to train the demonstration anew"
            raise InputError(f"{error}; {cure}") from error


def require_synthesiser() -> None:
    """Installs the synthesizer if pip alone did not, without its playback dependency PyAudio.

    Raises UnusableError if pip fails.
    """
    if importlib.util.find_spec("tinysoundfont"):
        return
    LOG.info("installing %s without its dependencies, which play sound only", SYNTHESISER)
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", SYNTHESISER]
    if subprocess.run(command, stdout=sys.stderr).returncode:
        raise UnusableError(f"the demo needs a synthesiser: pip install --no-deps {SYNTHESISER}")
    importlib.invalidate_caches()


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
) -> dict[str, Any]:
    """Scans, embeds, indexes and searches a user's folder with finished towers; never trains."""
    stages = Stages()
    note = []
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
            LOG.info("%s", MODEL_NOTE)
        with stages.timed("embed"):
            embedded = embed_catalog(workspace, settings, model=model)
        answer = {"music": music, "model": model, "notes": note, **embedded}
        if not embedded["embedded"]:
            return answer | {
                "error_rate": 1.0,
                "failures": dead_letters(embedded["fingerprint"], workspace),
            }
        with stages.timed("index"):
            built = build_index(workspace, settings, fingerprint=embedded["fingerprint"])
        with stages.timed("search"):
            errors = dead_letters(embedded["fingerprint"], workspace)
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
    # One embedded file is success here. Failed files are listed and do not fail the run.
    return answer | {
        "error_rate": 0.0,
        "failures": errors,
        "examples": examples,
        "stages": stages.seconds,
        "peak_memory_gib": round(memory.peak_gib, 3),
        "report": report,
    }


def describe(answer: dict[str, Any]) -> str:
    """Queries with their hits, then the figures."""
    from jobs.evaluate import describe as describe_quality

    lines = []
    for example in answer.get("examples", ()):
        lines.append(f"\n  {example['query']}   [{example['kind']}]")
        for place, hit in enumerate(example["hits"], 1):
            name = f"{hit['title'] or hit['track_id']} - {hit['artist'] or 'unknown artist'}"
            lines.append(f"    {place}. {name}  {hit['score']:.3f}")
    if "quality" in answer:
        lines += ["", describe_quality(answer["quality"]), where_note(answer["where_in_track"])]
    if answer.get("failures"):
        lines.append(f"\n{len(answer['failures'])} files could not be used:")
        lines += [f"  {row['code']:10} {row['uri']}: {row['reason']}" for row in answer["failures"]]
    lines += [f"\n{note}" for note in answer.get("notes", ())]
    if "stages" in answer:
        took = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in answer["stages"].items())
        lines.append(f"\n{took}; peak memory {answer['peak_memory_gib']:.2f} GiB")
        lines.append(f"report: {answer['report']}")
    return "\n".join(lines)


if __name__ == "__main__":
    from jobs.__main__ import run_as_module

    run_as_module(__file__)
