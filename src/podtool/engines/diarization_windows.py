"""From windows with local speakers to one time line: linking, clean stretches, voting.

A segmentation model hears 10 s at a time and numbers its speakers anew in each window. Here the
windows' speakers are linked where windows overlap (chains), the stretches in which one chain
speaks alone are collected for embedding (units), and, once each window's speakers have a name,
all windows that see a frame vote on who speaks in it. After Bredin, "pyannote.audio 2.1 speaker
diarization pipeline", Interspeech 2023; the units and the chains are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
_ORDERS = np.array(list(permutations(range(3))))


@dataclass(frozen=True, slots=True)
class Windows:
    """Powerset probabilities (windows, frames, 7), a window beginning every `hop` frames."""

    probabilities: NDArray[np.float16]
    hop: int
    total: int  # frames of the recording

    @property
    def count(self) -> int:
        return int(self.probabilities.shape[0])

    @property
    def length(self) -> int:
        return int(self.probabilities.shape[1])

    def extent(self, window: int) -> tuple[int, int]:
        """The recording's frames that a window covers."""
        first = window * self.hop
        return first, min(first + self.length, self.total)

    def local(self, window: int) -> Floats:
        """(frames, 3): the probability that each local speaker is active."""
        p = self.probabilities[window].astype(np.float32)
        return np.stack(
            [p[:, 1] + p[:, 4] + p[:, 5], p[:, 2] + p[:, 4] + p[:, 6], p[:, 3] + p[:, 5] + p[:, 6]],
            axis=1,
        )

    def how_many(self, window: int) -> Floats:
        """(frames, 3): the probability of nobody, one, two speakers."""
        p = self.probabilities[window].astype(np.float32)
        return np.stack([p[:, 0], p[:, 1:4].sum(1), p[:, 4:7].sum(1)], axis=1)

    def weights(self) -> Floats:
        """(frames,): trust in a window's frames, least at its ends."""
        return np.hamming(self.length).astype(np.float32)


def vote_how_many(windows: Windows) -> Floats:
    """(total, 3): probability of nobody, one, two speakers, averaged over the windows."""
    votes = np.zeros((windows.total, 3), np.float32)
    weight = np.full((windows.total, 1), 1e-6, np.float32)
    trust = windows.weights()[:, None]
    for k in range(windows.count):
        first, last = windows.extent(k)
        n = last - first
        votes[first:last] += windows.how_many(k)[:n] * trust[:n]
        weight[first:last] += trust[:n]
    return votes / weight


def link(windows: Windows, agreement: float) -> Ints:
    """(windows, 3): a chain number for each local speaker; linked ones share it.

    Two local speakers of neighbouring windows are linked where the best permutation pairs them
    and the Dice coefficient of their activity on the common frames reaches `agreement`.
    """
    chains = np.zeros((windows.count, 3), np.int64)
    chains[0] = np.arange(3)
    free = 3
    before = windows.local(0)
    for k in range(1, windows.count):
        now = windows.local(k)
        a = before[windows.hop :]
        b = now[: len(a)]
        common = a.T @ b
        size = (a * a).sum(0)[:, None] + (b * b).sum(0)[None, :]
        dice = 2 * common / np.maximum(size, 1e-6)
        order = _ORDERS[np.argmax([common[np.arange(3), o].sum() for o in _ORDERS])]
        for s, t in enumerate(order):
            if dice[s, t] >= agreement and common[s, t] >= 6.0:
                chains[k, t] = chains[k - 1, s]
            else:
                chains[k, t] = free
                free += 1
        before = now
    return chains


@dataclass(frozen=True, slots=True)
class Unit:
    """Frames in which one chain speaks, to be embedded together."""

    chain: int
    runs: tuple[tuple[int, int], ...]
    clean: bool

    @property
    def frames(self) -> int:
        return sum(b - a for a, b in self.runs)


