"""Two decoders with one interface: libsndfile (soundfile) and FFmpeg (PyAV).

Both yield blocks of native samples at the native rate, with all channels. Only `mono` mixes and
resamples, so that both backends agree (FFmpeg's own mono mix is 1.414 times louder than the mean).
They get an opened file and no file name, so only the content decides. Damage never raises here: it
ends or shortens the blocks. The caller knows the expected length and detects it.
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

# Samples; decoder and resampler evict each other from the CPU cache, so blocks are large.
_BLOCK = 1 << 22
_QUEUED = 1 << 16  # frames that FFmpeg's queue collects; it grows by copying
_WARM_UP_S = 0.2  # frames right after a seek lack their predecessors: decoded, then dropped
_OGG_TAIL_S = 5  # no page is longer, except at bitrates too low for music
_UNKNOWN = 1 << 62  # libsndfile's frame count of a chained Ogg file is beyond this


class NoAudioError(Exception):
    """The container has no audio stream that FFmpeg can decode."""


CANNOT_OPEN = (sf.SoundFileError, av.FFmpegError, NoAudioError)  # raised by the readers' __init__


class _SequentialSoundFile(sf.SoundFile):  # type: ignore[misc]
    """A SoundFile without the seek that soundfile does after every read.

    That seek takes 0.1 ms in an MP3. In an Ogg file it skips holes, which hides them, and it lands
    wrong in the last page.
    """

    def seekable(self) -> bool:
        """False for `read`, which checks this; `seek` does not check it and still works."""
        return False


class SoundFileReader:
    """libsndfile as a reader, for files that it can open."""

    name = "soundfile"
    timeline_s = 0.0  # its samples have no timestamps

    def __init__(self, file: BinaryIO) -> None:
        file.seek(0)
        handle = file if isinstance(file, io.BytesIO) else file.fileno()
        self._sound = _SequentialSoundFile(handle, closefd=False)
        self.rate: int = self._sound.samplerate
        known = 0 < self._sound.frames < _UNKNOWN
        self.frames: int | None = self._sound.frames if known else None  # as the header states
        self.can_seek = known
        self.damaged = False

    def blocks(self, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
        """float32 [frames, channels] from native frame `start` to `stop`, or to the end.

        libvorbis misplaces a seek into the last page by the samples that the page's end trims. So
        for a late start in an Ogg file the seek goes some seconds before it.
        """
        at = start
        if self._sound.format == "OGG":
            at = min(start, max(0, (self.frames or 0) - _OGG_TAIL_S * self.rate))
        surplus, most = start - at, _BLOCK // self._sound.channels
        left = _UNKNOWN if stop is None else stop - at
        try:
            if at:
                self._sound.seek(at)
            while left > 0:
                wanted = min(left, most)
                block = self._sound.read(wanted, dtype="float32", always_2d=True)
                yield block[surplus:]
                if len(block) < wanted:
                    return
                left, surplus = left - wanted, max(0, surplus - wanted)
        except sf.SoundFileError:
            self.damaged = True

    def close(self) -> None:
        """Release the decoder; the file stays open."""
        self._sound.close()


class PyAVReader:
    """FFmpeg as a reader, restricted to one demuxer."""

    name = "pyav"

    def __init__(self, file: BinaryIO, form: str) -> None:
        file.seek(0)
        nameless = SimpleNamespace(read=file.read, seek=file.seek, tell=file.tell)
        self._container = av.open(
            nameless, "r", options={"format_whitelist": form}, metadata_errors="replace"
        )
        streams = [s for s in self._container.streams.audio if s.codec_context]
        if not streams:
            self._container.close()
            raise NoAudioError("it has no audio stream that can be decoded")
        default = av.stream.Disposition.default
        self._stream: Any = next((s for s in streams if s.disposition & default), streams[0])
        self._stream.codec_context.thread_count = 1
        self.rate: int = self._stream.rate
        self.timeline_s = 0.0  # first decoded frame's start to last one's end, by timestamps
        self.damaged = False
        self._surplus = 0  # native frames by which a seek landed early

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
        """True only for MP4 with a clock of whole samples; other times are estimated or rounded."""
        is_mp4 = self._container.format.name.startswith("mov")
        clock = self._stream.time_base * self.rate
        return bool(is_mp4 and self._stream.duration and clock.denominator == 1)

    def blocks(self, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
        """float32 [frames, channels] from native frame `start` to `stop` or later, or to the end.

        A start after 0 needs `can_seek`. FFmpeg's own queue joins the many small frames (a thousand
        in half a minute) in half the time that numpy takes.
        """
        queue, kind, at = av.AudioFifo(), None, 0
        for frame in self._frames_from(start):
            at = at or start - self._surplus
            now = frame.format.name, frame.layout.nb_channels
            if queue.samples and (now != kind or queue.samples >= _QUEUED):
                yield self._unqueue(queue)
            if now != kind:
                queue, kind = av.AudioFifo(), now
            at += frame.samples
            frame.pts = None  # with timestamps the queue would refuse gaps
            queue.write(frame)
            if stop is not None and at >= stop:
                break
        if queue.samples:
            yield self._unqueue(queue)

    def close(self) -> None:
        """Release the decoder; the file stays open."""
        self._container.close()

    def _unqueue(self, queue: av.AudioFifo) -> np.ndarray:
        """All samples in the queue, without those decoded before the start."""
        frame = queue.read()
        assert frame is not None, "called where the queue has samples"
        array = frame.to_ndarray()
        if frame.format.is_planar:
            array = array.T
        block = as_float(array.reshape(-1, frame.layout.nb_channels))
        surplus = min(self._surplus, len(block))
        self._surplus -= surplus
        return block[surplus:]

    def _frames_from(self, start: int) -> Iterator[av.AudioFrame]:
        """av frames from the one with native frame `start`, or from before; sets `_surplus`."""
        tick = float(self._stream.time_base)
        first: float | None = None
        for frame in self._codec_frames(start):
            begin = frame.pts * tick if frame.pts is not None else 0.0
            if first is None:
                first = begin
                if start:
                    origin = (self._stream.start_time or 0) * tick
                    self._surplus = start - round((begin - origin) * self.rate)
                else:
                    self.rate = frame.sample_rate  # more reliable than the header
            if self._surplus < 0 or frame.sample_rate != self.rate:
                self.damaged = True  # the seek landed late, or the rate changes midway
                return
            self.timeline_s = begin - first + frame.samples / self.rate
            yield frame

    def _codec_frames(self, start: int) -> Iterator[av.AudioFrame]:
        """Decoded av frames, from a little before `start`; undecodable packets are skipped."""
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
