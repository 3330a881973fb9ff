"""DER and cpWER against the definition, tried with every pairing of speakers on small cases."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations, product

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from podtool import metrics
from podtool.artifacts import Turn, Utterance

CELLS = 12
edges = st.integers(0, CELLS)


@st.composite
def turns(draw: st.DrawFn, labels: str) -> list[Turn]:
    found = draw(st.lists(st.tuples(edges, edges, st.sampled_from(labels)), max_size=6))
    return [
        Turn(f"t{i}", "ep", float(min(a, b)), float(max(a, b)), s)
        for i, (a, b, s) in enumerate(found)
        if a != b
    ]


def cells(found: list[Turn]) -> list[set[str]]:
    """Who speaks in each cell of a second."""
    return [{t.speaker for t in found if t.start <= i < t.end} for i in range(CELLS)]


def pairings(left: list[str], right: list[str]) -> Iterator[dict[str, str]]:
    size = max(len(left), len(right))
    padded = right + [f"nobody {i}" for i in range(size - len(right))]
    for chosen in permutations(padded, len(left)):
        yield dict(zip(left, chosen, strict=True))


@settings(max_examples=80, deadline=None)
@given(turns("ABC"), turns("xyz"))
def test_der_by_its_definition(reference: list[Turn], found: list[Turn]) -> None:
    assume(reference)
    left, right = cells(reference), cells(found)
    total = sum(map(len, left))
    missed = sum(max(0, len(a) - len(b)) for a, b in zip(left, right, strict=True))
    alarm = sum(max(0, len(b) - len(a)) for a, b in zip(left, right, strict=True))
    speakers = sorted({t.speaker for t in reference}), sorted({t.speaker for t in found})
    confusion = min(
        sum(
            min(len(a), len(b)) - len({pairing[s] for s in a} & b)
            for a, b in zip(left, right, strict=True)
        )
        for pairing in pairings(*speakers)
    )
    score = metrics.diarization(reference, found, float(CELLS), collar_s=0.0)
    assert score.total_s == pytest.approx(total)
    assert score.missed_s == pytest.approx(missed)
    assert score.false_alarm_s == pytest.approx(alarm)
    assert score.confusion_s == pytest.approx(confusion)


@settings(max_examples=30, deadline=None)
@given(turns("ABC"), st.permutations("ABC"))
def test_other_names_are_no_error(reference: list[Turn], names: list[str]) -> None:
    assume(reference)
    other = dict(zip("ABC", names, strict=True))
    found = [Turn(t.id, t.recording, t.start, t.end, other[t.speaker]) for t in reference]
    score = metrics.diarization(reference, found, collar_s=0.0)
    assert score.der == pytest.approx(0.0)
    assert score.jer == pytest.approx(0.0)


def distance(a: list[str], b: list[str]) -> int:
    """Levenshtein, by the book."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (x != y))
    return row[-1]


words = st.lists(st.sampled_from("red green blue".split()), min_size=1, max_size=4)
streams = st.lists(words, min_size=1, max_size=3)


@settings(max_examples=60, deadline=None)
@given(words, words)
def test_wer_by_its_definition(a: list[str], b: list[str]) -> None:
    score = metrics.word_errors(" ".join(a), " ".join(b))
    assert (score.errors, score.length) == (distance(a, b), len(a))


@settings(max_examples=60, deadline=None)
@given(streams, streams)
def test_cpwer_by_its_definition(reference: list[list[str]], found: list[list[str]]) -> None:
    size = max(len(reference), len(found))
    left = reference + [[]] * (size - len(reference))
    right = found + [[]] * (size - len(found))
    costs = {(i, j): distance(left[i], right[j]) for i, j in product(range(size), repeat=2)}
    best = min(sum(costs[i, j] for i, j in enumerate(p)) for p in permutations(range(size)))
    score = metrics.cp_word_errors(_said(reference, "A"), _said(found, "S"))
    assert (score.errors, score.length) == (best, sum(map(len, reference)))


def _said(streams: list[list[str]], name: str) -> list[Utterance]:
    return [
        Utterance(f"u{i}", "ep", float(i), float(i + 1), " ".join(w), f"{name}{i}")
        for i, w in enumerate(streams)
    ]
