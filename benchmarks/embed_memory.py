"""Peak memory of `raymtr embed` at 1,000 and at 20,000 tracks; growth must stay below a fifth.

    python benchmarks/embed_memory.py [--tracks 1000 20000] [--music FOLDER]

The clips of embed_job.py are repeated under new ids. The towers are so small that decoding is most
of the work. Any growth then comes from what the job keeps of its catalog, not from the model.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from pathlib import Path

from embed_job import SHARED_MUSIC, find_clips, make_workspace
from watched import judge_growth, run_watched

from raymtr.model.model_folder import save_towers
from raymtr.model.two_towers import build_towers
from raymtr.recipes import ttmrpp_small
from raymtr.tower_specs import TowersSpec


def small_towers() -> TowersSpec:
    towers = ttmrpp_small().towers
    tower = dataclasses.replace(towers.audio_tower, width=4, dim=64)
    return dataclasses.replace(towers, audio_tower=tower)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tracks", type=int, nargs=2, default=(1_000, 20_000))
    parser.add_argument("--music", type=Path, default=SHARED_MUSIC, help="a folder of .ogg clips")
    arguments = parser.parse_args()
    peaks = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        clips, model = find_clips(folder, arguments.music), str(folder / "model")
        save_towers(build_towers(small_towers(), seed=0), model)
        for count in arguments.tracks:
            root = make_workspace(folder / str(count), clips, count).root
            answer, seconds, cpu_s, peak = run_watched(
                "embed", "--workspace", root, "--model", model
            )
            assert answer["embedded"] == count, answer
            peaks.append(peak)
            print(f"{count:,} tracks in {seconds:.0f} s, {cpu_s:.0f} CPU-s, peak {peak:.2f} GiB")
    judge_growth(peaks)


if __name__ == "__main__":
    main()
