"""Interval algebra against sets of cells: what is true of every cell is true of the spans."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from podtool.segments import (
    FrameGrid,
    Span,
    complement,
    dilate,
    fill_gaps,
    intersect,
    subtract,
    total,
    union,
)

END = 30
edges = st.integers(0, END)
spans = st.lists(st.tuples(edges, edges).map(lambda t: Span(float(t[0]), float(t[1]))), max_size=8)


def cells(found: list[Span]) -> set[int]:
    """Unit cells that spans with whole edges cover; backward spans are empty."""
    return {i for s in found for i in range(int(s.start), int(s.end))}


def tidy(found: list[Span]) -> bool:
    """Sorted, not empty, and with a gap between any two."""
    return all(s.end > s.start for s in found) and all(
        a.end < b.start for a, b in zip(found, found[1:], strict=False)
    )


@given(spans)
def test_union(a: list[Span]) -> None:
    found = union(a)
    assert tidy(found)
    assert cells(found) == cells(a)
    assert union(found) == found
    assert total(a) == len(cells(a))


@given(spans, spans)
def test_intersect_and_subtract(a: list[Span], b: list[Span]) -> None:
    both, left = intersect(a, b), subtract(a, b)
    assert cells(both) == cells(a) & cells(b)
    assert cells(left) == cells(a) - cells(b)
    assert intersect(b, a) == both
    assert total(both) + total(left) == total(a)
    assert tidy(both) and tidy(left)


@given(spans, edges, edges)
def test_complement(a: list[Span], start: int, end: int) -> None:
    within = Span(float(min(start, end)), float(max(start, end)))
    found = complement(a, within)
    assert cells(found) == cells([within]) - cells(a)
    assert tidy(found)


@given(spans, st.integers(0, 10))
def test_fill_gaps(a: list[Span], longest: int) -> None:
    found = fill_gaps(a, float(longest))
    covered = cells(a)
    assert all(b.start - a.end > longest for a, b in zip(found, found[1:], strict=False))
    assert covered <= cells(found)
    inside = [s for s in complement(a, Span(0.0, float(END))) if 0 < s.start and s.end < END]
    bridged = {i for s in inside if s.duration <= longest for i in cells([s])}
    # A gap at the edge lies between no two spans; the rest is closed exactly where it is short.
    first, last = (min(covered, default=0), max(covered, default=-1))
    assert cells(found) == covered | {i for i in bridged if first <= i <= last}


@given(spans, st.integers(-5, 5))
def test_dilate(a: list[Span], by: int) -> None:
    within = Span(0.0, float(END))
    found = dilate(a, float(by), within)
    assert tidy(found)
    wanted: set[int] = set()
    for span in union(a):
        wanted |= set(range(max(0, int(span.start) - by), min(END, int(span.end) + by)))
    assert cells(found) == wanted


@given(st.lists(st.booleans(), min_size=1, max_size=50), st.integers(0, 3))
def test_frames_become_spans_and_frames_again(mask: list[bool], offset: int) -> None:
    grid = FrameGrid(step_s=0.016875, duration_s=0.0619375, start_s=float(offset))
    active = np.array(mask)
    found = grid.spans(active)
    again = np.zeros_like(active)
    for span in found:
        for frame in range(len(mask)):
            if span.start <= grid.middle(frame) < span.end:
                again[frame] = True
    assert np.array_equal(again, active)
    assert all(grid.nearest(grid.middle(i)) == i for i in range(len(mask)))
    assert sum(s.duration for s in found) <= active.sum() * grid.step_s + 1e-9
