"""Audio bytes to mono float32 at the spec's rate: one decoder for training, indexing and serving.

`source` opens the bytes. `formats` is the table of readable formats and their decoders. `extent`
finds the audio between tags. `probe`, `mpeg`, `ogg` and `ebml` read what a file states about its
length. `backends` decode, `mono` mixes and resamples, `cuts` cuts clips and windows, `packing`
halves their size for transfers, `decoding` combines these steps, and `guard` limits decoding in
jobs.
`describe` is the path of a scan, without decoding: tags (`id3`, `comments` and others), an
estimated length, and the `digest` that identifies the audio. `sound` is a recording as users give
it. Code outside this package uses only
the names below.
"""

from raymtr.audio.cuts import clip_start, loop_to, window_start, window_starts, windows
from raymtr.audio.decoding import DECODING, RULES, Decoded, decode, decode_span, random_clip
from raymtr.audio.describe import Described, describe
from raymtr.audio.formats import SUFFIXES
from raymtr.audio.guard import HUNG, DecodeGuard, marker_of
from raymtr.audio.mono import is_silent, to_mono
from raymtr.audio.packing import packed
from raymtr.audio.sound import Sound, check_sound, decode_sound, sound_name
from raymtr.audio.source import AudioError

__all__ = [
    "DECODING",
    "HUNG",
    "RULES",
    "SUFFIXES",
    "AudioError",
    "DecodeGuard",
    "Decoded",
    "Described",
    "Sound",
    "check_sound",
    "clip_start",
    "decode",
    "decode_sound",
    "decode_span",
    "describe",
    "is_silent",
    "loop_to",
    "marker_of",
    "packed",
    "random_clip",
    "sound_name",
    "to_mono",
    "window_start",
    "window_starts",
    "windows",
]
