"""Audio decoding speed against librosa and an ffmpeg subprocess.

    python benchmarks/decoding.py [--rounds 9]

Decodes a 30 s stereo MP3 of 44.1 kHz and 128 kb/s to mono float32 of 22.05 kHz. All contestants
take turns within each round, after one untimed turn. Figures are CPU time of this process and its
children (cores may be shared), on one thread. Ratios are of minima; those of medians are also
printed. Outputs are compared in the same run. Install librosa by `pip install librosa`, ffmpeg from
the system. A missing contestant is skipped and reported.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["NUMBA_NUM_THREADS"] = "1"

import argparse
import importlib.util
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import soundfile as sf
import soxr
from alternate import alternate, least_and_median

from raymtr import audio
from raymtr.audio_cache import BLOCK_S, AudioCache
from raymtr.tower_specs import AudioSpec

SECONDS = 30.0
RATE = 44_100
SPEC = AudioSpec()
Turns = dict[str, Callable[[], np.ndarray]]


def music(seconds: float, rate: int, rng: np.random.Generator) -> np.ndarray:
    """Two chords a second, decaying, over noise: float32 [n, 2]."""
    time = np.arange(round(seconds * rate)) / rate
    mix = 0.02 * rng.standard_normal((len(time), 2))
    for beat in range(int(2 * seconds)):
        since = np.clip(time - beat / 2, 0, None)
        envelope = np.exp(-3 * since) * (time >= beat / 2)
        root = 110 * 2 ** (rng.integers(0, 24) / 12)
        for step in (1, 1.25, 1.5, 2, 3):
            tone = envelope * np.sin(2 * np.pi * root * step * since)
            mix += tone[:, None] * rng.uniform(0.3, 1, 2)
    return (0.8 * mix / np.abs(mix).max()).astype(np.float32)


def write_with_pyav(path: Path, samples: np.ndarray, codec: str, rate: int) -> None:
    """Encodes with FFmpeg the formats that soundfile cannot write."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout="stereo")
        stream.bit_rate = 128_000
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T), "fltp", "stereo")
        frame.sample_rate = rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)


def make_files(folder: Path) -> dict[str, Path]:
    """The same piece in every format."""
    piece = music(SECONDS, RATE, np.random.default_rng(0))
    files = {name: folder / f"piece.{name}" for name in ("mp3", "wav", "flac", "aiff", "ogg")}
    for name, path in files.items():
        options = {"bitrate_mode": "CONSTANT", "compression_level": 0.65} if name == "mp3" else {}
        sf.write(path, piece, RATE, **options)
    files["opus (48 kHz)"] = folder / "piece.opus"
    resampled = soxr.resample(piece, RATE, 48_000)
    sf.write(files["opus (48 kHz)"], resampled, 48_000, format="OGG", subtype="OPUS")
    for name, codec in (("m4a", "aac"), ("wma", "wmav2")):
        files[name] = folder / f"piece.{name}"
        write_with_pyav(files[name], piece, codec, RATE)
    return files


def by_ffmpeg(path: Path) -> np.ndarray:
    command = ["ffmpeg", "-nostdin", "-v", "error", "-i", str(path), "-f", "f32le"]
    command += ["-ac", "1", "-ar", str(SPEC.sample_rate), "-"]
    return np.frombuffer(subprocess.run(command, check=True, capture_output=True).stdout, "<f4")


def contestants(path: Path) -> Turns:
    """Full decodes of `path` by every installed contestant."""
    turns: Turns = {"raymtr": lambda: audio.decode(str(path), SPEC).samples}
    if importlib.util.find_spec("librosa"):
        import librosa

        print(f"librosa {librosa.__version__}")
        turns["librosa"] = lambda: librosa.load(path, sr=SPEC.sample_rate)[0]
    if shutil.which("ffmpeg"):
        version = subprocess.run(["ffmpeg", "-version"], capture_output=True, text=True, check=True)
        print(version.stdout.splitlines()[0])
        turns["ffmpeg"] = lambda: by_ffmpeg(path)
    return turns


