"""The jobs over real recordings, and over folk tunes whose instrument, key and metre are known.

    python benchmarks/real_input.py midi  --data ../shared/data/midi       [--steps 160]
    python benchmarks/real_input.py music --data ../shared/data/real_music [--steps 60]

Both run the whole pipeline (scan, caption, train, embed, index, evaluate) with the laptop recipe
and print the time of each job. `midi` renders ten-second clips of the Nottingham tunes: the melody
on the instrument the table assigns to it, the chords on a steel-string guitar. A quarter of the
tunes is held out by a hash of the title, so that a tune with two transcriptions cannot leak. There
each query has a known set of right answers ("bagpipe", "G major", "6/8", "jig on the bagpipe in G
major"), so precision is exact. `music` holds out artists, as `scan` does.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import hashlib
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from jobs.cluster import start_ray
from jobs.embed_catalog import embed_catalog
from jobs.scan_catalog import scan_catalog
from jobs.train_towers import train_towers
from jobs.write_captions import write_captions
from raymtr import storage
from raymtr.catalog.sources import key_words, real_music_tracks
from raymtr.evaluation.benchmarks import Benchmark, Query, save_benchmark
from raymtr.recipes import laptop
from raymtr.synthetic.render import SAMPLE_RATE, find_soundfont
from raymtr.track import TUNE
from raymtr.workspace import Workspace

CLIP_S = 10.0
TRAIN_STARTS_S, TEST_STARTS_S = (2.0, 13.0), (2.0,)  # of the clips of one tune
CHORDS = 25  # General MIDI: steel-string guitar
DANCES = ("reel", "jig", "hornpipe", "waltz", "slip jig", "morris dance")
AT = 10
TEST_BYTE = 64  # first byte of the hash of a title from which a tune is for training


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("midi", "music"))
    parser.add_argument("--data", required=True)
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--workspace", help="kept; else a temporary one")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        workspace = Workspace.open(arguments.workspace or f"{scratch}/w", create=True)
        clock = Clock()
        if arguments.what == "midi":
            with clock("render"):
                tracks = midi_catalog(Path(arguments.data), Path(workspace.root, "audio"))
        else:
            tracks = real_music_tracks(arguments.data)
        pq.write_table(tracks, f"{workspace.root}/manifest.parquet")
        walk(workspace, clock, steps=arguments.steps)
        if arguments.what == "midi":
            print_precision(workspace)
        print("seconds:", ", ".join(f"{name} {s:.0f}" for name, s in clock.seconds.items()))


class Clock:
    """Seconds by name: `with clock("embed"): ...`."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def __call__(self, name: str) -> Clock:
        self.name = name
        return self

    def __enter__(self) -> None:
        self.began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self.seconds[self.name] = time.monotonic() - self.began


def walk(workspace: Workspace, clock: Clock, *, steps: int) -> None:
    """Runs every job in order; prints the figures of the catalog's own benchmark."""
    recipe = laptop()
    settings = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, steps=steps))
    with clock("start Ray"):
        start_ray()
    # LanceDB must not be loaded in a process that forks, and starting Ray forks.
    from jobs.build_index import build_index
    from jobs.evaluate_tracks import describe, evaluate_tracks

    with clock("scan"):
        scanned = scan_catalog(workspace, settings, f"{workspace.root}/manifest.parquet")
    with clock("caption"):
        write_captions(workspace, settings)
    with clock("train"):
        train_towers(workspace, settings)
    with clock("embed"):
        embedded = embed_catalog(workspace, settings)
    assert embedded["embedded"] == scanned["tracks"], "a track was lost on the way"
    with clock("index"):
        build_index(workspace, settings)
    with clock("evaluate"):
        print(describe(evaluate_tracks(workspace, settings)))


