"""Speech that is listened to: sentence by sentence, heard again by a recogniser, said again with
another seed where words are wrong, and cut off where it goes on after its last word.

Engines that draw what they say now and then lose words, loop, or babble after the end; the sign is
in what a recogniser makes of it. Of all takes of a sentence the one with the fewest errors stays.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from podtool.artifacts import Word
from podtool.audio import Audio
from podtool.dsp import ramp
from podtool.engines.protocols import EngineInfo
from podtool.errors import EngineFailure
from podtool.metrics import full_text
from podtool.resample import resample, to_mono
from podtool.segments import Span
from podtool.text import is_title, normalise

log = logging.getLogger(__name__)

LONGEST_CHARS, SHORTEST_CHARS = 280, 40  # of a piece: what such models say well
PAUSE_S = 0.25  # between pieces
TAIL_S = 0.6  # of sound after the last word that may be its own
RATE = 16000  # of what is listened to


@dataclass(frozen=True, slots=True)
class Heard:
    """What was heard of a take: its word error rate against the text, and where to cut it."""

    word_error: float
    end: float | None  # seconds; None where nothing follows the last word


@dataclass(frozen=True, slots=True)
class Said:
    """A text spoken: mono audio without silence at its ends, the share of its words that were
    heard wrong (None where nobody listened), and the most takes that a piece of it took."""

    audio: Audio
    word_error: float | None
    attempts: int


class Ear:
    """A recogniser, and an aligner that tells when the words it hears are said."""

    def __init__(self, recogniser: Any, aligner: Any = None) -> None:
        self._recogniser, self._aligner = recogniser, aligner

    def hear(self, audio: Audio, text: str, language: str = "en") -> Heard:
        """Listen to a take of `text`, mono or not, at any rate."""
        import jiwer

        wanted = normalise(text)
        if not wanted:
            return Heard(0.0, None)
        sound = resample(to_mono(audio), RATE)
        written = full_text(self._recogniser.transcribe(sound, language)).split()
        found = normalise(" ".join(written))
        chunks = jiwer.process_words(wanted, found).alignments[0]
        errors = sum(
            max(c.ref_end_idx - c.ref_start_idx, c.hyp_end_idx - c.hyp_start_idx)
            for c in chunks
            if c.type != "equal"
        )
        extra = 0
        if chunks and chunks[-1].type == "insert":
            extra = chunks[-1].hyp_end_idx - chunks[-1].hyp_start_idx
        end = self._end(sound, written, len(found.split()) - extra)
        if end is not None:
            errors -= extra
        return Heard(errors / len(wanted.split()), end)

    def _end(self, sound: Audio, written: Sequence[str], spoken: int) -> float | None:
        """Where to cut after the first `spoken` of the normalised words, in seconds."""
        if self._aligner is None or not spoken:
            return None
        kept, count = 0, 0
        while kept < len(written) and count < spoken:
            count += len(normalise(written[kept]).split())
            kept += 1
        try:
            words: list[Word] = self._aligner.align(sound, list(written))
        except EngineFailure as error:
            log.info("a take's words could not be aligned: %s", error)
            return None
        last = words[kept - 1].end
        if kept < len(words):
            return _quietest(sound, last - 0.05, words[kept].start + 0.05)
        if sound.duration - last > TAIL_S:
            return _quietest(sound, last + 0.05, last + TAIL_S)
        return None


class Careful:
    """A speaking engine that is listened to; one of its own kind."""

    def __init__(self, engine: Any, ear: Ear | None, attempts: int = 3, good: float = 0.1) -> None:
        """`attempts`: takes of a piece at most; `good`: a word error rate that needs no other."""
        self._engine, self._ear = engine, ear
        self._attempts, self._good = attempts, good
        self.info: EngineInfo = engine.info

    def speak(self, text: str, rate: float, seed: int) -> Iterator[Audio]:
        """Text -> one block of mono audio, the best of what was tried."""
        if text.strip():
            yield self.say(text, rate, seed).audio

    def say(self, text: str, rate: float, seed: int) -> Said:
        """The same, and how it went. Raises EngineFailure where nothing is said."""
        pieces = sentences(text)
        said = [self._piece(piece, rate, seed) for piece in pieces]
        pause = np.zeros((1, round(PAUSE_S * said[0].audio.sample_rate)), np.float32)
        joined = [said[0].audio.samples]
        for one in said[1:]:
            joined += [pause, one.audio.samples]
        error = None
        if self._ear is not None:
            counts = [len(normalise(p).split()) for p in pieces]
            wrong = sum((s.word_error or 0.0) * n for s, n in zip(said, counts, strict=True))
            error = wrong / max(1, sum(counts))
        samples = np.concatenate(joined, axis=1)
        return Said(Audio(samples, said[0].audio.sample_rate), error, max(s.attempts for s in said))

    def _piece(self, text: str, rate: float, seed: int) -> Said:
        best: Said | None = None
        for attempt in range(max(1, self._attempts)):
            blocks = list(self._engine.speak(text, rate, nth_seed(seed, attempt)))
            if not any(b.samples.any() for b in blocks):
                continue
            whole = to_mono(
                Audio(np.concatenate([b.samples for b in blocks], axis=1), blocks[0].sample_rate)
            )
            said = self._listened(trimmed(whole), text, attempt + 1)
            if best is None or (said.word_error or 0.0) < (best.word_error or 0.0):
                best = said
            if said.word_error is None or said.word_error <= self._good:
                break
        if best is None:
            raise EngineFailure(f"the speaking engine {self.info.name} says nothing")
        if best.word_error is not None and best.word_error > self._good:
            log.warning(
                "%s: %.0f %% of the words of %r were heard wrong in the best of %d takes",
                self.info.name, 100 * best.word_error, text[:60], self._attempts,
            )  # fmt: skip
        return best

    def _listened(self, audio: Audio, text: str, attempt: int) -> Said:
        if self._ear is None:
            return Said(audio, None, attempt)
        heard = self._ear.hear(audio, text, getattr(self._engine, "language", "en"))
        if heard.end is not None:
            audio = trimmed(_cut(audio, heard.end))
        return Said(audio, round(heard.word_error, 4), attempt)


def careful(engine: Any, ear: Ear | None, attempts: int = 3, good: float = 0.1) -> Any:
    """The engine, listened to; as it is where another seed would change nothing."""
    return Careful(engine, ear, attempts, good) if engine.info.seeded else engine


def nth_seed(seed: int, attempt: int) -> int:
    """The seed of another take; the first has the seed itself."""
    if not attempt:
        return seed
    return int(np.random.SeedSequence([seed, attempt]).generate_state(1)[0])


def sentences(text: str, longest: int = LONGEST_CHARS, shortest: int = SHORTEST_CHARS) -> list[str]:
    """Text in pieces of at most `longest` characters (a longer word stays whole): sentences, those
    under `shortest` together with what follows; longer ones cut at commas, then at spaces."""
    parts: list[str] = [""]
    tokens = text.split()
    for token, following in zip(tokens, [*tokens[1:], ""], strict=False):
        parts[-1] = f"{parts[-1]} {token}".strip()
        over = re.search(r"[.!?…]['\")\]”’]*$", token) and not is_title(token)
        if over and not following[:1].islower():
            parts.append("")
    pieces: list[str] = []
    for part in (p for whole in parts if whole for p in _short(whole, longest)):
        fits = pieces and len(pieces[-1]) + 1 + len(part) <= longest
        if fits and min(len(pieces[-1]), len(part)) < shortest:
            pieces[-1] = f"{pieces[-1]} {part}"
        else:
            pieces.append(part)
    return pieces


def _short(sentence: str, longest: int) -> list[str]:
    found: list[str] = []
    while len(sentence) > longest:
        head = sentence[: longest + 1]
        marks = [m.end() for m in re.finditer(r"[,;:—–](?=\s)", head)]
        at = next((m for m in reversed(marks) if m > longest // 3), head.rfind(" "))
        if at <= 0:
            at = sentence.find(" ")
        if at < 0:
            break
        found.append(sentence[:at].strip())
        sentence = sentence[at:].strip()
    return [*found, sentence]


def trimmed(audio: Audio) -> Audio:
    """The audio without the silence at its ends."""
    span = speech_span(audio)
    rate = audio.sample_rate
    return audio.read(round(span.start * rate), round(span.end * rate))


def speech_span(audio: Audio, threshold_db: float = -50.0) -> Span:
    """From the first to the last sound louder than the threshold under the peak, 5 ms kept."""
    level = np.abs(audio.samples).max(axis=0, initial=0.0)
    peak = float(level.max(initial=0.0))
    if peak <= 0.0:
        return Span(0.0, audio.duration)
    loud = np.flatnonzero(level > peak * 10 ** (threshold_db / 20))
    margin = round(0.005 * audio.sample_rate)
    first = max(0, int(loud[0]) - margin)
    last = min(audio.frames, int(loud[-1]) + 1 + margin)
    return Span(first / audio.sample_rate, last / audio.sample_rate)


def _cut(audio: Audio, end: float) -> Audio:
    """The audio up to `end`, faded out over 10 ms."""
    samples = audio.samples[:, : max(1, round(end * audio.sample_rate))].copy()
    fade = min(samples.shape[1], round(0.01 * audio.sample_rate))
    samples[:, samples.shape[1] - fade :] *= 1 - ramp(fade).astype(np.float32)
    return Audio(samples, audio.sample_rate)


def _quietest(sound: Audio, start: float, end: float) -> float:
    """The middle of the quietest 20 ms between two times, in seconds."""
    size = round(0.02 * sound.sample_rate)
    first = max(0, round(start * sound.sample_rate))
    stop = min(sound.frames, max(round(end * sound.sample_rate), first + size))
    power = np.square(sound.samples[0, first:stop], dtype=np.float64)
    if len(power) < size:
        return min(sound.duration, max(0.0, end))
    levels = np.convolve(power, np.ones(size), mode="valid")
    return (first + int(levels.argmin()) + size / 2) / sound.sample_rate
