"""What a recogniser is fed: whole stretches of one speaker, cut only at pauses.

Fragments cost words at every edge; stretches beyond the model's reach cost words in the middle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from podtool.artifacts import Turn
from podtool.audio import Audio
from podtool.segments import Span, intersect, total, union

_HOP_S = 0.01


@dataclass(frozen=True, slots=True)
class Stretch:
    """Consecutive turns of one speaker, read as one."""

    speaker: str
    start: float
    end: float
    turns: tuple[Turn, ...]


def stretches(turns: Sequence[Turn], merge_gap_s: float) -> list[Stretch]:
    """Turns of a speaker joined over gaps of at most `merge_gap_s` in which nobody else speaks.

    Sorted by start. Turns of one speaker that overlap each other become one stretch.
    """
    result: list[Stretch] = []
    for speaker in sorted({t.speaker for t in turns}):
        own = sorted((t for t in turns if t.speaker == speaker), key=lambda t: (t.start, t.end))
        others = union(Span(t.start, t.end) for t in turns if t.speaker != speaker)
        group: list[Turn] = []
        end = 0.0
        for turn in own:
            gap = Span(end, turn.start)
            joined = group and gap.duration <= merge_gap_s and not intersect([gap], others)
            if group and not joined:
                result.append(Stretch(speaker, group[0].start, end, tuple(group)))
                group = []
            end = max(end, turn.end) if group else turn.end
            group.append(turn)
        if group:
            result.append(Stretch(speaker, group[0].start, end, tuple(group)))
    return sorted(result, key=lambda s: (s.start, s.end, s.speaker))


def loudness_curve(audio: Audio) -> NDArray[np.float64]:
    """Level in dB of mono audio every 10 ms, over windows of 150 ms: pauses are its valleys."""
    hop = max(1, round(_HOP_S * audio.sample_rate))
    power = np.square(audio.samples.mean(axis=0, dtype=np.float64))
    count = -(-len(power) // hop)
    frames = np.pad(power, (0, count * hop - len(power))).reshape(count, hop).mean(axis=1)
    width = 15
    smooth = np.convolve(np.pad(frames, width // 2, mode="edge"), np.ones(width) / width, "valid")
    curve: NDArray[np.float64] = 10 * np.log10(smooth + 1e-10)
    return curve


def cut_at_pauses(audio: Audio, longest_s: float) -> list[Span]:
    """Mono audio cut into pieces of at most `longest_s`, at its quietest moments; times local.

    As few pieces as the length needs, each cut the quietest moment near the even split, so that
    no piece is a scrap.
    """
    duration = audio.duration
    many = int(np.ceil(duration / longest_s)) if duration > longest_s else 1
    if many == 1:
        return [Span(0.0, duration)]
    curve = loudness_curve(audio)
    cuts = [0.0]
    while duration - cuts[-1] > longest_s:
        left = duration - cuts[-1]
        pieces = int(np.ceil(left / longest_s))
        even = left / pieces
        low, high = 0.65 * even, min(longest_s, 1.35 * even)
        first, last = (int((cuts[-1] + at) / _HOP_S) for at in (low, high))
        window = curve[first : max(first + 1, last)]
        cuts.append((first + int(np.argmin(window)) + 0.5) * _HOP_S)
    cuts.append(duration)
    return [Span(a, b) for a, b in zip(cuts[:-1], cuts[1:], strict=True)]


def owner(span: Span, turns: Sequence[Turn]) -> Turn:
    """The turn that shares most time with a span; the nearest where none does."""
    return max(
        turns,
        key=lambda t: (
            total(intersect([span], [Span(t.start, t.end)])),
            -min(abs(t.start - span.end), abs(t.end - span.start)),
        ),
    )
