"""Where live audio comes from: a microphone, a pipe, or a file played at the pace of real time."""

from __future__ import annotations

import atexit
import contextlib
import io
import logging
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from podtool.audio import AudioFile, open_audio
from podtool.errors import EngineUnavailableError, InputError, UsageError
from podtool.live.status import Block, Samples

log = logging.getLogger(__name__)

BLOCK_S = 0.05
_PIPED = "ffmpeg -i X -f wav - | podtool live -"


def channels(block: Block, choice: str | int = "mix") -> Block:
    """The channels that are listened to: their mean ('mix'), one (from 1), or all ('apart').

    Raises InputError for a channel that is not there, UsageError for another word.
    """
    if choice == "apart":
        return block
    count = block.samples.shape[0]
    if choice == "mix":
        if count == 1:
            return block
        return replace(block, samples=block.samples.mean(axis=0, keepdims=True))
    text = str(choice)
    if not text.isdecimal():
        raise UsageError(f"{choice!r} is no choice of channels", "Give mix, apart, or a number.")
    at = int(text)
    if not 1 <= at <= count:
        heard = "one channel" if count == 1 else f"{count} channels"
        raise InputError(f"there is no channel {at}: the input has {heard}")
    return replace(block, samples=block.samples[at - 1 : at])


# ---------------------------------------------------------------- a file in real time


class Simulated:
    """A file of any format, delivered at the pace of real time times `speed`, or as it is taken.

    The schedule is absolute: a block that is taken late does not put off the ones after it.
    Raises InputError as `open_audio` does.
    """

    waiting: str | None = None

    def __init__(
        self, path: str | Path, speed: float = 1.0, realtime: bool = True, block_s: float = BLOCK_S
    ) -> None:
        if not speed > 0:
            raise UsageError(f"a recording cannot be played at {speed:g} times its speed")
        self._audio: AudioFile = open_audio(path)
        self.name = Path(path).name
        self.sample_rate = self._audio.sample_rate
        self.channels = self._audio.channels
        self.frames = self._audio.frames
        self.live = realtime
        self._speed = speed
        self._begun = False
        self._size = max(1, round(block_s * self.sample_rate))
        self._closed = threading.Event()

    def blocks(self) -> Iterator[Block]:
        self._begun = True
        began = time.monotonic()
        done = 0
        try:
            for samples in () if self._closed.is_set() else self._pieces():
                done += samples.shape[1]
                if self.live:
                    due = began + done / self.sample_rate / self._speed
                    self._closed.wait(max(0.0, due - time.monotonic()))
                if self._closed.is_set():
                    return
                yield Block(samples)
        finally:
            self._audio.close()

    def _pieces(self) -> Iterator[Samples]:
        """Blocks cut from longer reads: going to a place in a FLAC file is slow."""
        stride = self._size * max(1, round(5.0 * self.sample_rate / self._size))
        for start in range(0, self.frames, stride):
            read = self._audio.read(start, start + stride).samples
            for at in range(0, read.shape[1], self._size):
                yield read[:, at : at + self._size]

    def close(self) -> None:
        self._closed.set()
        if not self._begun:
            self._audio.close()


# ---------------------------------------------------------------- a pipe