def collect_units(
    windows: Windows, chains: Ints, longest: int, far: int, shortest: int, edge: int
) -> list[Unit]:
    """Stretches of each chain alone, joined to units of at most `longest` frames.

    Runs more than `far` frames apart do not share a unit; `edge` frames are taken off both ends
    of a run that is long enough; a chain that is never alone for `shortest` frames gives one unit
    of its overlapped frames. Every frame of a chain is in one unit at most.
    """
    trust = windows.weights()
    seen = np.full(windows.total, 1e-6, np.float32)
    for k in range(windows.count):
        first, last = windows.extent(k)
        seen[first:last] += trust[: last - first]
    where: dict[int, list[tuple[int, int]]] = {}
    for k in range(windows.count):
        for s in range(3):
            where.setdefault(int(chains[k, s]), []).append((k, s))
    traces: dict[int, tuple[int, Floats]] = {}
    busiest = np.zeros(windows.total, np.float32)
    second = np.zeros(windows.total, np.float32)
    for chain, places in where.items():
        start = windows.extent(places[0][0])[0]
        stop = windows.extent(places[-1][0])[1]
        trace = np.zeros(stop - start, np.float32)
        for k, s in places:
            first, last = windows.extent(k)
            n = last - first
            trace[first - start : last - start] += windows.local(k)[:n, s] * trust[:n]
        trace /= seen[start:stop]
        if trace.max(initial=0.0) < 0.5:
            continue
        traces[chain] = (start, trace)
        top = busiest[start:stop]
        second[start:stop] = np.maximum(second[start:stop], np.minimum(top, trace))
        busiest[start:stop] = np.maximum(top, trace)
    units: list[Unit] = []
    for chain, (start, trace) in traces.items():
        here = slice(start, start + len(trace))
        active = (trace > 0.5) & (trace >= busiest[here])
        alone = active & (second[here] < 0.3)
        found = _pack(_runs(alone, start, edge), longest, far)
        clean = [Unit(chain, r, True) for r in found if sum(b - a for a, b in r) >= shortest]
        if not clean:
            mixed = _pack(_runs(trace > 0.5, start, 0), longest, far)
            clean = [Unit(chain, r, False) for r in mixed if sum(b - a for a, b in r) >= shortest]
        units += clean
    units.sort(key=lambda u: (u.runs[0], u.chain))
    return units


def _runs(mask: NDArray[np.bool_], offset: int, edge: int) -> list[tuple[int, int]]:
    steps = np.diff(np.concatenate(([0], mask.astype(np.int8), [0])))
    found = []
    for a, b in zip(np.flatnonzero(steps == 1), np.flatnonzero(steps == -1), strict=True):
        trimmed = edge if b - a > 6 * edge else 0
        found.append((int(a) + offset + trimmed, int(b) + offset - trimmed))
    return found


def _pack(
    runs: Sequence[tuple[int, int]], longest: int, far: int
) -> list[tuple[tuple[int, int], ...]]:
    """Runs -> groups of at most `longest` frames; longer runs are cut into equal parts."""
    groups: list[list[tuple[int, int]]] = []
    size = 0
    for a, b in runs:
        parts = -(-(b - a) // longest)
        edges = np.linspace(a, b, parts + 1).round().astype(int)
        for x, y in zip(edges[:-1], edges[1:], strict=True):
            near = groups and x - groups[-1][-1][1] <= far
            if near and size + (y - x) <= longest:
                groups[-1].append((int(x), int(y)))
                size += int(y - x)
            else:
                groups.append([(int(x), int(y))])
                size = int(y - x)
    return [tuple(g) for g in groups]


def local_vectors(
    windows: Windows, units: Sequence[Unit], chains: Ints, vectors: Floats
) -> tuple[Floats, Floats]:
    """Each window's local speakers as sums of unit embeddings, weighted by common frames.

    -> (windows, 3, dim) and the frames behind each, (windows, 3).
    """
    by_chain: dict[int, list[int]] = {}
    for i, unit in enumerate(units):
        by_chain.setdefault(unit.chain, []).append(i)
    sums = np.zeros((windows.count, 3, vectors.shape[1]), np.float32)
    frames = np.zeros((windows.count, 3), np.float32)
    for k in range(windows.count):
        first, last = windows.extent(k)
        for s in range(3):
            for i in by_chain.get(int(chains[k, s]), ()):
                common = sum(max(0, min(b, last) - max(a, first)) for a, b in units[i].runs)
                if common:
                    sums[k, s] += vectors[i] * common
                    frames[k, s] += common
    return sums, frames


def vote_speakers(windows: Windows, assigned: Ints, speakers: int) -> Floats:
    """(total, speakers): activity of each speaker averaged over windows.

    `assigned` (windows, 3) names the speaker of each local one, -1 for nobody.
    """
    votes = np.zeros((windows.total, speakers), np.float32)
    weight = np.full((windows.total, 1), 1e-6, np.float32)
    trust = windows.weights()
    for k in range(windows.count):
        first, last = windows.extent(k)
        n = last - first
        local = windows.local(k)[:n]
        weight[first:last, 0] += trust[:n]
        for g in set(assigned[k].tolist()) - {-1}:
            same = local[:, assigned[k] == g].max(1)
            votes[first:last, g] += same * trust[:n]
    return votes / weight
