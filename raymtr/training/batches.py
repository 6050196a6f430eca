"""Batches: step number -> one worker's part of that step's batch.

Everything is drawn from (seed, step, place in the global batch). So a batch can be built again on
any number of workers, and the next one can be built in a thread while the step runs. Audio comes
from the decoded cache: a crop and a cast cost about a hundredth of decoding. Each worker takes the
tracks of a batch that are adjacent in the table. These are mostly the same from step to step, so
each machine caches only its own part.
"""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from raymtr.audio import AudioError
from raymtr.audio_cache import AudioCache, cache_key
from raymtr.errors import UnusableError
from raymtr.specs import TrainSpec
from raymtr.text import draw_sentence
from raymtr.track import artist_key
from raymtr.training.contrastive_loss import shares
from raymtr.training.mixture import Mixture
from raymtr.training.step import Batch

Lengths = Callable[[list[str]], list[int]]  # token counts of sentences
SENTENCES_LOOKED_AT = 2_000  # sample size for the warning about cut sentences
Tokenize = Callable[[list[str]], dict[str, Tensor]]
SENTENCES = 8  # per track if the text tower is frozen, so that each is encoded once
# Groups of similar length cost a quarter less than one group; sixteen pad less, but their products
# are too small.
TEXT_GROUPS = 8


def longer_than(
    most: int,
    lengths: Lengths,
    tracks: pa.Table,
    *,
    seed: int,
    weights: Mapping[str, float] | None = None,
) -> str | None:
    """A warning with the number of sampled sentences longer than `most` tokens, or None.

    Samples one training sentence of each of up to SENTENCES_LOOKED_AT tracks. None means that no
    sampled sentence is cut.
    """
    places = np.linspace(0, len(tracks) - 1, min(len(tracks), SENTENCES_LOOKED_AT)).astype(np.int64)
    rng = np.random.default_rng([seed, len(places)])
    rows = tracks.take(places).to_pylist()
    drawn = [draw_sentence(row, row["captions"] or (), rng, weights) for row in rows]
    tokens = np.array(lengths([sentence for sentence in drawn if sentence]))
    cut = int((tokens > most).sum())
    if not cut:
        return None
    return (
        f"{cut} of {len(tokens)} training sentences are longer than the {most} tokens that the "
        f"text tower reads: their ends are cut off; the longest has {tokens.max()} "
        "(towers.text_tower.max_tokens)"
    )


def _number(ids: Tensor) -> int:
    """A sentence's tokens hashed to one int64, the same on every worker."""
    return _hashed(ids.numpy().tobytes())


