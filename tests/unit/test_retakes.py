"""Takes that are listened to, with an engine that says tones and a recogniser that knows them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import ClassVar

import numpy as np
import pytest

from podtool.artifacts import Utterance, Word
from podtool.audio import Audio
from podtool.engines.protocols import EngineInfo
from podtool.errors import EngineFailure
from podtool.stages.retakes import Careful, Ear, careful, nth_seed, sentences
from podtool.stages.speak import Slot, SpeakParams, fit

RATE = 24000
WORDS = "alpha bravo charlie delta echo foxtrot golf hotel".split()
TEXT = "Alpha bravo charlie, delta echo foxtrot golf hotel."
EACH_S, GAP_S = 0.3, 0.1


def tone(word: str) -> np.ndarray:
    at = np.arange(round(EACH_S * RATE)) / RATE
    sound = 0.3 * np.sin(2 * np.pi * (400 + 200 * WORDS.index(word)) * at)
    return np.concatenate([sound, np.zeros(round(GAP_S * RATE))]).astype(np.float32)


class Tones:
    """A word is a tone; `habit` says what becomes of the words under which seed."""

    info: ClassVar[EngineInfo] = EngineInfo(
        name="tones", stage="speaking", version="1", licence="MIT", tier="test", sample_rate=RATE,
        paced=False, seeded=True,
    )  # fmt: skip

    def __init__(self, habit: Callable[[list[str], int], list[str]]) -> None:
        self.habit = habit
        self.asked: list[tuple[str, int]] = []

    def speak(self, text: str, rate: float, seed: int) -> Iterator[Audio]:
        self.asked.append((text, seed))
        words = [w.strip(".,").lower() for w in text.split()]
        for word in self.habit(words, seed):
            yield Audio(tone(word)[None, :], RATE)


def segments(audio: Audio) -> list[tuple[str, float, float]]:
    hop = audio.sample_rate // 100
    count = audio.frames // hop
    loud = np.abs(audio.samples[0, : count * hop].reshape(count, hop)).max(axis=1) > 0.05
    edges = np.flatnonzero(np.diff(np.concatenate([[0], loud.astype(int), [0]])))
    found = []
    for first, stop in zip(edges[::2], edges[1::2], strict=True):
        piece = audio.samples[0, first * hop : stop * hop]
        peak = np.abs(np.fft.rfft(piece)).argmax() * audio.sample_rate / len(piece)
        index = int(np.clip(round((peak - 400) / 200), 0, len(WORDS) - 1))
        found.append((WORDS[index], first / 100, stop / 100))
    return found


class Reader:
    def transcribe(self, audio: Audio, language: str | None) -> list[Utterance]:
        text = " ".join(w for w, _, _ in segments(audio))
        return [Utterance("u", "r", 0.0, audio.duration, text, "S1")] if text else []

    def align(self, audio: Audio, words: list[str]) -> list[Word]:
        times = segments(audio)
        return [Word(w, s, e) for w, (_, s, e) in zip(words, times, strict=True)]


def ear() -> Ear:
    return Ear(Reader(), Reader())


def heard(audio: Audio) -> list[str]:
    return [w for w, _, _ in segments(audio)]


def test_a_good_take_is_the_only_one() -> None:
    engine = Tones(lambda words, seed: words)
    said = Careful(engine, ear()).say(TEXT, 1.0, 7)
    assert engine.asked == [(TEXT, 7)]
    assert said.word_error == 0.0 and said.attempts == 1
    assert heard(said.audio) == WORDS
    assert said.audio.duration == pytest.approx(8 * EACH_S + 7 * GAP_S, abs=0.02)  # no silence


def test_words_lost_are_said_again_with_another_seed() -> None:
    engine = Tones(lambda words, seed: words[:5] if seed == 7 else words)
    said = Careful(engine, ear()).say(TEXT, 1.0, 7)
    assert [s for _, s in engine.asked] == [7, nth_seed(7, 1)]
    assert said.word_error == 0.0 and said.attempts == 2 and heard(said.audio) == WORDS


def test_the_best_of_all_takes_stays() -> None:
    kept = {7: 3, nth_seed(7, 1): 6, nth_seed(7, 2): 4}
    engine = Tones(lambda words, seed: words[: kept[seed]])
    said = Careful(engine, ear(), attempts=3).say(TEXT, 1.0, 7)
    assert len(engine.asked) == 3 and said.attempts == 2
    assert said.word_error == pytest.approx(2 / 8) and heard(said.audio) == WORDS[:6]
    assert np.array_equal(
        said.audio.samples, Careful(engine, ear()).say(TEXT, 1.0, 7).audio.samples
    )


def test_babble_after_the_last_word_is_cut_off() -> None:
    engine = Tones(lambda words, seed: [*words, "bravo", "bravo", "alpha"])
    said = Careful(engine, ear()).say(TEXT, 1.0, 0)
    assert len(engine.asked) == 1 and said.word_error == 0.0
    assert heard(said.audio) == WORDS
    unheard = Careful(engine, Ear(Reader()), attempts=1).say(TEXT, 1.0, 0)
    assert unheard.word_error == pytest.approx(3 / 8)  # without times nothing can be cut


def test_a_tail_without_words_is_cut_off() -> None:
    class Hums(Tones):
        def speak(self, text: str, rate: float, seed: int) -> Iterator[Audio]:
            yield from super().speak(text, rate, seed)
            at = np.arange(2 * RATE) / RATE
            yield Audio((0.02 * np.sin(2 * np.pi * 90 * at)).astype(np.float32)[None], RATE)

    said = Careful(Hums(lambda words, seed: words), ear()).say(TEXT, 1.0, 0)
    assert said.audio.duration < 8 * EACH_S + 7 * GAP_S + 0.6
    assert heard(said.audio) == WORDS


def test_each_sentence_is_judged_by_itself_and_a_pause_lies_between() -> None:
    first, second = TEXT, "Hotel golf foxtrot echo delta charlie bravo alpha."
    engine = Tones(lambda w, seed: w[1:] if w[0] == "hotel" and seed == 3 else w)
    said = Careful(engine, ear()).say(f"{first} {second}", 1.0, 3)
    assert engine.asked == [(first, 3), (second, 3), (second, nth_seed(3, 1))]
    assert heard(said.audio) == WORDS + WORDS[::-1] and said.attempts == 2
    assert said.audio.duration == pytest.approx(16 * EACH_S + 14 * GAP_S + 0.25, abs=0.05)


def test_silence_is_no_take() -> None:
    engine = Tones(lambda words, seed: [] if seed == 0 else words)
    assert heard(Careful(engine, ear()).say(TEXT, 1.0, 0).audio) == WORDS
    with pytest.raises(EngineFailure, match="says nothing"):
        Careful(Tones(lambda words, seed: []), ear()).say(TEXT, 1.0, 0)
    assert list(Careful(engine, ear()).speak(" ", 1.0, 0)) == []


def test_without_a_listener_the_first_take_stays() -> None:
    engine = Tones(lambda words, seed: words[:2])
    said = Careful(engine, None).say(TEXT, 1.0, 0)
    assert said.word_error is None and len(engine.asked) == 1


def test_an_engine_that_says_the_same_every_time_is_left_alone() -> None:
    class Fixed(Tones):
        info: ClassVar[EngineInfo] = EngineInfo(
            name="fixed", stage="speaking", version="1", licence="MIT", tier="test", sample_rate=1
        )

    engine = Fixed(lambda words, seed: words)
    assert careful(engine, ear()) is engine
    assert isinstance(careful(Tones(lambda words, seed: words), ear()), Careful)


def test_a_take_in_its_slot_knows_its_errors_and_is_not_paced() -> None:
    engine = Tones(lambda words, seed: words[:6])
    row = Utterance("u1", "r", 1.0, 3.2, TEXT, "S1")
    slot = Slot(1.0, 3.2, 1.0, 3.2)
    take = fit(row, slot, Careful(engine, ear(), attempts=2), SpeakParams())
    assert take.word_error == pytest.approx(2 / 8)
    assert len(engine.asked) == 2  # it heeds no rate, so it is not asked for another


def test_sentences_are_cut_where_they_end() -> None:
    text = "Dr. Smith came at 3.5 and left. " + "It was a long day for everybody in the house."
    assert sentences(text) == [text]  # the first is short
    two = ["One sentence is here, and it is of no small length.",
           "Another one follows it, and is of the same length."]  # fmt: skip
    assert sentences(" ".join(two)) == two
    assert sentences("Short. Yes. No.") == ["Short. Yes. No."]
    assert sentences("") == []


def test_long_sentences_are_cut_at_commas_and_no_word_is_lost() -> None:
    text = "word " * 40 + "comma, " + "more " * 60 + "x" * 300 + " end"
    pieces = sentences(text)
    assert " ".join(pieces) == " ".join(text.split())
    assert pieces[0].endswith("comma,")
    assert all(len(p) <= 280 for p in pieces if "xxx" not in p)
