"""What a live session keeps: `--save`, readable at any moment, and the spool of what waits."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import struct
import tempfile
import threading
import time
import unicodedata
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from podtool.artifacts import (
    Correction,
    Metric,
    Provenance,
    Recording,
    Row,
    Speaker,
    Turn,
    Utterance,
)
from podtool.audio import sha256_of
from podtool.corrections import UNKNOWN, corrected
from podtool.errors import OutputError
from podtool.formats.subtitles import Cue, cues, write_srt
from podtool.live.status import Block, Samples
from podtool.rowio import encode

log = logging.getLogger(__name__)

SYNC_S = 5.0
KEPT = (Utterance, Turn, Speaker, Correction, Metric, Recording, Provenance)

# ---------------------------------------------------------------- WAV that grows

_HEADER = 80
_RIFF_MOST = 0xFFFFFFFF - _HEADER


def _header(sample_rate: int, channels: int, frames: int) -> bytes:
    """A header of one size for PCM16: RIFF, or RF64 above 4 GB in the room kept for it."""
    size = frames * channels * 2
    rate, block = sample_rate * channels * 2, channels * 2
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, channels, sample_rate, rate, block, 16)
    if size <= _RIFF_MOST:
        room = struct.pack("<4sI28x", b"JUNK", 28)
        head = struct.pack("<4sI4s", b"RIFF", size + _HEADER - 8, b"WAVE")
        return head + room + form + struct.pack("<4sI", b"data", size)
    room = struct.pack("<4sIQQQI", b"ds64", 28, size + _HEADER - 8, size, frames, 0)
    head = struct.pack("<4sI4s", b"RF64", 0xFFFFFFFF, b"WAVE")
    return head + room + form + struct.pack("<4sI", b"data", 0xFFFFFFFF)


def _create(path: Path, flags: int = 0) -> int:
    """A new file. One that is there is replaced, not written into: it may be a link."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | flags, 0o644)


def _write_at(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, offset)
        view, offset = view[count:], offset + count


class _GrowingWav:
    """A PCM16 file whose header is brought up to date as it grows; parts never written are silent.

    Whoever reads it while it grows, or after the process was killed, finds a valid file.
    """

    def __init__(self, path: Path, sample_rate: int, channels: int) -> None:
        self.path = path
        self.sample_rate = sample_rate
        self.channels = channels
        self.frames = 0
        self.fd = _create(path)
        _write_at(self.fd, _header(sample_rate, channels, 0), 0)

    def write(self, samples: Samples, start: int | None = None) -> None:
        """Put (channels, n) at a frame, by default the end."""
        start = self.frames if start is None else start
        scaled = np.clip(np.rint(samples.T * 32768.0), -32768, 32767)
        data = np.ascontiguousarray(scaled, "<i2").tobytes()
        _write_at(self.fd, data, _HEADER + start * self.channels * 2)
        self.frames = max(self.frames, start + samples.shape[1])
        self.tell()

    def tell(self) -> None:
        """Bring the header up to date."""
        _write_at(self.fd, _header(self.sample_rate, self.channels, self.frames), 0)

    def read(self, start: int, stop: int) -> Samples:
        count = max(0, min(stop, self.frames) - start)
        data = os.pread(self.fd, count * self.channels * 2, _HEADER + start * self.channels * 2)
        whole: Samples = np.frombuffer(data, "<i2").reshape(-1, self.channels).T.astype(np.float32)
        return whole / np.float32(32768)

    def extend(self, frames: int) -> None:
        """Silence up to a length; it takes no room on disks that know holes."""
        if frames > self.frames:
            os.ftruncate(self.fd, _HEADER + frames * self.channels * 2)
            self.frames = frames

    def close(self) -> None:
        try:
            self.tell()
            os.fsync(self.fd)
        finally:
            os.close(self.fd)


