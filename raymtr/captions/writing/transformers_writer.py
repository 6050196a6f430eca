"""Caption writing with plain `transformers`, each caption from its own seed.

`transformers` samples a batch from one random stream, so a caption would depend on the others in
its batch. Here each row has its own seed. The sampler adds the row's own Gumbel noise to its scores
and takes the largest, which samples from the same distribution (Maddison et al., arXiv 1411.0030).
Only padding still depends on the batch: scores change in their last bits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch

from raymtr.caption_specs import CaptionSpec
from raymtr.captions.base_model import load_tokenizer
from raymtr.captions.captioner import Weights, load_weights
from raymtr.captions.writing.tag_words import Spellings, UnwrittenTagWords, tag_words

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Writer:
    """Writer with `transformers`, a Ray Data actor that also works without Ray."""

    def __init__(self, weights: Weights, spec: CaptionSpec) -> None:
        torch.set_num_threads(spec.threads)
        self._spec = spec
        self._model = load_weights(weights, spec.precision)
        self._model.to("cuda" if spec.use_gpu else "cpu").eval()
        self._tokenizer = load_tokenizer(weights.model)

    def __call__(self, drafts: pa.Table) -> pa.Table:
        """`drafts` (`prompt`, `tags`, `seed`, ...) with their `text`."""
        prompts, seeds = drafts["prompt"].to_pylist(), drafts["seed"].to_pylist()
        tags = [json.loads(row) for row in drafts["tags"].to_pylist()]
        texts = write_texts(self._model, self._tokenizer, prompts, tags, seeds, self._spec)
        place = drafts.column_names.index("text")
        return drafts.set_column(place, drafts.schema.field("text"), pa.array(texts, pa.string()))


@torch.no_grad()
def write_texts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    tags: Sequence[Sequence[str]],
    seeds: Sequence[int],
    spec: CaptionSpec,
) -> list[str]:
    """The answer to each prompt, sampled with its own seed; in batches padded on the left."""
    from transformers import LogitsProcessorList

    texts: list[str] = []
    for start in range(0, len(prompts), spec.batch):
        chosen = slice(start, start + spec.batch)
        batch = tokenizer(
            list(prompts[chosen]), return_tensors="pt", padding=True, padding_side="left"
        ).to(model.device)
        batch.pop("token_type_ids", None)
        prompt_length = batch["input_ids"].shape[1]
        batch = {**batch, **shared_prefill(model, batch, prompts[chosen])}
        words = [tag_words(tokenizer, row) for row in tags[chosen]] if spec.tag_bias else None
        sampling = SeededSampling(seeds[chosen], spec, asked=prompt_length, words=words)
        written = model.generate(
            **batch,
            do_sample=False,
            max_new_tokens=spec.max_new_tokens,
            logits_processor=LogitsProcessorList([sampling]),
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        texts += tokenizer.batch_decode(written[:, prompt_length:], skip_special_tokens=True)
    return texts


def shared_prefill(
    model: PreTrainedModel, batch: Mapping[str, torch.Tensor], prompts: Sequence[str]
) -> dict[str, Any]:
    """The key-value cache of `batch` without its last token, computed once per different prompt.

    Empty where all prompts differ: `generate` then fills the cache itself.
    """
    first = {prompt: row for row, prompt in reversed(list(enumerate(prompts)))}
    if len(first) == len(prompts):
        return {}
    from transformers import DynamicCache

    rows = sorted(first.values())
    place = {row: at for at, row in enumerate(rows)}
    ids, mask = batch["input_ids"][rows, :-1], batch["attention_mask"][rows, :-1]
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    cache = DynamicCache(config=model.config)
    model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    cache.batch_select_indices(torch.tensor([place[first[prompt]] for prompt in prompts]))
    return {"past_key_values": cache}


class SeededSampling:
    """A logits processor after which the largest score is a sample with the row's own seed.

    `words` are each row's words that `spec.tag_bias` favours (see `captions.writing.tag_words`),
    `asked` is the length of the prompts in tokens. The penalty equals vLLM's `presence_penalty`.
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
        self._words = [UnwrittenTagWords(row) for row in words or ()]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores [B, V] -> scores with all but the top k at -inf, and noise added to those."""
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