def cpu_seconds() -> float:
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def show(times: dict[str, list[float]]) -> None:
    for name, seconds in times.items():
        low, middle = least_and_median(seconds)
        print(f"  {name:34} {1e3 * low:8.2f} ms, median {1e3 * middle:8.2f} ms")


def judge(what: str, over: list[float], under: list[float], *, target: float) -> None:
    """One line: over / under of minima and of medians, against the target."""
    (low, middle), (under_low, under_middle) = least_and_median(over), least_and_median(under)
    verdict = "met " if low >= target * under_low else "MISS"
    ratios = f"{low / under_low:.2f} (medians {middle / under_middle:.2f})"
    print(f"{verdict} {what}: {ratios}, target {target:.2f}")


def best_lag(a: np.ndarray, b: np.ndarray) -> tuple[int, float]:
    """The number of samples by which `b` lags behind `a`, and their correlation there."""
    size = 1 << (len(a) + len(b)).bit_length()
    cross = np.fft.irfft(np.conj(np.fft.rfft(a, size)) * np.fft.rfft(b, size), size)
    at = int(cross.argmax())
    return (at if at < size // 2 else at - size), float(
        cross[at] / np.sqrt(float(a @ a) * float(b @ b))
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    print(f"soundfile {sf.__version__} ({sf.__libsndfile_version__}), PyAV {av.__version__}")
    print(f"soxr {soxr.__version__}, numpy {np.__version__}, {audio.DECODING}, rounds: {rounds}")
    with tempfile.TemporaryDirectory() as name:
        files = make_files(Path(name))
        mp3 = str(files["mp3"])
        turns = contestants(files["mp3"])
        whole = turns["raymtr"]()
        for peer in set(turns) - {"raymtr"}:
            lag, correlation = best_lag(whole, turns[peer]())
            print(f"raymtr against {peer}: lag {lag} samples, correlation {correlation:.6f}")
        turns["raymtr, 10 s window by seek"] = lambda: audio.decode_span(
            mp3, SPEC, start_s=12.345, length_s=10
        )
        start = round(12.345 * SPEC.sample_rate)
        window = turns["raymtr, 10 s window by seek"]()
        difference = np.abs(window - whole[start : start + len(window)]).max()
        print(f"window against the full decode's slice: largest difference {difference:.1e}")

        cache = AudioCache(name, SPEC)
        cache.fill("piece", mp3)
        rng = np.random.default_rng(0)
        long, piece = f"{name}/long.mp3", sf.read(mp3, dtype="float32")[0]
        options = {"bitrate_mode": "CONSTANT", "compression_level": 0.65}
        sf.write(long, np.tile(piece, (8, 1)), RATE, **options)
        turns[f"raymtr, {BLOCK_S} s block of 4 minutes by seek"] = lambda: audio.decode_span(
            long, SPEC, start_s=6.0 * BLOCK_S, length_s=BLOCK_S
        )
        turns["raymtr, 10 s clip from the cache"] = lambda: cache.clip("piece", mp3, rng)

        print(f"\n30 s MP3, {os.path.getsize(mp3) / 1e3:.0f} kB, CPU time:")
        spent = alternate(turns, rounds=rounds, clock=cpu_seconds)
        show(spent)
        full = spent["raymtr"]
        for peer, target in (("librosa", 1.6), ("ffmpeg", 3.5)):
            if peer in spent:
                judge(f"full decode against {peer}", spent[peer], full, target=target)
            else:
                print(f"     full decode against {peer}: skipped, it is not installed")
        seek, clip = spent["raymtr, 10 s window by seek"], spent["raymtr, 10 s clip from the cache"]
        judge("full decode against a 10 s window by seek", full, seek, target=1 / 0.45)
        judge("10 s window by seek against the cache", seek, clip, target=20)

        print("\nFull decode of 30 s to mono 22.05 kHz, CPU time:")
        show(
            alternate(
                {
                    f"{name} by {audio.decode(str(path), SPEC).backend}": (
                        lambda path=path: audio.decode(str(path), SPEC).samples
                    )
                    for name, path in files.items()
                },
                rounds=rounds,
                clock=cpu_seconds,
            )
        )


if __name__ == "__main__":
    main()
