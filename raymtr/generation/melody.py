"""Melody tokens: the melody of 4 s windows, independent of the instrument (MusicLM, section 3.4).

A small vision transformer over the log-mel embeds a window as a unit vector, and an RVQ quantises
it. It is trained on pairs: tracks with the same value of `tune` play one melody, at the same times
from their start, on different instruments. The loss is the triplet loss with semi-hard negatives
(Schroff et al. 2015), over windows at the same time in both tracks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from raymtr.audio import loop_to
from raymtr.errors import UnusableError
from raymtr.generation.fitting import fit_network
from raymtr.generation.quantizer import ResidualQuantizer, fit_quantizer
from raymtr.generation_specs import MelodySpec
from raymtr.model.log_mel import LogMel
from raymtr.model.spectrogram_transformer import SpectrogramTransformer
from raymtr.tower_specs import PATCH, AudioSpec, AudioTowerSpec

WINDOW_S, HOP_S = 4.0, 3.0  # of the windows that condition the stages
STORED_S = 1.0  # hop between the stored windows of a track; crops start at multiples of it
NONE = -1  # every token of an absent melody
AUDIO = AudioSpec(
    sample_rate=16_000, n_fft=2_048, hop=512, n_mels=128, window_s=WINDOW_S, level="removed"
)
MARGIN = 0.2  # between squared distances of unit vectors
BATCH_WINDOWS = 32  # windows per forward pass
ROUNDING_S = 1e-6


class TuneClip(NamedTuple):
    """A clip of a training track: its tune, its start, and mono float32 [S] at 16 kHz."""

    tune: str
    first_s: float
    samples: np.ndarray

    @property
    def last_s(self) -> float:
        """Its end in the track."""
        return self.first_s + len(self.samples) / AUDIO.sample_rate


class MelodyTokens(nn.Module):
    """Encodes windows of audio to melody tokens."""

    sample_rate = AUDIO.sample_rate

    def __init__(self, spec: MelodySpec) -> None:
        super().__init__()
        tower = AudioTowerSpec(
            kind="ast",
            dim=spec.width,
            depth=spec.layers,
            heads=spec.heads,
            inner=spec.inner,
            stride=PATCH,
        )
        self.encoder = SpectrogramTransformer(tower, AUDIO)
        self.head = nn.Linear(spec.width, spec.dim)
        self.quantizer = ResidualQuantizer(spec.levels, spec.codes, spec.dim)
        self._log_mel = LogMel(AUDIO)

    def forward(self, waves: Tensor) -> Tensor:
        """Windows float32 [B, 64,000] -> unit vectors [B, dim]."""
        return functional.normalize(self.head(self.encoder(self._log_mel(waves))), dim=1)

    @torch.inference_mode()
    def vectors(self, samples: np.ndarray, starts_s: Sequence[float]) -> Tensor:
        """Unit vectors [N, dim] of the windows of mono float32 [S] that start at `starts_s`.

        The samples are repeated if a window ends after them.
        """
        windows = windows_at(samples, starts_s)
        return torch.cat([self(part) for part in torch.split(windows, BATCH_WINDOWS)])

    def encode(self, samples: np.ndarray, starts_s: Sequence[float]) -> np.ndarray:
        """As `vectors`, tokens int64 [N, levels]."""
        return np.asarray(self.quantizer.encode(self.vectors(samples, starts_s)).numpy())


def windows_at(samples: np.ndarray, starts_s: Sequence[float]) -> Tensor:
    """Windows float32 [N, 64,000] of mono float32 [S], which is repeated to fill the last one."""
    firsts = [round(start * AUDIO.sample_rate) for start in starts_s]
    looped = loop_to(samples, max(len(samples), max(firsts) + AUDIO.window_samples))
    windows = [looped[first : first + AUDIO.window_samples] for first in firsts]
    return torch.from_numpy(np.stack(windows).astype(np.float32))


def crop_starts(length_s: float) -> list[float]:
    """Starts in seconds, from the crop's start, of the windows that cover it."""
    count = max(0, math.ceil((length_s - WINDOW_S - ROUNDING_S) / HOP_S)) + 1
    return [n * HOP_S for n in range(count)]


def track_starts(seconds: float) -> list[float]:
    """Starts of a track's stored windows in seconds: every STORED_S, within the track."""
    return [n * STORED_S for n in range(int(max(0.0, seconds - WINDOW_S) / STORED_S) + 1)]