def midi_catalog(
    data: Path,
    audio: Path,
    most: int | None = None,
    *,
    whole_test: bool = False,
    twice: bool = False,
) -> pa.Table:
    """Renders the tunes of known instrument; one track per clip, with its truth as extras.

    With `most`, that many tunes, drawn at random, and with `whole_test` all others of the test
    split besides. With `twice` each is also played on another instrument, and `tune` names the
    clips of one time of one tune.
    """
    audio.mkdir(parents=True, exist_ok=True)
    play, rows = Player(), []
    with open(data / "midi_tracks.csv", newline="", encoding="utf-8") as table:
        tunes = [row for row in csv.DictReader(table) if row["set"] == "nottingham"]
    tests = {n for n, tune in enumerate(tunes) if whole_test and is_test(tune)}
    chosen = tests.union(np.random.default_rng(0).permutation(len(tunes))[:most].tolist())
    programs = {lead_of(tune): int(float(tune["render_program"])) for tune in tunes}
    for tune in (tunes[place] for place in sorted(chosen)):
        split, starts = ("test", TEST_STARTS_S) if is_test(tune) else ("train", TRAIN_STARTS_S)
        lead, file = lead_of(tune), data / "src" / tune["file"]
        others = sorted(set(programs) - {lead})
        for played in (lead, others[title_hash(tune)[1] % len(others)]) if twice else (lead,):
            for clip, samples in enumerate(play(file, programs[played], starts)):
                same_time = f"{tune['track_id']}_{clip}"
                track_id = same_time if played == lead else f"{same_time}_again"
                uri = str(audio / f"{track_id}.flac")
                soundfile.write(uri, samples, SAMPLE_RATE)
                facts = {"track_id": track_id, "uri": uri, "split": split}
                rows.append(facts | truth_of(tune, played) | ({TUNE: same_time} if twice else {}))
    return pa.Table.from_pylist(rows)


def title_hash(tune: Mapping[str, str]) -> bytes:
    """A hash of a tune's title, which decides its split."""
    return hashlib.sha256(tune["title"].encode()).digest()


def is_test(tune: Mapping[str, str]) -> bool:
    """Whether a tune is held out for testing: a quarter of the titles."""
    return title_hash(tune)[0] < TEST_BYTE


def lead_of(tune: Mapping[str, str]) -> str:
    """The instrument that plays the melody of a row of the tunes' table."""
    return next(n for n in tune["instruments"].split(", ") if n != "steel-string guitar")


def truth_of(tune: Mapping[str, str], lead: str) -> dict[str, Any]:
    """What is known of a tune that `lead` plays."""
    dances = [d for d in DANCES if d in tune["category"].split(", ")]
    return {
        "title": tune["title"],
        "tags": [*dances, lead, key_words(tune["key"]), tune["meter"]],
        "dataset": "midi",
        "instrument": lead,
        "key": key_words(tune["key"]),
        "metre": tune["meter"],
        "dance": dances[0] if dances else None,
    }


class Player:
    """Renders MIDI files, with the melody on a chosen General MIDI instrument."""

    def __init__(self) -> None:
        import tinysoundfont

        self._midi = tinysoundfont.midi
        self._synth = tinysoundfont.Synth(samplerate=SAMPLE_RATE)
        self._font = self._synth.sfload(find_soundfont())

    def __call__(
        self, file: Path, program: int, starts_s: tuple[float, ...]
    ) -> Iterator[np.ndarray]:
        """Clips of CLIP_S from `starts_s`, float32 [frames, 2]; fewer if the tune ends earlier."""
        notes = [e for e in self._midi.load(str(file)) if type(e.action).__name__[:4] == "Note"]
        keys = defaultdict(list)
        for event in notes:
            keys[event.channel].append(event.action.key)
        melody = max(keys, key=lambda channel: np.mean(keys[channel]))
        for channel in keys:
            instrument = program if channel == melody else CHORDS
            self._synth.program_select(channel, self._font, 0, instrument, False)
        end = max(event.t for event in notes)
        for start in starts_s:
            if start + CLIP_S / 2 > end and start != starts_s[0]:
                continue
            yield self._clip([e for e in notes if start <= e.t < start + CLIP_S], start)

    def _clip(self, notes: list[Any], start: float) -> np.ndarray:
        frames = round(CLIP_S * SAMPLE_RATE)
        parts, here = [], 0
        for event in notes:
            frame = min(round((event.t - start) * SAMPLE_RATE), frames)
            if frame > here:
                parts.append(self._sound(frame - here))
                here = frame
            if type(event.action).__name__ == "NoteOn" and event.action.velocity:
                self._synth.noteon(event.channel, event.action.key, event.action.velocity)
            else:
                self._synth.noteoff(event.channel, event.action.key)
        if here < frames:
            parts.append(self._sound(frames - here))
        self._synth.sounds_off()
        self._sound(2048)
        clip = np.concatenate(parts)
        return clip * (0.8 / max(float(np.abs(clip).max()), 1e-6))

    def _sound(self, frames: int) -> np.ndarray:
        buffer = memoryview(bytearray(frames * 8))
        self._synth.generate_simple(frames, buffer)
        return np.frombuffer(buffer, np.float32).reshape(frames, 2)


