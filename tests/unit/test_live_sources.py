"""Sources of live audio: pipes cut anywhere, odd headers, files in real time, and a microphone
whose PortAudio is made up (the real one is in tests/live)."""

from __future__ import annotations

import io
import os
import struct
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from podtool.audio import Audio, write_audio
from podtool.errors import EngineUnavailableError, InputError, UsageError
from podtool.live import sources
from podtool.live.sources import Device, Microphone, Pipe, Simulated, channels, find_device
from podtool.live.status import Block, Samples, Source

RATE = 8000


def noise(frames: int = 3000, count: int = 2, seed: int = 0) -> Samples:
    rng = np.random.default_rng(seed)
    return rng.uniform(-0.9, 0.9, (count, frames)).astype(np.float32)


def wav(samples: Samples, subtype: str = "PCM_16", form: str = "WAV") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples.T, RATE, format=form, subtype=subtype)
    return buffer.getvalue()


def heard(source: Source) -> Samples:
    return np.concatenate([b.samples for b in source.blocks()], axis=1)


def as_read(data: bytes) -> Samples:
    samples, _ = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    return np.ascontiguousarray(samples.T)


class Cut(io.RawIOBase):
    """A stream that gives its bytes in pieces of given sizes."""

    def __init__(self, data: bytes, sizes: list[int]) -> None:
        self._data, self._sizes, self._at = data, sizes, 0

    def read1(self, _: int = -1) -> bytes:
        size = self._sizes[self._at % len(self._sizes)]
        self._at += 1
        piece, self._data = self._data[:size], self._data[size:]
        return piece


def pipe(data: bytes, sizes: list[int] | None = None, **told: Any) -> Pipe:
    return Pipe(cast(BinaryIO, Cut(data, sizes or [1 << 20])), **told)


# ---------------------------------------------------------------- pipes


@pytest.mark.parametrize("form", ["WAV", "WAVEX", "RF64"])
@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_a_piped_wav_is_what_libsndfile_reads(form: str, subtype: str) -> None:
    data = wav(noise(), subtype, form)
    source = pipe(data)
    assert (source.sample_rate, source.channels, source.live) == (RATE, 2, False)
    np.testing.assert_array_equal(heard(source), as_read(data))


@settings(max_examples=60)
@given(st.lists(st.integers(1, 700), min_size=1, max_size=30), st.sampled_from([1, 2, 3]))
def test_any_cutting_gives_the_same_blocks(sizes: list[int], count: int) -> None:
    data = wav(noise(1100, count), "PCM_24")
    whole = [b.samples for b in pipe(data).blocks()]
    cut = [b.samples for b in pipe(data, sizes).blocks()]
    assert [b.shape for b in cut] == [b.shape for b in whole]
    np.testing.assert_array_equal(np.concatenate(cut, 1), as_read(data))


def with_size(data: bytes, size: int) -> bytes:
    at = data.index(b"data") + 4
    return data[:at] + struct.pack("<I", size) + data[at + 4 :]


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFF024, 0x7FFFFFFF, 100, 101, 36, 10**9])
def test_sizes_that_are_wrong_do_not_matter(size: int) -> None:
    data = wav(noise())
    np.testing.assert_array_equal(heard(pipe(with_size(data, size), [77])), as_read(data))


def chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) & 1)


@pytest.mark.parametrize("size", [None, 0xFFFFFFFF])
def test_chunks_before_the_samples_are_skipped(size: int | None) -> None:
    data = wav(noise())
    expected = as_read(data)
    more = chunk(b"LIST", b"INFOISFT\x05\0\0\0Lavf\0") + chunk(b"JUNK", bytes(5001))
    at = data.index(b"fmt ")
    odd = data[:at] + more + data[at:]
    at = odd.index(b"data")
    odd = odd[:at] + chunk(b"bext", bytes(602)) + odd[at:]
    if size is not None:
        odd = with_size(odd, size)
    np.testing.assert_array_equal(heard(pipe(odd, [3, 500])), expected)


