"""Tagger: musicnn as its authors publish it, a recording -> probabilities of 50 tags.

The level of the recording is kept, as in the authors' code: a copy 12 dB quieter is a different
input. (The joint space `musicnn-minilm` removes the level.) Patches of 187 frames follow one
another from the start, and the tail is dropped. A recording shorter than a patch is repeated until
it fills one; the authors' code fails there.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from raymtr import audio
from raymtr.audio import Sound, decode_sound
from raymtr.errors import InputError
from raymtr.model.exact import exact_float32
from raymtr.model.log_mel import LogMel
from raymtr.model.musicnn import AUDIO, PATCH, TAGGERS, read_musicnn

AT_ONCE = 4  # patches per forward: the maps fit a CPU's cache, and an hour of audio fits in memory


class Tagger:
    """One of TAGGERS: `musicnn-msd` (Million Song Dataset), `musicnn-mtat` (MagnaTagATune)."""

    def __init__(self, name: str = "musicnn-msd") -> None:
        """Raises InputError for an unknown name, UnusableError where the weights are missing."""
        if name not in TAGGERS:
            raise InputError(f"a tagger is {' or '.join(map(repr, TAGGERS))}, got {name!r}")
        self.name = name
        self.labels = list(TAGGERS[name][1])  # 50, in the authors' order
        self._network = read_musicnn(name)
        self._log_mel = LogMel(AUDIO)

    def tag(self, sound: Sound) -> np.ndarray:
        """Probabilities of the labels, float32 [50]: the mean over patches."""
        return np.asarray(self.windows(sound)[1].mean(axis=0))

    def windows(self, sound: Sound) -> tuple[np.ndarray, np.ndarray]:
        """`(start_s float64 [W], probabilities float32 [W, 50])` of patches of 3 s.

        `sound` is a path, a URI, the bytes of a file, or `(samples, rate)`. Raises
        `audio.AudioError`, naming the source, on what cannot be decoded, and on silence.
        """
        return self.of_samples(decode_sound(sound, AUDIO))

    @torch.inference_mode()
    def of_samples(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `windows`, for samples float32 [n] at 16 kHz. Raises AudioError on silence."""
        if audio.is_silent(samples):
            raise audio.AudioError("silent", "it is silent")
        patches = self._patches(samples)
        with exact_float32():
            logits = torch.cat(
                [self._network(part).logits for part in torch.split(patches, AT_ONCE)]
            )
        starts = np.arange(len(patches)) * (PATCH * AUDIO.hop / AUDIO.sample_rate)
        return starts, torch.sigmoid(logits).numpy()

    def _patches(self, samples: np.ndarray) -> Tensor:
        """Log-mel patches [W, 96, 187]: frames of the whole recording, then cut."""
        wave = torch.from_numpy(
            np.array(audio.loop_to(samples, max(len(samples), AUDIO.window_samples)))
        )
        # One more hop, because LogMel drops the last frame and the authors' code keeps it.
        mel = self._log_mel(functional.pad(wave, (0, AUDIO.hop))[None])[0]
        count = mel.shape[1] // PATCH
        patches: Tensor = mel[:, : count * PATCH].unflatten(1, (count, PATCH)).transpose(0, 1)
        return patches
