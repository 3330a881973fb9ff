"""Text that was hardly said is noticed; people who talk fast or repeat themselves are not."""

from __future__ import annotations

import pytest

from podtool.artifacts import Word
from podtool.segments import Span
from podtool.stages.doubts import doubts, drawn_in, in_silence, loops, odd_duration, without_loops

FAST = (
    "so anyway I told him look if you want it done by Friday then you have to send me the figures "
    "today and he said well I can not do that because nobody has them"
).split()


def test_a_fast_talker_is_not_doubted() -> None:
    assert doubts(FAST, 6.0) == ()  # 5.5 words and 21 letters in a second
    assert doubts(["Absolutely!"], 0.3) == ()
    assert doubts([], 0.0) == ()


def test_more_than_can_be_said_is_doubted() -> None:
    assert doubts(FAST, 1.5) == ("rate",)
    assert doubts("Thanks for watching and please subscribe".split(), 0.0) == ("rate",)
    assert doubts(["\u8acb\u4e0d\u541d\u9ede\u8d0a\u8a02\u95b1\u8f49\u767c\u6253\u8cde"], 0.2) == (
        "rate",
    )


@pytest.mark.parametrize(
    "text",
    [
        "no no no no",
        "very very very good",
        "ha ha ha ha ha ha",
        "I know I know I know",
        "we will fight on the beaches we will fight on the landing grounds we will fight on",
        "bye bye bye bye bye-bye",
    ],
)
def test_people_who_repeat_themselves_are_not_loops(text: str) -> None:
    assert loops(text.split()) == []
    assert doubts(text.split(), 5.0) == ()


@pytest.mark.parametrize(
    ("text", "once"),
    [
        ("Thank you. " * 9, "Thank you."),
        ("and so " + "the end of the " * 5 + "story", "and so the end of the story"),
        ("no " * 12, "no"),
        (3 * "I am going to the shop and then I come back ", "I am going to the shop and then I "
         "come back"),
        ("Yes. " + "\u8b1d\u8b1d" * 10, "Yes."),  # a word that is a loop by itself goes
    ],
)  # fmt: skip
def test_loops_are_found_and_said_once(text: str, once: str) -> None:
    words = [Word(w, float(i), i + 0.5) for i, w in enumerate(text.split())]
    assert "loop" in doubts([w.text for w in words], 60.0)
    assert [w.text for w in without_loops(words)] == once.split()


def test_a_text_that_compresses_too_well_is_a_loop() -> None:
    text = "".join(f"the {n} of the house of the {n} man of the house " for n in "abcdefghij")
    assert loops(text.split()) == []
    assert doubts(text.split(), 60.0) == ("loop",)


def test_words_far_from_speech_are_in_silence() -> None:
    speech = [Span(1.0, 2.0)]
    assert not in_silence(Word("a", 2.3, 2.4), speech)
    assert in_silence(Word("a", 2.6, 2.9), speech)
    assert in_silence(Word("a", 1.2, 1.4), [])


def test_durations_that_nobody_can_say_are_odd() -> None:
    assert odd_duration(Word("a", 0.0, 1.5))
    assert odd_duration(Word("seven", 0.0, 0.01))
    assert not odd_duration(Word("so", 0.0, 0.8))
    assert not odd_duration(Word("extraordinarily", 0.0, 2.2))
    assert odd_duration(Word("extraordinarily", 0.0, 4.0))


def test_a_word_drawn_out_over_a_pause_ends_with_the_speech() -> None:
    word = Word("right", 0.5, 4.0, 0.9)
    assert drawn_in(word, [Span(0.0, 1.0), Span(3.8, 6.0)]) == Word("right", 0.5, 1.0, 0.9)
    assert drawn_in(word, [Span(0.0, 0.6), Span(3.0, 6.0)]) == Word("right", 3.0, 4.0, 0.9)
    assert drawn_in(word, [Span(0.0, 6.0)]) == word
    short = Word("right", 0.5, 1.2)
    assert drawn_in(short, [Span(0.0, 0.6), Span(1.1, 2.0)]) == short
