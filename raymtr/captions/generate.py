"""A fine-tuned captioner on disk, and writing with plain `transformers`.

A captioner is a PEFT adapter folder: the adapter's two files, `captioner.json` (which base, which
prompt, how it was made) and, where the base was made on the spot, the base itself in `base/`. The
merged weights are made once and kept in `merged/`: both engines run them as any other model.

`transformers` draws a batch from one random stream, so a caption would depend on its neighbours.
Here each row brings its own seed: the sampler adds the row's own Gumbel noise to its scores and
takes the largest, which is a draw from the same distribution (Maddison et al., arXiv 1411.0030).
What is left of the neighbours is padding: scores move in their last bits.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from raymtr import storage
from raymtr.captions.base_model import base_identity, load_base, load_tokenizer
from raymtr.captions.prompt import prompt_hash
from raymtr.captions.tag_words import OpenWords, Spellings, tag_words
from raymtr.errors import InputError, UnusableError
from raymtr.specs import CaptionSpec, FinetuneSpec

LOG = logging.getLogger("raymtr")
FACTS, CONFIG, WEIGHTS = "captioner.json", "adapter_config.json", "adapter_model.safetensors"
VOCABULARY = "vocabulary.json"  # tags common in the pairs: musical terms that captions may use


@dataclass(frozen=True)
class Captioner:
    """A captioner on this machine's disk, checked against its base."""

    folder: str
    base: str  # a folder or a hub name
    base_identity: str
    adapter: str  # hash of the adapter's weights
    vocabulary: tuple[str, ...]

    @property
    def identity(self) -> str:
        """Which weights write, in 16 hexadecimal digits."""
        return hashlib.sha256(f"{self.base_identity} {self.adapter}".encode()).hexdigest()[:16]


def open_captioner(uri: str) -> Captioner:
    """The captioner in the folder `uri` (fetched first, where that is in an object store).

    Raises InputError where there is none, where its base is another than it was tuned on, or where
    it was taught another prompt.
    """
    if not storage.exists(f"{uri}/{CONFIG}"):
        raise InputError(f"no captioner in {uri} (no {CONFIG}); `raymtr finetune` makes one")
    folder = local_folder(uri)
    config = storage.read_json(f"{folder}/{CONFIG}")
    facts = storage.read_json(f"{folder}/{FACTS}") if storage.exists(f"{folder}/{FACTS}") else {}
    base = facts.get("base") or config.get("base_model_name_or_path")
    if not base:
        raise InputError(f"{folder}/{CONFIG} names no base model; tune it again")
    if os.path.isdir(f"{folder}/{base}"):
        base = f"{folder}/{base}"
    found = base_identity(base)
    if facts and found != facts["base_identity"]:
        raise InputError(
            f"the adapter in {folder} was tuned on base {facts['base_identity']}, but {base} is "
            f"{found}; put that base back, or run `raymtr finetune` on this one"
        )
    if facts and facts["prompt"] != prompt_hash():
        raise InputError(
            f"the adapter in {folder} was taught prompt {facts['prompt']}, this raymtr asks with "
            f"{prompt_hash()}; run `raymtr finetune` again"
        )
    if not facts:
        LOG.info("%s has no %s: its base cannot be checked", folder, FACTS)
    words = f"{folder}/{VOCABULARY}"
    return Captioner(
        folder=folder,
        base=base,
        base_identity=found,
        adapter=hashlib.sha256(storage.read_bytes(f"{folder}/{WEIGHTS}")).hexdigest()[:16],
        vocabulary=tuple(storage.read_json(words)) if storage.exists(words) else (),
    )


def local_folder(uri: str) -> str:
    """`uri` itself where it is local, else a copy of it on this machine."""
    if not storage.is_remote(uri):
        return os.path.abspath(storage.local_path(uri))
    name = hashlib.sha256(uri.encode()).hexdigest()[:16]
    target = os.path.join(tempfile.gettempdir(), f"raymtr-captioner-{name}")
    storage.copy_folder(uri, target, last=CONFIG)
    return target


def merged_folder(captioner: Captioner, spec: FinetuneSpec) -> str:
    """The base with the adapter's weights added to its own, saved once beside the adapter.

    Raises InputError where the adapter does not fit the base.
    """
    writable = os.access(captioner.folder, os.W_OK)
    parent = captioner.folder if writable else tempfile.gettempdir()
    target = os.path.join(parent, f"merged-{captioner.identity}")
    if os.path.exists(os.path.join(target, "config.json")):
        return target
    model = _with_adapter(captioner, spec).merge_and_unload()
    partial = tempfile.mkdtemp(prefix="merging-", dir=parent)
    try:
        model.save_pretrained(partial)
        load_tokenizer(captioner.base).save_pretrained(partial)
        os.chmod(partial, 0o755)
        os.replace(partial, target)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        if not os.path.exists(os.path.join(target, "config.json")):  # nobody else made it either
            raise UnusableError(f"cannot save the merged model in {parent}: {error}") from error
    return target


