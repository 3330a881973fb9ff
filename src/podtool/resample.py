"""One resampler (soxr, high quality) and one down-mix rule (the mean of the channels)."""

from __future__ import annotations

import tempfile
from typing import BinaryIO

import numpy as np

from podtool.audio import Audio, AudioSource, blocks

IN_MEMORY_S = 600.0  # longer recordings are spooled to disk when seen at another rate


def to_mono(audio: Audio) -> Audio:
    """(channels, n) -> (1, n)."""
    if audio.channels == 1:
        return audio
    return Audio(audio.samples.mean(axis=0, keepdims=True, dtype=np.float32), audio.sample_rate)


def resample(audio: Audio, rate: int) -> Audio:
    """The same audio at `rate` Hz; round(frames * rate / sample_rate) frames."""
    if audio.sample_rate == rate:
        return audio
    import soxr

    frames = round(audio.frames * rate / audio.sample_rate)
    if audio.frames == 0:
        return Audio(np.zeros((audio.channels, 0), np.float32), rate)
    out = soxr.resample(audio.samples.T, audio.sample_rate, rate).T.astype(np.float32, copy=False)
    return Audio(_fit(out, frames), rate)


def _fit(samples: np.ndarray, frames: int) -> np.ndarray:
    if samples.shape[1] >= frames:
        return np.ascontiguousarray(samples[:, :frames])
    return np.pad(samples, ((0, 0), (0, frames - samples.shape[1])))


def at_rate(source: AudioSource, rate: int, mono: bool = True) -> AudioSource:
    """The whole recording as an engine sees it: at `rate` Hz, mixed down if `mono`.

    Up to ten minutes in memory, beyond that in an unnamed temporary file.
    """
    channels = 1 if mono else source.channels
    if source.sample_rate == rate and channels == source.channels:
        return source
    frames = round(source.frames * rate / source.sample_rate)
    if source.frames <= IN_MEMORY_S * source.sample_rate:
        whole = source.read()
        return resample(to_mono(whole) if mono else whole, rate)
    return _spool(source, rate, channels, frames)


def _spool(source: AudioSource, rate: int, channels: int, frames: int) -> SpooledAudio:
    import soxr

    file = tempfile.TemporaryFile(prefix="podtool-")  # noqa: SIM115 - lives with the source
    stream = soxr.ResampleStream(source.sample_rate, rate, channels, dtype="float32")
    written = 0
    for start, block in blocks(source):
        chunk = to_mono(block) if channels == 1 else block
        last = start + block.frames >= source.frames
        out = stream.resample_chunk(np.ascontiguousarray(chunk.samples.T), last=last)
        out = np.asarray(out, np.float32).reshape(-1, channels)[: frames - written]
        file.write(out.tobytes())
        written += len(out)
    file.write(bytes(4 * channels * (frames - written)))
    file.flush()
    return SpooledAudio(file, rate, channels, frames)


class SpooledAudio:
    """Float32 samples in a temporary file; an AudioSource."""

    def __init__(self, file: BinaryIO, sample_rate: int, channels: int, frames: int) -> None:
        self._file = file
        self.sample_rate = sample_rate
        self.channels = channels
        self.frames = frames

    def read(self, start: int = 0, stop: int | None = None) -> Audio:
        start = min(max(0, start), self.frames)
        stop = self.frames if stop is None else min(max(stop, start), self.frames)
        self._file.seek(4 * self.channels * start)
        raw = self._file.read(4 * self.channels * (stop - start))
        samples = np.frombuffer(raw, np.float32).reshape(-1, self.channels).T
        return Audio(np.ascontiguousarray(samples), self.sample_rate)
