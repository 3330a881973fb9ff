"""The transcribe stage with recognisers that are made up: what it lets through, and what not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ClassVar, Self

import numpy as np
import pytest

from podtool.artifacts import Turn, Utterance, Word
from podtool.audio import Audio
from podtool.engines.protocols import EngineContext, EngineInfo
from podtool.errors import EngineFailure, EngineUnavailableError
from podtool.segments import Span
from podtool.stages.transcribe import TranscribeParams, transcribe, transcript_metrics
from podtool.text import spread_words

RATE = 16000


class Recogniser:
    """Says what a function of the audio says, spread over it."""

    info: ClassVar[EngineInfo] = EngineInfo(
        "made up", "transcription", "1", "MIT", "embedded", RATE, window_s=30.0
    )

    def __init__(self, says: Callable[[Audio], str], score: float = 0.9) -> None:
        self.says = says
        self.score = score
        self.heard: list[float] = []

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        raise NotImplementedError

    def transcribe(self, audio: Audio, language: str | None) -> list[Utterance]:
        self.heard.append(audio.duration)
        return self._rows(self.says(audio), audio.duration, self.score, language)

    def _rows(
        self, text: str, duration: float, score: float, language: str | None
    ) -> list[Utterance]:
        words = tuple(Word(w, a, b, score) for w, a, b in spread_words(text.split(), 0.0, duration))
        return [Utterance("u", "", 0.0, duration, text, language=language, words=words)]


class Sampler(Recogniser):
    """Loops unless it is asked at a temperature of at least `good_at`."""

    def __init__(self, good_at: float, score: float = 0.9) -> None:
        super().__init__(lambda _: "and then " * 40, score)
        self.good_at = good_at
        self.asked: list[tuple[float, int]] = []

    def transcribe_at(
        self, audio: Audio, language: str | None, temperature: float, seed: int
    ) -> list[Utterance]:
        self.asked.append((temperature, seed))
        text = "we went home" if temperature >= self.good_at else self.says(audio)
        return self._rows(text, audio.duration, 0.8, language)


class LoudIsSpeech:
    """Speech is wherever the samples are not zero."""

    info: ClassVar[EngineInfo] = EngineInfo("made up", "vad", "1", "MIT", "embedded", RATE)

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        raise NotImplementedError

    def detect(self, audio: Audio) -> list[Span]:
        loud = np.abs(audio.samples[0]) > 0.01
        edges = np.flatnonzero(np.diff(np.concatenate([[0], loud.astype(int), [0]])))
        return [Span(a / RATE, b / RATE) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def audio(*parts: tuple[float, bool]) -> Audio:
    """Seconds of sound (True) and of silence."""
    pieces = [np.full(round(s * RATE), 0.3 if loud else 0.0, np.float32) for s, loud in parts]
    return Audio(np.concatenate(pieces)[None], RATE)


def read(
    heard: Audio,
    engine: Recogniser,
    params: TranscribeParams | None = None,
    turns: Sequence[Turn] | None = None,
) -> list[Utterance]:
    turns = turns or [Turn("t1", "r", 0.0, heard.duration, "S1")]
    return transcribe(heard, turns, engine, None, params, vad=LoudIsSpeech())


def said(found: Sequence[Utterance]) -> str:
    return " ".join(u.text for u in found)


def test_only_where_somebody_is_heard_is_anything_read() -> None:
    engine = Recogniser(lambda a: "thanks for watching" if not a.samples.any() else "hello there")
    found = read(audio((5.0, False), (2.0, True), (6.0, False), (1.0, True)), engine)
    assert said(found) == "hello there hello there"
    assert engine.heard == [pytest.approx(2.4), pytest.approx(1.2)]  # .2 s on either side
    words = [w for u in found for w in u.words or ()]
    assert [round(w.start, 1) for w in words[::2]] == [4.8, 12.8]
    assert read(audio((9.0, False)), engine) == []


def test_short_silences_are_read_through_and_windows_are_as_the_engine_likes_them() -> None:
    engine = Recogniser(lambda _: "hello")
    read(audio((1.0, True), (1.2, False), (1.0, True), (1.0, False)), engine)
    assert engine.heard == [pytest.approx(4.2)]
    engine.info = replace(engine.info, stretch_s=29.5)  # type: ignore[misc]
    engine.heard = []
    read(audio(*[(28.0, True), (0.3, False)] * 3), engine)
    assert len(engine.heard) == 3 and max(engine.heard) <= 29.5
    engine.heard = []
    read(audio((85.0, True)), engine, TranscribeParams(longest_s=10.0))
    assert max(engine.heard) <= 10.0


def test_a_monologue_is_read_in_pieces_without_losing_any() -> None:
    engine = Recogniser(lambda _: "hello")
    monologue = audio(*[(9.5, True), (0.5, False)] * 40)
    read(monologue, engine)
    assert sum(engine.heard) == pytest.approx(monologue.duration, abs=0.01)
    assert max(engine.heard) <= 16.0


def test_a_loop_is_read_again_at_rising_temperatures_until_it_is_none() -> None:
    engine = Sampler(good_at=0.6)
    heard = audio((20.0, True))
    params = TranscribeParams(longest_s=20.0)
    assert said(read(heard, engine, params)) == "we went home"
    assert [t for t, _ in engine.asked] == [0.2, 0.4, 0.6]
    seeds = [s for _, s in engine.asked]
    engine.asked = []
    read(heard, engine, params)
    assert [s for _, s in engine.asked] == seeds and len(set(seeds)) == 3


def test_what_the_engine_is_unsure_of_is_read_again() -> None:
    engine = Sampler(good_at=0.2, score=0.1)
    engine.says = lambda _: "we went hum"
    assert said(read(audio((4.0, True)), engine)) == "we went home"
    engine.score, engine.asked = 0.9, []
    assert said(read(audio((4.0, True)), engine)) == "we went hum"
    assert engine.asked == []


def test_a_loop_that_stays_is_said_once_and_told(caplog: pytest.LogCaptureFixture) -> None:
    found = read(audio((10.0, True)), Sampler(good_at=2.0))
    assert said(found) == "and then"
    assert {tuple((u.extra or {})["doubts"]) for u in found} == {("loop",)}
    assert "78 of 80 words dropped (loop)" in caplog.text
    assert {m.name: m.value for m in transcript_metrics(found)}["flagged_utterances"] >= 1


def test_an_engine_without_temperatures_is_asked_for_both_halves() -> None:
    def says(a: Audio) -> str:
        return "no way " * 30 if a.duration > 7 else "it was late"

    engine = Recogniser(says)
    found = read(audio((4.9, True), (0.2, False), (4.9, True)), engine)
    assert said(found) == "it was late it was late"
    assert engine.heard == [pytest.approx(10.0), *(2 * [pytest.approx(5.0, abs=0.1)])]
    starts = [w.start for u in found for w in u.words or ()]
    assert starts == sorted(starts) and starts[3] == pytest.approx(5.0, abs=0.1)
    assert all(not (u.extra or {}).get("doubts") for u in found)


def test_a_text_that_nobody_can_say_in_the_time_is_dropped() -> None:
    text = "thank you so much for watching this video please like and subscribe to our channel"
    assert read(audio((3.0, False), (0.3, True), (1.0, False)), Recogniser(lambda _: text)) == []


def test_a_fast_talker_is_left_alone() -> None:
    text = "so I told him look if you want it by Friday then send me the figures today " * 2
    engine = Sampler(good_at=0.0)
    engine.says = lambda _: text
    found = read(audio((5.0, True)), engine)
    assert said(found) == text.strip()
    assert engine.asked == [] and not any((u.extra or {}).get("doubts") for u in found)


def test_words_in_silence_are_dropped_and_drawn_out_ones_cut_back() -> None:
    class Timed(Recogniser):
        def transcribe(self, audio: Audio, language: str | None) -> list[Utterance]:
            words = (Word("yes", 0.2, 2.3, 0.9), Word("you", 2.95, 3.1, 0.9))
            return [Utterance("u", "", 0.0, 3.1, "yes you", words=words)]

    engine = Timed(lambda _: "")
    params = TranscribeParams(longest_silence_s=5.0)
    found = read(audio((1.0, True), (5.0, False), (1.0, True)), engine, params)
    assert [w.text for u in found for w in u.words or ()] == ["yes"]
    assert (found[0].words or ())[0].end == pytest.approx(1.2)


class Aligner:
    """Puts words at the end of the audio, or fails."""

    info: ClassVar[EngineInfo] = EngineInfo(
        "made up", "alignment", "1", "MIT", "embedded", RATE, languages=("en",)
    )

    def __init__(self, fails: bool = False) -> None:
        self.fails = fails

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        raise NotImplementedError

    def align(self, audio: Audio, words: list[str]) -> list[Word]:
        times = spread_words(words, audio.duration - 1.0, audio.duration)
        score = None if self.fails else 0.5
        return [Word(w, a, b, score, self.fails or None) for w, a, b in times]


def test_words_have_the_aligner_s_times_where_it_can_tell() -> None:
    heard, engine = audio((4.0, True)), Recogniser(lambda _: "we went home")
    turns = [Turn("t1", "r", 0.0, 4.0, "S1")]

    def first(aligner: Aligner | None, language: str = "en") -> Word:
        params = TranscribeParams(language=language)
        return (transcribe(heard, turns, engine, aligner, params)[0].words or ())[0]

    assert first(Aligner()).start == pytest.approx(3.0) and first(Aligner()).score == 0.9
    for own in (first(Aligner(fails=True)), first(Aligner(), "de"), first(None)):
        assert own.start == 0.0 and not own.interpolated


class Polyglot(Recogniser):
    """Tells the language by the loudness of what it hears."""

    def languages_heard(self, audio: Audio) -> dict[str, float]:
        return {"de": 0.6, "en": 0.4} if audio.duration > 3 else {"de": 0.1, "en": 0.9}


def test_the_language_is_told_once_from_the_longest_stretches() -> None:
    asked: list[str | None] = []

    class Listening(Polyglot):
        def transcribe(self, audio: Audio, language: str | None) -> list[Utterance]:
            asked.append(language)
            return super().transcribe(audio, language)

    heard = audio((6.0, True), (3.0, False), (1.0, True), (2.0, False), (5.0, True))
    spans = ((0.0, 6.0), (9.0, 10.0), (12.0, 17.0))
    turns = [Turn(f"t{n}", "r", a, b, "S1") for n, (a, b) in enumerate(spans)]
    engine = Listening(lambda _: "hallo")
    found = read(heard, engine, turns=turns)
    assert asked == ["de"] * 3 and {u.language for u in found} == {"de"}
    asked.clear()
    found = read(heard, engine, TranscribeParams(language="fr"), turns)
    assert set(asked) == {"fr"} and {u.language for u in found} == {"fr"}


def test_an_engine_of_one_language_reads_that_and_no_other() -> None:
    engine = Recogniser(lambda _: "hello")
    engine.info = replace(engine.info, languages=("en",))  # type: ignore[misc]
    assert {u.language for u in read(audio((2.0, True)), engine)} == {"en"}
    with pytest.raises(EngineUnavailableError, match="not de"):
        read(audio((2.0, True)), engine, TranscribeParams(language="de"))


def test_batches_give_what_single_windows_give() -> None:
    class Batching(Recogniser):
        def __init__(self, says: Callable[[Audio], str], fits: int) -> None:
            super().__init__(says)
            self.fits = fits
            self.sizes: list[int] = []

        def transcribe_many(
            self, audios: Sequence[Audio], language: str | None
        ) -> list[list[Utterance]]:
            self.sizes.append(len(audios))
            if len(audios) > self.fits:
                raise EngineFailure("CUDA out of memory")
            return [self.transcribe(a, language) for a in audios]

    def says(a: Audio) -> str:
        return f"it lasted {len(a.samples[0])} samples"

    heard = audio(*[(7.0, True), (3.0, False)] * 7)
    alone = read(heard, Recogniser(says))
    engine = Batching(says, 2)
    assert read(heard, engine, TranscribeParams(batch=4)) == alone
    assert engine.sizes == [4, 2, 2, 3, 2]


def test_a_failing_engine_is_not_hidden() -> None:
    def fails(_: Audio) -> str:
        raise EngineFailure("the model is broken")

    with pytest.raises(EngineFailure, match="broken"):
        read(audio((2.0, True)), Recogniser(fails))
