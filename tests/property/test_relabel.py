"""Merging speakers loses no time of anybody, and leaves the others alone."""

from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st

from podtool.artifacts import Row, Segment, Speaker, Turn, Utterance
from podtool.relabel import labels, merge
from podtool.rowio import of_kind
from podtool.segments import Span, intersect, total, union

edges = st.integers(0, 30)


@st.composite
def diarizations(draw: st.DrawFn) -> list[Row]:
    spans = draw(st.lists(st.tuples(edges, edges, st.sampled_from("ABC")), min_size=1, max_size=8))
    turns = [
        Turn(f"t{i}", "ep", float(min(a, b)), float(max(a, b)), s)
        for i, (a, b, s) in enumerate(spans)
        if a != b
    ]
    speakers = [Speaker(s, "ep", total(_own(turns, s))) for s in sorted({t.speaker for t in turns})]
    shared = [
        Segment("ep", s.start, s.end, "overlap")
        for s in union(
            piece
            for a in speakers
            for b in speakers
            if a.id < b.id
            for piece in intersect(_own(turns, a.id), _own(turns, b.id))
        )
    ]
    said = [Utterance(f"u{t.id}", "ep", t.start, t.end, "x", t.speaker, t.id) for t in turns]
    return [*turns, *speakers, *shared, *said]


def _own(turns: list[Turn], speaker: str) -> list[Span]:
    return [Span(t.start, t.end) for t in turns if t.speaker == speaker]


@given(diarizations())
def test_merge(rows: list[Row]) -> None:
    assume({"A", "B"} <= set(labels(rows)))
    before = of_kind(rows, Turn)
    result = merge(rows, "A", ["B"])
    after = of_kind(result, Turn)

    assert union(_own(after, "A")) == union([*_own(before, "A"), *_own(before, "B")])
    one = sorted(_own(after, "A"))
    assert all(a.end < b.start for a, b in zip(one, one[1:], strict=False))
    assert [t for t in after if t.speaker == "C"] == [t for t in before if t.speaker == "C"]

    shared = intersect(_own(after, "A"), _own(after, "C"))
    assert union(Span(s.start, s.end) for s in of_kind(result, Segment)) == shared
    merged = next(s for s in of_kind(result, Speaker) if s.id == "A")
    assert merged.speech_s == total(one)
    assert merged.overlap_s == total(shared)

    ids = {t.id: t for t in after}
    for said in of_kind(result, Utterance):
        assert said.turn is not None
        turn = ids[said.turn]
        assert said.speaker == turn.speaker
        assert turn.start <= said.start and said.end <= turn.end
