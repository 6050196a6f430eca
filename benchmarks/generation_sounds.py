"""Controls of generated audio: Griffin-Lim of the codec's tokens, and n-gram samples of tokens."""

from __future__ import annotations

from collections.abc import Sequence

import librosa
import numpy as np
import torch

from raymtr.generation.codec import AUDIO, MelCodec
from raymtr.model.log_mel import mel_filters

ROUNDS = 60  # iterations of the mel inversion, and of Griffin-Lim
TINIEST = 1e-12


def griffin_lim(mel: np.ndarray) -> np.ndarray:
    """Audio float32 [F * hop] of a log-mel [n_mels, F] of the codec, without a trained decoder."""
    power = 10 ** (4 * mel.astype(np.float64) - 4)
    spectrum = np.sqrt(_invert_mel(mel_filters(AUDIO), power))
    return np.asarray(
        librosa.griffinlim(
            np.concatenate([spectrum, spectrum[:, -1:]], axis=1),
            n_iter=ROUNDS,
            hop_length=AUDIO.hop,
            n_fft=AUDIO.n_fft,
            length=mel.shape[1] * AUDIO.hop,
            random_state=0,
        ),
        np.float32,
    )


def _invert_mel(bank: np.ndarray, power: np.ndarray) -> np.ndarray:
    """Non-negative powers [bins, F] whose mel bands approximate `power` [n_mels, F]."""
    # Multiplicative updates (Lee & Seung 2001).
    found = bank.T @ power + TINIEST
    for _ in range(ROUNDS):
        found *= (bank.T @ power) / (bank.T @ (bank @ found) + TINIEST)
    return found


def griffin_lim_of(codec: MelCodec, tokens: np.ndarray) -> np.ndarray:
    """Audio of tokens int64 [F, L] by Griffin-Lim."""
    return griffin_lim(codec.mel_of(torch.from_numpy(tokens)).numpy())


def distance_db(decoded: np.ndarray, real: np.ndarray) -> float:
    """The mean difference of the mel bands in dB, with a floor 60 dB below the louder clip."""
    length = min(len(decoded), len(real))
    bands = [
        librosa.feature.melspectrogram(y=part[:length], sr=AUDIO.sample_rate, n_mels=64)
        for part in (decoded, real)
    ]
    floor = max(float(part.max()) for part in bands) * 1e-6 + TINIEST
    one, other = (10 * np.log10(np.maximum(part, floor)) for part in bands)
    return float(np.abs(one - other).mean())


class Counts:
    """Unigram and bigram counts of the tokens of each level."""

    def __init__(self, rows: Sequence[np.ndarray], codes: int) -> None:
        """`rows` are tokens int64 [F, levels] of training tracks."""
        levels = rows[0].shape[1]
        self.single = np.zeros((levels, codes))
        self.pairs = np.zeros((levels, codes, codes))
        for row in rows:
            for level in range(levels):
                tokens = row[:, level]
                np.add.at(self.single[level], tokens, 1)
                np.add.at(self.pairs[level], (tokens[:-1], tokens[1:]), 1)

    def unigrams(self, frames: int, rng: np.random.Generator) -> np.ndarray:
        """Tokens int64 [frames, levels], sampled from the unigram frequencies of each level."""
        codes = self.single.shape[1]
        return np.stack(
            [rng.choice(codes, frames, p=row / row.sum()) for row in self.single], axis=1
        )

    def bigrams(self, frames: int, rng: np.random.Generator) -> np.ndarray:
        """Tokens int64 [frames, levels], sampled from the bigram frequencies of each level."""
        tokens = np.empty((frames, len(self.single)), np.int64)
        tokens[0] = self.unigrams(1, rng)[0]
        for frame in range(1, frames):
            for level, before in enumerate(tokens[frame - 1]):
                row = self.pairs[level, before] + 1e-3 * self.single[level]
                tokens[frame, level] = rng.choice(len(row), p=row / row.sum())
        return tokens

    def nats(self, rows: Sequence[np.ndarray]) -> tuple[float, float]:
        """Nats per token of `rows` by unigrams, and by bigrams interpolated with unigrams."""
        levels = np.arange(len(self.single))
        unigram = (self.single + 1) / (self.single + 1).sum(axis=1, keepdims=True)
        one, two = [], []
        for row in rows:
            now = unigram[levels, row]
            after = self.pairs[levels, row[:-1]]  # [F - 1, levels, codes]
            seen = after.sum(axis=2)
            share = np.take_along_axis(after, row[1:, :, None], axis=2)[..., 0]
            # Witten-Bell: the more distinct tokens follow, the lower the weight of the counts.
            kinds = (after > 0).sum(axis=2)
            mixed = (share + kinds * now[1:]) / np.maximum(seen + kinds, 1)
            two.append(np.where(seen > 0, mixed, now[1:]))
            one.append(now[1:])
        unigrams, bigrams = (float(-np.log(np.concatenate(part)).mean()) for part in (one, two))
        return unigrams, bigrams
