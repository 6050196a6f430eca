"""Two decoders behind the same verbs: libsndfile (soundfile) and FFmpeg (PyAV).

Both hand out blocks of native samples at the native rate and with every channel, and nothing
else: mixing and resampling is done in one place, in `audio`, so that both backends agree (FFmpeg's
own mono mix is 1.414 times louder than the mean). Neither is trusted with a file's name: they get
an opened file, so content alone decides. Damage never raises here; it ends or shortens the blocks
and is left to the caller, who knows what length to expect.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, BinaryIO

import av
import numpy as np
import soundfile as sf

from raymtr.audio.mono import as_float

SOUNDFILE_FORMS = frozenset({"wav", "w64", "aiff", "caf", "au", "flac", "ogg", "mp3"})

_BLOCK = 1 << 18  # frames in a block; soundfile seeks after each read, so few and large ones
_WARM_UP_S = 0.2  # the first frames after a seek miss their predecessors: decoded, then dropped
_UNKNOWN = 1 << 62  # libsndfile's frame count of a chained Ogg file is beyond this


class NoAudioError(Exception):
    """The container holds no audio stream that FFmpeg has a decoder for."""


CANNOT_OPEN = (sf.SoundFileError, av.FFmpegError, NoAudioError)  # raised by the readers' __init__


class SoundFileReader:
    """libsndfile, on a file that it can open."""

    name = "soundfile"
    timeline_s = 0.0  # its samples carry no times of their own

    def __init__(self, file: BinaryIO) -> None:
        file.seek(0)
        handle = file if isinstance(file, io.BytesIO) else file.fileno()
        self._sound = sf.SoundFile(handle, closefd=False)
        self.rate: int = self._sound.samplerate
        known = 0 < self._sound.frames < _UNKNOWN
        self.frames: int | None = self._sound.frames if known else None  # as the header states
        self.can_seek = known
        self.damaged = False

    def blocks(self, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
        """float32 [frames, channels] from native frame `start` to `stop`, or to the end.

        soundfile seeks after every read, and libvorbis misplaces a seek into the last page by the
        samples that the page's end cuts off: so nothing ends or starts within the last seconds.
        """
        end = self.frames or _UNKNOWN
        stop = end if stop is None else min(stop, end)
        at = min(start, max(0, end - _BLOCK)) if self._sound.format == "OGG" else start
        surplus = start - at
        try:
            if at:
                self._sound.seek(at)
            while at < stop:
                wanted = _BLOCK if stop - at >= 2 * _BLOCK else stop - at
                block = self._sound.read(wanted, dtype="float32", always_2d=True)
                yield block[surplus:]
                if len(block) < wanted:
                    return
                at, surplus = at + wanted, 0
        except sf.SoundFileError:
            self.damaged = True

    def close(self) -> None:
        """Let go of the decoder; the file stays open."""
        self._sound.close()


class PyAVReader:
    """FFmpeg, offered one demuxer only."""

    name = "pyav"

    def __init__(self, file: BinaryIO, form: str) -> None:
        file.seek(0)
        nameless = SimpleNamespace(read=file.read, seek=file.seek, tell=file.tell)
        self._container = av.open(nameless, options={"format_whitelist": form})
        streams = [s for s in self._container.streams.audio if s.codec_context]
        if not streams:
            self._container.close()
            raise NoAudioError("it holds no audio stream that can be decoded")
        self._stream: Any = streams[0]
        self._stream.codec_context.thread_count = 1
        self.rate: int = self._stream.rate
        self.timeline_s = 0.0  # first decoded frame's start to last one's end, by their times
        self.damaged = False

    @property
    def frames(self) -> int | None:
        """Native frames as the container states them."""
        if self._stream.duration:
            seconds = float(self._stream.duration * self._stream.time_base)
        else:
            seconds = (self._container.duration or 0) / av.time_base
        return round(seconds * self.rate) or None

    @property
    def can_seek(self) -> bool:
        """Only MP4 with a clock of whole samples: elsewhere times are guessed or rounded."""
        is_mp4 = self._container.format.name.startswith("mov")
        clock = self._stream.time_base * self.rate
        return bool(is_mp4 and self._stream.duration and clock.denominator == 1)

    def blocks(self, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
        """float32 [frames, channels] from native frame `start` to `stop` or later, or to the end.

        A late start needs `can_seek`.
        """
        waiting: list[np.ndarray] = []  # [channels, frames]
        count, at = 0, start
        for planes in self._planes_from(start):
            if waiting and (count >= _BLOCK or len(planes) != len(waiting[0])):
                yield np.hstack(waiting).T
                waiting, count = [], 0
            waiting.append(planes)
            count, at = count + planes.shape[1], at + planes.shape[1]
            if stop is not None and at >= stop:
                break
        if waiting:
            yield np.hstack(waiting).T

    def close(self) -> None:
        """Let go of the decoder; the file stays open."""
        self._container.close()

    def _planes_from(self, start: int) -> Iterator[np.ndarray]:
        """float32 [channels, frames] of each codec frame, the first one cut at `start`."""
        first: float | None = None
        skip = 0
        for frame in self._codec_frames(start):
            begin = float(frame.pts * frame.time_base) if frame.pts is not None else 0.0
            if first is None:
                first = begin
                if start:
                    origin = (self._stream.start_time or 0) * self._stream.time_base
                    skip = start - round((begin - float(origin)) * self.rate)
                else:
                    self.rate = frame.sample_rate  # the decoder knows better than the header
            if skip < 0 or frame.sample_rate != self.rate:
                self.damaged = True  # landed late, or a track that changes its rate midway
                return
            self.timeline_s = begin - first + frame.samples / self.rate
            if skip < frame.samples:
                yield _planes(frame)[:, skip:]
            skip = max(0, skip - frame.samples)

    def _codec_frames(self, start: int) -> Iterator[Any]:
        """Decoded av frames, from a little before `start`; packets no decoder can read are left."""
        try:
            if start > self.rate:
                offset_s = start / self.rate - _WARM_UP_S
                self._container.seek(int(offset_s / self._stream.time_base), stream=self._stream)
            packets = self._container.demux(self._stream)
            while (packet := next(packets, None)) is not None:
                try:
                    decoded = packet.decode()
                except av.FFmpegError:
                    self.damaged, decoded = True, []
                yield from decoded
        except av.FFmpegError:
            self.damaged = True


def _planes(frame: Any) -> np.ndarray:
    """float32 [channels, frames] of an av frame, whatever its sample format."""
    array = frame.to_ndarray()
    if not frame.format.is_planar:
        array = array.reshape(-1, frame.layout.nb_channels).T
    return as_float(array)