def test_chunks_after_the_samples_are_not_heard() -> None:
    data = wav(noise(1001, 1), "PCM_U8")
    assert len(data) % 2 == 0
    with_tags = data + chunk(b"LIST", b"INFOIART\x04\0\0\0Ann\0")
    assert heard(pipe(with_tags)).shape == (1, 1001)
    stereo = wav(noise()) + chunk(b"id3 ", bytes(100))
    np.testing.assert_array_equal(heard(pipe(stereo)), as_read(stereo))


def test_rf64_with_its_size_elsewhere_and_with_none() -> None:
    data = wav(noise(), form="RF64")
    assert data.startswith(b"RF64")
    at = data.index(b"ds64") + 8
    unknown = data[:at] + bytes(24) + data[at + 24 :]
    for one in (data, data + chunk(b"LIST", b"INFO"), unknown):
        np.testing.assert_array_equal(heard(pipe(one)), as_read(data))


def test_a_frame_cut_off_at_the_end_is_left_out() -> None:
    data = wav(noise())
    np.testing.assert_array_equal(heard(pipe(data[:-3])), as_read(data)[:, :-1])


def test_raw_samples() -> None:
    samples = noise(999, 2)
    whole = np.round(samples * 32767).astype("<i2")
    raw = heard(pipe(whole.T.tobytes(), [5], rate=RATE, channels=2, format="s16le"))
    np.testing.assert_array_equal(raw, whole.astype(np.float32) / 32768)
    floats = samples.T.astype("<f4").tobytes()
    source = pipe(floats, [7], rate=44100, channels=2, format="f32le")
    assert source.sample_rate == 44100
    np.testing.assert_array_equal(heard(source), samples)
    assert heard(pipe(b"\1\0" * 10, rate=RATE)).shape == (1, 10)
    with pytest.raises(UsageError, match="--rate"):
        pipe(floats, format="f32le")
    with pytest.raises(UsageError, match="format"):
        pipe(floats, rate=8000, format="u8")
    with pytest.raises(InputError, match="tells its format itself"):
        pipe(wav(samples), rate=8000, format="s16le")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b'{"kind": "turn", "v": 1}\n', "rows, not audio"),
        (b'\xef\xbb\xbf {"kind": "turn"}\n', "rows, not audio"),
        (b"fLaC" + bytes(40), "is FLAC"),
        (b"OggS" + bytes(40), "is Ogg"),
        (b"ID3\4" + bytes(40), "is MP3"),
        (b"\xff\xfb\x90\x64" + bytes(40), "is MP3 or AAC"),
        (b"\0\0\0\x20ftypM4A " + bytes(40), "is MP4"),
        (b"FORM\0\0\0\0AIFF", "is AIFF"),
        (b"\x1aE\xdf\xa3" + bytes(40), "Matroska"),
        (b"Dear diary, today", "is text"),
        (b"\x93\x12\x88" + bytes(40), "is not WAV"),
        (b"RIFF\0\0\0\0AVI LIST", "is not WAV"),
        (b"RIFF", "is text|is not WAV"),
        (wav(noise())[:30], "ended within its WAV header"),
        (wav(noise())[:44], "without any audio"),
        (wav(noise(), "ULAW"), "of a kind that is not read"),
        (wav(noise()) * 2, "second recording"),
    ],
)
def test_what_is_not_a_wav_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        heard(pipe(data, [9]))
    assert "\n" not in caught.value.message


def test_the_hint_shows_how_to_convert() -> None:
    with pytest.raises(InputError) as caught:
        pipe(b"fLaC" + bytes(40))
    assert "ffmpeg -i X -f wav - | podtool live -" in str(caught.value.hint)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinity_are_refused(bad: float) -> None:
    samples = noise()
    samples[1, 1600] = bad
    taken = 0
    with pytest.raises(InputError, match=r"NaN or infinite samples, the first at 0\.200 s"):
        for block in pipe(wav(samples, "FLOAT")).blocks():
            taken += block.samples.shape[1]
    assert taken == 1600


@pytest.fixture()
def ends() -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """The two ends of a real pipe."""
    read, write = os.pipe()
    with os.fdopen(read, "rb") as reader, os.fdopen(write, "wb", buffering=0) as writer:
        yield reader, cast(BinaryIO, writer)


