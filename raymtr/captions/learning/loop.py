"""The code of each Ray Train worker: pretraining where no base is given, then LoRA.

Both phases are one loop around one step. Rank 0 writes a phase's state as one file, replaced
atomically, and every worker starts from it. So there is no list of checkpoints that a kill could
damage. On resume the logs (`metrics.jsonl`, `samples.jsonl`) are cut back to that step.
"""

from __future__ import annotations

import io
import json
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypedDict

import ray.train
import ray.train.torch
import torch
import torch.distributed as dist

from raymtr import storage
from raymtr.caption_specs import CaptionSpec, FinetuneSpec
from raymtr.captions.base_model import add_lora, load_base, load_tokenizer
from raymtr.captions.learning.pairs import (
    Draw,
    Pair,
    PairSets,
    by_people,
    hold_out,
    read_pairs,
    that_fit,
)
from raymtr.captions.learning.preference import accepted, prefer
from raymtr.captions.learning.pretrain import (
    SentenceDraw,
    build_toy,
    pretrain_draw,
    train_tokenizer,
)
from raymtr.captions.learning.step import Draws, FinetuneStep, batches_from, pad
from raymtr.captions.prompt import encode, prompt_of, tidy
from raymtr.captions.writing.transformers_writer import write_texts
from raymtr.progress import Progress, speak_to_driver
from raymtr.validation import from_dict

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LOG = logging.getLogger("raymtr")
SAMPLES = 4  # captions written at each validation
LOGGED = 10  # steps between two rows of metrics


class Sample(TypedDict):
    """What the model wrote for the tags of a held-out pair, at one step."""

    phase: str  # pretrain or lora
    step: int
    tags: list[str]
    caption: str


class FittedCaptioner(TypedDict):
    """The result of a finished fine-tuning."""

    resumed_from_step: int  # 0: from the start
    metrics: dict[str, Any]  # of the last step
    samples: list[Sample]  # of the last step


def finetune_worker(config: dict[str, Any]) -> FittedCaptioner:
    """Build the captioner of `config` (`spec`, `folder`, `pairs`, `base` or None) in `folder`.

    Writes `base/` (where it was trained here) and `adapter/`. Rank 0 returns the run's result.
    Raises InputError or UnusableError where a retry cannot help.
    """
    speak_to_driver()
    spec: FinetuneSpec = from_dict(FinetuneSpec, config["spec"])
    torch.set_num_threads(spec.threads)
    device = ray.train.torch.get_device() if spec.use_gpu else torch.device("cpu")
    sets, folder = hold_out(read_pairs(config["pairs"])), config["folder"]
    base = config["base"] or pretrain(sets, folder, spec, device)
    return tune(base, sets, folder, spec, device)


def pretrain(sets: PairSets, folder: str, spec: FinetuneSpec, device: torch.device) -> str:
    """Train the toy base in `folder` unless it exists; return its location."""
    target = f"{folder}/base"
    if not storage.exists(f"{target}/config.json"):
        if not _rank() and not storage.exists(f"{folder}/tokenizer/tokenizer.json"):
            tokenizer = train_tokenizer(sets.train, spec.toy)
            _publish(tokenizer, f"{folder}/tokenizer", last="tokenizer.json")
        _wait()
        tokenizer_folder = storage.local_copy(f"{folder}/tokenizer", last="tokenizer.json")
        tokenizer = load_tokenizer(tokenizer_folder)
        model = build_toy(tokenizer, spec.toy, seed=spec.seed)
        trainer = FinetuneStep(
            model, spec, device=device, steps=spec.toy.steps, rate=spec.toy.learning_rate
        )
        sets = fitting(sets, tokenizer, spec)
        people = {pair.source: spec.toy.people for pair in by_people(sets.train)}
        weights = {**spec.mixture, **{s: w * spec.mixture.get(s, 1.0) for s, w in people.items()}}
        draw = pretrain_draw(sets.train, spec.toy, weights=weights)
        Phase("pretrain", folder, trainer, tokenizer, sets.valid).run(draw)
        _save(trainer, target, tokenizer)
    return target


