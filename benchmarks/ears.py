"""One pass over the audio for vectors, tags and attributes, against its parts and three passes.

    python benchmarks/ears.py [--model musicnn-minilm] [--minutes 4] [--rounds 2]

CPU seconds of one thread for one track, an MP3 of 44.1 kHz in stereo made here, and the minimum
over rounds. A part is the bare function; a pass is what an actor of the job does with a track,
decoding included, without Ray. Target: the combined pass takes at most 1.15 times the sum of its
bare parts (decoding once) and at most 0.75 times three separate passes.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import soundfile
import torch

import raymtr
from raymtr import audio
from raymtr.audio.attributes import measure
from raymtr.embeddings.embed_tracks import EmbedTracks, decode_tracks
from raymtr.embeddings.store import ModelRef
from raymtr.specs import EmbedSpec
from raymtr.tagging.analysis import TAGGED_AUDIO, Analyzer
from raymtr.tagging.store import decode_whole
from raymtr.tagging.together import EmbedAndTag, decode_for_both

RATE = 44_100
HOW = {"embed": EmbedSpec(), "hung": "/absent"}
MOST_OF_PARTS, MOST_OF_PASSES = 1.15, 0.75


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="musicnn-minilm")
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        model = str(Path(folder) / "model")
        raymtr.load_model(arguments.model).save(model)
        work = work_of(model, write_track(Path(folder), "long", arguments.minutes * 60))
        warm = work_of(model, write_track(Path(folder), "warm", 8.0))
        for run in warm.values():
            run()
        seconds = {name: cost(run, arguments.rounds) for name, run in work.items()}
    for name, took in seconds.items():
        print(f"{name:18} {took:6.2f} CPU s")
    return report(seconds)


def work_of(folder: str, file: str) -> dict[str, Callable[[], object]]:
    """The parts and the passes, by name."""
    model, analyzer = raymtr.load_model(folder, audio_only=True), Analyzer()
    spec = model.spec.audio
    made_by = ModelRef(fingerprint=model.fingerprint, precision="fp32", dim=model.spec.dim)
    one = pa.table({"track_id": ["a"], "uri": [file], "file_version": pa.nulls(1, pa.string())})
    samples = audio.decode(file, TAGGED_AUDIO).samples
    windows = audio.windows(audio.decode(file, spec).samples, spec)[1]
    heard = audio.windows(samples, TAGGED_AUDIO)[1]
    embed, both = (
        actor(folder, made_by, device="cpu", threads=1) for actor in (EmbedTracks, EmbedAndTag)
    )

    def again() -> np.ndarray:
        (row,) = decode_whole(one, **HOW)
        return np.frombuffer(row["samples"][0].as_buffer(), np.float32)

    return {
        "decode": lambda: audio.decode(file, spec),
        "embed": lambda: model.embed_windows(windows),
        "tags": lambda: analyzer.logits(heard),
        "attributes": lambda: measure(samples, TAGGED_AUDIO.sample_rate),
        "pass: embed": lambda: embed(pa.concat_tables(decode_tracks(one, spec=spec, **HOW))),
        "pass: tags": lambda: analyzer.logits(audio.windows(again(), TAGGED_AUDIO)[1]),
        "pass: attributes": lambda: measure(again(), TAGGED_AUDIO.sample_rate),
        "pass: combined": lambda: both(pa.concat_tables(decode_for_both(one, spec=spec, **HOW))),
    }


def report(seconds: dict[str, float]) -> int:
    parts = sum(seconds[name] for name in ("decode", "embed", "tags", "attributes"))
    passes = sum(seconds[f"pass: {name}"] for name in ("embed", "tags", "attributes"))
    combined = seconds["pass: combined"]
    print(f"combined / bare parts    {combined / parts:.2f} (at most {MOST_OF_PARTS})")
    print(f"combined / three passes  {combined / passes:.2f} (at most {MOST_OF_PASSES})")
    return int(combined > MOST_OF_PARTS * parts or combined > MOST_OF_PASSES * passes)


def cost(run: Callable[[], object], rounds: int) -> float:
    took = []
    for _ in range(rounds):
        began = time.process_time()
        run()
        took.append(time.process_time() - began)
    return min(took)


def write_track(folder: Path, name: str, seconds: float) -> str:
    """Chords struck twice a second, under noise; another chord every two seconds."""
    t = np.arange(int(seconds * RATE)) / RATE
    root = 110 * 2 ** (np.floor(t / 2 % 4) * 5 % 12 / 12)
    chord = sum(np.sin(2 * np.pi * np.cumsum(root * ratio) / RATE) for ratio in (1, 1.26, 1.5))
    noise = np.random.default_rng(0).standard_normal((len(t), 2))
    struck = (0.1 * chord * np.exp(-4 * (t % 0.5)))[:, None] + 0.01 * noise
    soundfile.write(folder / f"{name}.mp3", struck, RATE, format="MP3")
    return str(folder / f"{name}.mp3")


if __name__ == "__main__":
    sys.exit(main())
