"""`raymtr tokenize`: catalog + audio + two towers -> `tokens/<fingerprint>/`, for MusicLM.

First the parts are fitted, once: a codec, semantic tokens and joint tokens (raymtr.generation), on
up to `tokens.fit_tracks` tracks of the split `train`; where `tokens.melody.steps` asks for it a
melody part too, on as many that share a `tune`. Then every track becomes tokens. Decoding,
resuming, dead letters, shards and partitions are those of `embed`. Run again, it takes new and
changed tracks, with the same parts.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import logging
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.cluster import start_ray
from jobs.partitions import Work, Worked, count_tracks, work_through_catalog
from jobs.ray_calls import ray_task
from jobs.shard_rows import add_retry, commit_results, cpu_pipeline, fit_actors, tracks_per_block
from raymtr import storage
from raymtr.embeddings.kept_model import identify, keep_model
from raymtr.embeddings.store import EmbeddingStore, ModelRef
from raymtr.errors import InputError, UnusableError
from raymtr.generation.fit_sample import fit_sample, sentences_of, tunes_of
from raymtr.generation.token_report import CodebookReport
from raymtr.generation_specs import TokensSpec
from raymtr.model.identity import CONFIG
from raymtr.partitions import has_audio
from raymtr.recipes import DEFAULT_MODEL
from raymtr.specs import EmbedSpec, Settings
from raymtr.tower_specs import AudioSpec
from raymtr.workspace import Workspace

if TYPE_CHECKING:
    import ray.data

LOG = logging.getLogger("raymtr")
EXAMPLE = "raymtr tokenize --workspace w --recipe musiclm-depth"
REPORTED = 5_000  # tracks that the figures of the books are of
TRACKS_PER_BLOCK = 8


class TokenizeAnswer(Worked):
    """The catalog's tracks by outcome, and what this run did."""

    fingerprint: str  # of the parts
    joint_model: str
    books: dict[str, CodebookReport]
    seconds: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `tokenize`."""
    parser.add_argument(
        "--model",
        help=f"two towers, a folder or a name; else the newest finished run, or {DEFAULT_MODEL}",
    )
    add_retry(parser)


def run(arguments: argparse.Namespace, workspace: Workspace, settings: Settings) -> TokenizeAnswer:
    """The command-line entry point."""
    return tokenize_catalog(workspace, settings, model=arguments.model, retry=arguments.retry)


def tokenize_catalog(
    workspace: Workspace,
    settings: Settings,
    *,
    model: str | None = None,
    retry: Sequence[str] = (),
) -> TokenizeAnswer:
    """Fits the parts where these settings have none, then tokenises every track with audio.

    Raises InputError if there is no catalog or no track with audio, UnusableError if a model is
    missing or there is too little audio to fit.
    """
    from raymtr.generation.token_report import report_codebooks
    from raymtr.generation.token_store import TokenStore, all_tokens, find_parts

    started = time.monotonic()
    count_tracks(workspace)
    if not has_audio(workspace.tracks):
        raise InputError(f"no track of {workspace.tracks} has audio: there is nothing to tokenise")
    source = (
        workspace.trained(model)
        if model
        else workspace.newest_model() or workspace.model(DEFAULT_MODEL)
    )
    loaded = identify(source, "fp32")
    joint = ModelRef(fingerprint=loaded.fingerprint, precision="fp32", dim=loaded.spec.dim)
    spec = settings.tokens
    name = find_parts(workspace, spec, joint.fingerprint)
    if name is None:
        name = make_parts(workspace, settings, source, joint, loaded.spec.audio)
    shards = TokenStore(workspace, name, spec.joint_levels)
    if not storage.exists(f"{shards.model_folder}/{CONFIG}"):
        keep_model(source, loaded, shards.model_folder)
    tokenize = functools.partial(tokenize_tracks, joint=joint, spec=loaded.spec.audio, tokens=spec)
    work = Work(
        what="tokenize", shards=shards, run=tokenize, embed=settings.embed, retry=tuple(retry)
    )
    worked = work_through_catalog(workspace, work)
    rows = itertools.islice(all_tokens(shards.folder, spec.levels), REPORTED)
    books = report_codebooks(rows, semantic_codes=spec.semantic_codes, codes=_codes(shards))
    storage.write_json(f"{shards.folder}/books.json", books)
    return {
        **worked,
        "fingerprint": name,
        "joint_model": joint.fingerprint,
        "books": books,
        "seconds": round(time.monotonic() - started, 3),
    }


def _codes(shards: EmbeddingStore) -> int:
    from raymtr.generation.parts import read_parts

    return read_parts(f"{shards.folder}/parts").codec.codes


def make_parts(
    workspace: Workspace, settings: Settings, source: str, joint: ModelRef, audio: AudioSpec
) -> str:
    """Fits the parts on training tracks and stores them; their fingerprint.

    Clips travel as Ray objects; the fitting is one Ray task, on any node. A killed fit is repeated.
    """
    import ray

    from raymtr.generation.parts import codec_rate
    from raymtr.generation.tokenize_tracks import ExtractFitInputs

    spec, embed = settings.tokens, settings.embed
    rate = codec_rate(spec)
    sample = fit_sample(workspace, spec)
    start_ray()
    LOG.info("parts are fitted on %d tracks", len(sample))
    embed = fit_actors(embed, sample)
    hung = workspace.path("tokens", "hung")
    decoding = {"spec": audio, "rate": rate, "embed": embed, "hung": hung, "clip_s": spec.fit_s}
    towers = (source, joint, spec, rate)
    inputs = _pipeline(sample, TRACKS_PER_BLOCK, decoding, ExtractFitInputs, towers)
    fit = ray_task(fit_and_save, num_cpus=embed.threads)
    return ray.get(
        fit(
            *inputs.to_arrow_refs(),
            source=source,
            joint=joint,
            settings=settings,
            sentences=sentences_of(sample),
            tunes=tunes_of(sample),
            workspace=workspace,
        )
    )


def fit_and_save(
    *tables: pa.Table,
    source: str,
    joint: ModelRef,
    settings: Settings,
    sentences: Sequence[str],
    workspace: Workspace,
    tunes: Mapping[str, str] | None = None,
) -> str:
    """The Ray task: FIT_INPUTS tables and sentences -> parts in `tokens/<fingerprint>/parts`.

    `tunes` are those of the tracks that a melody part learns from, by their ids.
    """
    import torch

    from raymtr.generation.parts import MARKER, fit_parts
    from raymtr.generation.tokenize_tracks import FIT_INPUTS, tune_clips
    from raymtr.model.pretrained import load_model
    from raymtr.progress import speak_to_driver

    speak_to_driver()
    torch.set_num_threads(settings.embed.threads)
    inputs = pa.concat_tables(
        [FIT_INPUTS.empty_table(), *(t.select(FIT_INPUTS.names) for t in tables if t)]
    )
    good = inputs.filter(pc.is_null(inputs["code"])).combine_chunks()
    if not len(good):
        reason = inputs["reason"][0].as_py() if len(inputs) else "there is none"
        raise UnusableError(
            f"no training track can be decoded to fit parts on; the first: {reason}"
        )
    flat = {
        name: np.concatenate([np.asarray(row.values, np.float32) for row in good[name]])
        for name in ("frames", "vectors")
    }
    model = load_model(source)
    text = model.encode_text(list(sentences)) if sentences else np.empty((0, joint.dim), np.float32)
    parts = fit_parts(
        [np.frombuffer(clip.as_buffer(), np.float32) for clip in good["whole"]],
        torch.from_numpy(flat["frames"].reshape(-1, good["width"][0].as_py())),
        flat["vectors"].reshape(-1, joint.dim),
        text,
        settings.tokens,
        joint_model=joint.fingerprint,
        tunes=tune_clips(good, tunes or {}, settings.tokens),
    )
    with tempfile.TemporaryDirectory() as scratch:
        name = parts.save(scratch)
        storage.copy_folder(scratch, f"{workspace.tokens(name)}/parts", last=MARKER)
    return name


def tokenize_tracks(
    left: pa.Table,
    shards: EmbeddingStore,
    embed: EmbedSpec,
    *,
    joint: ModelRef,
    spec: AudioSpec,
    tokens: TokensSpec,
) -> int:
    """Tokenises the tracks `left`; the number of replicas seen."""
    from raymtr.generation.parts import codec_rate
    from raymtr.generation.tokenize_tracks import TokenizeTracks

    embed = fit_actors(embed, left)
    size = min(TRACKS_PER_BLOCK, tracks_per_block(left, spec.window_s, embed))
    decoding = {"spec": spec, "rate": codec_rate(tokens), "embed": embed, "hung": shards.hung}
    towers = (f"{shards.folder}/parts", shards.model_folder, joint)
    pipeline = _pipeline(left, size, decoding, TokenizeTracks, towers)
    return commit_results(pipeline, shards, total=len(left), actors=embed.actors, what="tokenize")


def _pipeline(
    tracks: pa.Table, size: int, decoding: dict[str, Any], actor: type, arguments: tuple[Any, ...]
) -> ray.data.Dataset:
    """Tracks, `size` a block, decoded twice and passed to replicas of `actor`."""
    from raymtr.generation.tokenize_tracks import decode_twice

    decode = functools.partial(decode_twice, **decoding)
    return cpu_pipeline(
        tracks, decode, actor, arguments, rows_per_block=size, embed=decoding["embed"]
    )


def describe(answer: TokenizeAnswer) -> str:
    """The answer as text."""
    lines = [
        f"{answer['embedded']} tracks tokenised ({answer['new']} tried now), {answer['failed']} "
        f"failed, {answer['skipped']} without audio skipped; {answer['seconds']:.1f} s; parts "
        f"{answer['fingerprint']}"
    ]
    lines += [f"  {count} x {code}" for code, count in answer["errors"].items()]
    for name, book in answer["books"].items():
        lines.append(
            f"{name:12} {book['used']:.0%} of the codes used, {book['entropy_bits']:.2f} bits, "
            f"{book['entropy_given_before_bits']:.2f} given the token before, "
            f"{book['repeats']:.0%} repeats"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    from jobs.__main__ import run_as_module

    run_as_module(__file__)