def test_a_slow_pipe_gives_blocks_as_they_come(ends: tuple[BinaryIO, BinaryIO]) -> None:
    reader, writer = ends
    data = wav(noise(1200, 1))
    writer.write(data[: 44 + 800])
    blocks = Pipe(reader).blocks()
    assert next(blocks).samples.shape == (1, 400)  # 50 ms: no need of a full buffer
    writer.write(data[44 + 800 : 44 + 1600])
    assert next(blocks).samples.shape == (1, 400)


def test_a_pipe_that_is_silent_can_be_closed(ends: tuple[BinaryIO, BinaryIO]) -> None:
    reader, writer = ends
    writer.write(wav(noise(1, 1)))
    source = Pipe(reader)
    closes(source)


def closes(source: Source) -> None:
    """`blocks` ends soon after `close` from another thread."""
    done = threading.Event()

    def read() -> None:
        for _ in source.blocks():
            pass
        done.set()

    threading.Thread(target=read, daemon=True).start()
    time.sleep(0.1)
    source.close()
    assert done.wait(1.0)


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_a_file_in_blocks(tmp_path: Path, suffix: str) -> None:
    samples = noise(RATE * 11 + 7)
    path = tmp_path / f"x.{suffix}"
    write_audio(path, Audio(samples, RATE))
    source = Simulated(path, realtime=False)
    assert (source.sample_rate, source.channels, source.live) == (RATE, 2, False)
    blocks = [b.samples.shape[1] for b in source.blocks()]
    assert set(blocks[:-1]) == {400} and sum(blocks) == RATE * 11 + 7
    np.testing.assert_allclose(heard(Simulated(path, realtime=False)), samples, atol=1e-6)


def test_a_file_at_its_pace(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    write_audio(path, Audio(noise(RATE), RATE))
    source = Simulated(path, speed=2.0)
    assert source.live
    began = time.monotonic()
    for at, _ in enumerate(source.blocks(), 1):
        assert time.monotonic() - began >= at * 0.025 - 1e-3
        if at == 4:
            time.sleep(0.1)  # taken late: those after it are not put off
    assert time.monotonic() - began == pytest.approx(0.5, abs=0.15)


def test_a_file_can_be_closed(tmp_path: Path) -> None:
    write_audio(tmp_path / "x.wav", Audio(noise(RATE * 30), RATE))
    closes(Simulated(tmp_path / "x.wav"))
    with pytest.raises(UsageError):
        Simulated(tmp_path / "x.wav", speed=0)
    with pytest.raises(InputError):
        Simulated(tmp_path / "none.wav")


# ---------------------------------------------------------------- channels


def test_choice_of_channels() -> None:
    block = Block(np.array([[1, 2], [3, 6]], np.float32), 0.5)
    np.testing.assert_array_equal(channels(block, "mix").samples, [[2, 4]])
    np.testing.assert_array_equal(channels(block, 1).samples, [[1, 2]])
    np.testing.assert_array_equal(channels(block, "2").samples, [[3, 6]])
    assert channels(block, "apart") is block
    assert channels(block, "2").gap_s == channels(block).gap_s == 0.5
    for absent in (0, 3, "3"):
        with pytest.raises(InputError, match="2 channels"):
            channels(block, absent)
    with pytest.raises(UsageError):
        channels(block, "left")


# ---------------------------------------------------------------- a microphone, made up


class Failure(Exception):
    pass


class PortAudio(types.ModuleType):
    """What sounddevice offers, with devices that a test plugs in and pulls out."""

    PortAudioError = Failure

    def __init__(self) -> None:
        super().__init__("sounddevice")
        self.devices = [
            {"name": "Speaker", "max_input_channels": 0, "default_samplerate": 48000.0},
            {"name": "USB mic", "max_input_channels": 1, "default_samplerate": 16000.0},
            {"name": "USB mix", "max_input_channels": 4, "default_samplerate": 48000.0},
        ]
        self.default = 1
        self.stream: Stream | None = None
        self.opened = 0

    def query_devices(self, kind: str | None = None) -> Any:
        if kind is None:
            return [{**d, "index": at} for at, d in enumerate(self.devices)]
        if not self.devices:
            raise Failure("no default [PaErrorCode -1]")
        return {"index": self.default}

    def check_input_settings(self, device: int, count: int, _: str, samplerate: int) -> None:
        if count > self.devices[device]["max_input_channels"]:  # type: ignore[operator]
            raise Failure("Invalid number of channels [PaErrorCode -9998]")

    def _initialize(self) -> None:
        self.opened += 1

    def _terminate(self) -> None:
        pass

    def _exit_handler(self) -> None:
        pass

    def InputStream(self, **options: Any) -> Stream:  # noqa: N802
        self.stream = Stream(**options)
        return self.stream


class Stream:
    def __init__(self, device: int, channels: int, blocksize: int, callback: Any, **_: Any) -> None:
        self.device, self.channels, self.size, self.callback = device, channels, blocksize, callback
        self.active = False

    def start(self) -> None:
        self.active = True

    def abort(self) -> None:
        self.active = False

    def close(self) -> None:
        pass

    def deliver(self, value: float = 0.1, overflow: bool = False) -> None:
        data = np.full((self.size, self.channels), value, np.float32)
        self.callback(data, self.size, None, types.SimpleNamespace(input_overflow=overflow))


@pytest.fixture()
def portaudio(monkeypatch: pytest.MonkeyPatch) -> PortAudio:
    fake = PortAudio()
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    monkeypatch.setattr(sources, "_RETRY_S", 0.05)
    return fake


def until(condition: Callable[[], Any]) -> Any:
    ends = time.monotonic() + 3
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.005)
    return condition()


