"""`raymtr generate "<text>" --seconds 10 --seed 7 --out x.wav`: text -> sound, by MusicLM.

One clip is generated in this process. `--prompts FILE` generates one for each line, as a Ray Data
job. Its clips and the manifest's rows are written to `generated/`, batch by batch, and a killed job
continues with the missing clips. With `--melody FILE` the clips follow the melody of that
recording. The tags of every file state that it is generated, and by which
models.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np
import pyarrow as pa

from jobs.cluster import start_ray
from jobs.ray_calls import arrow_batches
from raymtr import storage
from raymtr.errors import InputError, UnusableError
from raymtr.generation.marker import MARKER, choose_musiclm
from raymtr.progress import Progress
from raymtr.specs import Settings
from raymtr.workspace import Workspace

if TYPE_CHECKING:
    import ray.data

    from raymtr.generation.musiclm import MusicLM, Scene
    from raymtr.generation.requests import Melody, Prompt

LOG = logging.getLogger("raymtr")
EXAMPLE = 'raymtr generate "slow sad piano" --workspace w --seconds 10 --seed 7 --out x.wav'
TOGETHER = 32  # prompts sampled together: of 32 a step costs little more than of one


class GenerateAnswer(TypedDict):
    """The clips of this call."""

    clips: int
    new: int
    failed: int
    error_rate: float
    model: str  # fingerprint
    out: str  # a WAV, or the folder of the clips
    seconds: float  # of work


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `generate`."""
    parser.add_argument("text", nargs="?", help="what is to be heard")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each clip (default: 10)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed, the same bytes")
    parser.add_argument("--out", metavar="FILE", help="the WAV to write")
    parser.add_argument(
        "--story",
        metavar="JSONL",
        help="text and start_s a line: the text changes, the sound stays",
    )
    parser.add_argument(
        "--prompts",
        metavar="FILE",
        help="JSON Lines of text, and seed, or MusicCaps' CSV: a clip of each, by Ray",
    )
    parser.add_argument(
        "--melody", metavar="FILE", help="a recording of 4 s or more whose melody is followed"
    )
    parser.add_argument("--model", help="a run or a model folder; else the newest MusicLM run")


def run(arguments: argparse.Namespace, workspace: Workspace, settings: Settings) -> GenerateAnswer:
    """The command-line entry point."""
    from raymtr.generation.requests import check_seed, read_melody, read_prompts, read_story

    ways = [arguments.text is not None, bool(arguments.story), bool(arguments.prompts)]
    if sum(ways) != 1:
        raise InputError("`raymtr generate` takes one of a text, --story FILE, --prompts FILE")
    if bool(arguments.out) == bool(arguments.prompts):
        raise InputError(
            "--out FILE.wav names one clip's file; the clips of --prompts are in `generated/`"
        )
    check_seed(arguments.seed)
    seconds: float = arguments.seconds
    melody = read_melody(arguments.melody) if arguments.melody else None
    if arguments.prompts:
        prompts = read_prompts(arguments.prompts, seconds, arguments.seed, melody)
        return generate_prompts(
            workspace, settings, prompts, seconds, model=arguments.model, melody=melody
        )
    from raymtr.generation.musiclm import Scene, check_story

    story = [Scene(arguments.text or "")]
    if arguments.story:
        story = read_story(arguments.story, seconds)
    check_story(story, seconds)
    return generate_clip(
        workspace,
        story,
        seconds,
        seed=arguments.seed,
        out=arguments.out,
        model=arguments.model,
        melody=melody,
    )


def generate_clip(
    workspace: Workspace,
    story: list[Scene],
    seconds: float,
    *,
    seed: int,
    out: str,
    model: str | None = None,
    melody: Melody | None = None,
) -> GenerateAnswer:
    """Makes one clip in this process and writes it to `out`, whole or not at all.

    Raises InputError where the request or the model is wrong, UnusableError where the model is
    damaged. A clip whose numbers are not finite counts as failed, with its reason in the manifest.
    """
    import json

    from raymtr.generation.musiclm_folder import read_musiclm
    from raymtr.generation.sound_file import manifest_of, wav_bytes

    started = time.monotonic()
    if Path(out).suffix.lower() != ".wav":
        raise InputError(f"--out is a file that ends in .wav, got {out}")
    made = read_musiclm(choose_musiclm(workspace, model))
    texts = [scene.text for scene in story]
    prompt = texts[0] if len(texts) == 1 else json.dumps(texts, ensure_ascii=False)
    made_by = made.made_by
    if melody is not None:
        made_by["melody"] = melody.name
    row: dict[str, object] = {"clip_id": Path(out).stem, "prompt": prompt}
    row |= {"seed": seed, "seconds": seconds, **made_by}
    try:
        samples = _windows(made, story, seconds, seed, melody)
    except UnusableError as error:  # such as numbers that are not finite
        LOG.error("%s is not written: %s", out, error)
        row |= {"code": "bad_model", "reason": str(error)}
    else:
        place, rate = str(Path(out).absolute()), made.sample_rate
        data = wav_bytes(samples, rate, prompt=prompt, seed=seed, made_by=made_by)
        storage.write_bytes(place, data)
        row |= {"uri": place, "score": made.score(texts[0], samples)}
    name = f"{time.time_ns():020}"
    storage.write_table(f"{workspace.generated}/manifest/{name}.parquet", manifest_of([row]))
    failed = int("code" in row)
    return {
        "clips": 1 - failed,
        "new": 1,
        "failed": failed,
        "error_rate": float(failed),
        "model": made.fingerprint,
        "out": out,
        "seconds": round(time.monotonic() - started, 3),
    }