def tune(
    base: str, sets: PairSets, folder: str, spec: FinetuneSpec, device: torch.device
) -> FittedCaptioner:
    """Train LoRA on `base`; return the figures and samples of the run."""
    tokenizer = load_tokenizer(base)
    sets = fitting(sets, tokenizer, spec)
    model = add_lora(load_base(base, spec), spec)
    trainer = FinetuneStep(model, spec, device=device, steps=spec.steps, rate=spec.learning_rate)
    learnt = by_people(sets.train)
    if spec.judged:
        learnt = accepted(learnt)
    people = Draw(learnt, weights=spec.mixture, faithful=spec.faithful)
    draw = SentenceDraw(sets.train, people, share=spec.sentences)
    phase = Phase("lora", folder, trainer, tokenizer, by_people(sets.valid))
    resumed = phase.run(draw)
    phase.keep_best()
    if spec.preference_steps:
        phase.rows[-1] |= prefer(trainer, tokenizer, learnt)
    _save(trainer, f"{folder}/adapter", tokenizer=None)
    samples = [one for one in phase.samples if one["step"] == phase.rows[-1]["step"]]
    return {"resumed_from_step": resumed, "metrics": phase.rows[-1], "samples": samples}


def fitting(sets: PairSets, tokenizer: PreTrainedTokenizerBase, spec: FinetuneSpec) -> PairSets:
    """The sets without pairs that do not fit; rank 0 logs what is left out or cut."""
    train, notes = that_fit(sets.train, tokenizer, max_tokens=spec.max_tokens)
    if not _rank():
        for note in notes:
            LOG.warning("%s", note)
    return replace(sets, train=train)