@dataclass(frozen=True, slots=True)
class _Coding:
    """How samples lie in bytes: PCM or float of `width` bytes, little-endian."""

    rate: int
    channels: int
    width: int
    floating: bool

    @property
    def frame(self) -> int:
        return self.width * self.channels

    def samples(self, data: bytes) -> Samples:
        """Whole frames as (channels, n) float32."""
        flat: NDArray[np.floating[Any]]
        if self.floating:
            flat = np.frombuffer(data, "<f4" if self.width == 4 else "<f8").astype(np.float32)
        elif self.width == 1:
            flat = (np.frombuffer(data, np.uint8).astype(np.float32) - 128) / 128
        elif self.width == 2:
            flat = np.frombuffer(data, "<i2").astype(np.float32) / 32768
        else:
            wide = np.zeros((len(data) // self.width, 4), np.uint8)
            wide[:, 4 - self.width :] = np.frombuffer(data, np.uint8).reshape(-1, self.width)
            flat = wide.view("<i4").ravel().astype(np.float32) / 2147483648
        return np.ascontiguousarray(flat.reshape(-1, self.channels).T, np.float32)


_RAW = {"s16le": (2, False), "f32le": (4, True)}
_FOREIGN = {
    b"fLaC": "FLAC", b"OggS": "Ogg", b"ID3": "MP3", b"FORM": "AIFF", b"caff": "CAF",
    b".snd": "AU", b"wvpk": "WavPack", b"\x1aE\xdf\xa3": "Matroska or WebM", b"RIFX": "RIFX",
}  # fmt: skip
_FORMS = (b"RIFF", b"RF64", b"BW64")


def _unknown(size: int) -> bool:
    """Sizes that programs write which do not know the length."""
    return 0x7FFFF000 <= size <= 0x7FFFFFFF or size >= 0xFFFFFF00


class Pipe:
    """Audio on a stream that cannot be sought, such as stdin: WAV, or raw PCM where it is told.

    Blocks have the same size however the bytes come, and each is there as soon as its bytes are.
    Sizes in a WAV header are not trusted: the samples end where the stream does, or where another
    chunk begins. Raises InputError for anything else, here or while it is read.
    """

    waiting: str | None = None
    live = False

    def __init__(
        self,
        stream: BinaryIO,
        rate: int | None = None,
        channels: int | None = None,
        format: str | None = None,
        name: str = "stdin",
        block_s: float = BLOCK_S,
    ) -> None:
        self.name = name
        self._stream = stream
        self._closed = threading.Event()
        self._held = bytearray()
        self._read_before = False
        self._left: int | None = None  # bytes of samples that the header promises
        self._odd = False
        if (rate, channels, format) == (None, None, None):
            self._coding = self._header()
        else:
            self._coding = _raw(rate, channels, format)
            self._need(4)
            if bytes(self._held[:4]) in _FORMS:
                raise InputError(
                    f"{name} is WAV, which tells its format itself",
                    "Leave out --rate, --channels and --format.",
                )
        self.sample_rate = self._coding.rate
        self.channels = self._coding.channels
        self._size = max(1, round(block_s * self.sample_rate))

    def blocks(self) -> Iterator[Block]:
        done = 0
        wanted = self._size * self._coding.frame
        part = bytearray()
        while not self._closed.is_set():
            took = self._take(wanted - len(part))
            part += took
            if took and len(part) < wanted:
                continue
            whole = len(part) - len(part) % self._coding.frame
            if whole and not self._closed.is_set():
                samples = self._coding.samples(bytes(part[:whole]))
                self._finite(samples, done)
                done += samples.shape[1]
                yield Block(samples)
            part.clear()
            if not took:
                break
        if not done and not self._closed.is_set():
            raise InputError(f"{self.name} ended without any audio")

    def close(self) -> None:
        self._closed.set()

    def _finite(self, samples: Samples, done: int) -> None:
        fine = np.isfinite(samples).all(axis=0)
        if not fine.all():
            at = (done + int(np.flatnonzero(~fine)[0])) / self.sample_rate
            raise InputError(f"{self.name} holds NaN or infinite samples, the first at {at:.3f} s")

    # ------------------------------------------------------------ bytes

    def _fill(self) -> bool:
        """Read what is there, or wait for it; False at the end, or when closed."""
        size = 1 << 18  # more than any reader keeps, so that nothing stays behind in its buffer
        while self._read_before and not self._closed.is_set():
            if _readable(self._stream, 0.2):
                break
        if self._closed.is_set():
            return False
        read = getattr(self._stream, "read1", self._stream.read)
        try:
            got = read(size)
        except OSError as error:
            raise InputError(f"cannot read {self.name}: {error.strerror}") from None
        self._read_before = True
        self._held += got or b""
        return bool(got)

    def _need(self, count: int) -> bool:
        """Hold at least `count` bytes; False where the stream ends before."""
        while len(self._held) < count:
            if not self._fill():
                return False
        return True

    def _pop(self, count: int) -> bytes:
        taken = bytes(self._held[:count])
        del self._held[:count]
        return taken

    def _skip(self, count: int) -> None:
        while count and (self._held or self._fill()):
            count -= len(self._pop(min(count, len(self._held))))

    def _take(self, most: int) -> bytes:
        """Some bytes of samples, at most `most`; none at the end."""
        if self._left == 0:
            if self._another_chunk():
                return b""
            self._left = None
        if not self._held and not self._fill():
            return b""
        taken = self._pop(most if self._left is None else min(most, self._left))
        if self._left is not None:
            self._left -= len(taken)
        return taken

    # ------------------------------------------------------------ WAV

    def _header(self) -> _Coding:
        """The format, from a header read up to the first sample."""
        self._need(12)
        head = bytes(self._held[:12])
        if head[:4] not in _FORMS or head[8:12] != b"WAVE":
            raise _not_wav(self.name, head)
        self._pop(12)
        coding: _Coding | None = None
        long_size = 0
        while self._need(8):
            chunk = self._pop(8)
            size = int.from_bytes(chunk[4:], "little")
            if chunk[:4] == b"data":
                if coding is None:
                    raise InputError(f"{self.name}: a WAV without a format", f"Try: {_PIPED}")
                if head[:4] != b"RIFF" and size == 0xFFFFFFFF and 0 < long_size < 2**63:
                    self._left = long_size
                elif not _unknown(size) and size % coding.frame == 0:
                    self._left = size
                self._odd = bool(size & 1 and self._left)
                return coding
            if chunk[:4] in (b"fmt ", b"ds64") and size < 4096:
                if not self._need(size):
                    break
                body = self._pop(size)
                if chunk[:4] == b"fmt ":
                    coding = _format(body, self.name)
                else:
                    long_size = int.from_bytes(body[8:16], "little")
                self._skip(size & 1)
            else:
                self._skip(size + (size & 1))
        raise InputError(f"{self.name} ended within its WAV header")

    def _another_chunk(self) -> bool:
        """Whether the samples are over; a size that was wrong is followed by more of them."""
        self._need(8 + self._odd)
        if len(self._held) <= self._odd:
            return True
        for pad in {0, int(self._odd)}:
            if bytes(self._held[pad : pad + 4]) in _AFTER:
                return True
            if bytes(self._held[pad : pad + 4]) in _FORMS:
                raise InputError(
                    f"{self.name}: a second recording follows the first",
                    "Pipe one at a time, or join them: ffmpeg -f concat.",
                )
        return False


_AFTER = {
    b"LIST", b"id3 ", b"ID3 ", b"bext", b"cue ", b"fact", b"PEAK", b"smpl", b"iXML", b"_PMX",
    b"afsp", b"JUNK", b"junk", b"PAD ", b"cart", b"chna", b"axml", b"inst", b"acid", b"minf",
    b"elm1", b"regn", b"umid", b"DISP", b"levl", b"plst", b"labl", b"FLLR", b"SAUR", b"LGWV",
}  # fmt: skip


def _format(body: bytes, name: str) -> _Coding:
    if len(body) < 16:
        raise InputError(f"{name}: the format of the WAV is cut short", f"Try: {_PIPED}")
    tag, count, rate, _, align, bits = (
        int.from_bytes(body[a:b], "little")
        for a, b in ((0, 2), (2, 4), (4, 8), (8, 12), (12, 14), (14, 16))
    )
    if tag == 0xFFFE and len(body) >= 26:
        tag = int.from_bytes(body[24:26], "little")
    width = align // count if count and align % count == 0 else -(-bits // 8)
    if not 1 <= rate <= 768_000 or not 1 <= count <= 256:
        raise InputError(f"{name}: a WAV of {count} channels at {rate} Hz")
    if (tag, width) not in {(1, 1), (1, 2), (1, 3), (1, 4), (3, 4), (3, 8)}:
        raise InputError(
            f"{name}: a WAV of a kind that is not read here (format {tag}, {bits} bits)",
            f"Convert it on the way: {_PIPED}",
        )
    return _Coding(rate, count, width, tag == 3)


def _raw(rate: int | None, channels: int | None, format: str | None) -> _Coding:
    if rate is None:
        raise UsageError("raw samples need --rate", "For example --rate 16000 --format s16le.")
    if format is None:
        format = "s16le"
    if format not in _RAW:
        raise UsageError(f"there is no format {format!r}", f"Formats: {', '.join(_RAW)}.")
    count = 1 if channels is None else channels
    if not 1 <= rate <= 768_000 or not 1 <= count <= 256:
        raise UsageError(f"{count} channels at {rate} Hz cannot be")
    return _Coding(rate, count, *_RAW[format])


def _not_wav(name: str, head: bytes) -> InputError:
    if not head:
        return InputError(f"{name} is empty", f"Audio is piped like this: {_PIPED}")
    kind = next((k for mark, k in _FOREIGN.items() if head.startswith(mark)), None)
    if kind is None and head[4:8] == b"ftyp":
        kind = "MP4"
    if kind is None and len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0:
        kind = "MP3 or AAC"
    if kind:
        return InputError(f"{name} is {kind}; a pipe brings WAV", f"Convert it: {_PIPED}")
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"{"):
        return InputError(f"{name} holds rows, not audio", f"Audio is piped like this: {_PIPED}")
    if head.isascii() and head.decode("ascii").replace("\n", " ").strip().isprintable():
        return InputError(f"{name} is text, not audio", f"Audio is piped like this: {_PIPED}")
    return InputError(
        f"{name} is not WAV", f"For raw samples give --rate, --channels, --format; or {_PIPED}"
    )


def _readable(stream: BinaryIO, timeout: float) -> bool:
    """Whether a read returns at once; streams that cannot tell are said to."""
    if sys.platform == "win32":
        return True
    try:
        return bool(select.select([stream.fileno()], [], [], timeout)[0])
    except (AttributeError, io.UnsupportedOperation, OSError, ValueError):
        return True


# ---------------------------------------------------------------- the clock of a microphone

STALL_S = 1.0  # a device that is silent for so long is taken up anew
FIRST_S = 5.0  # some sound servers need seconds before they deliver at all
_LATE_S = 0.3  # audio that is so much behind the clock, for `_WATCH_S`, was lost
_WATCH_S = 2.0
_RETRY_S = 1.0
_DRIFT = 3e-4  # clocks of sound devices differ from the system's by less


def clock() -> float:
    """Seconds of a clock that goes on while the machine sleeps, where there is one."""
    which = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))
    return time.monotonic() if which is None else time.clock_gettime(which)


