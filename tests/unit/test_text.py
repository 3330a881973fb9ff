"""Numbers as words, the scoring normaliser, times without an aligner."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podtool.text import (
    cardinal,
    normalise,
    ordinal,
    spell_out,
    spoken_words,
    spread_words,
    year,
)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "zero"),
        (13, "thirteen"),
        (42, "forty two"),
        (100, "one hundred"),
        (342, "three hundred forty two"),
        (1001, "one thousand one"),
        (2_500_000, "two million five hundred thousand"),
        (-7, "minus seven"),
    ],
)
def test_cardinals(number: int, words: str) -> None:
    assert cardinal(number) == words


def test_years_and_ordinals() -> None:
    assert [year(n) for n in (1945, 1905, 1900, 2000, 2007, 2026)] == [
        "nineteen forty five",
        "nineteen oh five",
        "nineteen hundred",
        "two thousand",
        "two thousand seven",
        "twenty twenty six",
    ]
    assert [ordinal(n) for n in (1, 2, 12, 20, 21, 100)] == [
        "first",
        "second",
        "twelfth",
        "twentieth",
        "twenty first",
        "one hundredth",
    ]


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("It costs $5.50.", "it costs five dollars and fifty cents"),
        ("£1", "one pound"),
        ("$2.5 million", "two point five million dollars"),
        ("50% of 3.14", "fifty percent of three point one four"),
        ("at 5:30 and 6:05", "at five thirty and six oh five"),
        ("1,234 men", "one thousand two hundred thirty four men"),
        ("the 1920s", "the nineteen twenties"),
        ("the 21st of May", "the twenty first of may"),
        ("007", "zero zero seven"),
        ("Mr. and Mrs. O\u2019Neil", "mister and missus oneil"),
        ("I'll say he's not; don't", "i will say he is not do not"),
        ("ONE HUNDRED AND TWENTY", "one hundred twenty"),
        ("salt and pepper", "salt and pepper"),
        ("The colour of the grey harbour, realised", "the color of the gray harbor realized"),
        ("a well-known caf\u00e9 [laughter] um, yes", "a well known cafe yes"),
        ("any one may re-read it to-day, for ever", "anyone may reread it today forever"),
        ("O Captain", "oh captain"),
        ("John's boys' things", "johns boys things"),
    ],
)  # fmt: skip
def test_normaliser(written: str, said: str) -> None:
    assert normalise(written) == said


@given(st.text())
def test_normalising_twice_changes_nothing_more(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once


@given(st.text())
def test_normalised_text_is_plain_words(text: str) -> None:
    assert all(word.isascii() and word.isalnum() for word in normalise(text).split())


def test_one_token_may_be_said_as_several_words() -> None:
    assert spoken_words("$5,") == ["five", "dollars"]
    assert spoken_words("Dr.") == ["doctor"]
    assert spoken_words("don't!") == ["don't"]
    assert spoken_words("well-bred") == ["well", "bred"]
    assert spoken_words("\u2014") == []
    assert spell_out("plain words") == "plain words"


@given(st.lists(st.text(min_size=1), max_size=20), st.floats(0, 100), st.floats(0, 100))
def test_spread_words_fill_the_time_in_order(words: list[str], start: float, length: float) -> None:
    spread = spread_words(words, start, start + length)
    assert [w for w, _, _ in spread] == words
    edges = [start, *(t for _, s, e in spread for t in (s, e))]
    assert all(a <= b + 1e-9 for a, b in zip(edges, edges[1:], strict=False))
    if words:
        assert spread[-1][2] == pytest.approx(start + length)
