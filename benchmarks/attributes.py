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
from figures import Figures

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
    figures = Figures()
    tunes(arguments.data / "midi", figures)
    if arguments.vocals:
        voices(arguments.data / "real_music", figures)
    figures.save()


def tunes(folder: Path, figures: Figures) -> None:
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
    figures.add(f"key exact, of {len(keys)}", float(np.mean(keys)))
    figures.add(f"tempo exact, of {len(exact)}", float(np.mean(exact)))
    figures.add(f"tempo up to a ratio, of {len(exact)}", float(np.mean(metrical)))
    figures.add("a clip, start included", seconds, unit="CPU seconds")


def voices(folder: Path, figures: Figures) -> None:
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
    for name, share in shares.items():
        figures.add(f"{name}, right at {VOCAL}", share)
    figures.add("voice, balanced accuracy", float(np.mean(list(shares.values()))))


def read(file: Path) -> list[dict[str, str]]:
    with open(file, encoding="utf-8") as rows:
        return list(csv.DictReader(rows))


if __name__ == "__main__":
    main()
