"""eSpeak NG speaks text, with the times of its words. GPL: it lives in a process of its own."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from podtool.artifacts import Word
from podtool.audio import Audio
from podtool.engines.protocols import EngineContext, EngineInfo
from podtool.errors import ConfigError, EngineFailure
from podtool.text import spread_words

OWN_RATE_WPM = 175
_SLOWEST_WPM, _FASTEST_WPM = 80, 450
_WORKER = Path(__file__).with_name("espeak_worker.py")


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

    def __init__(self, voice: str = "en-us", pitch: int = 50, timeout_s: float = 120.0) -> None:
        self._voice = voice
        self._pitch = pitch
        self._timeout_s = timeout_s
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        """Options: `voice` (an eSpeak voice such as en-gb-x-rp or en-us+f3), `pitch` (0 to 99)."""
        options = context.options or {}
        try:
            pitch = int(options.get("pitch", "50"))
        except ValueError:
            raise ConfigError(f"pitch must be 0 to 99, not {options['pitch']!r}") from None
        return cls(options.get("voice", "en-us"), pitch)

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
        EngineFailure where the process dies.
        """
        written = list(re.finditer(r"\S+", text))
        if not written:
            return Audio(np.zeros((1, 0), np.float32), self.info.sample_rate), []
        wpm = round(min(max(OWN_RATE_WPM * rate, _SLOWEST_WPM), _FASTEST_WPM))
        head, pcm = self._ask(
            {
                "text": text,
                "voice": voice or self._voice,
                "rate_wpm": wpm,
                "pitch": min(max(self._pitch, 0), 99),
            }
        )
        rate_hz = int(head["sample_rate"])
        samples = np.frombuffer(pcm, np.int16).astype(np.float32) / 32768.0
        audio = Audio(samples[None, :], rate_hz)
        starts = _starts(written, head["words"], rate_hz)
        return audio, _words([m[0] for m in written], starts, _speech_end(samples, rate_hz))

    def _ask(self, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        process = self._running()
        assert process.stdin is not None and process.stdout is not None
        watchdog = threading.Timer(self._timeout_s, process.kill)
        watchdog.start()
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            line = process.stdout.readline()
            if not line:
                raise EOFError
            head: dict[str, Any] = json.loads(line)
            if "error" in head:
                if "has no voice" in head["error"]:
                    raise ConfigError(head["error"], "For example: en-us, en-gb-x-rp, en-us+f3")
                raise EngineFailure(f"eSpeak NG: {head['error']}")
            size = 2 * int(head["frames"])
            pcm = process.stdout.read(size)
            if len(pcm) != size:
                raise EOFError
            return head, pcm
        except (OSError, EOFError, ValueError) as error:
            self.close()
            raise EngineFailure(
                "the eSpeak NG process ended or took too long", "Try again, or report the text."
            ) from error
        finally:
            watchdog.cancel()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, str(_WORKER)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        return self._process

    def close(self) -> None:
        """End the process; the next text starts another."""
        process, self._process = self._process, None
        if process is None:
            return
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()


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