class _Lag:
    """How much audio was lost while a device was running: what the clock says, less what came.

    Blocks come late now and then and catch up, so lateness counts as loss where PortAudio says
    that there was one, or where it lasts.
    """

    def __init__(self) -> None:
        self._position = 0.0
        self._least: float | None = None  # arrival less position, at best
        self._recent: float | None = None  # the same, at best since `_since`
        self._since = self._last = 0.0

    def lost(self, arrival: float, block_s: float, overflow: bool) -> float:
        """Seconds lost before the block of `block_s` that arrived just now."""
        self._position += block_s
        lead = arrival - self._position
        if self._least is None or self._recent is None:
            self._least = self._recent = lead
            self._since = self._last = arrival
            return 0.0
        self._least = min(self._least + _DRIFT * (arrival - self._last), lead)
        self._last = arrival
        self._recent = min(self._recent, lead)
        gap = 0.0
        if overflow:
            gap = max(0.0, lead - self._least)
        elif arrival - self._since >= _WATCH_S:
            late = self._recent - self._least
            gap = late if late > _LATE_S else 0.0
        if overflow or arrival - self._since >= _WATCH_S:
            self._position += gap
            self._since, self._recent = arrival, lead - gap
        return gap


class _Queue:
    """Blocks between PortAudio's thread and the reader's; when it is full the oldest are lost."""

    def __init__(self, sample_rate: int, most_s: float) -> None:
        self._rate = sample_rate
        self._most = round(most_s * sample_rate)
        self._blocks: deque[Block] = deque()
        self._frames = 0
        self._changed = threading.Condition()

    def put(self, block: Block) -> None:
        with self._changed:
            self._blocks.append(block)
            self._frames += block.samples.shape[1]
            while self._frames > self._most and len(self._blocks) > 1:
                old = self._blocks.popleft()
                self._frames -= old.samples.shape[1]
                gap = old.gap_s + old.samples.shape[1] / self._rate
                self._blocks[0] = replace(self._blocks[0], gap_s=self._blocks[0].gap_s + gap)
            self._changed.notify()

    def get(self, timeout: float) -> Block | None:
        with self._changed:
            if not self._blocks:
                self._changed.wait(timeout)
            if not self._blocks:
                return None
            block = self._blocks.popleft()
            self._frames -= block.samples.shape[1]
            return block

    def wake(self) -> None:
        with self._changed:
            self._changed.notify_all()


