"""Analysis of a recording: the tags of both taggers and measured attributes.

The taggers' 100 labels become 68 here: synonyms are merged (LABELS) and take the highest
probability among them. Probabilities are the taggers' own. They are not calibrated further, because
no labelled reference music is available. A label counts as present from PRESENT_FROM up.

A recording is decoded once, at the taggers' 16 kHz, and cut into the windows of the joint spaces
over musicnn (TAGGED_AUDIO). So a pass that embeds with such a model has already computed the
taggers' logits (`shared_logits`). A window's level is removed there, so a quieter copy gets the
same tags. The loudness is measured on the samples as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from raymtr import audio
from raymtr.audio.attributes import VERSION as ATTRIBUTES_VERSION
from raymtr.audio.attributes import Attributes, measure
from raymtr.model.exact import exact_float32
from raymtr.model.identity import MUSICNN_VERSION
from raymtr.model.log_mel import LogMel
from raymtr.model.musicnn import TAGGERS, read_musicnn
from raymtr.tower_specs import MUSICNN_AUDIO, MUSICNN_DIM, AudioSpec, TowersSpec

TAGGED_AUDIO = AudioSpec(**MUSICNN_AUDIO, level="removed")
VERSION = f"ears-2 {MUSICNN_VERSION} {ATTRIBUTES_VERSION}"  # provenance of the results
PRESENT_FROM = 0.25  # probability; a tagger gives 0.2 to 0.5 for a tag that most people would give
WOMAN = ("female vocalists", "female vocalist", "female", "woman", "female vocal", "female voice")
MAN = ("male vocalists", "male", "man", "male vocal", "male voice")
SINGING = ("vocals", "vocal", "singing", "voice")
SYNONYMS = {
    "vocals": SINGING,
    "female vocals": WOMAN,
    "male vocals": MAN,
    "instrumental": ("instrumental", "no vocals", "no vocal", "no voice"),
    "electronic": ("electronic", "electronica", "electro"),
    "classical": ("classical", "classic"),
    "choir": ("choir", "choral"),
    "beat": ("beat", "beats"),
    "chillout": ("chillout", "chill"),
    "metal": ("metal", "heavy metal"),
    "indie": ("indie", "indie rock", "indie pop"),
}
_RAW = [label.lower() for _, labels in TAGGERS.values() for label in labels]  # 100
_NAME = {raw: name for name, raws in SYNONYMS.items() for raw in raws}
LABELS = tuple(dict.fromkeys(_NAME.get(raw, raw) for raw in _RAW))
_MEMBERS = [
    [place for place, raw in enumerate(_RAW) if _NAME.get(raw, raw) == label] for label in LABELS
]
_VOICES = [place for place, raw in enumerate(_RAW) if raw in (*SINGING, *WOMAN[2:], *MAN[1:])]


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """The analysis of one recording."""

    starts_s: np.ndarray  # float64 [W], of windows of TAGGED_AUDIO.window_s
    windows: np.ndarray  # float32 [W, len(LABELS)], probabilities
    labels: np.ndarray  # float32 [len(LABELS)], their mean
    vocal: float  # probability of a voice, from MagnaTagATune's twelve words for voices
    attributes: Attributes

    @property
    def ranked(self) -> list[tuple[str, float]]:
        """All labels with their probabilities, the likeliest first."""
        order = np.argsort(-self.labels, kind="stable")
        return [(LABELS[place], float(self.labels[place])) for place in order]

    @property
    def named(self) -> list[str]:
        """The labels with a probability of at least PRESENT_FROM, the likeliest first."""
        return [label for label, probability in self.ranked if probability >= PRESENT_FROM]


class Analyzer:
    """Both taggers, loaded once."""

    def __init__(self) -> None:
        """Raises UnusableError where the taggers' weights are not installed."""
        self._networks = {name: read_musicnn(name) for name in TAGGERS}
        self._log_mel = LogMel(TAGGED_AUDIO)

    def analyze(
        self, samples: np.ndarray, known: Mapping[str, np.ndarray] | None = None
    ) -> Analysis:
        """Analyse samples float32 [n] at 16 kHz. Raises AudioError on silence.

        `known` has the taggers' logits, float32 [W, 50] by name, that a model has computed already.
        """
        known = known or {}
        starts_s, cut = audio.windows(samples, TAGGED_AUDIO)
        logits = {**self.logits(cut, [name for name in TAGGERS if name not in known]), **known}
        raw = _probabilities(logits)
        windows = _merged(raw)
        voices = 1.0 - np.prod(1.0 - raw[:, _VOICES], axis=1)  # treats the words as independent
        return Analysis(
            starts_s=starts_s,
            windows=windows,
            labels=windows.mean(axis=0),
            vocal=float(voices.mean()),
            attributes=measure(samples, TAGGED_AUDIO.sample_rate),
        )

    def labels(self, cut: np.ndarray) -> np.ndarray:
        """Mean probabilities [len(LABELS)] of windows float32 [W, samples]; nothing is measured."""
        return np.asarray(_merged(_probabilities(self.logits(cut))).mean(axis=0))

    @torch.inference_mode()
    def logits(
        self, cut: np.ndarray, names: Sequence[str] = tuple(TAGGERS)
    ) -> dict[str, np.ndarray]:
        """Of windows float32 [W, samples] the logits of these taggers, float32 [W, 50] each."""
        made: dict[str, list[np.ndarray]] = {name: [] for name in names}
        with exact_float32():
            for wave in torch.from_numpy(np.array(cut)) if made else ():
                mel = self._log_mel(wave[None])
                for name, rows in made.items():
                    rows.append(self._networks[name](mel).logits.numpy())
        return {name: np.concatenate(rows) for name, rows in made.items()}


def _probabilities(logits: Mapping[str, np.ndarray]) -> np.ndarray:
    """The taggers' own probabilities [W, 100] of their logits [W, 50] by name."""
    both: np.ndarray = np.concatenate([logits[name] for name in TAGGERS], axis=1)
    return np.asarray(1.0 / (1.0 + np.exp(-both)))


def _merged(raw: np.ndarray) -> np.ndarray:
    """Probabilities [W, len(LABELS)] of the merged labels."""
    return np.stack([raw[:, members].max(axis=1) for members in _MEMBERS], axis=1)


def shares_taggers(spec: TowersSpec) -> bool:
    """Whether towers of this spec compute taggers' logits on the windows of TAGGED_AUDIO."""
    tower = spec.audio_tower
    return spec.audio == TAGGED_AUDIO and tower.kind in MUSICNN_DIM and not tower.trainable


def shared_logits(spec: TowersSpec, features: np.ndarray) -> dict[str, np.ndarray]:
    """The taggers' logits [W, 50] by name, which such towers' features [W, width] end with."""
    names = list(TAGGERS) if spec.audio_tower.kind == "musicnn" else [spec.audio_tower.kind]
    each = len(_RAW) // len(TAGGERS)
    parts = np.split(features[:, -each * len(names) :], len(names), axis=1)
    return dict(zip(names, parts, strict=True))
