"""Who talks when in frames, what a talker separator is shown of it, and stems put together.

Everything here is a function of turns and frame numbers: no engine, no sound but what is mixed.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from podtool.artifacts import Turn
from podtool.dsp import ramp
from podtool.stages.separate import on_grid

if TYPE_CHECKING:
    from podtool.stages.talkers import TalkersParams

Samples = NDArray[np.float32]
Who = tuple[str, ...]
_Piece = TypeVar("_Piece", "Region", "_Stretch")

_PAD_S = 0.1  # beyond a turn within an overlap: borders are not exact
_BRIEF_S = 0.1  # of somebody in a window: not worth an output


@dataclass(frozen=True, slots=True)
class Region:
    """Frames [start, stop) in which the same people talk, labels sorted."""

    start: int
    stop: int
    who: Who


@dataclass(frozen=True, slots=True)
class Window:
    """Frames [start, stop) that an engine hears, to answer for [first, last); labels sorted."""

    start: int
    stop: int
    first: int
    last: int
    who: Who


# ---------------------------------------------------------------- who talks when


def regions(turns: Sequence[Turn], frames: int, rate: int, params: TalkersParams) -> list[Region]:
    """The recording cut where somebody begins or ends, [0, frames) without gaps.

    Overlaps shorter than `shortest_s` belong to whoever talks before, or else after.
    """
    edges: list[tuple[int, int, str]] = []
    for turn in turns:
        start, stop = (min(max(0, round(t * rate)), frames) for t in (turn.start, turn.end))
        if stop > start:
            edges += [(start, 1, turn.speaker), (stop, -1, turn.speaker)]
    active: dict[str, int] = {}
    found: list[Region] = []
    at = 0
    for time, change, label in [*sorted(edges), (frames, 0, "")]:
        if time > at:
            who = tuple(sorted(s for s, n in active.items() if n))
            found.append(Region(at, time, who))
            at = time
        active[label] = active.get(label, 0) + change
    return _joined(_without_brief(_joined(found), round(params.shortest_s * rate)))


def overlaps(turns: Sequence[Turn], params: TalkersParams) -> bool:
    """Whether a separator would be asked at all."""
    frames = round(max((t.end for t in turns), default=0.0) * 16000)
    return any(len(r.who) > 1 for r in regions(turns, frames, 16000, params))


def _without_brief(found: Sequence[Region], shortest: int) -> list[Region]:
    kept = list(found)
    for first, last in _runs(found):
        if found[last - 1].stop - found[first].start >= shortest:
            continue
        near = [found[i].who for i in (first - 1, last) if 0 <= i < len(found) and found[i].who]
        heir = next((w for w in near if w[0] in found[first].who), found[first].who[:1])
        for i in range(first, last):
            kept[i] = Region(found[i].start, found[i].stop, heir)
    return kept


def _runs(found: Sequence[Region]) -> Iterator[tuple[int, int]]:
    """[first, last) of the runs of regions in which several people talk."""
    first = None
    for i, region in enumerate([*found, Region(0, 0, ())]):
        if len(region.who) > 1:
            first = i if first is None else first
        elif first is not None:
            yield first, i
            first = None


def _joined(found: Sequence[Region]) -> list[Region]:
    joined: list[Region] = []
    for region in found:
        if joined and joined[-1].who == region.who:
            region = Region(joined.pop().start, region.stop, region.who)
        joined.append(region)
    return joined


# ---------------------------------------------------------------- stems from input and estimates


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Frames in which nobody, one, or several talk throughout, and who does on either side."""

    start: int
    stop: int
    people: int  # the most at once
    who: Who
    before: Who
    after: Who


