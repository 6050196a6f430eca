"""Tempo and key of rendered tunes with known truth, one clip per tune; vocals of real tracks.

    python benchmarks/attributes.py --data ../shared/data [--vocals]

A tempo is right within 4 %. It is right up to a metrical ratio if a simple multiple is right. The
vocals come from the taggers, at one fixed threshold of 0.5; `--vocals` takes minutes.
"""

import argparse
import csv
import time
from pathlib import Path

import numpy as np

from raymtr.audio import decode
from raymtr.audio.attributes import measure
from raymtr.model.musicnn import AUDIO
from raymtr.tagging.analysis import Analyzer

RATIOS = (1, 2, 3, 4, 3 / 2, 4 / 3)
SHARPS = {"Db": "C#", "D#": "Eb", "Gb": "F#", "G#": "Ab", "A#": "Bb"}
VOCAL = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--vocals", action="store_true")
    arguments = parser.parse_args()
    tunes(arguments.data / "midi")
    if arguments.vocals:
        voices(arguments.data / "real_music")


def tunes(folder: Path) -> None:
    exact, metrical, keys = [], [], []
    began = time.process_time()
    for row in read(folder / "midi_tracks.csv"):
        if not int(row["clips"] or 0) or not (row["bpm"] or row["key"]):
            continue
        samples = decode(str(folder / "clips" / f"{row['track_id']}_0.ogg"), AUDIO).samples
        measured = measure(samples, AUDIO.sample_rate)
        if row["bpm"]:
            ratio = (measured.bpm or 1e-9) / float(row["bpm"])
            exact.append(abs(ratio - 1) < 0.04)
            metrical.append(
                any(abs(ratio / r - 1) < 0.04 or abs(ratio * r - 1) < 0.04 for r in RATIOS)
            )
        if row["key"]:
            tonic = row["key"].rstrip("m")
            mode = "minor" if row["key"].endswith("m") else "major"
            keys.append(measured.key == f"{SHARPS.get(tonic, tonic)} {mode}")
    seconds = (time.process_time() - began) / max(len(exact), 1)
    print(f"key exact {np.mean(keys):.3f} of {len(keys)}")
    print(f"tempo exact {np.mean(exact):.3f}, up to a ratio {np.mean(metrical):.3f}, {len(exact)}")
    print(f"{seconds:.2f} CPU seconds a clip, start included")


def voices(folder: Path) -> None:
    analyzer, right = Analyzer(), {"vocals": [], "instrumental": []}
    for row in read(folder / "tracks.csv"):
        if row["error"] or row["vocal"] not in right:
            continue
        files = [folder / "clips" / f"{row['track_id']}_{n}.ogg" for n in range(int(row["clips"]))]
        vocal = np.mean(
            [analyzer.analyze(decode(str(file), AUDIO).samples).vocal for file in files]
        )
        right[row["vocal"]].append((vocal >= VOCAL) == (row["vocal"] == "vocals"))
    shares = {name: float(np.mean(rights)) for name, rights in right.items()}
    print(f"vocals at {VOCAL}: balanced accuracy {np.mean(list(shares.values())):.3f}, {shares}")


def read(file: Path) -> list[dict[str, str]]:
    with open(file, encoding="utf-8") as rows:
        return list(csv.DictReader(rows))


if __name__ == "__main__":
    main()
