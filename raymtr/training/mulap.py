"""MuLaP's training step and its check during training (Manco et al., ICASSP 2022).

The step is `training.step.TrainStep` with three losses in the place of the contrastive one, and
ALBEF's fourth where `mulap.align_weight` is above 0. The
chunk features are computed once: they are the target, without gradient, and, with masked chunks set
to zero, the input. So a target is never a masked one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional

from raymtr import metrics, storage
from raymtr.audio import decode_span, loop_to, window_starts
from raymtr.audio_cache import AudioCache
from raymtr.mulap.draws import NO_LABEL, pair_sentence
from raymtr.mulap.folder import save_mulap
from raymtr.mulap.losses import (
    chunks_loss,
    match_baseline,
    match_loss,
    refuse_collapse,
    spread_of,
    words_loss,
)
from raymtr.mulap.network import Met, Mulap, build_mulap, padded, standardised
from raymtr.specs import MulapSpec, Settings
from raymtr.tower_specs import AudioSpec
from raymtr.trained_on import Record
from raymtr.training.contrastive_loss import LARGEST_SCALE, gather_rows, shares, workers
from raymtr.training.mulap_batches import MulapBatch, MulapBatches, Words
from raymtr.training.ready import ready_for_audio
from raymtr.training.step import TrainStep
from raymtr.training.validation import ROWS_AT_ONCE
from raymtr.workspace import FETCHED


class MulapStep(TrainStep):
    """A step over MulapBatch. `unigram`, float32 [V], is the words' baseline."""

    unigram: Tensor

    @torch.no_grad()
    def start_words(self, unigram: Tensor) -> None:
        """Make the words' frequencies the baseline, and the word head's first bias.

        So masked words start near the baseline, and not from equal chances of all the vocabulary,
        which some hundred steps of training do not leave.
        """
        self.unigram = unigram
        self.towers.word_bias.copy_(unigram)

    def read_ahead(self, batch: Any) -> Any:
        """Return the batch unchanged: co-attention leaves few frozen layers to apply ahead."""
        return batch

    def backward(self, batch: MulapBatch) -> dict[str, Tensor]:
        """Add this worker's gradients; the figures' mean over workers is the whole batch's."""
        model: Mulap = self.towers
        heard, guessed, words, met = self._streams(batch)
        match = met.match
        target = standardised(heard.detach())
        masked, mean = target[batch.hidden], target.mean(dim=0)
        labels = batch.labels[batch.labels != NO_LABEL]
        word_sum, word_guess = words_loss(words, labels, self.unigram.to(words.device))
        chunk_sum, chunk_guess = chunks_loss(guessed, masked, mean)
        match_sum = match_loss(match, batch.matched)
        per_word, per_chunk, per_row, per_true = self._per(
            len(labels), len(masked), len(match), int(batch.matched.sum())
        )
        spec = model.spec
        loss = (
            spec.words_weight * word_sum * per_word
            + spec.chunks_weight * chunk_sum * per_chunk
            + spec.match_weight * match_sum * per_row
        )
        figures = {}
        if met.apart is not None:
            aligned = self._align_sum(*met.apart, batch.matched.bool()) * per_true
            loss = loss + spec.align_weight * aligned
            figures["align"] = aligned.detach()
        loss.backward()  # type: ignore[no-untyped-call]
        right = ((match > 0) == batch.matched.bool()).sum()
        return {
            "loss": loss.detach(),
            "words": word_sum.detach() * per_word,
            "words_baseline": word_guess * per_word,
            "chunks": chunk_sum.detach() * per_chunk,
            "chunks_baseline": chunk_guess * per_chunk,
            "match": match_sum.detach() * per_row,
            "match_right": right * per_row,
            "matched": batch.matched.sum() * per_row,
            "spread": spread_of(target),
            "size": heard.detach().square().mean().sqrt(),
            **figures,
        }

    def facts(self, figures: dict[str, float], cure: str) -> dict[str, float]:
        """Baselines of matching and aligning. Raises UnusableError if the features collapsed."""
        if self.towers.towers.audio_tower.trainable:
            refuse_collapse(figures["spread"], figures["size"], cure)
        baselines = {"match_baseline": match_baseline(min(max(figures["matched"], 0.0), 1.0))}
        if "align" in figures:
            baselines["align_baseline"] = math.log(self.spec.global_batch)
        return baselines

    @torch.no_grad()
    def match(self, chunks: Tensor, counts: Tensor, tokens: Mapping[str, Tensor]) -> Tensor:
        """Match logits [B] of clips and sentences, in evaluation mode."""
        model: Mulap = self.towers.eval()
        with self._autocast():
            features, heard = padded(model.hear(chunks.to(self.device)), counts.to(self.device))
            ids, real = (tokens[n].to(self.device) for n in ("input_ids", "attention_mask"))
            return model.meet(model.read(ids, real.bool()), real.bool(), features, heard).match

    def _align_sum(self, audio: Tensor, text: Tensor, matched: Tensor) -> Tensor:
        """InfoNCE of this worker's matching rows against all rows, both ways, summed.

        Unit vectors [b, D] of both streams, and bool [b]. The rows that do not match are negatives.
        """
        audio, text = audio.float(), text.float()
        sizes = shares(self.spec.global_batch, workers()) if workers() > 1 else None
        all_audio, all_text = gather_rows(torch.cat([audio, text], dim=1), sizes).chunk(2, dim=1)
        first = sum(sizes[: dist.get_rank()]) if sizes else 0
        targets = torch.arange(first, first + len(audio), device=audio.device)[matched]
        scale = self.towers.aligned.scale.exp().clamp(max=LARGEST_SCALE)
        to_text, to_audio = scale * audio @ all_text.T, scale * text @ all_audio.T  # [b, all rows]
        losses = [
            functional.cross_entropy(logits[matched], targets, reduction="sum")
            for logits in (to_text, to_audio)
        ]
        return (losses[0] + losses[1]) / 2

    def _streams(self, batch: MulapBatch) -> tuple[Tensor, Tensor, Tensor, Met]:
        """Chunk features [N, D], guessed masked ones, logits of masked words, both streams."""
        model: Mulap = self.towers
        with self._autocast():
            heard = model.hear(batch.chunks)
            shown, real = padded(heard.masked_fill(batch.hidden[:, None], 0.0), batch.counts)
            met = model.meet(model.read(batch.input_ids, batch.real), batch.real, shown, real)
            guessed = model.chunk_head(met.audio[:, 1:][real][batch.hidden])
            words = model.words_at(met.text[batch.labels != NO_LABEL])
        return heard.float(), guessed, words, met

    def _per(self, *counts: int) -> list[float]:
        """One over the whole batch's count of each, times the workers, whose mean is taken."""
        total = torch.tensor(counts, dtype=torch.float64, device=self.device)
        if workers() > 1:
            dist.all_reduce(total)
        return [workers() / max(count, 1.0) for count in total.tolist()]


