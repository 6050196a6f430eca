"""LoRA on SmolLM2 by the recipe `captions-135m`, within a given time, and what it writes after.

    python -m benchmarks.smollm2_lora --pairs tag2caption.jsonl --minutes 90 [--clips 100]
                                      [--precision bf16]

The first two steps tell how long a step takes, and the number of steps follows from the time. It
prints the held-out loss before and after, CPU-seconds of a step, and, with `--clips`, figures of
greedy captions of held-out clips beside people's and the realiser's. It trains without Ray; the
verb is `raymtr finetune --recipe captions-135m --base smollm2 --pairs tag2caption.jsonl`.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import torch

from raymtr.captions.base_model import add_lora, load_base, load_tokenizer
from raymtr.captions.gguf_base import SMOLLM2, plain_base
from raymtr.captions.judging.faithfulness import MusicTerms
from raymtr.captions.judging.likelihood import Likelihood
from raymtr.captions.judging.score import TokenEncoder
from raymtr.captions.learning.pairs import Draw, Pair, by_people, hold_out, read_pairs
from raymtr.captions.learning.preference import accepted
from raymtr.captions.learning.step import FinetuneStep, batches_from, pad
from raymtr.captions.prompt import encode, prompt_of, tidy
from raymtr.captions.writing.transformers_writer import write_texts
from raymtr.evaluation.caption_benchmark import REALISER, compare, made_here, table_lines
from raymtr.recipes import captions_135m
from raymtr.validation import Precision

TRAINING = 0.8  # share of the time for training steps; the rest is for measuring and writing
MEASURED = 16  # held-out pairs of the loss
SHOWN = 20  # captions to read


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", required=True)
    parser.add_argument("--minutes", type=float, default=90.0)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--clips", type=int, default=0)
    parser.add_argument("--precision", choices=get_args(Precision), default="fp32")
    arguments = parser.parse_args()
    spec = replace(captions_135m().finetune, batch=arguments.batch, precision=arguments.precision)
    torch.set_num_threads(spec.threads)
    sets = hold_out(read_pairs(arguments.pairs))
    base = plain_base(SMOLLM2)
    tokenizer = load_tokenizer(base)
    model = add_lora(load_base(base, spec), spec)
    trainer = FinetuneStep(
        model, spec, device=torch.device("cpu"), steps=spec.steps, rate=spec.learning_rate
    )
    rows = [
        encode(tokenizer, p.tags, p.caption, max_tokens=spec.max_tokens)
        for p in sets.valid[:MEASURED]
    ]
    held_out = [pad(rows[i : i + 8], tokenizer.pad_token_id) for i in range(0, len(rows), 8)]
    before = trainer.measure(held_out)
    print(f"held-out loss before: {before:.3f}", flush=True)
    draw = Draw(accepted(by_people(sets.train)), weights={}, faithful=spec.faithful)
    train(trainer, draw, tokenizer, minutes=TRAINING * arguments.minutes)
    print(f"held-out loss after: {trainer.measure(held_out):.3f}", flush=True)
    if arguments.clips:
        print("\n".join(figures(model, tokenizer, sets.held_out[: arguments.clips])))


def train(trainer: FinetuneStep, draw: Draw, tokenizer: Any, *, minutes: float) -> None:
    """As many steps of the recipe's as fit in `minutes`, by the time of the first two."""
    started, cpu = time.perf_counter(), time.process_time()
    losses: list[float] = []
    for batch in batches_from(draw, tokenizer, trainer.spec, first=0, steps=trainer.spec.steps):
        losses.append(trainer(batch, len(losses))["loss"])
        if len(losses) == 2:
            each = (time.perf_counter() - started) / 2
            trainer.steps = min(trainer.spec.steps, max(4, int(60 * minutes / each)))
        if len(losses) >= trainer.steps:
            break
    cpu = (time.process_time() - cpu) / len(losses)
    print(f"{len(losses)} steps of {trainer.spec.batch} pairs, {cpu:.1f} CPU-seconds each")
    fifth = max(1, len(losses) // 5)
    print(f"training loss {np.mean(losses[:fifth]):.3f} -> {np.mean(losses[-fifth:]):.3f}")


def figures(model: Any, tokenizer: Any, asked: list[Pair]) -> list[str]:
    """The table of `raymtr evaluate captions`: people, the realiser and greedy captions."""
    tags = [list(pair.tags) for pair in asked]
    greedy = replace(captions_135m().caption, temperature=0.0, batch=8)
    texts = write_texts(
        model.eval(), tokenizer, [prompt_of(own) for own in tags], tags, range(len(tags)), greedy
    )
    rng = np.random.default_rng(0)
    baselines = made_here(asked, rng)
    systems = {
        "people": [[pair.caption] for pair in asked],
        "SmolLM2 LoRA": [[tidy(text)] for text in texts],
        REALISER: baselines[REALISER],
    }
    vocabulary = MusicTerms.of_tags([tag for own in tags for tag in own])
    answer = compare(
        *(asked, systems),
        encoder=TokenEncoder(),
        vocabulary=vocabulary,
        baseline=REALISER,
        rng=rng,
        base=Likelihood(SMOLLM2),
    )
    return [*table_lines(answer), *(tidy(text) for text in texts[:SHOWN])]


if __name__ == "__main__":
    main()
