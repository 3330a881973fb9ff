"""Windows of speech into words that can be believed: recognised, looked at, and read again if not.

A text with doubts (`doubts.py`) is read again at rising temperatures where the engine draws tokens,
and in two halves otherwise. What stays doubtful is cut: a loop is said once, a text that nobody can
say in the time is dropped.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from podtool.artifacts import Utterance, Word
from podtool.audio import Audio
from podtool.engines.protocols import TranscriptionEngine
from podtool.errors import EngineFailure
from podtool.segments import Span
from podtool.stages.doubts import doubts, without_loops
from podtool.stages.stretches import cut_at_pauses

log = logging.getLogger(__name__)

_HALVED_S = 4.0  # shorter windows are not cut in two


class Settings(Protocol):
    """What `TranscribeParams` says about reading again."""

    @property
    def temperatures(self) -> tuple[float, ...]: ...

    @property
    def retry_below(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Window:
    """A piece of a recording as an engine hears it, and where speech is in it."""

    audio: Audio
    start: float  # on the recording's clock, in seconds
    speech: tuple[Span, ...]  # relative to `start`

    @property
    def speech_s(self) -> float:
        return sum(s.duration for s in self.speech)


@dataclass(frozen=True, slots=True)
class Heard:
    """The words of a window, times relative to it, and what is doubtful about them."""

    words: tuple[Word, ...] = ()
    language: str | None = None
    doubts: tuple[str, ...] = ()
    score: float | None = field(default=None, compare=False)
    engine: str | None = None  # the one that stepped in for the engine that was asked


def read(
    windows: Sequence[Window],
    engine: TranscriptionEngine,
    language: str | None,
    settings: Settings,
) -> list[Heard]:
    """What is said in each window. Several go through the engine at once where it can do that."""
    return [
        _settled(window, found, engine, language, settings)
        for window, found in zip(windows, _all(windows, engine, language), strict=True)
    ]


def _all(
    windows: Sequence[Window], engine: TranscriptionEngine, language: str | None
) -> list[list[Utterance]]:
    many = getattr(engine, "transcribe_many", None)
    if many is None or len(windows) < 2:
        return [engine.transcribe(w.audio, language) for w in windows]
    try:
        found: list[list[Utterance]] = many([w.audio for w in windows], language)
        return found
    except EngineFailure as error:
        if "memory" not in error.message.lower():
            raise
        log.info("%d windows at once do not fit into memory: half of them", len(windows))
        middle = len(windows) // 2
        return [
            found
            for part in (windows[:middle], windows[middle:])
            for found in _all(part, engine, language)
        ]


def _settled(
    window: Window,
    found: Sequence[Utterance],
    engine: TranscriptionEngine,
    language: str | None,
    settings: Settings,
) -> Heard:
    best = _heard(window, found)
    sure = best.score is None or best.score >= settings.retry_below
    if not best.doubts and sure:
        return best
    best = _retried(window, best, engine, language, settings)
    return _repaired(window, best) if best.doubts else best


def _heard(window: Window, found: Sequence[Utterance]) -> Heard:
    words = tuple(w for u in found for w in u.words or ())
    scores = [w.score for w in words if w.score is not None]
    return Heard(
        words,
        next((u.language for u in found if u.language), None),
        doubts([w.text for w in words], window.speech_s),
        sum(scores) / len(scores) if scores else None,
        next((u.extra["engine"] for u in found if u.extra and "engine" in u.extra), None),
    )


def _retried(
    window: Window,
    first: Heard,
    engine: TranscriptionEngine,
    language: str | None,
    settings: Settings,
) -> Heard:
    """The best of several readings: the fewest doubts, then the highest score."""
    readings = [first]
    again = getattr(engine, "transcribe_at", None)
    for temperature in settings.temperatures:
        if again is None:
            break
        seed = zlib.crc32(f"{window.start:.3f} {temperature}".encode())
        other = _heard(window, again(window.audio, language, temperature, seed))
        readings.append(other)
        if not other.doubts and (other.score is None or other.score >= settings.retry_below):
            break
    best = min(readings, key=lambda h: (len(h.doubts), -(h.score or 0.0)))
    if best.doubts and window.audio.duration >= _HALVED_S:
        halves = [_heard(half, engine.transcribe(half.audio, language)) for half in _halves(window)]
        if not any(h.doubts for h in halves):
            second = _halves(window)[1].start - window.start
            words = [*halves[0].words, *(_shifted(w, second) for w in halves[1].words)]
            return Heard(tuple(words), best.language, engine=best.engine)
    return best


def _halves(window: Window) -> list[Window]:
    """The window cut in two at its quietest moment near the middle."""
    cut = cut_at_pauses(window.audio, 0.6 * window.audio.duration)[0].end
    frame = round(cut * window.audio.sample_rate)
    at = frame / window.audio.sample_rate
    parts = (
        (window.audio.samples[:, :frame], Span(0.0, at)),
        (window.audio.samples[:, frame:], Span(at, window.audio.duration)),
    )
    return [
        Window(
            Audio(samples, window.audio.sample_rate),
            window.start + part.start,
            tuple(
                Span(max(s.start, part.start) - part.start, min(s.end, part.end) - part.start)
                for s in window.speech
                if s.start < part.end and s.end > part.start
            ),
        )
        for samples, part in parts
    ]


def _shifted(word: Word, by_s: float) -> Word:
    return Word(word.text, word.start + by_s, word.end + by_s, word.score, word.interpolated)


def _repaired(window: Window, heard: Heard) -> Heard:
    """What can be kept of a text that stayed doubtful; the log says what went."""
    words = without_loops(heard.words) if "loop" in heard.doubts else list(heard.words)
    left = doubts([w.text for w in words], window.speech_s)
    if left:
        words = []
    log.warning(
        "%.1f to %.1f s: %d of %d words dropped (%s), which another reading did not change",
        window.start,
        window.start + window.audio.duration,
        len(heard.words) - len(words),
        len(heard.words),
        ", ".join(heard.doubts),
    )
    return Heard(tuple(words), heard.language, heard.doubts, heard.score, heard.engine)