class Plan:
    """Who talks when, and how a stem is put together from the input and the estimates."""

    def __init__(
        self,
        found: Sequence[Region],
        rate: int,
        params: TalkersParams,
        silences: bool = False,
    ) -> None:
        """`silences`: whether stems keep the input where nobody talks."""
        self._silences = silences
        self.regions = list(found)
        self._fade = round(params.crossfade_ms / 1000 * rate)
        self._pad = round(_PAD_S * rate)
        self._stretches = _stretches(self.regions)

    @property
    def overlapped(self) -> bool:
        """Whether an engine is needed."""
        return any(len(r.who) > 1 for r in self.regions)

    def stem(self, label: str, heard: Samples, start: int, found: Samples | None) -> Samples:
        """One speaker's stem over the frames of `heard`, which begin at `start`.

        `found`: the engine's estimate over them, None where there is none. Where the speaker
        talks alone the input keeps its bits; all else lies on the grid of 2^-23.
        """
        own, shared = self._weights(label, start, start + heard.shape[1])
        if not own.any() and (found is None or not shared.any()):
            return np.zeros_like(heard)
        mixed = own * heard if found is None else own * heard + shared * found
        return np.where(own == 1, heard, on_grid(mixed.astype(np.float32)))

    def only_own(self, window: Window, wide: Samples) -> Samples:
        """(speakers, channels, n) over a window, each faded out where their turns are over."""
        time = np.arange(window.start, window.stop)
        near = between(self.regions, window.start - self._pad, window.stop + self._pad)
        result = np.empty_like(wide)
        for k, label in enumerate(window.who):
            close = np.zeros(len(time))
            for region in near:
                if label in region.who:
                    away = np.maximum(region.start - time, time - region.stop + 1)
                    close = np.maximum(close, 1 - np.clip(away / (self._pad + 1), 0, 1))
            result[k] = wide[k] * (0.5 - 0.5 * np.cos(np.pi * close))
        return result

    def _weights(
        self, label: str, start: int, stop: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(n,) of the input, (n,) of the estimate; fades lie inside overlaps and silences."""
        own, shared = np.zeros(stop - start), np.zeros(stop - start)
        for stretch in between(self._stretches, start, stop):
            here = slice(max(0, stretch.start - start), stretch.stop - start)
            if stretch.people == 1 or (self._silences and not stretch.people):
                own[here] = stretch.who in ((label,), ())
                continue
            up = ramp(min(self._fade, (stretch.stop - stretch.start) // 2))
            last = stretch.stop - len(up)
            if stretch.people > 1:
                shared[here] = 1
                _put(shared, stretch.start - start, up)
                _put(shared, last - start, up[::-1])
            if stretch.before == (label,):
                _put(own, stretch.start - start, up[::-1])
            if stretch.after == (label,):
                _put(own, last - start, up)
        return own, shared


def _put(row: NDArray[np.float64], at: int, values: NDArray[np.float64]) -> None:
    """Write values at a place that may lie partly outside of the row."""
    first, last = max(0, at), min(len(row), at + len(values))
    if first < last:
        row[first:last] = values[first - at : last - at]


def _stretches(found: Sequence[Region]) -> list[_Stretch]:
    runs = dict(_runs(found))
    result, i = [], 0
    while i < len(found):
        last = runs.get(i, i + 1)
        who = {s for r in found[i:last] for s in r.who}
        before = found[i - 1].who if i else ()
        after = found[last].who if last < len(found) else ()
        people = max(len(r.who) for r in found[i:last])
        result.append(
            _Stretch(
                found[i].start, found[last - 1].stop, people, tuple(sorted(who)), before, after
            )
        )
        i = last
    return result


# ---------------------------------------------------------------- what the engine hears


def windows(
    plan: Sequence[Region], rate: int, engine_rate: int, most: int, params: TalkersParams
) -> list[Window]:
    """Windows in order that answer for every overlap, and only once.

    Neighbouring overlaps of the same people share one; long ones get several. The context ends
    where somebody else talks. Starts lie on samples of both rates.
    """
    context = round(params.context_s * rate)
    longest = max(round(params.window_s * rate), 4 * context)
    step = rate // math.gcd(rate, engine_rate)
    cores: list[tuple[int, int, set[str]]] = []
    for first, last in _runs(plan):
        for core in _cores(plan[first:last], longest - 2 * context, most):
            if cores and _share(cores[-1], core, longest - 2 * context):
                before = cores.pop()
                core = (before[0], core[1], before[2] | core[2])
            cores.append(core)
    found = []
    for first, last, people in cores:
        start, stop = _with_context(plan, first, last, people, context)
        start = min(-(-start // step) * step, first // step * step)
        who = _heard(plan, Window(start, stop, first, last, ()), round(_BRIEF_S * rate), most)
        found.append(Window(start, stop, first, last, who))
    return found


def _cores(run: Sequence[Region], longest: int, most: int) -> Iterator[tuple[int, int, set[str]]]:
    """An overlap in pieces no longer than that, and of no more people than the engine knows."""
    groups: list[tuple[int, int, set[str]]] = []
    for region in run:
        who = set(region.who)
        if groups and len(groups[-1][2] | who) <= most:
            groups[-1] = (groups[-1][0], region.stop, groups[-1][2] | who)
        else:
            groups.append((region.start, region.stop, who))
    for start, stop, who in groups:
        count = math.ceil((stop - start) / longest)
        cuts = [start + round(k * (stop - start) / count) for k in range(count + 1)]
        for a, b in zip(cuts, cuts[1:], strict=False):
            heard = {s for r in run if r.start < b and r.stop > a for s in r.who}
            yield a, b, heard & who


def _share(a: tuple[int, int, set[str]], b: tuple[int, int, set[str]], longest: int) -> bool:
    """Whether two pieces fit one window without more people in it than one of them has."""
    return b[1] - a[0] <= longest and (a[2] | b[2]) in (a[2], b[2])


def _with_context(
    plan: Sequence[Region], first: int, last: int, people: set[str], context: int
) -> tuple[int, int]:
    """Frames around a core in which nobody talks who does not talk in it (measured: fewer people
    in a window are worth more than a longer window)."""
    start, stop = max(0, first - context), min(plan[-1].stop, last + context)
    for region in between(plan, start, stop):
        if not set(region.who) <= people:
            if region.start < first:
                start = max(start, min(region.stop, first))
            if region.stop > last:
                stop = min(stop, max(region.start, last))
    return start, stop


def between(plan: Sequence[_Piece], start: int, stop: int) -> Sequence[_Piece]:
    """Those of consecutive pieces that have frames in [start, stop)."""
    first = bisect_right(plan, start, key=lambda r: r.stop)
    last = first
    while last < len(plan) and plan[last].start < stop:
        last += 1
    return plan[first:last]


def _heard(plan: Sequence[Region], window: Window, brief: int, most: int) -> Who:
    """Who talks in a window for long enough; those most heard in its core if they are too many."""
    seconds: dict[str, int] = {}
    inside: dict[str, int] = {}
    for r in between(plan, window.start, window.stop):
        time = min(r.stop, window.stop) - max(r.start, window.start)
        core = min(r.stop, window.last) - max(r.start, window.first)
        for label in r.who:
            seconds[label] = seconds.get(label, 0) + time
            if len(r.who) > 1 and core > 0:
                inside[label] = inside.get(label, 0) + core
    ranked = sorted(
        (s for s in seconds if s in inside or seconds[s] >= brief),
        key=lambda s: (-inside.get(s, 0), -seconds[s], s),
    )
    return tuple(sorted(ranked[:most]))
