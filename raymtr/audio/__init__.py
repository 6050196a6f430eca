"""Audio bytes to mono float32 at the spec's rate: one decoder for training, indexing and serving.

`source` opens the bytes, `probe` and `mpeg` read what they state about their own length,
`backends` decode, `mono` mixes and resamples, `cuts` cuts clips and windows, and `decoding` is the
road through them. Everything outside uses the names below and no others.
"""

from raymtr.audio.cuts import clip_start, loop_to, windows
from raymtr.audio.decoding import DECODING, Decoded, decode, decode_span, random_clip
from raymtr.audio.mono import to_mono
from raymtr.audio.source import AudioError

__all__ = [
    "DECODING",
    "AudioError",
    "Decoded",
    "clip_start",
    "decode",
    "decode_span",
    "loop_to",
    "random_clip",
    "to_mono",
    "windows",
]