# ---------------------------------------------------------------- a microphone


@dataclass(frozen=True, slots=True)
class Device:
    """A sound device that can be recorded from."""

    index: int
    name: str
    channels: int
    sample_rate: int
    default: bool


_portaudio = threading.RLock()  # PortAudio's functions are not to be called by two threads at once


def _sounddevice() -> Any:
    """The module. Raises EngineUnavailableError where the system has no PortAudio."""
    try:
        import sounddevice
    except ImportError:
        raise EngineUnavailableError(
            "microphones need the package sounddevice", "pip install 'sounddevice>=0.5'"
        ) from None
    except OSError:
        raise EngineUnavailableError(
            "microphones need the system's PortAudio, which is not there",
            "Debian and Ubuntu: apt install libportaudio2. Fedora: dnf install portaudio. "
            "macOS: brew install portaudio.",
        ) from None
    return sounddevice


def list_devices() -> list[Device]:
    """The devices that can be recorded from. Raises EngineUnavailableError."""
    sd = _sounddevice()
    with _portaudio:
        try:
            found = list(sd.query_devices())
        except sd.PortAudioError as error:
            raise InputError(f"cannot list the sound devices: {_why(error)}") from None
        default = _default_index(sd)
    return [
        Device(
            at, str(d["name"]), int(d["max_input_channels"]), round(d["default_samplerate"]),
            at == default,
        )
        for at, d in enumerate(found)
        if d["max_input_channels"] > 0
    ]  # fmt: skip