def _with_adapter(captioner: Captioner, spec: FinetuneSpec) -> Any:
    from peft import PeftModel

    model = load_base(captioner.base, spec)
    try:
        return PeftModel.from_pretrained(model, captioner.folder)
    except (RuntimeError, ValueError, KeyError) as error:
        raise InputError(
            f"the adapter in {captioner.folder} does not fit the base {captioner.base}: {error}"
        ) from error


class Writer:
    """Writes with `transformers`: a Ray Data actor, or any caller, hands it prompts and seeds."""

    def __init__(self, captioner: Captioner, spec: CaptionSpec) -> None:
        torch.set_num_threads(spec.threads)
        precision = FinetuneSpec(precision="bf16" if spec.use_gpu else "fp32")
        self._spec = spec
        if spec.serve == "merged":
            folder = merged_folder(captioner, precision)
            self._model, self._tokenizer = load_base(folder, precision), load_tokenizer(folder)
        else:
            self._model = _with_adapter(captioner, precision)
            self._tokenizer = load_tokenizer(captioner.base)
        self._model.to("cuda" if spec.use_gpu else "cpu").eval()

    def __call__(self, drafts: pa.Table) -> pa.Table:
        """`drafts` (`prompt`, `tags`, `seed`, ...) with their `text`."""
        prompts, seeds = drafts["prompt"].to_pylist(), drafts["seed"].to_pylist()
        tags = [json.loads(row) for row in drafts["tags"].to_pylist()]
        texts = write_texts(self._model, self._tokenizer, prompts, tags, seeds, self._spec)
        place = drafts.column_names.index("text")
        return drafts.set_column(place, drafts.schema.field("text"), pa.array(texts, pa.string()))


@torch.no_grad()
def write_texts(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    tags: Sequence[Sequence[str]],
    seeds: Sequence[int],
    spec: CaptionSpec,
) -> list[str]:
    """The answer to each prompt, drawn with its own seed; in batches padded on the left."""
    from transformers import LogitsProcessorList

    texts: list[str] = []
    for start in range(0, len(prompts), spec.batch):
        chosen = slice(start, start + spec.batch)
        batch = tokenizer(
            list(prompts[chosen]), return_tensors="pt", padding=True, padding_side="left"
        ).to(model.device)
        batch.pop("token_type_ids", None)
        asked = batch["input_ids"].shape[1]
        words = [tag_words(tokenizer, row) for row in tags[chosen]] if spec.tag_bias else None
        sampling = SeededSampling(seeds[chosen], spec, asked=asked, words=words)
        written = model.generate(
            **batch,
            do_sample=False,
            max_new_tokens=spec.max_new_tokens,
            logits_processor=LogitsProcessorList([sampling]),
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        texts += tokenizer.batch_decode(written[:, asked:], skip_special_tokens=True)
    return texts


class SeededSampling:
    """A logits processor: after it, the largest score is a draw with the row's own seed.

    `words` are each row's words that `spec.tag_bias` favours (see `captions.tag_words`), `asked` is
    the length of the prompts. The penalty means what vLLM's `presence_penalty` means.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        spec: CaptionSpec,
        *,
        asked: int = 0,
        words: Sequence[Sequence[Spellings]] | None = None,
    ) -> None:
        self._streams = [np.random.default_rng(seed) for seed in seeds]
        self._spec, self._asked, self._read = spec, asked, asked
        self._words = [OpenWords(row) for row in words or ()]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores [B, V] -> scores with all but the top k at -inf and noise on those."""
        scores = self._favoured(input_ids, scores.float())
        if self._spec.temperature == 0:
            return scores
        values, places = scores.topk(min(self._spec.top_k or scores.shape[1], scores.shape[1]))
        noise = np.stack([stream.gumbel(size=values.shape[1]) for stream in self._streams])
        drawn = values / self._spec.temperature + torch.from_numpy(noise).to(values)
        return torch.full_like(scores, -torch.inf).scatter(1, places, drawn)

    def _favoured(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if self._words:
            new = input_ids[:, self._read :].tolist()
            self._read = input_ids.shape[1]
            tokens = [row.after(own) for row, own in zip(self._words, new, strict=True)]
            rows = [row for row, own in enumerate(tokens) for _ in own]
            scores = scores.clone()
            scores[rows, [token for own in tokens for token in own]] += self._spec.tag_bias
        if self._spec.presence_penalty:
            written = torch.zeros_like(scores).scatter(1, input_ids[:, self._asked :], 1.0)
            scores = scores - self._spec.presence_penalty * written
        return scores
