"""The realiser's captions per second, with and without ranking by a language model.

    python -m benchmarks.ranking --pairs tag2caption.jsonl [--base smollm2] [--count 24]

CPU-seconds of one process with two threads, the model loaded. Then, side by side, the first ten tag
lists with the caption of the first seed and the likeliest of several.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import pyarrow as pa
import torch

from raymtr.captions.learning.pairs import hold_out, read_pairs
from raymtr.captions.writing.ranking import CANDIDATES, Ranker
from raymtr.captions.writing.realised_rows import caption_tracks
from raymtr.track import check_tracks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", required=True)
    parser.add_argument("--base", default="smollm2")
    parser.add_argument("--count", type=int, default=24)
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    pairs = hold_out(read_pairs(arguments.pairs)).held_out[: arguments.count]
    rows = [{"track_id": f"t{i:04d}", "tags": list(pair.tags)} for i, pair in enumerate(pairs)]
    tracks = check_tracks(pa.Table.from_pylist(rows))
    caption_tracks(tracks, per_track=1, seed=1)  # loads the word lists
    started = time.process_time()
    plain = caption_tracks(tracks, per_track=1, seed=0)
    print(f"realiser: {len(plain) / (time.process_time() - started):.0f} captions per CPU second")
    ranker = Ranker(arguments.base, per_track=1, seed=0)
    started, cpu = time.perf_counter(), time.process_time()
    ranked = ranker(tracks)
    wall, cpu = time.perf_counter() - started, time.process_time() - cpu
    print(
        f"ranked, {CANDIDATES} candidates: {len(ranked) / cpu:.2f} a CPU-second, "
        f"{len(ranked) / wall:.2f} a second here"
    )
    changed = np.mean([a != b for a, b in zip(plain["caption"], ranked["caption"], strict=True)])
    print(f"another caption than the first seed's: {changed:.0%}")
    for row, first, best in zip(rows[:10], plain["caption"], ranked["caption"], strict=False):
        print(f"\n{', '.join(row['tags'])}\n  first:     {first}\n  likeliest: {best}")


if __name__ == "__main__":
    main()