def _hashed(content: bytes) -> int:
    digest = hashlib.blake2b(content, digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def likeness(track: Mapping[str, Any], sentence: str, number: int) -> tuple[int, int]:
    """Numbers that are equal for rows of one artist, and for sentences of the same words.

    Case, order, punctuation and repeats of words do not count, so "slow, piano" and "Piano, slow."
    are one. A row without an artist, or without words, gets unique numbers, from `number`, its
    track's row.
    """
    unique = f"\0{number}"
    artist = artist_key(track.get("artist") or "") or unique
    words = " ".join(sorted(set(re.findall(r"\w+", sentence.casefold())))) or unique
    return _hashed(f"artist {artist}".encode()), _hashed(f"words {words}".encode())


def overdrive(wave: np.ndarray, db: float) -> None:
    """Amplify `wave` to `db` dB over full scale and clip it, in place, as hard limiters do."""
    wave *= 10 ** (db / 20) / max(float(np.abs(wave).max()), 1e-6)
    np.clip(wave, -1.0, 1.0, out=wave)


class PrefetchedBatches(ABC):
    """Batches by the step's number, each built in a thread while the step before it runs."""

    @abstractmethod
    def make(self, step: int) -> Any:
        """Return this worker's rows of batch `step`."""

    def ahead(
        self, first: int, last: int, *, then: Callable[[Any], Any] = lambda batch: batch
    ) -> Iterator[tuple[int, Any]]:
        """Yield steps `first` to `last` - 1 with their batches; the next is built in a thread.

        `then` is applied to each batch in the same thread.
        """

        def make(step: int) -> Any:
            return then(self.make(step))

        with ThreadPoolExecutor(1, thread_name_prefix="batches") as thread:
            waiting = thread.submit(make, first)
            for step in range(first, last):
                batch = waiting.result()
                if step + 1 < last:
                    waiting = thread.submit(make, step + 1)
                yield step, batch


class Batches(PrefetchedBatches):
    """Builds batches from a table of training tracks (training.tracks) and the audio cache."""

    def __init__(
        self,
        tracks: pa.Table,
        cache: AudioCache,
        tokenize: Tokenize,
        spec: TrainSpec,
        *,
        rank: int = 0,
        workers: int = 1,
        anywhere: bool = True,
        any_words: bool = True,
    ) -> None:
        """`rank` is this worker's place among the `workers` that divide the global batch.

        Clips start `anywhere` in a track, or are the windows that indexing cuts. Sentences are of
        `any_words`, or one of the SENTENCES drawn for a track.
        """
        self._anywhere, self._any_words = anywhere, any_words
        self.tracks, self.cache, self.tokenize, self.spec = tracks, cache, tokenize, spec
        self.mixture = Mixture(tracks["dataset"].to_pylist(), spec.mixture, seed=spec.seed)
        first, last = (sum(shares(spec.global_batch, workers)[:n]) for n in (rank, rank + 1))
        self._share = slice(first, last)

    def make(self, step: int) -> Any:
        """Return this worker's rows of batch `step`, a Batch."""
        chosen = self.mixture.draw(step, self.spec.global_batch)
        places = np.sort(np.argsort(chosen, kind="stable")[self._share])
        numbers = chosen[places]
        rows = self.tracks.take(numbers).to_pylist()
        drawn = []
        for place, track in zip(places.tolist(), rows, strict=True):
            rng = np.random.default_rng([self.spec.seed, step, place])
            drawn.append((self._sentence(track, rng), track, rng))
        tokens = self.tokenize([sentence for sentence, _, _ in drawn])
        lengths = tokens["attention_mask"].sum(1)
        order = torch.argsort(lengths, stable=True)
        words = [_number(ids[:n]) for ids, n in zip(tokens["input_ids"], lengths, strict=True)]
        names = torch.stack([torch.from_numpy(numbers), torch.tensor(words)], dim=1)
        if self.spec.false_negatives == "masked":
            alike = [
                likeness(track, sentence, number)
                for (sentence, track, _), number in zip(drawn, numbers.tolist(), strict=True)
            ]
            names = torch.cat([names, torch.tensor(alike)], dim=1)
        names = names[order]
        drawn = [drawn[row] for row in order.tolist()]
        windows = self.spec.windows
        waves = np.empty((len(drawn), windows, self.cache.spec.window_samples), np.float32)
        for clips, (_, track, rng) in zip(waves, drawn, strict=True):
            for wave in clips:
                self._clip(track, rng, wave)
        waves = waves if windows > 1 else waves[:, 0]
        texts = []
        for rows in torch.tensor_split(order, min(TEXT_GROUPS, len(drawn))):
            longest = int(lengths[rows[-1]])
            texts.append({name: values[rows, :longest] for name, values in tokens.items()})
        return Batch(waves=torch.from_numpy(waves), texts=texts, names=names)

    def _sentence(self, track: dict[str, Any], rng: np.random.Generator) -> str:
        if not self._any_words:
            number = int(rng.integers(SENTENCES))
            name = int.from_bytes(hashlib.blake2b(track["track_id"].encode()).digest()[:8])
            rng = np.random.default_rng([self.spec.seed, name, number])
        sentence = draw_sentence(track, track["captions"] or (), rng, self.spec.texts)
        assert sentence is not None, "training tracks have words"
        return sentence

    def _clip(self, track: dict[str, Any], rng: np.random.Generator, wave: np.ndarray) -> None:
        """Fill `wave`. Raises UnusableError where the track's audio has changed."""
        samples = track.get("samples")  # runs of an older version lack this column
        try:
            self.cache.clip(
                *(cache_key(track), track["uri"], rng),
                samples=samples,
                out=wave,
                anywhere=self._anywhere,
            )
            if self.spec.gain_db:
                wave *= 10 ** (-rng.uniform(0, self.spec.gain_db) / 20)
            if (most := self.spec.overdrive_db) and (db := rng.uniform(-most, most)) > 0:
                overdrive(wave, db)
        except AudioError as error:
            if error.code == "unreadable":  # a store may be unavailable for a moment
                raise
            raise UnusableError(
                f"{track['uri']} was decoded when this run began and cannot be now ({error}); "
                "bring the file back, or train without it under another --run"
            ) from error