def running(portaudio: PortAudio, mic: Microphone) -> tuple[list[Block], Stream]:
    """What the microphone gave by now, taken in a thread, and the stream that it opened."""
    got: list[Block] = []
    threading.Thread(target=lambda: got.extend(iter_into(mic, got)), daemon=True).start()
    stream = until(lambda: portaudio.stream)
    until(lambda: stream.active)
    return got, stream


def iter_into(mic: Microphone, got: list[Block]) -> Iterator[Block]:
    for block in mic.blocks():
        got.append(block)
    return iter(())


def test_devices(portaudio: PortAudio) -> None:
    assert sources.list_devices() == [
        Device(1, "USB mic", 1, 16000, True),
        Device(2, "USB mix", 4, 48000, False),
    ]
    assert find_device(None).name == "USB mic"
    assert find_device(2).name == find_device("2").name == find_device("mix").name == "USB mix"
    for wanted, message in ((0, "no sound input '0'"), ("zz", "'zz'"), ("usb", "may be several")):
        with pytest.raises(InputError, match=message) as caught:
            find_device(wanted)
        assert "--list-devices" in str(caught.value.hint)
    portaudio.devices.clear()
    with pytest.raises(InputError, match="no microphone") as caught:
        Microphone()
    assert "--list-devices" in str(caught.value.hint)


def test_what_a_device_does_not_give(portaudio: PortAudio) -> None:
    with pytest.raises(InputError, match="does not give 2 channels at 44100 Hz: Invalid number"):
        Microphone("USB mic", rate=44100, channels=2)
    mic = Microphone("USB mix")
    assert (mic.sample_rate, mic.channels, mic.live) == (48000, 2, True)
    assert Microphone().channels == 1


def test_without_portaudio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)

    class Missing:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "sounddevice":
                raise OSError("PortAudio library not found")

    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    with pytest.raises(EngineUnavailableError) as caught:
        Microphone()
    for line in ("apt install libportaudio2", "dnf install portaudio", "brew install portaudio"):
        assert line in str(caught.value.hint)


def test_blocks_of_a_microphone_and_its_end(portaudio: PortAudio) -> None:
    mic = Microphone()
    got, stream = running(portaudio, mic)
    for value in (0.1, 0.2, 0.3):
        stream.deliver(value)
    until(lambda: len(got) == 3)
    assert [b.samples.shape for b in got] == [(1, 480)] * 3
    assert [round(float(b.samples[0, 0]), 1) for b in got] == [0.1, 0.2, 0.3]
    assert all(b.gap_s == 0 for b in got) and mic.waiting is None
    mic.close()
    assert not stream.active
    closes(Microphone())


