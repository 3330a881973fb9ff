"""Pronunciations by rule: phones of the ARPABET for any letters."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podtool.engines.letter_to_sound import pronounce, spelled

PHONES = set(
    "AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH UW V W "
    "Y Z ZH".split()
)


@pytest.mark.parametrize(
    ("word", "phones"),
    [
        ("zyx", "Z IY K S"),
        ("bone", "B OW N"),
        ("shimmer", "SH IH M ER"),
        ("podtool", "P AA D T UW L".replace("AA", "OW")),
        ("fbi", "F B IH"),
        ("brr", "B IY AA R AA R"),
    ],
)
def test_known_words(word: str, phones: str) -> None:
    assert pronounce(word) == phones


def test_letters_by_name() -> None:
    assert spelled("fbi") == "EH F B IY AY"


@given(st.text(alphabet=string.ascii_lowercase + "'-", min_size=1))
def test_every_word_with_letters_has_phones(word: str) -> None:
    phones = pronounce(word).split()
    assert bool(phones) == any(c.isalpha() for c in word)
    assert set(phones) <= PHONES
