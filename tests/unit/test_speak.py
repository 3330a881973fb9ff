"""Takes fitted to their slots, with an engine of known length: tone bursts, one per word."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Self

import numpy as np
import pytest

from podtool.artifacts import Turn, Utterance, Word
from podtool.audio import Audio
from podtool.engines.protocols import EngineContext, EngineInfo
from podtool.stages.speak import SpeakParams, drafts, fit, is_draft, slots, speak

RATE = 8000
WORD_S = 0.4


class Bursts:
    """Each word is 0.4 s of tone at rate 1, with silence around the text."""

    info: ClassVar[EngineInfo] = EngineInfo(
        name="bursts", stage="speaking", version="1", licence="MIT", tier="test", sample_rate=RATE
    )

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        return cls()

    def speak(self, text: str, rate: float, seed: int) -> Iterator[Audio]:
        yield self.speak_with_events(text, rate)[0]

    def speak_with_events(
        self, text: str, rate: float = 1.0, voice: str | None = None
    ) -> tuple[Audio, list[Word]]:
        words = text.split()
        each = round(WORD_S / rate * RATE)
        tone = 0.3 * np.sin(2 * np.pi * 200 * np.arange(each * len(words)) / RATE + 0.5)
        pad = np.zeros(RATE // 5)
        audio = Audio(np.concatenate([pad, tone, pad]).astype(np.float32)[None], RATE)
        times = [0.2 + i * each / RATE for i in range(len(words) + 1)]
        return audio, [Word(w, times[i], times[i + 1]) for i, w in enumerate(words)]


def utterance(
    start: float, end: float, text: str, n: int = 1, score: float | None = None
) -> Utterance:
    words = tuple(Word(w, start, end, score) for w in text.split()) if score is not None else None
    return Utterance(f"u{n}", "r", start, end, text, "S1", score=score, words=words)


TEN = "a b c d e f g h i j"  # 4 s at the engine's own pace


@pytest.mark.parametrize("length", [2.6, 3.0, 4.0, 5.0, 6.5])
def test_pace_alone_fits_most_texts(length: float) -> None:
    row = utterance(1.0, 1.0 + length, TEN)
    slot = slots([row], [], 60.0, SpeakParams(borrow_s=0))[0]
    take = fit(row, slot, Bursts(), SpeakParams(), 44100)
    assert take.fits and take.borrowed_s == 0.0
    assert take.audio.sample_rate == 44100
    assert take.audio.duration == pytest.approx(length, abs=0.03)
    assert take.tempo == pytest.approx(4.0 / length, rel=0.03)
    assert abs(take.first_word_drift_ms) <= 50 and abs(take.last_word_drift_ms) <= 50


def test_silence_is_borrowed_before_anything_is_stretched() -> None:
    row = utterance(3.0, 5.0, TEN)  # 2.5 s at the fastest pace
    others = [Turn("t", "r", 0.0, 2.0, "S2"), Turn("t2", "r", 5.45, 8.0, "S2")]
    place = slots([row], others, 60.0, SpeakParams())[0]
    assert place.earliest == pytest.approx(2.1) and place.latest == pytest.approx(5.35)
    take = fit(row, place, Bursts(), SpeakParams())
    assert take.fits and take.stretch == 1.0 and take.borrowed_s == pytest.approx(0.5, abs=0.02)
    assert place.earliest <= take.start and take.end <= place.latest + 1e-3


def test_what_is_left_is_stretched_by_15_percent_at_most() -> None:
    row = utterance(3.0, 5.2, TEN)
    others = [Turn("t", "r", 0.0, 3.0, "S2"), Turn("t2", "r", 5.2, 8.0, "S2")]
    take = fit(row, slots([row], others, 60.0, SpeakParams())[0], Bursts(), SpeakParams())
    assert take.fits and take.audio.duration == pytest.approx(2.2, abs=0.01)
    assert 0.85 < take.stretch < 0.95


def test_a_text_that_does_not_fit_is_kept_whole() -> None:
    row = utterance(3.0, 4.0, TEN)
    others = [Turn("t", "r", 0.0, 3.0, "S2"), Turn("t2", "r", 4.0, 8.0, "S2")]
    take = fit(row, slots([row], others, 60.0, SpeakParams())[0], Bursts(), SpeakParams())
    assert not take.fits
    assert take.audio.duration == pytest.approx(2.5 / 1.15, abs=0.03)
    level = np.abs(take.audio.samples[0])
    assert level[-RATE // 10 :].max() > 0.1  # the last word is there
    assert len(take.words) == 10


def test_neighbours_share_the_silence_between_them() -> None:
    rows = [utterance(1, 2, "x", 1), utterance(3, 4, "y", 2)]
    first, second = slots(rows, [], 10.0, SpeakParams())
    assert first.latest <= second.earliest
    assert first.latest == pytest.approx(2.45) and second.earliest == pytest.approx(2.55)
    assert first.earliest >= 0.0 and second.latest <= 5.0


def test_whoever_talks_over_an_utterance_lends_nothing() -> None:
    row = utterance(3.0, 5.0, "x")
    place = slots([row], [Turn("t", "r", 4.0, 6.0, "S2")], 10.0, SpeakParams())[0]
    assert place.latest == 5.0 and place.earliest == 2.0


def test_doubtful_readings_are_refused_until_somebody_edits_them() -> None:
    sure, doubtful = utterance(0, 4, "good text", 1, 0.9), utterance(5, 9, "bad text", 2, 0.3)
    edited = Utterance("u3", "r", 10, 12, "new text", "S1", score=0.3, words=doubtful.words)
    rows = [sure, doubtful, edited]
    assert [is_draft(r, 0.5) for r in rows] == [False, True, False]
    assert [u.id for u in drafts(rows, SpeakParams())] == ["u2"]
    spoken = speak(rows, [], 20.0, Bursts())
    assert [t.utterance.id for t in spoken] == ["u1", "u3"]
    draft = SpeakParams(allow_draft=True)
    assert len(speak(rows, [], 20.0, Bursts(), draft)) == 3 and drafts(rows, draft) == []


def test_the_same_text_gives_the_same_samples() -> None:
    row = utterance(1, 3.1, TEN)
    first, second = (speak([row], [], 20.0, Bursts(), sample_rate=22050)[0] for _ in range(2))
    assert np.array_equal(first.audio.samples, second.audio.samples)
