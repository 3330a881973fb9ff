"""eSpeak NG speaks text, with the times of its words.

It is GPL: the library is loaded in a worker and nowhere else, see `podtool.engines.load`.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
from collections.abc import Iterator
from typing import Any, ClassVar, Self

import numpy as np

from podtool.artifacts import Word
from podtool.audio import Audio
from podtool.engines.protocols import EngineContext, EngineInfo
from podtool.errors import ConfigError, EngineFailure
from podtool.text import spread_words

OWN_RATE_WPM = 175
_SLOWEST_WPM, _FASTEST_WPM = 80, 450
Event = list[int]  # first character of a word, its length, its start in samples

_SYNCHRONOUS, _DONT_EXIT, _UTF8 = 2, 0x8000, 1
_RATE, _PITCH = 1, 3
_WORD, _LIST_END = 1, 0


class _Id(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),  # milliseconds
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    ]


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


class Library:
    """libespeak-ng, loaded; `say` is not reentrant."""

    def __init__(self) -> None:
        import espeakng_loader

        self._library: Any = ctypes.CDLL(str(espeakng_loader.get_library_path()))
        data = str(espeakng_loader.get_data_path()).encode()
        self.sample_rate = int(self._library.espeak_Initialize(_SYNCHRONOUS, 0, data, _DONT_EXIT))
        if self.sample_rate <= 0:
            raise RuntimeError(f"eSpeak NG finds no voice data in {data.decode()}")
        self._pcm = bytearray()
        self._words: list[Event] = []
        self._callback = _Callback(self._receive)  # kept: the library holds a bare pointer
        self._library.espeak_SetSynthCallback(self._callback)

    def _receive(self, samples: Any, count: int, events: Any) -> int:
        if samples and count > 0:
            self._pcm += ctypes.string_at(samples, 2 * count)
        index = 0
        while events and events[index].type != _LIST_END:
            event = events[index]
            if event.type == _WORD:
                self._words.append([event.text_position - 1, event.length, event.sample])
            index += 1
        return 0

    def say(self, text: str, voice: str, rate_wpm: int, pitch: int) -> tuple[bytes, list[Event]]:
        """16-bit samples, and the word events."""
        self._pcm = bytearray()
        self._words = []
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise ValueError(f"eSpeak NG has no voice {voice!r}")
        self._library.espeak_SetParameter(_RATE, rate_wpm, 0)
        self._library.espeak_SetParameter(_PITCH, pitch, 0)
        raw = text.encode() + b"\0"
        buffer = ctypes.create_string_buffer(raw, len(raw))
        status = self._library.espeak_Synth(
            buffer, ctypes.c_size_t(len(raw)), 0, 1, 0, _UTF8, None, None
        )
        if status != 0:
            raise RuntimeError(f"eSpeak NG fails with status {status}")
        self._library.espeak_Synchronize()
        return bytes(self._pcm), list(self._words)


class ESpeak:
    """Formant synthesis; robotic, small, and exact about when each word begins."""

    info: ClassVar[EngineInfo] = EngineInfo(
        name="espeak",
        stage="speaking",
        version="1",
        licence="GPL-3.0-or-later",
        tier="embedded",
        sample_rate=22050,
        packages=("espeakng_loader",),
        install="pip install 'podtool[speak]'",
    )

    def __init__(self, library: Library, voice: str = "en-us", pitch: int = 50) -> None:
        self._library = library
        self._voice = voice
        self._pitch = pitch

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        """Options: `voice` (an eSpeak voice such as en-gb-x-rp or en-us+f3), `pitch` (0 to 99)."""
        options = context.options or {}
        try:
            pitch = int(options.get("pitch", "50"))
        except ValueError:
            raise ConfigError(f"pitch must be 0 to 99, not {options['pitch']!r}") from None
        return cls(Library(), options.get("voice", "en-us"), pitch)

    def speak(self, text: str, rate: float, seed: int) -> Iterator[Audio]:
        """Text -> one block of mono audio; `rate` 1.0 is 175 words a minute. The seed is unused:
        the same text gives the same samples."""
        yield self.speak_with_events(text, rate)[0]

    def speak_with_events(
        self, text: str, rate: float = 1.0, voice: str | None = None
    ) -> tuple[Audio, list[Word]]:
        """Text -> mono audio and its written words with the times at which eSpeak says them.

        A word ends where the next begins. Words that eSpeak runs into their neighbour ("of the")
        get times in between, marked `interpolated`. Raises ConfigError for an unknown voice,
        EngineFailure where the library fails.
        """
        written = list(re.finditer(r"\S+", text))
        if not written:
            return Audio(np.zeros((1, 0), np.float32), self.info.sample_rate), []
        wpm = round(min(max(OWN_RATE_WPM * rate, _SLOWEST_WPM), _FASTEST_WPM))
        pcm, events = self._say(text, voice or self._voice, wpm)
        rate_hz = self._library.sample_rate
        samples = np.frombuffer(pcm, np.int16).astype(np.float32) / 32768.0
        audio = Audio(samples[None, :], rate_hz)
        starts = _starts(written, events, rate_hz)
        return audio, _words([m[0] for m in written], starts, _speech_end(samples, rate_hz))

    def _say(self, text: str, voice: str, wpm: int) -> tuple[bytes, list[Event]]:
        """16-bit samples and word events, from a fork of the fresh library.

        eSpeak NG carries state from one text to the next, so that a text would sound a little
        different the second time.
        """
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:  # nothing here may raise, or return into the caller's frames
            answer = _answer(self._library, text, voice, wpm, min(max(self._pitch, 0), 99))
            with contextlib.suppress(OSError), open(writer, "wb") as stream:
                stream.write(answer)
            os._exit(0)
        os.close(writer)
        with open(reader, "rb") as stream:
            answer = stream.read()
        status = os.waitpid(child, 0)[1]
        line, found, pcm = answer.partition(b"\n")
        if status != 0 or not found:
            raise EngineFailure(f"eSpeak NG ended on {text[:40]!r}", "Report the text.")
        head = json.loads(line)
        if "error" in head:
            if "has no voice" in head["error"]:
                raise ConfigError(head["error"], "For example: en-us, en-gb-x-rp, en-us+f3")
            raise EngineFailure(f"eSpeak NG: {head['error']}")
        return pcm, head["words"]


def _answer(library: Library, text: str, voice: str, wpm: int, pitch: int) -> bytes:
    """A line of JSON, and the samples behind it."""
    try:
        pcm, words = library.say(text, voice, wpm, pitch)
        return json.dumps({"words": words}).encode() + b"\n" + pcm
    except Exception as error:
        return json.dumps({"error": str(error)}).encode() + b"\n"


def _starts(
    written: list[re.Match[str]], events: list[list[int]], rate_hz: int
) -> list[float | None]:
    """The start of each written word in seconds: that of the first event inside it."""
    starts: list[float | None] = []
    for match in written:
        inside = [sample for at, _, sample in events if match.start() <= at < match.end()]
        starts.append(min(inside) / rate_hz if inside else None)
    return starts


def _speech_end(samples: np.ndarray[Any, np.dtype[np.float32]], rate_hz: int) -> float:
    loud = np.flatnonzero(np.abs(samples) > 1e-3)
    return (int(loud[-1]) + 1) / rate_hz if len(loud) else 0.0


def _words(texts: list[str], starts: list[float | None], end: float) -> list[Word]:
    words: list[Word] = []
    index = 0
    while index < len(texts):
        stop = index + 1
        while stop < len(texts) and starts[stop] is None:
            stop += 1
        first = starts[index]
        begin = first if first is not None else (words[-1].end if words else 0.0)
        following = starts[stop] if stop < len(texts) else None
        until = max(begin, end if following is None else following)
        group = texts[index:stop]
        if len(group) == 1 and first is not None:
            words.append(Word(texts[index], begin, until))
        else:  # said as one: only the first has a start of its own
            words += [Word(t, s, e, None, True) for t, s, e in spread_words(group, begin, until)]
        index = stop
    return words
