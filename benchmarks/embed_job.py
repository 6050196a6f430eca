"""The whole `embed` job against a bare loop over the same functions, in CPU seconds.

    python benchmarks/embed_job.py [--clips 100 700] [--rounds 2] [--mp3s] [--width 64] [--features]

Target: at most 1.15 times the CPU per clip (the slope between two sizes), at most 10 CPU seconds
more that do not depend on the size, vectors within 1e-6. The towers are those of the recipe
ttmrpp-small with random weights; --width sets the audio tower's width. The ten-second clips come
from --music (a folder of Ogg) or are noise, repeated under new ids. With --mp3s three clips each
are joined to a track of 30 s, an MP3 of 44.1 kHz in stereo. With --features the job is `embed
--output features`, and the mean of a track's windows is compared.

Each run is a separate process; job and loop take turns. CPU time is that of the whole process tree,
including Ray's daemons and workers, sampled until it ends. The minimum over rounds counts.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import soundfile
import soxr

from raymtr import storage
from raymtr.embeddings.store import EmbeddingStore, find_embeddings, matrix_of
from raymtr.track import check_tracks
from raymtr.workspace import Workspace

TARGET_SLOPE, TARGET_FIXED_S, TARGET_DIFFERENCE = 1.15, 10.0, 1e-6
SAMPLE_S = 0.1
JOINED = 90  # clips joined to MP3s
REPOSITORY = Path(__file__).resolve().parents[1]
SHARED_MUSIC = REPOSITORY.parent / "shared" / "data" / "real_music" / "clips"

JOB = """
import sys
from jobs.embed_catalog import embed_catalog
from raymtr.settings import load_settings
from raymtr.workspace import Workspace
embed_catalog(Workspace.open(sys.argv[1]), load_settings("ttmrpp-small"), model=sys.argv[2])
"""
LOOP = """
import sys
import numpy as np
import torch
from raymtr import audio, storage
from raymtr.model.pretrained import load_model
from raymtr.vectors import unit
from raymtr.workspace import Workspace
torch.set_num_threads(1)
workspace, model = Workspace.open(sys.argv[1]), load_model(sys.argv[2])
spec, vectors = model.spec.audio, []
catalog = storage.read_tables(workspace.tracks, ["track_id", "uri"]).to_pylist()
for track in catalog:
    starts, windows = audio.windows(audio.decode(track["uri"], spec).samples, spec)
    vectors.append(model.embed_windows(windows).mean(axis=0))
np.save(sys.argv[1] + "/loop.npy", unit(np.stack(vectors)))
"""
FEATURES_JOB = """
import sys
from jobs.embed_features import embed_features
from raymtr.settings import load_settings
from raymtr.workspace import Workspace
embed_features(Workspace.open(sys.argv[1]), load_settings("ttmrpp-small"), model=sys.argv[2])
"""
FEATURES_LOOP = """
import sys
import numpy as np
import torch
from raymtr import audio, storage
from raymtr.mulap.backbone import open_backbone
from raymtr.workspace import Workspace
torch.set_num_threads(1)
workspace, backbone = Workspace.open(sys.argv[1]), open_backbone(sys.argv[2])
spec, vectors = backbone.spec.audio, []
catalog = storage.read_tables(workspace.tracks, ["track_id", "uri"]).to_pylist()
for track in catalog:
    starts, windows = audio.windows(audio.decode(track["uri"], spec).samples, spec)
    vectors.append(backbone.embed_windows(windows).mean(axis=0))
np.save(sys.argv[1] + "/loop.npy", np.stack(vectors))
"""
SAVE_MODEL = """
import sys
from raymtr.model.model_folder import save_towers
from raymtr.model.two_towers import build_towers
from raymtr.settings import load_settings
towers = load_settings("ttmrpp-small", assignments=sys.argv[2:]).towers
save_towers(build_towers(towers, seed=0), sys.argv[1])
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, nargs=2, default=[100, 700], help="the two sizes")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--music", type=Path, default=SHARED_MUSIC, help="a folder of .ogg clips")
    parser.add_argument("--width", type=int, help="of the audio tower (default: the recipe's)")
    parser.add_argument("--mp3s", action="store_true", help="tracks of 30 s, as in catalogs")
    parser.add_argument("--features", action="store_true", help="of the audio tower, not vectors")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return measure(Path(folder), arguments)