class MulapObjective:
    """MuLaP on one worker; see training.objectives.Objective."""

    def __init__(self, settings: Settings, text_folder: str, device: torch.device) -> None:
        self._settings = settings
        text_folder = storage.local_copy(text_folder, last=FETCHED)
        self.model = build_mulap(
            settings.towers, settings.mulap, seed=settings.train.seed, text_folder=text_folder
        )
        self.step = MulapStep(self.model, settings.train, device)
        self._words = words_of(self.model)

    def ready(self, train: pa.Table, cache: AudioCache, *, rank: int, local_rank: int) -> None:
        """As `ready_for_audio`."""
        ready_for_audio(
            *(self.model.text_tower, train, cache, self._settings.train),
            rank=rank,
            local_rank=local_rank,
        )

    def batches(
        self, train: pa.Table, cache: AudioCache, *, rank: int, workers: int
    ) -> MulapBatches:
        """Batches of clips and sentences; their words' frequencies are what the word head knows."""
        batches = MulapBatches(
            *(train, cache, self.model.text_tower.tokenize, self._settings.train),
            rank=rank,
            workers=workers,
        ).plan(self._settings.towers.audio, self._settings.mulap, self._words)
        batches.check()
        self.step.start_words(batches.unigram())
        return batches

    def validation(self, valid: pa.Table) -> MatchValidation:
        """Whether true sentences match better than untrue ones."""
        return MatchValidation(valid, self.model, self._settings.towers.audio)

    def save(self, folder: str, *, provenance: Mapping[str, object], trained_on: Record) -> None:
        """Write the model; `embed --output features`, `search --rerank` and probes read it."""
        save_mulap(self.model, folder, provenance=provenance, trained_on=trained_on)


def words_of(model: Mulap) -> Words:
    """What masking needs to know of the model's tokenizer."""
    tokenizer = model.text_tower.tokenizer
    return Words(
        frozenset(tokenizer.all_special_ids), tokenizer.mask_token_id, len(model.word_bias)
    )


class MatchValidation:
    """Each valid track's first clip with a true sentence and an untrue one, drawn alike."""

    def __init__(self, tracks: pa.Table, model: Mulap, audio: AudioSpec) -> None:
        rng = np.random.default_rng(0)
        rows = tracks.to_pylist()
        self._questions = []
        for first in range(0, len(rows), ROWS_AT_ONCE):
            part = rows[first : first + ROWS_AT_ONCE]
            clips = [_first_clip(row, audio, model.spec) for row in part]
            pairs = [
                (place, sentence, true)
                for place, row in enumerate(part)
                for true in (True, False)
                if (sentence := pair_sentence(row, _beside(part, place), rng, true=true))
            ]
            self._questions.append((clips, pairs, model.text_tower.tokenize([p[1] for p in pairs])))
        self.pool = len(rows)

    def __call__(self, step: MulapStep) -> dict[str, float]:
        """The area under the ROC curve of matching over all pairs; {} with too few tracks."""
        scores, true = [], []
        for clips, pairs, tokens in self._questions:
            cut = [clips[place] for place, _, _ in pairs]
            counts = torch.tensor([len(clip) for clip in cut])
            chunks = torch.from_numpy(np.concatenate(cut))
            scores += step.match(chunks, counts, tokens).float().tolist()
            true += [pair[2] for pair in pairs]
        if len(set(true)) < 2:
            return {}
        return {
            "valid_match_auc": float(metrics.roc_aucs([scores], [true])[0]),
            "valid_tracks": self.pool,
        }


def _beside(rows: list[dict[str, Any]], place: int) -> list[dict[str, Any]]:
    """The other rows, from the next one on."""
    return [*rows[place + 1 :], *rows[:place]]


def _first_clip(row: dict[str, Any], audio: AudioSpec, spec: MulapSpec) -> np.ndarray:
    """Chunks [C, window_samples] of the first `clip_s` of a track."""
    clip = decode_span(row["uri"], audio, start_s=0.0, length_s=spec.clip_s)
    size = audio.window_samples
    starts = window_starts(len(clip), audio)
    return np.stack([loop_to(clip[s : s + size], size) for s in starts])