def _windows(
    made: MusicLM, story: list[Scene], seconds: float, seed: int, melody: Melody | None
) -> np.ndarray:
    """The sound of a story, float32 [S], with its progress shown."""
    windows = []
    progress = Progress("generate", round(seconds), unit="seconds")
    melodies = [melody.samples] if melody else []
    for [part] in made.stream([story], seconds, [seed], melodies=melodies):
        windows.append(part)
        progress.advance(round(len(part) / made.sample_rate))
    return np.concatenate(windows)


def generate_prompts(
    workspace: Workspace,
    settings: Settings,
    prompts: list[Prompt],
    seconds: float,
    *,
    model: str | None = None,
    melody: Melody | None = None,
) -> GenerateAnswer:
    """Makes the clips that are not there yet, by actors of `embed.actors`; one row per clip.

    Raises InputError where the model is wrong. A clip that fails is a row with code and reason.
    """
    import ray.data

    from raymtr.generation.write_clips import PROMPTS, WriteClips

    started = time.monotonic()
    source = choose_musiclm(workspace, model)
    fingerprint = str(storage.read_json(f"{source}/{MARKER}")["fingerprint"])
    folder = f"{workspace.generated}/{fingerprint}"
    rows = storage.read_tables(f"{folder}/manifest", ["clip_id", "code"])
    done = set() if rows is None else set(rows["clip_id"].to_pylist())
    left = [prompt for prompt in prompts if prompt.clip_id not in done]
    if left:
        start_ray()
        embed = settings.embed
        table = pa.Table.from_pylist([vars(prompt) for prompt in left], PROMPTS)
        pipeline = (
            ray.data.from_arrow(table)
            .repartition(target_num_rows_per_block=TOGETHER)
            .map_batches(
                WriteClips,
                fn_constructor_args=(source, folder, seconds, melody),
                fn_constructor_kwargs={
                    "device": "cuda" if embed.use_gpu else "cpu",
                    "threads": embed.threads,
                },
                batch_size=TOGETHER,
                batch_format="pyarrow",
                compute=ray.data.ActorPoolStrategy(size=embed.actors),
                num_cpus=embed.threads,
                num_gpus=embed.gpu_share if embed.use_gpu else 0,
            )
        )
        for made in _committed(pipeline, folder, len(left)):
            LOG.debug("%d clips", len(made))
    kept = storage.read_tables(f"{folder}/manifest", ["clip_id", "code"])
    wanted = {prompt.clip_id for prompt in prompts}
    codes = [] if kept is None else [r["code"] for r in kept.to_pylist() if r["clip_id"] in wanted]
    failed = sum(code is not None for code in codes)
    return {
        "clips": len(codes) - failed,
        "new": len(left),
        "failed": failed,
        "error_rate": failed / len(prompts),
        "model": fingerprint,
        "out": folder,
        "seconds": round(time.monotonic() - started, 3),
    }


def _committed(pipeline: ray.data.Dataset, folder: str, total: int) -> Iterator[pa.Table]:
    """Batches of manifest rows, each written as it arrives."""
    from raymtr.shards import shard_name

    progress = Progress("generate", total, unit="clips")
    for rows in arrow_batches(pipeline):
        name = shard_name(rows["clip_id"].to_pylist())
        storage.write_table(f"{folder}/manifest/{name}.parquet", rows)
        progress.advance(len(rows))
        yield rows


def describe(answer: GenerateAnswer) -> str:
    """The answer as text."""
    return (
        f"{answer['clips']} clips ({answer['new']} made now), {answer['failed']} failed, in "
        f"{answer['out']}; {answer['seconds']:.1f} s; model {answer['model']}. They are generated, "
        "not recordings: each file says so"
    )


if __name__ == "__main__":
    from jobs.__main__ import run_as_module

    run_as_module(__file__)