def measure(folder: Path, arguments: argparse.Namespace) -> int:
    sources = find_clips(folder, arguments.music)
    if arguments.mp3s:
        sources = join_clips(folder, sources)
    model = str(folder / "model")
    wide = [f"towers.audio_tower.width={arguments.width}"] if arguments.width else []
    run_python(SAVE_MODEL, model, *wide)
    job, loop = (FEATURES_JOB, FEATURES_LOOP) if arguments.features else (JOB, LOOP)
    few, many = arguments.clips
    seconds: dict[tuple[str, int], list[float]] = {}
    difference = 0.0
    for turn in range(arguments.rounds):
        for count in (few, many):
            workspace = make_workspace(folder / f"{turn}-{count}", sources, count)
            for name, code in (("loop", loop), ("job", job)):
                cpu, wall = run_python(code, workspace.root, model)
                seconds.setdefault((name, count), []).append(cpu)
                print(f"round {turn + 1}: {name} over {count} clips: {cpu:.1f} CPU s, {wall:.1f} s")
            difference = max(difference, largest_difference(workspace))
    return report(seconds, few=few, many=many, difference=difference)


def report(
    seconds: dict[tuple[str, int], list[float]], *, few: int, many: int, difference: float
) -> int:
    slope, fixed = {}, {}
    for name in ("loop", "job"):
        low, high = min(seconds[name, few]), min(seconds[name, many])
        slope[name] = (high - low) / (many - few)
        fixed[name] = low - slope[name] * few
        print(f"{name}: {1e3 * slope[name]:.1f} CPU ms per clip, {fixed[name]:.1f} CPU s fixed")
    rows = [
        ("CPU per clip, job / loop", slope["job"] / slope["loop"], TARGET_SLOPE),
        ("fixed CPU s of the job more than the loop", fixed["job"] - fixed["loop"], TARGET_FIXED_S),
        ("largest difference of a vector's element", difference, TARGET_DIFFERENCE),
    ]
    for what, value, target in rows:
        print(
            f"{what}: {value:.3g}, target at most {target:g}: {'ok' if value <= target else 'MISS'}"
        )
    return 0


def find_clips(folder: Path, music: Path) -> list[str]:
    clips = sorted(str(clip) for clip in music.glob("*.ogg")) if music.is_dir() else []
    if clips:
        return clips
    print(f"no .ogg in {music}: clips are made of noise")
    rng = np.random.default_rng(0)
    for number in range(20):
        clip = folder / f"noise{number}.ogg"
        soundfile.write(clip, 0.1 * rng.standard_normal(220_500), 22_050)
        clips.append(str(clip))
    return clips


def join_clips(folder: Path, clips: list[str]) -> list[str]:
    """MP3s of three clips each, a few dozen: encoding them costs more than the job."""
    tracks = []
    for start in range(0, min(len(clips), JOINED) - 2, 3):
        read = [soundfile.read(clip, dtype="float32") for clip in clips[start : start + 3]]
        joined = np.concatenate([soxr.resample(mono, rate, 44_100) for mono, rate in read])
        tracks.append(str(folder / f"track{start}.mp3"))
        soundfile.write(tracks[-1], np.stack([joined, joined], axis=1), 44_100)
    return tracks


def make_workspace(folder: Path, sources: list[str], count: int) -> Workspace:
    rows = [{"track_id": f"t{n:06}", "uri": sources[n % len(sources)]} for n in range(count)]
    workspace = Workspace.open(str(folder), create=True)
    storage.write_table(
        f"{workspace.tracks}/part-0.parquet", check_tracks(pa.Table.from_pylist(rows))
    )
    return workspace


def largest_difference(workspace: Workspace) -> float:
    features = storage.list_folders(workspace.path("features"))
    stored = (
        EmbeddingStore.open(workspace.features(features[0]))
        if features
        else find_embeddings(workspace)
    )
    tracks = stored.read_tracks().sort_by("track_id")
    loop = np.load(f"{workspace.root}/loop.npy")
    return float(np.abs(matrix_of(tracks["vector"]) - loop).max())


def run_python(
    code: str, *arguments: str, kill_when: Callable[[], bool] = lambda: False
) -> tuple[float, float]:
    """CPU seconds of the process tree and wall seconds of one Python program.

    The whole tree is killed as soon as `kill_when` returns true.
    """
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    started = time.monotonic()
    root = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], env=environment, stderr=subprocess.DEVNULL
    )
    tree = {root.pid: psutil.Process(root.pid)}
    used: dict[int, float] = {}
    ends = {0}  # exit statuses that do not mean a failure
    while root.poll() is None or alive(tree, root.pid):
        for process in list(tree.values()):
            try:
                tree.update({child.pid: child for child in process.children()})
                times = process.cpu_times()
                used[process.pid] = times.user + times.system
            except psutil.NoSuchProcess:
                continue
        if root.poll() is None and kill_when():
            ends.add(-signal.SIGKILL)
            for process in tree.values():
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        time.sleep(SAMPLE_S)
    if root.returncode not in ends:
        raise SystemExit(f"a run ended with {root.returncode}")
    return sum(used.values()), time.monotonic() - started


def alive(tree: dict[int, psutil.Process], root: int) -> bool:
    """Whether a descendant still runs; Ray's daemons take a moment to end."""
    return any(p.is_running() and p.status() != "zombie" for i, p in tree.items() if i != root)


if __name__ == "__main__":
    raise SystemExit(main())