def _default_index(sd: Any) -> int:
    """The default input; -1 where there is none."""
    try:
        return int(sd.query_devices(kind="input")["index"])
    except (sd.PortAudioError, ValueError, KeyError):
        return -1


def _why(error: Exception) -> str:
    text = str(error.args[0]) if error.args else type(error).__name__
    return text.split("[")[0].strip().rstrip(":.")


def find_device(wanted: str | int | None, devices: list[Device] | None = None) -> Device:
    """The default, or the one of a number, or of a name or a part of it. Raises InputError."""
    devices = list_devices() if devices is None else devices
    hint = "`podtool live --list-devices` shows what there is."
    if not devices:
        raise InputError("there is no microphone, nor any other sound input", hint)
    if wanted is None or str(wanted) == "default":
        chosen = next((d for d in devices if d.default), None)
        if chosen is None:
            raise InputError("no sound input is the default", hint)
        return chosen
    text = str(wanted)
    if text.isdecimal():
        found = [d for d in devices if d.index == int(text)]
    else:
        found = [d for d in devices if d.name == text]
        found = found or [d for d in devices if text.casefold() in d.name.casefold()]
    if not found:
        raise InputError(f"there is no sound input {text!r}", hint)
    if len(found) > 1 and not any(d.name == text for d in found):
        names = ", ".join(f"{d.index} ({d.name})" for d in found)
        raise InputError(f"{text!r} may be several sound inputs: {names}", hint)
    return found[0]