class _Lines:
    """A text file that only grows, entry by entry; what did not fit on the disk is taken off."""

    def __init__(self, path: Path, text: str = "") -> None:
        self.path = path
        self.fd = _create(path)
        self._size = 0
        if text:
            self.append(text)

    def append(self, text: str) -> None:
        data = text.encode("utf-8")
        try:
            _write_at(self.fd, data, self._size)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self.fd, self._size)
            raise
        self._size += len(data)

    def replace(self, text: str) -> None:
        """Another content, whole or not at all."""
        part = _Lines(self.path.with_name(f".{self.path.name}.part"))
        try:
            part.append(text)
            os.fsync(part.fd)
            os.replace(part.path, self.path)
        except OSError:
            os.close(part.fd)
            with contextlib.suppress(OSError):
                part.path.unlink()
            raise
        os.close(self.fd)
        self.fd, self._size = part.fd, part._size

    def close(self) -> None:
        try:
            os.fsync(self.fd)
        finally:
            os.close(self.fd)


def safe_name(label: str) -> str:
    """A label as part of a file name: letters and digits of any script, space, '-', '_', '.'."""
    text = unicodedata.normalize("NFC", label)
    kept = "".join(c if c.isalnum() or c in " -_." else "_" for c in text).strip(" .")
    return kept.encode("utf-8")[:100].decode("utf-8", "ignore") or "unnamed"


# ---------------------------------------------------------------- the recorder


@dataclass(slots=True)
class _Span:
    """Frames [start, stop) that were given together, and when what is said in them begins."""

    start: int
    stop: int
    at: float


@dataclass(slots=True)
class _Voice:
    """The file of one speaker, and the stretches in it that were given."""

    wav: _GrowingWav
    spans: list[_Span] = field(default_factory=list)

    def said(self, at: float) -> None:
        """An utterance begins at so many seconds: in the span that was given for it."""
        rate = self.wav.sample_rate
        for span in reversed(self.spans[-20:]):
            if span.start <= round(at * rate) < span.stop:
                span.at = at
                return