class Phase:
    """One training from its last state to its last step, with its logs."""

    def __init__(
        self,
        name: str,
        folder: str,
        trainer: FinetuneStep,
        tokenizer: PreTrainedTokenizerBase,
        valid: Sequence[Pair],
    ) -> None:
        self.name, self._folder, self._step, self._tokenizer = name, folder, trainer, tokenizer
        self._valid = list(valid)
        self.rows: list[dict[str, Any]] = []
        self.samples: list[Sample] = []
        self._patience = trainer.spec.patience if name == "lora" else 0
        self._best: dict[str, Any] = {}  # the lowest validation loss and its weights
        self._stopped = False

    def run(self, draw: Draws) -> int:
        """Take the remaining steps; return the step it resumed from."""
        trainer, spec = self._step, self._step.spec
        first = self._resume()
        if self._stopped:
            return first
        progress = Progress(self.name, trainer.steps, unit="steps", done=first)
        batches = batches_from(draw, self._tokenizer, spec, first=first, steps=trainer.steps)
        for step, batch in enumerate(batches, start=first):
            figures = trainer(batch, step)
            done = step + 1
            last = done == trainer.steps
            if last or done % spec.validate_every == 0:
                figures["valid_loss"] = trainer.measure(self._validation())
                self._sample(done)
                last = self._is_last(figures["valid_loss"]) or last
            if "valid_loss" in figures or done % LOGGED == 0:
                self.rows.append({"phase": self.name, "step": done, **figures})
                ray.train.report(figures)
            if last or done % spec.checkpoint_every == 0:
                self._checkpoint(done)
            if not _rank():
                progress.advance(1, note=f"loss {figures['loss']:.3f}")
            if last:
                break
        return first

    def _is_last(self, loss: float) -> bool:
        """Whether training stops here, because validation has not improved for long enough."""
        if not self._patience:
            return False
        if loss < self._best.get("loss", float("inf")):
            self._best = {"loss": loss, "weights": self._step.weights(), "waited": 0}
        else:
            self._best["waited"] += 1
        self._stopped = self._best["waited"] >= self._patience
        return self._stopped

    def keep_best(self) -> None:
        """Restore the weights of the lowest validation loss, where `patience` watches it."""
        if self._best:
            self._step.restore_weights(self._best["weights"])

    def _validation(self) -> list[Any]:
        spec, tokenizer = self._step.spec, self._tokenizer
        rows = [
            encode(tokenizer, p.tags, p.caption, max_tokens=spec.max_tokens) for p in self._valid
        ]
        rows.sort(key=lambda row: len(row[0]))
        cuts = range(0, len(rows), spec.batch)
        return [pad(rows[i : i + spec.batch], tokenizer.pad_token_id) for i in cuts]

    def _sample(self, done: int) -> None:
        """Write captions of the first validation pairs; not under FSDP, which shards the model."""
        if _rank() or (self._step.spec.strategy == "fsdp" and dist.is_initialized()):
            return
        pairs = self._valid[:SAMPLES]
        texts = write_texts(
            self._step.model.eval(),
            self._tokenizer,
            [prompt_of(pair.tags) for pair in pairs],
            [pair.tags for pair in pairs],
            range(len(pairs)),
            CaptionSpec(temperature=0.7, max_new_tokens=96),
        )
        LOG.info("%s -> %s", ", ".join(pairs[0].tags), tidy(texts[0]))
        for pair, text in zip(pairs, texts, strict=True):
            sample: Sample = {
                "phase": self.name,
                "step": done,
                "tags": list(pair.tags),
                "caption": tidy(text),
            }
            self.samples.append(sample)

    def _checkpoint(self, done: int) -> None:
        state = self._step.state()
        if _rank():
            return
        sink = io.BytesIO()
        log = {"rows": self.rows, "samples": self.samples, "stopped": self._stopped}
        torch.save({"steps": done, "said": json.dumps(log), "best": self._best, **state}, sink)
        storage.write_bytes(f"{self._folder}/{self.name}.pt", sink.getvalue())
        self._tell()

    def _tell(self) -> None:
        """Write metrics and samples of all phases so far to storage, one row per line."""
        for name, rows in (("metrics", self.rows), ("samples", self.samples)):
            file = f"{self._folder}/{name}.jsonl"
            before = storage.read_bytes(file).decode().splitlines() if storage.exists(file) else []
            others = [line for line in before if json.loads(line)["phase"] != self.name]
            lines = [*others, *(json.dumps(row, ensure_ascii=False) for row in rows)]
            storage.write_bytes(file, "".join(f"{line}\n" for line in lines).encode())

    def _resume(self) -> int:
        file = f"{self._folder}/{self.name}.pt"
        if not storage.exists(file):
            return 0
        state = torch.load(
            io.BytesIO(storage.read_bytes(file)), map_location="cpu", weights_only=True
        )
        self._step.restore(state)
        log = json.loads(state["said"])
        self.rows, self.samples = log["rows"], log["samples"]
        self._best, self._stopped = state.get("best", {}), log.get("stopped", False)
        return int(state["steps"])


def _save(trainer: FinetuneStep, target: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Save the model (for a PEFT model, its adapter) in the folder `target`, by rank 0."""
    weights = trainer.state()["weights"]
    if not _rank():
        model = trainer.model
        adapted = hasattr(model, "peft_config")
        known = None if trainer.spec.strategy == "ddp" else weights
        last = "adapter_config.json" if adapted else "config.json"
        with tempfile.TemporaryDirectory() as scratch:
            model.save_pretrained(scratch, state_dict=known)
            if tokenizer is not None:
                tokenizer.save_pretrained(scratch)
            storage.copy_folder(scratch, target, last=last)
    _wait()


def _publish(tokenizer: PreTrainedTokenizerBase, target: str, *, last: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        tokenizer.save_pretrained(scratch)
        storage.copy_folder(scratch, target, last=last)


def _rank() -> int:
    return int(ray.train.get_context().get_world_rank())


def _wait() -> None:
    if dist.is_initialized():
        dist.barrier()
