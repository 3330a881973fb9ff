"""Audio in memory and on disk: one array type, one way to open any file, one atomic writer.

Samples are float32, shape (channels, frames), nominal range [-1, 1]. Long files are read in
blocks; nothing here loads a whole recording unless it is asked for.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from podtool import ffmpeg
from podtool.errors import InputError, OutputError

BLOCK_S = 30.0
WAV_SUBTYPES = {"pcm16": "PCM_16", "pcm24": "PCM_24", "float": "FLOAT"}
_EXACT = {"WAV", "WAVEX", "RF64", "FLAC", "AIFF", "W64"}  # decoded by libsndfile, sample-exact


@dataclass(frozen=True, slots=True)
class Audio:
    """Samples (channels, frames) float32 at a rate; satisfies AudioSource."""

    samples: NDArray[np.float32]
    sample_rate: int

    @property
    def channels(self) -> int:
        return int(self.samples.shape[0])

    @property
    def frames(self) -> int:
        return int(self.samples.shape[1])

    @property
    def duration(self) -> float:
        return self.frames / self.sample_rate

    def read(self, start: int = 0, stop: int | None = None) -> Audio:
        return Audio(self.samples[:, max(0, start) : stop], self.sample_rate)


class AudioSource(Protocol):
    """Anything that gives blocks of samples by frame number."""

    @property
    def sample_rate(self) -> int: ...
    @property
    def channels(self) -> int: ...
    @property
    def frames(self) -> int: ...
    def read(self, start: int = 0, stop: int | None = None) -> Audio: ...


@dataclass(frozen=True, slots=True)
class Blend:
    """A source with a share of another beneath it; of one rate, one length, as many channels."""

    over: AudioSource
    under: AudioSource
    share: float  # of `under`; the rest is `over`

    @property
    def sample_rate(self) -> int:
        return self.over.sample_rate

    @property
    def channels(self) -> int:
        return self.over.channels

    @property
    def frames(self) -> int:
        return self.over.frames

    def read(self, start: int = 0, stop: int | None = None) -> Audio:
        over, under = (s.read(start, stop).samples for s in (self.over, self.under))
        return Audio((1 - self.share) * over + self.share * under, self.sample_rate)


def blocks(source: AudioSource, block_s: float = BLOCK_S) -> Iterator[tuple[int, Audio]]:
    """(first frame, block) over the whole source, in order."""
    size = max(1, round(block_s * source.sample_rate))
    for start in range(0, source.frames, size):
        yield start, source.read(start, min(start + size, source.frames))


class AudioFile:
    """A file on disk, read in blocks. Use `open_audio`; close it, or use it as a context."""

    def __init__(self, path: Path, decoded: Path, temporary: bool = False) -> None:
        import soundfile

        self.path = path
        self.decoded = decoded
        self._temporary = temporary
        self._file = soundfile.SoundFile(str(decoded))
        self.sample_rate: int = int(self._file.samplerate)
        self.channels: int = int(self._file.channels)
        self.frames: int = int(self._file.frames)
        self.subtype: str = str(self._file.subtype)

    def read(self, start: int = 0, stop: int | None = None) -> Audio:
        """Frames [start, stop). Raises InputError for NaN or a file cut short."""
        start = max(0, start)
        stop = self.frames if stop is None else min(stop, self.frames)
        count = max(0, stop - start)
        samples = self._samples(min(start, self.frames), count)
        if samples.shape[1] != count:
            at = (start + samples.shape[1]) / self.sample_rate
            raise InputError(
                f"{self.path} is truncated: it ends at {at:.2f} s "
                f"of the {self.frames / self.sample_rate:.2f} s that its header promises",
                "Copy or download the file again.",
            )
        if not np.isfinite(samples).all():
            bad = start + int(np.flatnonzero(~np.isfinite(samples).all(axis=0))[0])
            at = bad / self.sample_rate
            raise InputError(
                f"{self.path} holds NaN or infinite samples, the first at {at:.3f} s",
                "Export the file again from the program that made it.",
            )
        return Audio(np.ascontiguousarray(samples), self.sample_rate)

    def _samples(self, start: int, count: int) -> NDArray[np.float32]:
        import soundfile

        try:
            self._file.seek(start)
            samples: NDArray[np.float32] = self._file.read(count, dtype="float32", always_2d=True).T
        except soundfile.LibsndfileError as error:
            raise InputError(
                f"{self.path} is damaged or truncated near {start / self.sample_rate:.0f} s: "
                f"{error.error_string}",
                "Copy or download the file again.",
            ) from None
        return samples

    def close(self) -> None:
        self._file.close()
        if self._temporary:
            self.decoded.unlink(missing_ok=True)
            self._temporary = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_temporary", False):
            self.close()


def open_audio(path: str | Path, scratch: Path | None = None) -> AudioFile:
    """Open any audio or video file for reading in blocks.

    WAV, FLAC and AIFF are read as they are. Everything else is decoded once by ffmpeg to a float
    WAV in `scratch` (default: the system's temporary folder), which is removed on closing.
    Raises InputError: missing, folder, empty, not audio, no samples, truncated.
    """
    import soundfile

    path = Path(path)
    _check_readable(path)
    try:
        info = soundfile.info(str(path))
        exact = info.format in _EXACT
    except (soundfile.LibsndfileError, RuntimeError):
        exact = False
    if exact:
        _check_complete(path)
        audio = AudioFile(path, path)
    else:
        audio = _decoded(path, scratch)
    if audio.frames < 2:
        audio.close()
        raise InputError(
            f"{path} holds {'one sample' if audio.frames else 'no samples'}",
            "The file is empty audio: record or export it again.",
        )
    return audio


def _decoded(path: Path, scratch: Path | None) -> AudioFile:
    handle, name = tempfile.mkstemp(suffix=".wav", prefix="podtool-", dir=scratch)
    os.close(handle)
    target = Path(name)
    try:
        ffmpeg.decode(path, target)
        return AudioFile(path, target, temporary=True)
    except BaseException as error:
        target.unlink(missing_ok=True)
        if isinstance(error, (InputError, KeyboardInterrupt)) or not _is_audio_error(error):
            raise
        raise InputError(f"cannot decode {path}: {error}") from None


def _is_audio_error(error: BaseException) -> bool:
    import soundfile

    return isinstance(error, soundfile.LibsndfileError)


def _check_readable(path: Path) -> None:
    if path.is_dir():
        raise InputError(f"{path} is a folder, not an audio file", "Name one file in it.")
    try:
        with path.open("rb") as stream:
            head = stream.read(4096)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    if not head:
        raise InputError(f"{path} is empty (0 bytes)", "Copy or download the file again.")
    if _looks_like_text(head):
        raise InputError(
            f"{path} is a text file, not audio", "If it holds rows, give it where rows are read."
        )


def _looks_like_text(head: bytes) -> bool:
    if b"\0" in head:
        return False
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start > len(head) - 4 and len(head) == 4096
    return True


def _check_complete(path: Path) -> None:
    """A RIFF, RF64 or AIFF file whose samples promise more bytes than there are is truncated.

    Streaming writers leave sizes of 0xFFFFFFFF in RIFF: those mean "until the end of the file".
    """
    with path.open("rb") as stream:
        form = stream.read(4)
        order: Literal["little", "big"] = "big" if form == b"FORM" else "little"
        if form not in (b"RIFF", b"RF64", b"FORM"):
            return
        stream.seek(12)
        end = os.fstat(stream.fileno()).st_size
        long_size = None  # RF64 keeps the size of its samples in a chunk of its own
        while True:
            header = stream.read(8)
            if len(header) < 8:
                return
            size = int.from_bytes(header[4:], order)
            if header[:4] == b"ds64" and form == b"RF64":
                long_size = int.from_bytes(stream.read(16)[8:], "little")
                stream.seek(size - 16, io.SEEK_CUR)
                continue
            if header[:4] in (b"data", b"SSND"):
                have = end - stream.tell()
                if size >= 0xFFFFFF00:
                    size = min(long_size or 0, 2**63) % 2**63  # 0: until the end of the file
                if size > have:
                    raise InputError(
                        f"{path} is truncated: its header promises {size} bytes of samples, "
                        f"{have} are there",
                        "Copy or download the file again.",
                    )
                return
            stream.seek(size + (size & 1), io.SEEK_CUR)


def sha256_of(path: str | Path) -> str:
    """Hex sha256 of a file's bytes."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


class AudioWriter:
    """Writes WAV or FLAC block by block; the file gets its name only when it is complete.

    Leaving the context by an exception removes what was written. Raises OutputError for a place
    that cannot be written or a full disk.
    """

    def __init__(
        self, path: str | Path, sample_rate: int, channels: int, subtype: str = "pcm24"
    ) -> None:
        import soundfile

        self.path = Path(path)
        self._part = self.path.with_name(f".{self.path.name}.part")
        container = "FLAC" if self.path.suffix.lower() == ".flac" else "RF64"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = soundfile.SoundFile(
                str(self._part),
                "w",
                samplerate=sample_rate,
                channels=channels,
                format=container,
                subtype=WAV_SUBTYPES.get(subtype, subtype),
            )
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror}") from None
        except (soundfile.LibsndfileError, RuntimeError) as error:
            raise OutputError(f"cannot write {self.path}: {error}") from None
        if container == "RF64":
            _downgrade_small_rf64(self._file)

    def write(self, audio: Audio) -> None:
        import soundfile

        try:
            self._file.write(audio.samples.T)
        except (OSError, soundfile.LibsndfileError, RuntimeError) as error:
            raise OutputError(f"cannot write {self.path}: {_why(error)}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        import soundfile

        try:
            frames = self._file.frames
            self._file.close()
            if kind is None:
                with self._part.open("rb") as stream:
                    os.fsync(stream.fileno())
                if soundfile.info(str(self._part)).frames != frames:
                    raise OutputError(f"cannot write {self.path}: not all samples reached the disk")
                os.replace(self._part, self.path)
        except (OSError, soundfile.LibsndfileError, RuntimeError) as error:
            raise OutputError(f"cannot write {self.path}: {_why(error)}") from None
        finally:
            self._part.unlink(missing_ok=True)


def _downgrade_small_rf64(file: Any) -> None:
    """Ask libsndfile to write plain RIFF on close when the file stays under 4 GB."""
    import soundfile

    rf64_auto_downgrade = 0x1210
    soundfile._snd.sf_command(file._file, rf64_auto_downgrade, soundfile._ffi.NULL, 1)


def _why(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "the disk is full"
    return getattr(error, "strerror", None) or str(error)


def write_audio(path: str | Path, audio: Audio | Iterable[Audio], subtype: str = "pcm24") -> None:
    """Write a whole Audio, or blocks of one, atomically as WAV or FLAC (by the suffix)."""
    if isinstance(audio, Audio):
        audio = (audio,)
    stream = iter(audio)
    first = next(stream, None)
    if first is None:
        raise OutputError(f"nothing to write to {path}")
    with AudioWriter(path, first.sample_rate, first.channels, subtype) as writer:
        writer.write(first)
        for block in stream:
            writer.write(block)


def to_wav_bytes(audio: Audio, subtype: str = "pcm24") -> bytes:
    """A complete WAV file in memory."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(
        buffer, audio.samples.T, audio.sample_rate, format="WAV", subtype=WAV_SUBTYPES[subtype]
    )
    return buffer.getvalue()
