"""MuLaP's batches: chunks of clips, masked sentences, and pairs that do not match.

The tracks of a step are those that the contrastive objective draws. What is drawn for a row follows
from (seed, step, place in the global batch), so any number of workers builds the same batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from raymtr.audio import window_starts
from raymtr.errors import UnusableError
from raymtr.mulap.draws import NO_LABEL, TRIES, mask_chunks, mask_words, pair_sentence
from raymtr.specs import MulapSpec
from raymtr.text import draw_sentence
from raymtr.tower_specs import AudioSpec
from raymtr.training.batches import SENTENCES_LOOKED_AT, Batches


@dataclass(frozen=True)
class MulapBatch:
    """One worker's rows of a global batch. The chunks of all rows are concatenated."""

    chunks: Tensor  # float32 [N, window_samples]
    counts: Tensor  # int64 [B], chunks of each row; their sum is N
    hidden: Tensor  # bool [N], the masked chunks
    input_ids: Tensor  # int64 [B, T], with masked words
    real: Tensor  # bool [B, T], False for padding
    labels: Tensor  # int64 [B, T], the masked words of matching rows; else NO_LABEL
    matched: Tensor  # float32 [B], 1 where the sentence is about the audio

    def to(self, device: torch.device) -> MulapBatch:
        """The same batch on `device`."""
        return MulapBatch(**{name: value.to(device) for name, value in vars(self).items()})


@dataclass(frozen=True)
class Words:
    """What masking needs to know of a tokenizer."""

    special: frozenset[int]
    mask_id: int
    vocabulary: int


class MulapBatches(Batches):
    """Builds MulapBatch; `cache.spec` has a window of a whole clip."""

    def plan(self, audio: AudioSpec, mulap: MulapSpec, words: Words) -> MulapBatches:
        """Set how clips are cut and what is masked; returns itself."""
        self._audio, self._mulap, self._words = audio, mulap, words
        return self

    def make(self, step: int) -> Any:
        """Return this worker's rows of batch `step`, a MulapBatch."""
        chosen = self.mixture.draw(step, self.spec.global_batch)
        places = np.sort(np.argsort(chosen, kind="stable")[self._share])
        rows = self.tracks.take(chosen[places]).to_pylist()
        sentences, matched, chunks, counts, hidden, rngs = [], [], [], [], [], []
        for place, track in zip(places.tolist(), rows, strict=True):
            rng = np.random.default_rng([self.spec.seed, step, place])
            sentence, true = self._pair(track, rng)
            cut = self._chunks(track, rng)
            sentences.append(sentence)
            matched.append(float(true))
            chunks.append(cut)
            counts.append(len(cut))
            hidden.append(mask_chunks(len(cut), self._mulap.masked, rng))
            rngs.append(rng)
        return MulapBatch(
            chunks=torch.from_numpy(np.concatenate(chunks)),
            counts=torch.tensor(counts),
            hidden=torch.from_numpy(np.concatenate(hidden)),
            matched=torch.tensor(matched),
            **self._masked(sentences, matched, rngs),
        )

    def check(self) -> None:
        """Raise UnusableError where no sentence is untrue of another track: nothing to match."""
        rng = np.random.default_rng(self.spec.seed)
        count = min(len(self.tracks), SENTENCES_LOOKED_AT // 10)
        rows = self.tracks.take(rng.permutation(len(self.tracks))[:count]).to_pylist()
        if not any(pair_sentence(row, rows[:TRIES], rng, true=False) for row in rows):
            raise UnusableError(
                f"none of {len(self.tracks)} tracks has a sentence that is untrue of another one: "
                "all have the same tags and names, so matching cannot be learned; scan more music, "
                "or tag it"
            )

    def unigram(self) -> Tensor:
        """Logarithms of the words' frequencies in sampled training sentences, float32 [V]."""
        count = min(len(self.tracks), SENTENCES_LOOKED_AT)
        places = np.linspace(0, len(self.tracks) - 1, count).astype(np.int64)
        rng = np.random.default_rng([self.spec.seed, count])
        drawn = [
            draw_sentence(row, row["captions"] or (), rng, self.spec.texts)
            for row in self.tracks.take(places).to_pylist()
        ]
        ids = self.tokenize([sentence for sentence in drawn if sentence])["input_ids"].flatten()
        ids = ids[~torch.isin(ids, torch.tensor(sorted(self._words.special)))]
        rare = 1.0 / self._words.vocabulary  # all unseen words together count as one word
        seen = torch.bincount(ids, minlength=self._words.vocabulary).float() + rare
        return torch.log(seen / seen.sum())

    def _pair(self, track: dict[str, Any], rng: np.random.Generator) -> tuple[str, bool]:
        """A sentence about `track`; or one of another track that is not true of it, and False."""
        true = rng.random() >= self._mulap.mismatched
        others = self.tracks.take(rng.integers(len(self.tracks), size=TRIES)).to_pylist()
        sentence = pair_sentence(track, others, rng, self.spec.texts, true=true)
        if sentence is None:  # all others have the same words
            sentence = draw_sentence(track, track["captions"] or (), rng, self.spec.texts)
            assert sentence is not None, "training tracks have words"
            return sentence, True
        return sentence, true

    def _chunks(self, track: dict[str, Any], rng: np.random.Generator) -> np.ndarray:
        """The chunks of a clip, float32 [C, window_samples]; the last one ends with the clip."""
        clip = np.empty(self.cache.spec.window_samples, np.float32)
        self._clip(track, rng, clip)
        length = min(track.get("samples") or len(clip), len(clip))  # a shorter track was repeated
        size = self._audio.window_samples
        return np.stack([clip[s : s + size] for s in window_starts(length, self._audio)])

    def _masked(
        self, sentences: list[str], matched: list[float], rngs: list[np.random.Generator]
    ) -> dict[str, Tensor]:
        """Tokens with masked words, in all rows: otherwise a mask would reveal a matching row."""
        tokens = self.tokenize(sentences)
        ids, real = tokens["input_ids"], tokens["attention_mask"].bool()
        labels = torch.full_like(ids, NO_LABEL)
        for row, rng in enumerate(rngs):
            count = int(real[row].sum())
            read, targets = mask_words(
                *(ids[row, :count].tolist(), self._mulap.masked, rng),
                special=self._words.special,
                mask_id=self._words.mask_id,
                vocabulary=self._words.vocabulary,
            )
            ids[row, :count] = torch.tensor(read)
            if matched[row]:
                labels[row, :count] = torch.tensor(targets)
        return {"input_ids": ids, "real": real, "labels": labels}
