"""A small Llama trained from scratch, for machines without a base model or a hub.

Its tokenizer and its weights come from the user's own text: the pairs, and template sentences over
random tags from the pairs. The pairs teach English about music. The sentences teach copying: their
combinations of tags are new, so the only way to write them is to look them up in the prompt.
Copying is hard for a small model, so every fixed part of the prompt is one token. The tags are then
one step before the answer, and a training step costs a third less. Limitation: no general
knowledge. Such a model writes about tags like those it has seen, and no other text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from raymtr.caption_specs import ToyLlamaSpec
from raymtr.captions.learning.pairs import Draw, Pair
from raymtr.captions.prompt import FIXED_PARTS
from raymtr.captions.words import QUALITY_WORDS, SOUND_WORDS
from raymtr.captions.writing.templates import TEMPLATES, fill

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SPECIAL = ("<pad>", "<s>", "</s>")
SENTENCE_TAGS = (1, 12)  # fewest and most tags of one template sentence
TOKENIZER_SENTENCES = 2_000  # number of templates, beside the pairs


class SentenceDraw:
    """(tags, text) of an example: with chance `share` a template sentence, else a pair.

    A template sentence has random tags from `pairs`; the pair comes from `draw`.
    """

    def __init__(self, pairs: Sequence[Pair], draw: Draw, *, share: float) -> None:
        words = [*QUALITY_WORDS.split(), *SOUND_WORDS.split()]
        self._tags = sorted({tag for pair in pairs for tag in pair.tags} | set(words))
        self._pair, self._share = draw, share

    def __call__(self, rng: np.random.Generator) -> tuple[list[str], str]:
        """Draw a new example each time, so no sentence is memorised."""
        return self.sentence(rng) if rng.random() < self._share else self._pair(rng)

    def sentence(self, rng: np.random.Generator) -> tuple[list[str], str]:
        """Random tags and a sentence that contains them all."""
        count = int(rng.integers(SENTENCE_TAGS[0], SENTENCE_TAGS[1] + 1))
        chosen = rng.choice(len(self._tags), size=min(count, len(self._tags)), replace=False)
        tags = [self._tags[i] for i in chosen]
        return tags, fill(TEMPLATES[int(rng.integers(len(TEMPLATES)))], tags, rng)


def pretrain_draw(
    pairs: Sequence[Pair], spec: ToyLlamaSpec, *, weights: Mapping[str, float]
) -> SentenceDraw:
    """Training examples of the base: pairs unchanged, because LoRA teaches faithfulness."""
    return SentenceDraw(pairs, Draw(pairs, weights=weights, faithful=0.0), share=spec.sentences)


def train_tokenizer(pairs: Sequence[Pair], spec: ToyLlamaSpec) -> PreTrainedTokenizerBase:
    """A byte-level BPE tokenizer over the pairs' text; it has no unknown tokens."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
    from tokenizers.trainers import BpeTrainer
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    draw, rng = pretrain_draw(pairs, spec, weights={}), np.random.default_rng(0)
    text = [f" {pair.caption}" for pair in pairs]
    text += [f" {', '.join(pair.tags)}" for pair in pairs]
    text += [f" {draw.sentence(rng)[1]}" for _ in range(TOKENIZER_SENTENCES)]
    trainer = BpeTrainer(
        vocab_size=spec.vocabulary - len(FIXED_PARTS),
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(text, trainer)
    tokenizer.add_tokens([AddedToken(part, normalized=False) for part in FIXED_PARTS])
    begin = tokenizer.token_to_id("<s>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", begin)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )


def build_toy(
    tokenizer: PreTrainedTokenizerBase, spec: ToyLlamaSpec, *, seed: int
) -> PreTrainedModel:
    """A Llama of `spec` with random weights, the same for the same seed."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=spec.width,
            num_hidden_layers=spec.layers,
            num_attention_heads=spec.heads,
            num_key_value_heads=spec.heads,
            intermediate_size=spec.inner,
            max_position_embeddings=spec.max_tokens,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
