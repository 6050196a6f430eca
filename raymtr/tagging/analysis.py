"""Analysis of a recording: the tags of both taggers and measured attributes.

The taggers' 100 labels become 68 here: synonyms are merged (LABELS) and take the highest
probability among them. Probabilities are the taggers' own. They are not calibrated further, because
no labelled reference music is available. A label counts as present from PRESENT_FROM up. The
recording is decoded once, at the taggers' 16 kHz. Its level is scaled to that of their training
music (log_mel.LOUDNESS), so a quieter copy gets the same tags. Its loudness is measured before
scaling.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raymtr import audio
from raymtr.audio.attributes import VERSION as ATTRIBUTES_VERSION
from raymtr.audio.attributes import Attributes, measure
from raymtr.model.identity import MUSICNN_VERSION
from raymtr.model.log_mel import LOUDNESS, QUIETEST
from raymtr.model.musicnn import AUDIO, PATCH, TAGGERS
from raymtr.model.tagger import Tagger

VERSION = f"ears-1 {MUSICNN_VERSION} {ATTRIBUTES_VERSION}"  # provenance of the results
PRESENT_FROM = 0.25  # probability; a tagger gives 0.2 to 0.5 for a tag that most people would give
WINDOW_S = PATCH * AUDIO.hop / AUDIO.sample_rate
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

    starts_s: np.ndarray  # float64 [W], of patches of WINDOW_S
    windows: np.ndarray  # float32 [W, len(LABELS)], probabilities
    labels: np.ndarray  # float32 [len(LABELS)], their mean
    vocal: float  # probability of a voice, from MagnaTagATune's twelve words for voices
    attributes: Attributes

    @property
    def named(self) -> list[str]:
        """The labels with a probability of at least PRESENT_FROM, the likeliest first."""
        order = np.argsort(-self.labels, kind="stable")
        return [LABELS[place] for place in order if self.labels[place] >= PRESENT_FROM]


class Analyzer:
    """Both taggers, loaded once."""

    def __init__(self) -> None:
        """Raises UnusableError where the taggers' weights are not installed."""
        self._taggers = [Tagger(name) for name in TAGGERS]

    def analyze(self, samples: np.ndarray) -> Analysis:
        """Analyse samples float32 [n] at 16 kHz. Raises AudioError on silence."""
        if audio.is_silent(samples):
            raise audio.AudioError("silent", "it is silent")
        rms = max(float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))), QUIETEST)
        levelled = np.asarray(samples * np.float32(LOUDNESS / rms))
        made = [tagger.of_samples(levelled) for tagger in self._taggers]
        raw = np.concatenate([tags for _, tags in made], axis=1)  # [W, 100]
        windows = np.stack([raw[:, members].max(axis=1) for members in _MEMBERS], axis=1)
        voices = 1.0 - np.prod(1.0 - raw[:, _VOICES], axis=1)  # treats the words as independent
        return Analysis(
            starts_s=made[0][0],
            windows=windows,
            labels=windows.mean(axis=0),
            vocal=float(voices.mean()),
            attributes=measure(samples, AUDIO.sample_rate),
        )
