"""Text into takes that fit their slots: the engine's pace first, then borrowed silence, then a
stretch of at most 15 %, never a cut word. What still does not fit is kept whole and says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from podtool.artifacts import Turn, Utterance, Word
from podtool.audio import Audio
from podtool.dsp import stretch
from podtool.engines.protocols import SpeakingEngine
from podtool.progress import OnProgress, Progress, ignore
from podtool.resample import resample
from podtool.stages.retakes import Careful, speech_span
from podtool.stages.transcribe import TranscribeParams


@dataclass(frozen=True, slots=True)
class SpeakParams:
    engine: str = field(default="auto", metadata={"help": "Speaking engine."})
    model: str | None = field(default=None, metadata={"help": "Model of the engine: a folder."})
    voice: str | None = field(
        default=None,
        metadata={"help": "The engine's own voice that is turned into the one wanted."},
    )
    language: str = field(default="en", metadata={"help": "Language that is spoken."})
    listener: str = field(
        default="auto",
        metadata={"help": "Recogniser that hears again what an engine says differently each time; "
                          "none: nobody."},
    )  # fmt: skip
    attempts: int = field(
        default=3, metadata={"help": "Takes of a sentence at most, each with another seed."}
    )
    good_word_error: float = field(
        default=0.1, metadata={"help": "Share of wrong words from which another take is tried."}
    )
    slowest_rate: float = field(
        default=0.6, metadata={"help": "Slowest pace asked of the engine; 1 is its own."}
    )
    fastest_rate: float = field(
        default=1.6, metadata={"help": "Fastest pace asked of the engine; 1 is its own."}
    )
    borrow_s: float = field(
        default=1.0, metadata={"help": "Silence taken from each side of a slot at most, seconds."}
    )
    guard_s: float = field(
        default=0.1, metadata={"help": "Silence left to the neighbours, in seconds."}
    )
    longest_stretch: float = field(
        default=0.15, metadata={"help": "Time stretch at most, as a share of the length."}
    )
    allow_draft: bool = field(
        default=False, metadata={"help": "Speak utterances that were recognised with doubt."}
    )
    low_confidence: float = field(
        default=TranscribeParams().low_confidence,
        metadata={"help": "Utterances that score less are refused, and so are those in which "
                          "more than a third of the words do."},
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Slot:
    """The time of an utterance, and how far its take may reach into silence on either side."""

    start: float
    end: float
    earliest: float
    latest: float


@dataclass(frozen=True, slots=True)
class SpokenTake:
    """One utterance spoken. `audio` begins at `start`; `tempo` is its pace against the engine's
    own; the drifts are of the first word's start and the last word's end against the slot;
    `word_error` is the share of words heard wrong, None where nobody listened."""

    utterance: Utterance
    audio: Audio
    start: float
    tempo: float
    stretch: float
    borrowed_s: float
    fits: bool
    words: tuple[Word, ...]
    first_word_drift_ms: float
    last_word_drift_ms: float
    word_error: float | None = None

    @property
    def end(self) -> float:
        return self.start + self.audio.duration


class TimedSpeakingEngine(SpeakingEngine, Protocol):
    """A speaking engine that also knows when it says each word."""

    def speak_with_events(
        self, text: str, rate: float = 1.0, voice: str | None = None
    ) -> tuple[Audio, list[Word]]: ...


def is_draft(utterance: Utterance, low_confidence: float) -> bool:
    """Whether the text is a recogniser's doubtful reading that nobody has edited since."""
    words = utterance.words or ()
    if utterance.text.split() != [w.text for w in words]:
        return False  # somebody wrote this
    scores = [w.score for w in words if w.score is not None]
    if not scores:
        return utterance.score is not None and utterance.score < low_confidence
    doubtful = sum(s < low_confidence for s in scores)
    mean = sum(scores) / len(scores)
    return min(mean, utterance.score or mean) < low_confidence or doubtful * 3 > len(scores)


def drafts(utterances: Sequence[Utterance], params: SpeakParams) -> list[Utterance]:
    """The utterances that are refused without `allow_draft`."""
    if params.allow_draft:
        return []
    return [u for u in utterances if is_draft(u, params.low_confidence)]


def slots(
    utterances: Sequence[Utterance], turns: Sequence[Turn], length_s: float, params: SpeakParams
) -> list[Slot]:
    """The slot of each utterance. Silence is where neither another utterance of the list nor
    anybody else's turn is; neighbours share what lies between them."""
    ordered = sorted(range(len(utterances)), key=lambda i: (utterances[i].start, i))
    position = {index: place for place, index in enumerate(ordered)}
    result: list[Slot] = []
    for index, utterance in enumerate(utterances):
        floor, ceiling = 0.0, length_s
        place = position[index]
        for turn in turns:
            if turn.speaker == utterance.speaker:
                continue
            if turn.end <= utterance.start:
                floor = max(floor, turn.end + params.guard_s)
            elif turn.start >= utterance.end:
                ceiling = min(ceiling, turn.start - params.guard_s)
            else:  # somebody talks over it: nothing to borrow on the side where they do
                if turn.start <= utterance.start:
                    floor = utterance.start
                if turn.end >= utterance.end:
                    ceiling = utterance.end
        if place > 0:
            before = utterances[ordered[place - 1]]
            floor = max(floor, (before.end + utterance.start) / 2 + params.guard_s / 2)
        if place + 1 < len(ordered):
            after = utterances[ordered[place + 1]]
            ceiling = min(ceiling, (utterance.end + after.start) / 2 - params.guard_s / 2)
        result.append(
            Slot(
                utterance.start,
                utterance.end,
                min(utterance.start, max(floor, utterance.start - params.borrow_s)),
                max(utterance.end, min(ceiling, utterance.end + params.borrow_s)),
            )
        )
    return result


