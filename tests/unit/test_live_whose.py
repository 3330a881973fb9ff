"""Words of one utterance, taken apart by who says them."""

from __future__ import annotations

from collections.abc import Sequence

from podtool.artifacts import Word
from podtool.live.whose import by_person


def words(*told: tuple[str, float, float]) -> list[Word]:
    return [Word(*t) for t in told]


def parted(said: Sequence[Word], people: Sequence[int | None]) -> list[tuple[object, str]]:
    return [(who, " ".join(w.text for w in own)) for who, own in by_person(said, people)]


SAID = words(
    ("for", 0.0, 0.3), ("her", 0.3, 0.6), ("brother", 0.6, 1.0), ("Bob.", 1.0, 1.4),
    ("If", 1.9, 2.1), ("the", 2.1, 2.3), ("red", 2.3, 2.7), ("falls", 2.7, 3.2),
)  # fmt: skip


def test_one_person_says_it_all() -> None:
    assert parted(SAID, [1] * 8) == [(1, "for her brother Bob. If the red falls")]
    assert by_person([], []) == []


def test_the_change_is_where_the_words_pause() -> None:
    """Voices are known coarsely: told two words early or late, the cut is after the sentence."""
    right = [(1, "for her brother Bob."), (2, "If the red falls")]
    assert parted(SAID, [1] * 4 + [2] * 4) == right
    assert parted(SAID, [1] * 3 + [2] * 5) == right
    assert parted(SAID, [1] * 6 + [2] * 2) == right


def test_far_from_a_pause_the_voices_decide() -> None:
    long = words(*((f"w{k}", k * 0.5, k * 0.5 + 0.5) for k in range(12)))
    assert [len(own) for _, own in by_person(long, [1] * 5 + [2] * 7)] == [5, 7]


def test_a_moment_of_somebody_else_is_nobodys() -> None:
    brief = words(("a", 0, 1), ("b", 1, 1.2), ("c", 1.2, 2.5))
    assert parted(brief, [1, 2, 1]) == [(1, "a b c")]


def test_words_that_nobody_is_known_for_go_with_those_around() -> None:
    assert parted(SAID, [None, 1, 1, None, None, 2, 2, None]) == [
        (1, "for her brother Bob."),
        (2, "If the red falls"),
    ]
    assert parted(SAID[:2], [None, None]) == [(None, "for her")]