class Recorder:
    """`--save DIR`: the recording, a WAV per speaker, the rows, and subtitles.

    Each file is valid at any moment; a process that is killed loses the block that it was
    writing. The first error of writing raises OutputError; from then on `broken` says
    why, calls do nothing, and what is there stays. Any thread may call.
    """

    def __init__(
        self,
        folder: str | Path,
        sample_rate: int,
        channels: int,
        force: bool = False,
        recording: str = "live",
    ) -> None:
        """`recording`: what rows call it. Raises OutputError."""
        self.folder = Path(folder)
        self.broken: str | None = None
        self._force, self._id = force, recording
        self._described = False  # whether there is a row of the recording
        self._lock = threading.RLock()
        self._voices: dict[str, _Voice] = {}
        self._cues: list[tuple[float, Cue]] = []  # with the start of the utterance
        self._cues_written = 0
        self._corrections: list[Correction] = []
        self._names: dict[str, str] = {}
        self._done = threading.Event()
        self._sync_error: OSError | None = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not force and any(self.folder.iterdir()):
                raise OutputError(
                    f"{self.folder} is not empty", "Name a new folder, or give --force."
                )
            self._recording = _GrowingWav(self.folder / "recording.wav", sample_rate, channels)
            self._rows = _Lines(self.folder / "transcript.jsonl")
            self._srt = _Lines(self.folder / "transcript.srt")
        except FileExistsError:
            raise OutputError(f"{self.folder} is a file, not a folder") from None
        except OSError as error:
            raise OutputError(f"cannot write to {self.folder}: {_why(error)}") from None
        self._syncer = threading.Thread(target=self._sync, name="recorder", daemon=True)
        self._syncer.start()

    # ------------------------------------------------------------ what is kept

    def audio(self, block: Block) -> None:
        """Append to recording.wav."""
        self._try(lambda: self._recording.write(block.samples))

    def voice(self, speaker: str, start_frame: int, samples: Samples, rate: int = 16000) -> None:
        """Put what a speaker said at its place on the recording's clock, in frames of `rate`.

        `samples` is (n,) or (1, n). The rate of the first call is that of the speaker's file.
        """
        self._try(lambda: self._say(speaker, start_frame, np.atleast_2d(samples), rate))

    def rows(self, rows: Sequence[Row]) -> None:
        """Append rows to transcript.jsonl, utterances to transcript.srt. Others are left out."""
        kept = [row for row in rows if isinstance(row, KEPT)]
        if kept:
            self._try(lambda: self._append(kept))

    def close(self) -> None:
        """Give voices and subtitles the speakers' last names, and finish all files."""
        with self._lock:
            if self._done.is_set():
                return
            try:
                self._try(self._settle)
            finally:
                self._done.set()
                errors = [self._closed(file) for file in self._files()]
            for error in filter(None, errors):
                if self.broken is None:
                    self._break(error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # ------------------------------------------------------------ errors

    def _try(self, act: Callable[[], None]) -> None:
        with self._lock:
            if self.broken is not None or self._done.is_set():
                return
            try:
                if self._sync_error is not None:
                    raise self._sync_error
                act()
            except OSError as error:
                self._break(error)

    def _break(self, error: OSError) -> None:
        self.broken = _why(error)
        raise OutputError(
            f"cannot write to {self.folder}: {self.broken}", "What was saved so far is kept."
        ) from None

    @staticmethod
    def _closed(file: _GrowingWav | _Lines) -> OSError | None:
        try:
            file.close()
        except OSError as error:
            return error
        return None

    def _files(self) -> list[_GrowingWav | _Lines]:
        voices = [v.wav for v in self._voices.values()]
        return [self._recording, *voices, self._rows, self._srt]

    def _sync(self) -> None:
        """Bring everything to the disk every few seconds, and keep nobody waiting meanwhile."""
        while not self._done.wait(SYNC_S):
            with self._lock:
                if self._done.is_set():
                    return
                copies = [os.dup(file.fd) for file in self._files()]
            for copy in copies:
                try:
                    os.fsync(copy)
                except OSError as error:
                    self._sync_error = error
                finally:
                    os.close(copy)

    # ------------------------------------------------------------ voices

    def _say(self, speaker: str, start: int, samples: Samples, rate: int) -> None:
        voice = self._voices.get(speaker)
        if voice is None:
            path = self._path(speaker)
            voice = self._voices[speaker] = _Voice(_GrowingWav(path, rate, 1))
        if voice.wav.sample_rate != rate:
            raise ValueError(f"{speaker} spoke at {voice.wav.sample_rate} Hz, now at {rate} Hz")
        voice.wav.write(samples, start)
        voice.spans.append(_Span(start, start + samples.shape[1], start / rate))

    def _path(self, label: str) -> Path:
        """A file for a label that no other speaker has, nor anything else in the folder."""
        taken = {v.wav.path.name.casefold() for v in self._voices.values()}
        name = "unknown" if label == UNKNOWN else safe_name(label)
        for number in range(1, 10_000):
            path = self.folder / f"speaker-{name}{f'-{number}' if number > 1 else ''}.wav"
            if path.name.casefold() not in taken and (self._force or not os.path.lexists(path)):
                return path
        raise FileExistsError(errno.EEXIST, "too many speakers of one name", label)

    # ------------------------------------------------------------ rows

    def _append(self, rows: list[KeptRow]) -> None:
        lines = "".join(encode(row, self.folder) + "\n" for row in rows)
        self._rows.append(lines)
        relabelled = False
        for row in rows:
            if isinstance(row, Correction):
                self._corrections.append(row)
                relabelled = True
            elif isinstance(row, Speaker) and row.name and self._names.get(row.id) != row.name:
                self._names[row.id] = row.name
                relabelled = True
            elif isinstance(row, Utterance) and row.text.strip():
                self._cues += [(row.start, cue) for cue in cues(row)]
                if row.speaker in self._voices:
                    self._voices[row.speaker].said(row.start)
            self._described |= isinstance(row, Recording)
        if relabelled and self._cues:
            self._rewrite_srt()
        else:
            self._extend_srt()

    def _extend_srt(self) -> None:
        first = self._cues_written
        entries = [self._entry(at, *self._cues[at]) for at in range(first, len(self._cues))]
        if entries:
            self._srt.append("".join(entries))
            self._cues_written = len(self._cues)

    def _rewrite_srt(self) -> None:
        self._cues.sort(key=lambda c: (c[1].start, c[1].end))
        self._srt.replace("".join(self._entry(at, *c) for at, c in enumerate(self._cues)))
        self._cues_written = len(self._cues)

    def _entry(self, at: int, said_at: float, cue: Cue) -> str:
        """One cue as SRT, numbered, after a blank line where it is not the first."""
        speaker = self._label(cue.speaker, said_at)
        one = Utterance("u", "live", cue.start, cue.end, cue.text, speaker)
        text = write_srt([one]).removeprefix("1\n")
        return f"{chr(10) if at else ''}{at + 1}\n{text}"

    def _label(self, speaker: str | None, start: float) -> str | None:
        """Who that was, by what is known now: corrected, and by name where it is one person's."""
        if speaker is None or not speaker.strip():
            return None
        return self._name(corrected(speaker, start, self._corrections))

    def _name(self, speaker: str) -> str:
        name = self._names.get(speaker)
        if not name or not name.strip() or name in self._names:
            return speaker
        return name if list(self._names.values()).count(name) == 1 else speaker

    # ------------------------------------------------------------ the end

    def _settle(self) -> None:
        for correction in self._corrections:
            self._move(correction)
        seconds = self._recording.frames / self._recording.sample_rate
        for speaker, voice in list(self._voices.items()):
            if not voice.spans:
                voice.wav.path.unlink()
                os.close(self._voices.pop(speaker).wav.fd)
                continue
            voice.wav.extend(round(seconds * voice.wav.sample_rate))
        for speaker, voice in self._voices.items():
            if self._name(speaker) != speaker:
                path = self._path(self._name(speaker))
                os.replace(voice.wav.path, path)
                voice.wav.path = path
        if self._cues:
            self._rewrite_srt()
        self._describe()

    def _describe(self) -> None:
        """The row of the recording, which is known only now."""
        wav = self._recording
        if self._described or not wav.frames:
            return
        wav.tell()
        row = Recording(
            self._id, str(wav.path), sha256_of(wav.path), wav.sample_rate, wav.channels, wav.frames
        )
        self._rows.append(encode(row, self.folder) + "\n")

    def _move(self, correction: Correction) -> None:
        """Audio of corrected rows goes from one speaker's file into the other's."""
        source = self._voices.get(correction.source)
        if source is None or correction.source == correction.target:
            return
        kept: list[_Span] = []
        moved: list[_Span] = []
        for span in source.spans:
            now = corrected(correction.source, span.at, [correction])
            (kept if now == correction.source else moved).append(span)
        source.spans = kept
        for span in moved:
            self._move_span(source, correction.target, span)

    def _move_span(self, source: _Voice, target: str, span: _Span) -> None:
        """A minute at a time; what another span of the source holds too stays there as well."""
        rate = source.wav.sample_rate
        for at in range(span.start, span.stop, 60 * rate):
            end = min(at + 60 * rate, span.stop)
            samples = source.wav.read(at, end)
            shared = np.zeros(samples.shape[1], bool)
            for other in _over(source.spans, at, end):
                shared[max(0, other.start - at) : max(0, other.stop - at)] = True
            there = self._voices.get(target)
            given = samples.copy()
            if there is not None and at < there.wav.frames:
                own = there.wav.read(at, end)
                for other in _over(there.spans, at, end):
                    here = slice(max(0, other.start - at), max(0, other.stop - at))
                    given[:, : own.shape[1]][:, here] = own[:, here]
            self._say(target, at, given, rate)
            self._voices[target].spans[-1].at = span.at
            source.wav.write(np.where(shared, samples, np.float32(0)), at)


def _over(spans: Sequence[_Span], start: int, stop: int) -> list[_Span]:
    return [s for s in spans if s.start < stop and s.stop > start]


KeptRow = Utterance | Turn | Speaker | Correction | Metric | Recording | Provenance


def _why(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full"
    return error.strerror or str(error)


# ---------------------------------------------------------------- the spool

_SEGMENT_BYTES = 32 << 20
_RECORD = struct.Struct("<IId")  # channels, frames, gap


class _Segment:
    """Spooled blocks in an unlinked file, written at its end and read from its start."""

    def __init__(self, folder: Path | None) -> None:
        self.file = tempfile.TemporaryFile(prefix="podtool-live-", dir=folder, buffering=0)
        self.written = 0
        self.read = 0

    def put(self, block: Block) -> None:
        channels, frames = block.samples.shape
        head = _RECORD.pack(channels, frames, block.gap_s)
        data = head + np.ascontiguousarray(block.samples, "<f4").tobytes()
        _write_at(self.file.fileno(), data, self.written)
        self.written += len(data)

    def get(self) -> Block:
        fd = self.file.fileno()
        channels, frames, gap = _RECORD.unpack(os.pread(fd, _RECORD.size, self.read))
        self.read += _RECORD.size
        data = os.pread(fd, channels * frames * 4, self.read)
        self.read += len(data)
        samples = np.frombuffer(data, "<f4").astype(np.float32).reshape(channels, frames)
        return Block(samples, gap)


class Spool:
    """Blocks between the thread that records and the one that listens, however far that is behind.

    The last `memory_s` seconds wait in memory, older ones in unlinked temporary files of 32 MB in
    `folder`. Where the disk is full the oldest of those in memory are lost, and the next block
    tells of them as a gap.
    """

    def __init__(
        self, sample_rate: int, memory_s: float = 10.0, folder: Path | None = None
    ) -> None:
        self.sample_rate = sample_rate
        self.lost_s = 0.0  # for want of room
        self._most = max(1, round(memory_s * sample_rate))
        self._folder = folder
        self._recent: deque[Block] = deque()
        self._recent_frames = 0
        self._segments: deque[_Segment] = deque()
        self._spooled_frames = 0
        self._changed = threading.Condition()
        self._closed = False
        self._full = False

    @property
    def behind_s(self) -> float:
        """Seconds of audio that wait."""
        with self._changed:
            return (self._recent_frames + self._spooled_frames) / self.sample_rate

    @property
    def ended(self) -> bool:
        """Closed, and everything was taken."""
        with self._changed:
            return self._closed and not self._recent and not self._segments

    def put(self, block: Block) -> None:
        with self._changed:
            if self._closed:
                return
            self._recent.append(block)
            self._recent_frames += block.samples.shape[1]
            while self._recent_frames > self._most and len(self._recent) > 1:
                self._spill()
            self._changed.notify()

    def get(self, timeout: float | None = None) -> Block | None:
        """The oldest block; None where none comes in time, or at once where `ended`."""
        until = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while not self._recent and not self._segments:
                left = None if until is None else until - time.monotonic()
                if self._closed or (left is not None and left <= 0):
                    return None
                self._changed.wait(left)
            return self._oldest()

    def close(self) -> None:
        """Take nothing more; what waits can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _oldest(self) -> Block:
        if not self._segments:
            block = self._recent.popleft()
            self._recent_frames -= block.samples.shape[1]
            return block
        first = self._segments[0]
        block = first.get()
        self._spooled_frames -= block.samples.shape[1]
        if first.read >= first.written:
            first.file.close()
            self._segments.popleft()
        return block

    def _spill(self) -> None:
        """Move the oldest block in memory to the disk."""
        block = self._recent.popleft()
        frames = block.samples.shape[1]
        self._recent_frames -= frames
        try:
            if not self._segments or self._segments[-1].written >= _SEGMENT_BYTES:
                fresh = _Segment(self._folder)
                fresh.put(block)
                self._segments.append(fresh)
            else:
                self._segments[-1].put(block)
        except OSError as error:
            if not self._full:
                log.warning("cannot keep audio that waits: %s", _why(error))
            self._full = True
            self.lost_s += frames / self.sample_rate
            gap = block.gap_s + frames / self.sample_rate
            self._recent[0] = replace(self._recent[0], gap_s=self._recent[0].gap_s + gap)
        else:
            self._full = False
            self._spooled_frames += frames
