"""Scores of captions: similarity to captions by people, and faithfulness to their tags.

Every figure is one number per caption, so its mean has a bootstrap interval and two systems can be
compared pair by pair. Only distinct-n is over all captions together. BERTScore depends on the
encoder, its layer and its version, so these are reported with it (`EncoderFacts`).

    bert_f1       greedy matching of token states by cosine, F1 (Zhang et al. 2020), over the
                  encoder's last layer, special tokens dropped, at most 160 tokens; no idf
                  weights, no rescaling
    rouge_l       F1 of the longest common subsequence of words (Lin 2004), no stemming
    words         length
    coverage, invention   see `captions.judging.faithfulness`
    faithful      coverage - invention
    acceptable    1 where the caption would be kept, else 0
    taken         1 where `captions.judging.reading` finds that a reader would accept it, else 0
    non_words     per 100 words
    repetition    share of repeated trigrams
    length        words, divided by those of the reference
    order_gain    nats per token, and nats, nats_given_tags (perplexity is their exponential): see
                  `captions.judging.likelihood`; of the first LIKELY captions, where a base is
                  available
    distinct_1/2  different n-grams by all n-grams of a system (Li et al. 2016); it falls as the
                  number of captions grows, so compare equal numbers only
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raymtr import metrics
from raymtr.captions.judging.faithfulness import MusicTerms, acceptable, judge, words_of
from raymtr.captions.judging.likelihood import Likelihood
from raymtr.captions.judging.reading import read, takes
from raymtr.model.text_tower import load_text_tower
from raymtr.tower_recipes import MINILM
from raymtr.tower_specs import TextTowerSpec

Floats = NDArray[np.float64]

MAX_TOKENS = 160
BATCH = 64  # texts encoded at once
NGRAMS = (1, 2)
SHARES = ("coverage", "invention", "faithful", "acceptable")  # shares, which may all be at a bound
BY_BASE = ("order_gain", "nats", "nats_given_tags")
LIKELY = 48  # captions per chunk that a base scores: each costs a second or two


@dataclass(frozen=True)
class EncoderFacts:
    """The encoder settings to report with a BERTScore."""

    encoder: str
    layer: int  # the last one
    max_tokens: int
    transformers: str


class Estimate(TypedDict):
    """A mean with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


class TokenEncoder:
    """Texts -> unit states of their tokens, by any `transformers` encoder (folder or name)."""

    def __init__(self, name: str = MINILM) -> None:
        """Raises UnusableError or InputError if `name` cannot be loaded or is not an encoder."""
        import transformers

        spec = TextTowerSpec(source=name, max_tokens=MAX_TOKENS, trainable=False)
        self._tower = load_text_tower(spec).eval()
        tokenizer = self._tower.tokenizer  # unknown words are scored too
        special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
        self._special = torch.tensor(sorted(special), dtype=torch.int64)
        layers = int(self._tower.config.num_hidden_layers)
        self.facts = EncoderFacts(name, layers, MAX_TOKENS, str(transformers.__version__))

    def states(self, texts: Sequence[str]) -> list[Tensor]:
        """For each text its tokens' states, [T, hidden], unit rows; [0, hidden] where empty."""
        done: list[Tensor] = [torch.empty(0)] * len(texts)
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # reduces padding
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            for place, states in zip(chosen, self._encode([texts[i] for i in chosen]), strict=True):
                done[place] = states
        return done

    def _encode(self, texts: list[str]) -> list[Tensor]:
        tokens = self._tower.tokenize(texts)
        real = (tokens["attention_mask"] == 1) & ~torch.isin(tokens["input_ids"], self._special)
        with torch.inference_mode():
            states = self._tower.encoder(**tokens).last_hidden_state.float()  # [B, T, hidden]
        unit = torch.nn.functional.normalize(states, dim=-1)
        return [row[mask] for row, mask in zip(unit, real, strict=True)]


def bert_f1(candidates: Sequence[Tensor], references: Sequence[Tensor]) -> Floats:
    """F1 of each pair of token states, [N]; 0 where one has no tokens (Zhang et al. 2020)."""
    scores = np.zeros(len(candidates))
    for row, (mine, theirs) in enumerate(zip(candidates, references, strict=True)):
        if len(mine) and len(theirs):
            cosines = mine @ theirs.T  # [T of the candidate, T of the reference]
            precision, recall = float(cosines.amax(1).mean()), float(cosines.amax(0).mean())
            scores[row] = 2 * precision * recall / (precision + recall)
    return scores


def rouge_l(candidate: str, reference: str) -> float:
    """F1 of the longest common subsequence of words (Lin 2004, with beta 1)."""
    mine, theirs = words_of(candidate), words_of(reference)
    if not mine or not theirs:
        return 0.0
    # 2 LCS / (m + n) is the harmonic mean of LCS / m and LCS / n.
    return 2 * _common_length(mine, theirs) / (len(mine) + len(theirs))