class Microphone:
    """A sound device by PortAudio. Where it is lost, it is waited for and taken up again.

    The time without audio is the `gap_s` of the next block; `waiting` says for what it waits.
    A thread of its own opens, watches and closes the device, so that a driver that hangs holds up
    nobody. Raises InputError where there is no such device or it does not give what is asked for,
    EngineUnavailableError without PortAudio.
    """

    live = True

    def __init__(
        self,
        device: str | int | None = None,
        rate: int | None = None,
        channels: int | None = None,
        queue_s: float = 10.0,
        block_s: float = 0.03,
    ) -> None:
        sd = _sounddevice()
        found = find_device(device)
        self._default = device is None or str(device) == "default"
        self.name = found.name
        self.sample_rate = rate or found.sample_rate
        self.channels = channels or min(2, found.channels)
        self._block_s = block_s
        with _portaudio:
            try:
                sd.check_input_settings(
                    found.index, self.channels, "float32", samplerate=self.sample_rate
                )
            except (sd.PortAudioError, ValueError) as error:
                kind = "channel" if self.channels == 1 else "channels"
                raise InputError(
                    f"{found.name} does not give {self.channels} {kind} "
                    f"at {self.sample_rate} Hz: {_why(error)}",
                    "`podtool live --list-devices` shows what it gives.",
                ) from None
        self.waiting: str | None = None
        self._queue = _Queue(self.sample_rate, queue_s)
        self._closed = threading.Event()
        self._keeper: threading.Thread | None = None
        self._heard: float | None = None  # clock at the end of the last audio
        self._since = 0.0  # clock of the last sign of life of this stream
        self._first = True
        self._stale = False
        self._lag = _Lag()

    def blocks(self) -> Iterator[Block]:
        if self._keeper is None:
            self._keeper = threading.Thread(target=self._keep, name="microphone", daemon=True)
            self._keeper.start()
        try:
            while not self._closed.is_set():
                block = self._queue.get(0.25)
                if block is not None and not self._closed.is_set():
                    yield block
        finally:
            self.close()

    def close(self) -> None:
        """End `blocks`. A device whose driver hangs is left to itself."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._queue.wake()
        if self._keeper is not None and self._keeper is not threading.current_thread():
            self._keeper.join(2.0)
            if self._keeper.is_alive():
                log.warning("%s does not let go; left alone", self.name)
                atexit.unregister(_sounddevice()._exit_handler)  # it would wait for ever

    # ------------------------------------------------------------ PortAudio's thread

    def _arrived(self, data: Any, count: int, times: Any, status: Any) -> None:
        now = clock()
        if self._closed.is_set() or self._stale:
            return
        if not self._first and now - self._since > STALL_S:
            self._stale = True  # the machine slept: what lies in the buffers is old
            return
        block_s = count / self.sample_rate
        gap = self._lag.lost(now, block_s, bool(status.input_overflow))
        if self._first and self._heard is not None:
            gap += max(0.0, now - block_s - self._heard)
        self._first = False
        self._heard = self._since = now
        self.waiting = None
        self._queue.put(Block(np.array(data.T, np.float32, order="C"), gap))

    # ------------------------------------------------------------ the keeper's thread

    def _keep(self) -> None:
        sd = _sounddevice()
        fresh = True
        while not self._closed.is_set():
            with _portaudio:
                stream = self._open(sd, fresh)
            fresh = False
            if stream is None:
                self._closed.wait(_RETRY_S)
                continue
            self._watch(stream)
            lost = not self._closed.is_set()
            if lost:
                self.waiting = f"{self._called} to come back"
                log.warning("%s stopped delivering", self._called)
            with _portaudio:
                self._shut(sd, stream)

    @property
    def _called(self) -> str:
        return "a microphone" if self._default else self.name

    def _open(self, sd: Any, fresh: bool) -> Any | None:
        """The stream, running; None where the device is not there (yet)."""
        stream = None
        try:
            if not fresh:
                with contextlib.suppress(sd.PortAudioError):
                    sd._terminate()
                sd._initialize()  # only so does PortAudio see what was plugged in
            wanted = find_device(None if self._default else self.name)
            self._lag, self._first, self._stale = _Lag(), True, False
            stream = _stream(sd, wanted, self)
            self._since = clock()
            stream.start()
        except (sd.PortAudioError, InputError, ValueError, OSError) as error:
            self.waiting = f"{self._called} to come back"
            log.debug("cannot open %s: %s", self._called, error)
            if stream is not None:
                self._shut(sd, stream)
            return None
        if wanted.name != self.name:
            log.warning("listening to %s instead of %s", wanted.name, self.name)
            self.name = wanted.name
        return stream

    def _watch(self, stream: Any) -> None:
        """Return when the device has gone, or the source is closed."""
        while not self._closed.wait(0.1):
            silent = clock() - self._since
            if self._stale or not stream.active:
                return
            if silent > (FIRST_S if self._first else STALL_S):
                return

    def _shut(self, sd: Any, stream: Any) -> None:
        for act in (stream.abort, stream.close):
            try:
                act()
            except (sd.PortAudioError, OSError) as error:
                log.debug("closing %s: %s", self.name, error)


def _stream(sd: Any, device: Device, mic: Microphone) -> Any:
    """An input stream that calls `_arrived`, at the microphone's rate and channels.

    Another device may have taken the place of the default: what it gives is fitted.
    """
    count = min(mic.channels, device.channels)
    rate = mic.sample_rate
    try:
        sd.check_input_settings(device.index, count, "float32", samplerate=rate)
    except (sd.PortAudioError, ValueError):
        rate = device.sample_rate
    hear: Any = mic._arrived
    if count != mic.channels or rate != mic.sample_rate:
        hear = _fitted(hear, count, rate, mic)
    return sd.InputStream(
        device=device.index, channels=count, samplerate=rate, dtype="float32",
        blocksize=round(mic._block_s * rate), latency="high", callback=hear,
    )  # fmt: skip


def _fitted(hear: Any, count: int, rate: int, mic: Microphone) -> Any:
    import soxr

    change = None
    if rate != mic.sample_rate:
        change = soxr.ResampleStream(rate, mic.sample_rate, count, dtype="float32", quality="HQ")

    def callback(data: Any, frames: int, times: Any, status: Any) -> None:
        if change is not None:
            data = change.resample_chunk(np.ascontiguousarray(data))
        if count != mic.channels:
            data = np.resize(data.T, (mic.channels, data.shape[0])).T  # the first ones again
        if data.shape[0]:
            hear(data, data.shape[0], times, status)

    return callback
