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
class Chain:
    """The activity of one linked local speaker from frame `start` on."""

    number: int
    start: int
    trace: Floats

    @property
    def stop(self) -> int:
        return self.start + len(self.trace)


@dataclass(frozen=True, slots=True)
class Unit:
    """Frames [start, stop) in which one chain speaks, to be embedded together."""

    chain: int  # its place in the list of chains
    start: int
    stop: int
    clean: bool  # nobody else speaks meanwhile

    @property
    def frames(self) -> int:
        return self.stop - self.start


def traces(windows: Windows, numbers: Ints) -> list[Chain]:
    """The chains that are ever active, each averaged over all windows that see its frames."""
    trust = windows.weights()
    seen = np.full(windows.total, 1e-6, np.float32)
    where: dict[int, list[tuple[int, int]]] = {}
    for k in range(windows.count):
        first, last = windows.extent(k)
        seen[first:last] += trust[: last - first]
        for s in range(3):
            where.setdefault(int(numbers[k, s]), []).append((k, s))
    sums: dict[int, Floats] = {}
    result: list[Chain] = []
    for k in range(windows.count):  # one window's activity at a time
        first, last = windows.extent(k)
        n = last - first
        activity = windows.local(k)[:n] * trust[:n, None]
        for s in range(3):
            number = int(numbers[k, s])
            places = where[number]
            start = windows.extent(places[0][0])[0]
            if number not in sums:
                sums[number] = np.zeros(windows.extent(places[-1][0])[1] - start, np.float32)
            sums[number][first - start : last - start] += activity[:, s]
            if places[-1][0] == k:
                trace = sums.pop(number) / seen[start : windows.extent(k)[1]]
                if trace.max(initial=0.0) >= 0.5:
                    result.append(Chain(number, start, trace))
    return sorted(result, key=lambda c: (c.start, c.number))


def pauses(nobody: Floats, reach: int, least: float) -> NDArray[np.bool_]:
    """Frames at which speech may change hands: local maxima of the probability of nobody.

    A maximum counts from `least` on, however small: the model bridges short pauses, and says so.
    """
    padded = np.pad(nobody, reach, mode="edge")
    around = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1).max(1)
    return np.asarray((nobody >= around) & (nobody >= least))


def collect_units(
    chains: Sequence[Chain],
    total: int,
    cuts: NDArray[np.bool_],
    two: Floats,
    purity: float,
    longest: int,
    shortest: int,
) -> list[Unit]:
    """Stretches of each chain alone, cut at pauses, none over `longest` frames.

    Alone means that the probability of two voices (`two`, (total,)) and that of any other chain
    stay under `purity`. Where a chain speaks between two pauses and is never alone, the whole
    stretch is a unit that is not clean. Every frame of a chain is in one unit at most.
    """
    busiest = np.zeros(total, np.float32)
    second = np.zeros(total, np.float32)
    for chain in chains:
        here = slice(chain.start, chain.stop)
        top = busiest[here].copy()
        second[here] = np.maximum(second[here], np.minimum(top, chain.trace))
        busiest[here] = np.maximum(top, chain.trace)
    spoilt = np.maximum(second, two) >= purity
    units: list[Unit] = []
    for i, chain in enumerate(chains):
        here = slice(chain.start, chain.stop)
        active = (chain.trace > 0.5) & ~cuts[here]
        alone = active & (chain.trace >= busiest[here]) & ~spoilt[here]
        for a, b in _stretches(active, 0, total, shortest):
            clean = _stretches(alone[a:b], chain.start + a, longest, shortest)
            mixed = [] if clean else _stretches(active[a:b], chain.start + a, longest, shortest)
            units += [Unit(i, x, y, True) for x, y in clean]
            units += [Unit(i, x, y, False) for x, y in mixed]
    return sorted(units, key=lambda u: (u.start, u.chain))


def _stretches(
    mask: NDArray[np.bool_], offset: int, longest: int, shortest: int
) -> list[tuple[int, int]]:
    """Runs of a mask of at least `shortest` frames, long ones in equal parts."""
    steps = np.diff(np.concatenate(([0], mask.astype(np.int8), [0])))
    found = []
    for a, b in zip(np.flatnonzero(steps == 1), np.flatnonzero(steps == -1), strict=True):
        if b - a >= shortest:
            edges = np.linspace(a, b, -(-(b - a) // longest) + 1).round().astype(int) + offset
            found += [(int(x), int(y)) for x, y in zip(edges[:-1], edges[1:], strict=True)]
    return found


@dataclass(frozen=True, slots=True)
class Share:
    """Frames [start, stop) of a chain that go with a unit."""

    unit: int
    chain: int
    start: int
    stop: int


def share_frames(
    chains: Sequence[Chain], units: Sequence[Unit], cuts: NDArray[np.bool_]
) -> list[Share]:
    """Every frame of a chain to one of its units; the border between two lies at a pause.

    So a chain in which the segmentation missed a change of speaker can be divided there.
    """
    members: dict[int, list[int]] = {}
    for i, u in enumerate(units):
        members.setdefault(u.chain, []).append(i)
    shares: list[Share] = []
    for c, inside in members.items():
        chain = chains[c]
        dips = chain.trace - cuts[chain.start : chain.stop]
        edges = [chain.start]
        for i, j in zip(inside[:-1], inside[1:], strict=True):
            a, b = units[i].stop, max(units[j].start, units[i].stop + 1)
            edges.append(a + int(np.argmin(dips[a - chain.start : b - chain.start])))
        edges.append(chain.stop)
        shares += [Share(i, c, a, b) for i, a, b in zip(inside, edges[:-1], edges[1:], strict=True)]
    return sorted(shares, key=lambda s: s.unit)


def together(chains: Sequence[Chain], shares: Sequence[Share]) -> list[tuple[int, int, float]]:
    """Pairs of units of different chains that are active at once: (a, b, share of a)."""
    found: list[tuple[int, int, float]] = []
    order = sorted(shares, key=lambda s: (s.start, s.unit))
    open_now: list[Share] = []
    for s in order:
        open_now = [o for o in open_now if o.stop > s.start]
        for o in open_now:
            if o.chain == s.chain:
                continue
            a, b = max(o.start, s.start), min(o.stop, s.stop)
            both = np.minimum(_part(chains, o, a, b), _part(chains, s, a, b)) > 0.5
            n = int(both.sum())
            if n:
                for x, y in ((o, s), (s, o)):
                    active = int((_part(chains, x, x.start, x.stop) > 0.5).sum())
                    found.append((x.unit, y.unit, n / max(active, 1)))
        open_now.append(s)
    return found


def _part(chains: Sequence[Chain], share: Share, a: int, b: int) -> Floats:
    chain = chains[share.chain]
    return chain.trace[a - chain.start : b - chain.start]


def vote_speakers(
    chains: Sequence[Chain], shares: Sequence[Share], labels: Ints, speakers: int, total: int
) -> Floats:
    """(total, speakers): activity of each speaker, from chains whose units have labels."""
    votes = np.zeros((total, speakers), np.float32)
    for s in shares:
        g = labels[s.unit]
        votes[s.start : s.stop, g] = np.maximum(
            votes[s.start : s.stop, g], _part(chains, s, s.start, s.stop)
        )
    return votes