def crop_tokens(stored: np.ndarray, begin_s: float, length_s: float) -> np.ndarray:
    """Tokens [N, levels] of a crop, selected from the stored ones [W, levels] of its track.

    The track's last window replaces windows that would end after the track.
    """
    rows = [round((begin_s + start) / STORED_S) for start in crop_starts(length_s)]
    return np.take(stored, np.minimum(rows, len(stored) - 1), axis=0)


def no_melody(rows: int, length_s: float, levels: int) -> Tensor:
    """The tokens of an absent melody for a crop, int64 [rows, N, levels]."""
    return torch.full((rows, len(crop_starts(length_s)), levels), NONE)


def fit_melody(clips: Sequence[TuneClip], spec: MelodySpec, seed: int) -> MelodyTokens:
    """Melody tokens fitted to clips of training tracks.

    Raises UnusableError if fewer than two tunes have two clips with 4 s in common, or if there are
    fewer windows than codes.
    """
    pairs = list(_pairs_by_tune(clips).values())
    if len(pairs) < 2:
        raise UnusableError(
            f"{len(pairs)} tunes have two recordings with {WINDOW_S:g} s in common, and a melody "
            "part needs two such tunes: raise tokens.fit_s or tokens.fit_tracks, or set "
            "tokens.melody.steps=0"
        )
    torch.manual_seed(seed)
    melody = MelodyTokens(spec)

    def loss_of(generator: torch.Generator) -> Tensor:
        chosen = torch.randperm(len(pairs), generator=generator)[: spec.batch].tolist()
        drawn = [_draw(clips, pairs[tune], generator) for tune in chosen]
        anchors, positives = zip(*drawn, strict=True)
        one, other = melody(torch.cat([*anchors, *positives])).chunk(2)
        return (semi_hard_loss(one, other) + semi_hard_loss(other, one)) / 2

    fit_network(
        melody,
        loss_of,
        what="melody encoder",
        steps=spec.steps,
        learning_rate=spec.learning_rate,
        seed=seed,
        cure="raise tokens.melody.batch",
    )
    vectors = [
        melody.vectors(clip.samples, track_starts(clip.last_s - clip.first_s)) for clip in clips
    ]
    melody.quantizer = fit_quantizer(
        torch.cat(vectors), spec.levels, spec.codes, rounds=spec.rounds, seed=seed
    )
    return melody


def semi_hard_loss(anchors: Tensor, positives: Tensor) -> Tensor:
    """The triplet loss of unit vectors [B, D]; the same row of both is one tune, rows are distinct.

    The negative is the nearest one that is farther than the positive, else the farthest one.
    """
    distances = 2 - 2 * anchors @ positives.T  # squared
    positive = distances.diagonal()[:, None]
    negatives = ~torch.eye(len(distances), dtype=torch.bool, device=distances.device)
    semi_hard = negatives & (distances > positive)
    nearest = distances.masked_fill(~semi_hard, torch.inf).amin(dim=1)
    farthest = distances.masked_fill(~negatives, -torch.inf).amax(dim=1)
    negative = torch.where(semi_hard.any(dim=1), nearest, farthest)
    return functional.relu(positive[:, 0] - negative + MARGIN).mean()


def _pairs_by_tune(clips: Sequence[TuneClip]) -> dict[str, list[tuple[int, int]]]:
    """For each tune, the pairs of clips that overlap by a window or more."""
    by_tune: dict[str, list[int]] = {}
    for place, clip in enumerate(clips):
        by_tune.setdefault(clip.tune, []).append(place)
    pairs = {
        tune: [
            (one, other)
            for one, other in combinations(places, 2)
            if _overlap(clips[one], clips[other])[1] >= 0
        ]
        for tune, places in by_tune.items()
    }
    return {tune: found for tune, found in pairs.items() if found}


def _overlap(one: TuneClip, other: TuneClip) -> tuple[float, float]:
    """Start of the overlap, and the range of window starts within it, both in seconds."""
    first_s = max(one.first_s, other.first_s)
    return first_s, min(one.last_s, other.last_s) - first_s - WINDOW_S


def _draw(
    clips: Sequence[TuneClip], pairs: Sequence[tuple[int, int]], generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """A window at the same time in both clips of a pair, float32 [1, 64,000] each, in any order."""
    number = int(torch.randint(len(pairs), (1,), generator=generator))
    swap, share = torch.rand(2, generator=generator).tolist()
    pair = [clips[place] for place in pairs[number]]
    first_s, range_s = _overlap(*pair)
    start_s = first_s + share * range_s
    one, other = (windows_at(clip.samples, [start_s - clip.first_s]) for clip in pair)
    return (one, other) if swap < 0.5 else (other, one)