def speak(
    utterances: Sequence[Utterance],
    turns: Sequence[Turn],
    length_s: float,
    engine: SpeakingEngine | Careful,
    params: SpeakParams | None = None,
    sample_rate: int | None = None,
    seed: int = 0,
    on_progress: OnProgress = ignore,
) -> list[SpokenTake]:
    """One take per utterance that is not a draft, mono at `sample_rate` (default: the engine's).

    `utterances`: one speaker's; `turns`: everybody's, for the silence; `length_s`: of the
    recording. Those in `drafts` are left out: list them, and end with exit code 9.
    """
    params = params or SpeakParams()
    refused = {id(u) for u in drafts(utterances, params)}
    takes: list[SpokenTake] = []
    places = slots(utterances, turns, length_s, params)
    for done, (utterance, slot) in enumerate(zip(utterances, places, strict=True)):
        if id(utterance) not in refused and utterance.text.strip():
            takes.append(fit(utterance, slot, engine, params, sample_rate, seed))
        on_progress(Progress("speak", done + 1, len(utterances), "utterances"))
    return takes


def fit(
    utterance: Utterance,
    slot: Slot,
    engine: SpeakingEngine | Careful,
    params: SpeakParams,
    sample_rate: int | None = None,
    seed: int = 0,
) -> SpokenTake:
    """Speak one utterance into its slot; deterministic for a deterministic engine."""
    wanted = max(0.01, slot.end - slot.start)
    audio, words, error = _spoken(engine, utterance.text, 1.0, seed)
    own_s = audio.duration
    rate = min(max(own_s / wanted, params.slowest_rate), params.fastest_rate)
    if engine.info.paced and abs(rate - 1.0) > 0.01:
        audio, words, error = _spoken(engine, utterance.text, rate, seed)
        # Engines pace pauses and words differently: correct the pace once by what came out.
        corrected = rate * audio.duration / wanted
        corrected = min(max(corrected, params.slowest_rate), params.fastest_rate)
        if abs(corrected - rate) > 0.01:
            audio, words, error = _spoken(engine, utterance.text, corrected, seed)
    room = slot.latest - slot.earliest
    limit = 1.0 + params.longest_stretch
    length = audio.duration
    if length <= wanted:
        target = min(wanted, length * limit)
    elif length <= wanted * 1.03:
        target = wanted  # nothing that anybody hears
    elif length <= room:
        target = length
    else:
        target = max(room, length / limit)
    fits = target <= room + 1e-9
    factor = target / length
    at_rate = resample(audio, sample_rate or audio.sample_rate)
    frames = max(1, round(target * at_rate.sample_rate))
    if at_rate.frames and frames != at_rate.frames:
        at_rate = stretch(at_rate, frames)
    start = _begin(slot, target)
    placed = tuple(
        replace(w, start=start + w.start * factor, end=start + w.end * factor) for w in words
    )
    first = placed[0].start if placed else start
    last = placed[-1].end if placed else start + target
    return SpokenTake(
        utterance=utterance,
        audio=at_rate,
        start=start,
        tempo=round(own_s / target, 4),
        stretch=round(factor, 4),
        borrowed_s=round(max(0.0, target - wanted), 4),
        fits=fits,
        words=placed,
        first_word_drift_ms=round(1000 * (first - slot.start), 1),
        last_word_drift_ms=round(1000 * (last - slot.end), 1),
        word_error=error,
    )


def _begin(slot: Slot, target: float) -> float:
    """Where a take begins: at the slot, unless it needs the silence before it as well."""
    if slot.start + target <= slot.latest:
        return slot.start
    return max(slot.earliest, slot.latest - target)


def _spoken(
    engine: SpeakingEngine | Careful, text: str, rate: float, seed: int
) -> tuple[Audio, list[Word], float | None]:
    """Mono speech without the silence at its ends, its words where the engine knows them, and the
    share of them that was heard wrong where somebody listened."""
    if isinstance(engine, Careful):
        said = engine.say(text, rate, seed)
        return said.audio, [], said.word_error
    timed = getattr(engine, "speak_with_events", None)
    if timed is not None:
        audio, words = timed(text, rate)
    else:
        blocks = list(engine.speak(text, rate, seed))
        samples = np.concatenate([b.samples for b in blocks], axis=1)
        audio, words = Audio(samples, blocks[0].sample_rate), []
    span = speech_span(audio)
    first = round(span.start * audio.sample_rate)
    trimmed = audio.read(first, round(span.end * audio.sample_rate))
    length = trimmed.duration
    moved = [
        replace(
            w,
            start=min(max(0.0, w.start - span.start), length),
            end=min(max(0.0, w.end - span.start), length),
        )
        for w in words
    ]
    return trimmed, moved, None
