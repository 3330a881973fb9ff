"""Interval algebra on spans of seconds, and the mapping between frame numbers and seconds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Span(NamedTuple):
    """A half-open interval [start, end) in seconds on the recording's clock."""

    start: float
    end: float

    @property
    def duration(self) -> float:
        return self.end - self.start


def union(spans: Iterable[Span]) -> list[Span]:
    """Sorted, disjoint spans that cover the same time; empty spans vanish."""
    return fill_gaps(spans, 0.0)


def fill_gaps(spans: Iterable[Span], longest_s: float) -> list[Span]:
    """The union of the spans, with gaps of at most `longest_s` seconds closed."""
    merged: list[Span] = []
    for start, end in sorted((s[0], s[1]) for s in spans if s[1] > s[0]):
        if merged and start <= merged[-1].end + longest_s:
            if end > merged[-1].end:
                merged[-1] = Span(merged[-1].start, end)
        else:
            merged.append(Span(start, end))
    return merged


def intersect(a: Iterable[Span], b: Iterable[Span]) -> list[Span]:
    """Time that is in both."""
    left, right = union(a), union(b)
    result: list[Span] = []
    i = j = 0
    while i < len(left) and j < len(right):
        start = max(left[i].start, right[j].start)
        end = min(left[i].end, right[j].end)
        if end > start:
            result.append(Span(start, end))
        if left[i].end < right[j].end:
            i += 1
        else:
            j += 1
    return result


def complement(spans: Iterable[Span], within: Span) -> list[Span]:
    """Time inside `within` that no span covers."""
    result: list[Span] = []
    at = within.start
    for span in union(spans):
        if span.end <= within.start or span.start >= within.end:
            continue
        if span.start > at:
            result.append(Span(at, span.start))
        at = max(at, span.end)
    if at < within.end:
        result.append(Span(at, within.end))
    return result


def subtract(a: Iterable[Span], b: Iterable[Span]) -> list[Span]:
    """Time that is in `a` and not in `b`."""
    left = union(a)
    if not left:
        return []
    whole = Span(left[0].start, left[-1].end)
    return intersect(left, complement(b, whole))


def total(spans: Iterable[Span]) -> float:
    """Seconds that the spans cover, each moment counted once."""
    return float(sum(s.end - s.start for s in union(spans)))


def dilate(spans: Iterable[Span], by_s: float, within: Span) -> list[Span]:
    """Each span grown by `by_s` seconds on both sides (shrunk if negative), cut to `within`."""
    return union(
        Span(max(within.start, s.start - by_s), min(within.end, s.end + by_s)) for s in union(spans)
    )


@dataclass(frozen=True, slots=True)
class FrameGrid:
    """Frames of `duration_s` every `step_s`, the first one starting at `start_s`."""

    step_s: float
    duration_s: float
    start_s: float = 0.0

    def middle(self, frame: int) -> float:
        return self.start_s + frame * self.step_s + self.duration_s / 2

    def nearest(self, time_s: float) -> int:
        """The frame whose middle is closest to `time_s` (may lie outside the recording)."""
        return round((time_s - self.start_s - self.duration_s / 2) / self.step_s)

    def spans(self, active: NDArray[np.bool_]) -> list[Span]:
        """Runs of true frames in a 1-D mask, as spans between frame centres half a step out."""
        edges = np.flatnonzero(np.diff(np.concatenate(([0], active.astype(np.int8), [0]))))
        half = self.step_s / 2
        return [
            Span(max(0.0, self.middle(int(a)) - half), self.middle(int(b) - 1) + half)
            for a, b in zip(edges[::2], edges[1::2], strict=True)
        ]