def _common_length(left: Sequence[str], right: Sequence[str]) -> int:
    """Length of the longest common subsequence; a table row is the bits of one integer.

    Bit-parallel (Hyyrö 2004): a bit of `row` is 0 where the row's length grows by one.
    """
    everywhere = (1 << len(left)) - 1
    places: dict[str, int] = {}
    for i, word in enumerate(left):
        places[word] = places.get(word, 0) | 1 << i
    row = everywhere
    for word in right:
        hits = row & places.get(word, 0)
        row = ((row + hits) | (row - hits)) & everywhere
    return len(left) - row.bit_count()


def distinct(texts: Sequence[str], n: int) -> float:
    """Distinct word n-grams divided by all n-grams of `texts`; 0 without any."""
    grams = [
        tuple(words[i : i + n]) for words in map(words_of, texts) for i in range(len(words) - n + 1)
    ]
    return len(set(grams)) / len(grams) if grams else 0.0


def score_captions(
    captions: Sequence[str],
    references: Sequence[str],
    tags: Sequence[Sequence[str]],
    *,
    encoder: TokenEncoder,
    vocabulary: MusicTerms,
    known: Sequence[Tensor] | None = None,
    likely: dict[str, Floats] | None = None,
) -> dict[str, Floats]:
    """Each figure of each caption, [N].

    `known` are the states of `references`, `likely` the figures of a base, where already computed.
    """
    theirs = encoder.states(references) if known is None else known
    verdicts = [judge(text, own, vocabulary) for text, own in zip(captions, tags, strict=True)]
    coverage = np.array([verdict.coverage for verdict in verdicts])
    invention = np.array([verdict.invention for verdict in verdicts])
    readings = [read(text, own) for text, own in zip(captions, tags, strict=True)]
    gains = (likely or {}).get("order_gain", np.full(len(captions), np.nan))
    taken = [
        takes(reading, order_gain=None if np.isnan(gain) else float(gain)) is None
        for reading, gain in zip(readings, gains, strict=True)
    ]
    words = np.array([float(len(words_of(text))) for text in captions])
    expected = np.array([float(len(words_of(text))) for text in references])
    return {
        "bert_f1": bert_f1(encoder.states(captions), theirs),
        "rouge_l": np.array([rouge_l(*both) for both in zip(captions, references, strict=True)]),
        "coverage": coverage,
        "invention": invention,
        "faithful": coverage - invention,
        "acceptable": np.array([float(acceptable(verdict)) for verdict in verdicts]),
        "taken": np.array(taken, dtype=float),
        "non_words": np.array([reading.non_words_per_100 for reading in readings]),
        "repetition": np.array([reading.repetition for reading in readings]),
        "length": words / np.maximum(expected, 1),
        "words": words,
        **(likely or {}),
    }


def likelihoods(
    base: Likelihood, captions: Sequence[str], tags: Sequence[Sequence[str]]
) -> dict[str, Floats]:
    """The figures of `base` for the first LIKELY captions, [N]; NaN for the others."""
    figures = {name: np.full(len(captions), np.nan) for name in BY_BASE}
    few, few_tags = captions[:LIKELY], tags[:LIKELY]
    nats = base.free(few)
    figures["order_gain"][: len(few)] = base.order_gain(few, nats)
    figures["nats"][: len(few)] = nats
    figures["nats_given_tags"][: len(few)] = base.given_tags(few, few_tags)
    return figures


def with_intervals(values: Mapping[str, Floats], rng: np.random.Generator) -> dict[str, Estimate]:
    """For each figure its mean and the 95 % bootstrap interval.

    Where all of a few pairs have the same share, 0 or 1, the interval is still wider than a point.
    Missing values (NaN) are ignored.
    """
    return _with_intervals(values, rng, shares=SHARES)


def _with_intervals(
    values: Mapping[str, Floats], rng: np.random.Generator, *, shares: Sequence[str]
) -> dict[str, Estimate]:
    summary: dict[str, Estimate] = {}
    for name, whole in values.items():
        column = whole[~np.isnan(whole)]
        if not len(column):
            continue
        bounds = (0.0, 1.0) if name in shares else None
        low, high = metrics.bootstrap_interval(column, rng, bounds=bounds)
        summary[name] = {"mean": float(column.mean()), "low": low, "high": high}
    return summary


def paired_differences(
    values: Mapping[str, Floats], baseline: Mapping[str, Floats], rng: np.random.Generator
) -> dict[str, Estimate]:
    """`with_intervals` of pairwise differences; an interval without 0 is significant."""
    differences = {name: values[name] - baseline[name] for name in values}
    return _with_intervals(differences, rng, shares=())