def print_precision(workspace: Workspace) -> None:
    """Queries about instrument, metre, key and all three, over the held-out tunes."""
    from jobs.evaluate_tracks import evaluate_tracks

    catalog = storage.read_tables(workspace.tracks)
    assert catalog is not None
    rows = [row for row in catalog.to_pylist() if row["split"] == "test"]
    benchmark = exact_benchmark(rows)
    folder = workspace.path("exact")
    save_benchmark(benchmark, folder)
    evaluate_tracks(workspace, laptop(), benchmark=folder, out=f"{folder}/answers")
    print(f"\n{len(rows)} held-out clips; precision at {AT} (of as many as can be right)")
    print(f"{'kind':12}{'queries':>8}{'towers':>9}{'search':>9}{'chance':>9}")
    runs = {name: read_run(f"{folder}/answers/run.{name}.txt") for name in ("towers", "search")}
    kinds = dict.fromkeys(query.kind for query in benchmark.queries)
    for kind in kinds:
        queries = [query for query in benchmark.queries if query.kind == kind]
        found: dict[str, list[float]] = defaultdict(list)
        for query in queries:
            right = benchmark.right[query.query_id]
            most = min(AT, len(right))
            for name, run in runs.items():
                hits = sum(track in right for track in run[query.query_id][:AT])
                found[name].append(hits / most)
            found["chance"].append(AT * len(right) / len(rows) / most)
        figures = "".join(f"{np.mean(found[name]):9.3f}" for name in ("towers", "search", "chance"))
        print(f"{kind:12}{len(queries):>8}{figures}")


def read_run(path: str) -> dict[str, list[str]]:
    """Ranked track ids by query, of a TREC run."""
    ranked: dict[str, list[str]] = defaultdict(list)
    for line in Path(path).read_text().splitlines():
        query_id, _, track_id, *_ = line.split()
        ranked[query_id].append(track_id)
    return ranked


def exact_benchmark(rows: list[dict[str, Any]]) -> Benchmark:
    """A query per value of instrument, metre and key, and per combination that exists twice."""
    right: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row in rows:
        for kind in ("instrument", "metre", "key"):
            right[kind, row[kind]].add(row["track_id"])
        if row["dance"]:
            words = f"{row['dance']} on the {row['instrument']} in {row['key']}"
            right["all three", words].add(row["track_id"])
    wanted = [
        (kind, words, ids) for (kind, words), ids in right.items() if 2 <= len(ids) < len(rows) / 2
    ]
    order = ("instrument", "metre", "key", "all three")
    wanted.sort(key=lambda item: (order.index(item[0]), item[1]))
    queries = tuple(
        Query(query_id=f"q{n:03d}", kind=kind, text=words, sentence=words)
        for n, (kind, words, _) in enumerate(wanted)
    )
    return Benchmark(
        pool=tuple(sorted(row["track_id"] for row in rows)),
        queries=queries,
        right={
            query.query_id: dict.fromkeys(sorted(ids), 1)
            for query, (_, _, ids) in zip(queries, wanted, strict=True)
        },
    )


if __name__ == "__main__":
    main()
