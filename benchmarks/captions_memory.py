"""Peak memory of the captions job at 2,000 and at 50,000 tracks; growth must stay below a fifth.

    python benchmarks/captions_memory.py --captioner w/captioner --pairs pairs.jsonl

Captions have eight tokens, for speed. Nearly all are refused, and refused drafts are what the job
keeps between two passes.
"""

from __future__ import annotations

import argparse
import tempfile

import pyarrow as pa
from watched import judge_growth, run_watched

from raymtr import storage
from raymtr.captions.learning.pairs import read_pairs
from raymtr.track import check_tracks
from raymtr.workspace import Workspace

QUICK = ("caption.max_new_tokens=8", "caption.draws=1", "caption.passes=2")


def make_catalog(folder: str, pairs: str, count: int) -> str:
    """A workspace of `count` tracks, with the pairs' tags repeated."""
    tags = [list(pair.tags) for pair in read_pairs(pairs)]
    rows = [{"track_id": f"t{i:07d}", "tags": tags[i % len(tags)]} for i in range(count)]
    workspace = Workspace.open(f"{folder}/{count}", create=True)
    storage.replace_tables(workspace.tracks, check_tracks(pa.Table.from_pylist(rows)))
    return workspace.root


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--captioner", required=True)
    parser.add_argument("--pairs", required=True)
    parser.add_argument("--tracks", type=int, nargs=2, default=(2_000, 50_000))
    arguments = parser.parse_args()
    settings = [word for setting in QUICK for word in ("--set", setting)]
    peaks = []
    for count in arguments.tracks:
        with tempfile.TemporaryDirectory() as folder:
            root = make_catalog(folder, arguments.pairs, count)
            place = ("--workspace", root, "--captioner", arguments.captioner, "--per-track", "1")
            answer, seconds, _, peak = run_watched("caption", *place, *settings)
        assert answer["captions"] == count, answer
        peaks.append(peak)
        print(f"{count:,} captions {answer['by']} in {seconds:.0f} s, peak {peak:.2f} GiB")
    judge_growth(peaks)


if __name__ == "__main__":
    main()
