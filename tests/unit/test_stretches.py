"""What the recogniser is fed: joined turns, cuts at pauses, words that belong to one stream."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podtool.artifacts import Turn, Word
from podtool.audio import Audio
from podtool.segments import Span
from podtool.stages.crosstalk import Stream, settle
from podtool.stages.stretches import cut_at_pauses, owner, stretches


def turn(n: int, start: float, end: float, speaker: str) -> Turn:
    return Turn(f"t{n}", "r", start, end, speaker)


def test_turns_join_over_gaps_where_nobody_else_speaks() -> None:
    turns = [
        turn(1, 0, 2, "A"),
        turn(2, 2.5, 4, "A"),
        turn(3, 4.2, 5, "B"),
        turn(4, 5.1, 6, "A"),
        turn(5, 8, 9, "A"),
    ]
    found = [(s.speaker, s.start, s.end, len(s.turns)) for s in stretches(turns, 1.5)]
    assert found == [("A", 0, 4, 2), ("B", 4.2, 5, 1), ("A", 5.1, 6, 1), ("A", 8, 9, 1)]


def test_turns_of_one_speaker_that_overlap_are_one_stretch() -> None:
    found = stretches([turn(1, 0, 5, "A"), turn(2, 1, 2, "A"), turn(3, 4, 7, "A")], 0.5)
    assert [(s.start, s.end) for s in found] == [(0, 7)]


def bursts(pattern: list[tuple[float, bool]], rate: int = 16000) -> Audio:
    rng = np.random.default_rng(1)
    parts = [rng.normal(0, 0.1 if on else 1e-4, int(s * rate)) for s, on in pattern]
    return Audio(np.concatenate(parts).astype(np.float32)[None], rate)


def test_cuts_fall_into_pauses() -> None:
    audio = bursts([(9, True), (0.5, False), (8, True), (0.5, False), (9, True)])
    pieces = cut_at_pauses(audio, 12.0)
    assert len(pieces) == 3
    assert 9.0 < pieces[0].end < 9.5
    assert 17.5 < pieces[1].end < 18.0


@given(st.floats(0.1, 80.0), st.floats(4.0, 30.0))
def test_pieces_cover_all_and_are_short_enough(seconds: float, longest: float) -> None:
    audio = Audio(np.zeros((1, max(1, int(seconds * 1000))), np.float32), 1000)
    pieces = cut_at_pauses(audio, longest)
    assert pieces[0].start == 0.0
    assert pieces[-1].end == pytest.approx(audio.duration)
    assert all(a.end == b.start for a, b in zip(pieces, pieces[1:], strict=False))
    assert all(0 < p.duration <= longest + 0.02 for p in pieces)
    if len(pieces) > 1:
        assert min(p.duration for p in pieces) > 0.2 * longest


def test_owner_is_the_turn_with_most_of_the_time() -> None:
    turns = [turn(1, 0, 2, "A"), turn(2, 3, 6, "A")]
    assert owner(Span(1.5, 5), turns).id == "t2"
    assert owner(Span(2.1, 2.4), turns).id == "t1"


def said(text: str, start: float, score: float = 0.9) -> list[Word]:
    return [
        Word(w, start + 0.3 * i, start + 0.3 * i + 0.25, score) for i, w in enumerate(text.split())
    ]


def test_words_heard_twice_stay_with_the_sentence_that_they_continue() -> None:
    first = Stream("A", Span(0, 4), said("Another set.", 0.5) + said("I must come", 3.0))
    second = Stream("B", Span(3, 8), said("I must come another day", 3.05))
    settle([first, second], 0.0)
    assert " ".join(w.text for w in first.words) == "Another set."
    assert " ".join(w.text for w in second.words) == "I must come another day"


def test_a_title_does_not_end_a_sentence() -> None:
    first = Stream("A", Span(0, 4), said("got to", 2.2) + said("Mr.", 3.1))
    second = Stream("B", Span(3, 8), said("Mr. Marshall said Kenneth to her", 3.05))
    settle([first, second], 0.0)
    assert " ".join(w.text for w in first.words) == "got to"
    assert " ".join(w.text for w in second.words) == "Mr. Marshall said Kenneth to her"


def test_doubtful_words_go_where_somebody_else_has_a_surer_one() -> None:
    first = Stream("A", Span(0, 4), said("maybe", 1.0, 0.2) + said("nonsense quiet", 3.2, 0.2))
    second = Stream("B", Span(3, 8), said("clear", 3.1))
    settle([first, second], 0.5)
    assert [w.text for w in first.words] == ["maybe", "quiet"]
    assert [w.text for w in second.words] == ["clear"]


def test_equal_words_at_different_times_are_two_peoples() -> None:
    first = Stream("A", Span(0, 4), said("yes", 3.1))
    second = Stream("B", Span(3, 8), said("yes", 3.8))
    settle([first, second], 0.0)
    assert len(first.words) == len(second.words) == 1
