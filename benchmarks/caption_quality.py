"""Caption quality: humans, GPT-3.5, templates, the realiser, and any file, on held-out tags.

    python -m benchmarks.caption_quality --pairs tag2caption.jsonl [--captions toy=toy.jsonl]
        [--base smollm2] [--count 500]

The pairs are those that `finetune` holds out. Figures have 95 % bootstrap intervals. Order gain and
perplexity, with `--base`, use the first 48 pairs. The realiser's speed is that of one thread with
its word lists already loaded.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from raymtr.captions.judging.faithfulness import MusicTerms
from raymtr.captions.judging.likelihood import Likelihood
from raymtr.captions.judging.score import TokenEncoder
from raymtr.captions.learning.pairs import hold_out, read_pairs
from raymtr.captions.writing.realiser import realise
from raymtr.evaluation.caption_benchmark import (
    TAGS,
    compare,
    made_here,
    read_captions,
    table_lines,
)

GPT = "lp_musiccaps_summary"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", required=True)
    parser.add_argument("--captions", action="append", default=[], metavar="NAME=FILE")
    parser.add_argument("--base")
    parser.add_argument("--count", type=int, default=500)
    arguments = parser.parse_args()
    known, rng = read_pairs(arguments.pairs), np.random.default_rng(0)
    pairs = hold_out(known).held_out[: arguments.count]
    written = {pair.clip: pair.caption for pair in known if pair.source == GPT}
    systems = {
        "people": [[pair.caption] for pair in pairs],
        "GPT-3.5 summary": [[written[p.clip]] if p.clip in written else [] for p in pairs],
        **made_here(pairs, rng),
    }
    del systems[TAGS]
    for named in arguments.captions:
        name, _, file = named.partition("=")
        systems[name] = read_captions(file, pairs)
    answer = compare(
        pairs,
        systems,
        encoder=TokenEncoder(),
        vocabulary=MusicTerms.of_tags([tag for pair in known for tag in pair.tags]),
        baseline="template",
        rng=rng,
        base=Likelihood(arguments.base) if arguments.base else None,
    )
    print("\n".join([*table_lines(answer), *answer["notes"]]), flush=True)
    started = time.process_time()
    for seed in range(4):
        for pair in pairs:
            realise(pair.tags, seed)
    print(
        f"realiser: {4 * len(pairs) / (time.process_time() - started):.0f} captions per CPU second"
    )


if __name__ == "__main__":
    main()