def test_what_nobody_takes_is_lost_from_the_front(portaudio: PortAudio) -> None:
    mic = Microphone(queue_s=0.3)
    blocks = mic.blocks()

    def deliver_one() -> None:
        until(lambda: portaudio.stream and portaudio.stream.active)
        cast(Stream, portaudio.stream).deliver(0.0)

    threading.Thread(target=deliver_one).start()
    next(blocks)
    assert portaudio.stream is not None
    for at in range(1, 21):
        portaudio.stream.deliver(at / 100)
    first = next(blocks)
    assert first.samples[0, 0] == pytest.approx(0.11) and first.gap_s == pytest.approx(0.3)
    assert next(blocks).gap_s == 0
    mic.close()


def test_a_device_that_goes_and_comes_back(
    portaudio: PortAudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    mic = Microphone("USB mic")
    got, stream = running(portaudio, mic)
    stream.deliver()
    last = time.monotonic()
    there = list(portaudio.devices)
    portaudio.devices.clear()
    stream.active = False
    until(lambda: mic.waiting == "USB mic to come back")
    time.sleep(0.3)
    portaudio.devices += [there[0], there[2], there[1]]  # back under another number
    again = until(lambda: portaudio.stream is not stream and portaudio.stream)
    until(lambda: again.active)
    assert again.device == 2 and portaudio.opened > 1
    again.deliver(0.5)
    until(lambda: len(got) == 2)
    assert got[1].gap_s == pytest.approx(time.monotonic() - last - 0.03, abs=0.1)
    assert got[1].samples[0, 0] == 0.5 and mic.waiting is None
    mic.close()


def test_silence_of_the_callback_and_sleep_are_gaps(
    portaudio: PortAudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept = [0.0]
    monkeypatch.setattr(sources, "clock", lambda: time.monotonic() + slept[0])
    mic = Microphone()
    got, stream = running(portaudio, mic)
    stream.deliver()
    slept[0] = 600.0
    stream.deliver(0.9)  # old: it lay in a buffer while the machine slept
    again = until(lambda: portaudio.stream is not stream and portaudio.stream)
    until(lambda: again.active)
    again.deliver(0.5)
    until(lambda: len(got) == 2)
    assert got[1].gap_s == pytest.approx(600, abs=0.5) and got[1].samples[0, 0] == 0.5
    mic.close()


def test_another_default_is_fitted(portaudio: PortAudio) -> None:
    mic = Microphone(channels=1, rate=16000)
    got, stream = running(portaudio, mic)
    portaudio.devices.pop(1)
    mic.channels, portaudio.default = 2, 1
    portaudio.devices[1].update(name="Headset", max_input_channels=1)
    stream.active = False
    again = until(lambda: portaudio.stream is not stream and portaudio.stream)
    until(lambda: again.active)
    again.deliver(0.25)
    until(lambda: got)
    np.testing.assert_array_equal(got[0].samples, np.full((2, 480), 0.25, np.float32))
    assert mic.name == "Headset"
    mic.close()


def run_lag(
    arrivals: list[float], block_s: float, overflows: frozenset[int] = frozenset()
) -> list[float]:
    lag = sources._Lag()
    return [lag.lost(a, block_s, at in overflows) for at, a in enumerate(arrivals)]


def test_lateness_that_catches_up_is_no_loss_and_drift_neither() -> None:
    rng = np.random.default_rng(1)
    even = np.arange(1, 20000) * 0.03
    late = even * (1 + 1e-4) + rng.uniform(0, 0.02, even.size)
    late[500:520] += np.linspace(0.8, 0, 20)
    assert sum(run_lag(list(late), 0.03)) == 0
    assert sum(run_lag(list(even * (1 - 1e-4)), 0.03)) == 0


def test_losses_are_found_by_the_flag_and_by_the_clock() -> None:
    even = np.arange(1, 2000) * 0.03
    told, untold = even.copy(), even.copy()
    told[700:] += 0.5
    untold[700:] += 0.7
    assert sum(run_lag(list(told), 0.03, frozenset({700}))) == pytest.approx(0.5, abs=0.05)
    assert sum(run_lag(list(untold), 0.03)) == pytest.approx(0.7, abs=0.05)


def test_a_file_that_is_closed_before_it_begins(tmp_path: Path) -> None:
    write_audio(tmp_path / "x.wav", Audio(noise(), RATE))
    source = Simulated(tmp_path / "x.wav")
    source.close()
    assert list(source.blocks()) == []
