"""People who talk at once, apart, as they talk: a causal separator that runs while there is need.

It is started a little before an overlap, where somebody usually talks alone, and hears on while
the overlap lasts. Which output is whose follows from when each chain is active. For the last word
overlaps are taken apart once more (`again`), by a separator that hears what follows, and by who is
found to talk when by then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import permutations
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from podtool.engines.beam_search import Work
from podtool.live.scene import Ring

Samples = NDArray[np.float32]
RATE = 16000
LEAD = 3 * RATE // 2  # heard before an overlap
REST = 3 * RATE // 2  # without overlap, after which the separator is let go
REACH = 4 * RATE  # of the past by which outputs are given to chains
AHEAD = 1024  # samples behind a region that are heard, so that it is complete
CONTEXT = RATE  # around overlaps that are taken apart again
GAP = RATE  # between overlaps that are taken apart together
LONGEST = 5 * RATE
CAREFUL_MS = 100.0  # a second of audio
KEPT = 0.15  # share of the evidence by which another order has to be better


class Stream(Protocol):
    """A causal separator, block by block; see `TalkerStream`."""

    count: int

    def push(self, block: Samples) -> Samples: ...


Talk = tuple[int, int, tuple[int, ...]]  # from sample to sample, the chains that talk
Careful = Callable[[Samples, int], Samples]  # (n,) and how many talk -> (count, n)


class Parting:
    """`voices` for one region after the other, in order of time."""

    def __init__(
        self,
        audio: Ring,
        start: Callable[[int], Stream],
        careful: Careful | None = None,
        most: int = 3,
    ) -> None:
        """`start` makes a stream for so many talkers; `audio` is at 16 kHz."""
        self._audio, self._start, self._careful, self.most = audio, start, careful, most
        self._stream: Stream | None = None
        self._begin = 0  # sample that the outputs begin with
        self._heard = 0  # sample up to which the stream was fed
        self._outputs = np.zeros((most, 0), np.float32)
        self._plan: list[Talk] = []
        self._seats: dict[int, int] = {}
        self._last = 0  # end of the last overlap

    def told(self, start: int, stop: int, chains: tuple[int, ...]) -> None:
        """Who talks in samples [start, stop): of every region, before `voices` is asked for it."""
        self._plan.append((start, stop, chains))
        while self._plan and self._plan[0][1] < stop - REACH - LEAD:
            self._plan.pop(0)
        if self._stream is not None and stop - self._last > REST:
            self._stream, self._seats = None, {}

    def voices(self, start: int, stop: int, chains: Sequence[int]) -> dict[int, Samples]:
        """(stop - start,) of each of the chains that overlap in samples [start, stop)."""
        chains = list(chains)[: self.most]
        count = max(2, len(chains))
        if self._stream is None or count != self._stream.count:
            # Told of three, it hears two worse; outputs have no places in which they could stay.
            self._stream, self._seats = self._start(count), {}
            self._begin = self._heard = max(0, start - LEAD)
            self._outputs = np.zeros((self.most, 0), np.float32)
        self._feed(min(self._audio.end, stop + AHEAD))
        self._last = stop
        self._seat(stop, chains)
        here = slice(start - self._begin, stop - self._begin)
        found = {}
        for chain in chains:
            voice = self._outputs[self._seats[chain], here]
            found[chain] = np.pad(voice, (0, stop - start - len(voice)))
        return found

    def after(self, chain: int, start: int, frames: int) -> Samples | None:
        """What the separator has of a chain from `start` on, to fade out of it."""
        if self._stream is None or chain not in self._seats:
            return None
        here = self._outputs[self._seats[chain], start - self._begin :][:frames]
        return here if len(here) == frames else None

    def _feed(self, stop: int) -> None:
        assert self._stream is not None
        if stop > self._heard:
            new = self._stream.push(self._audio.read(self._heard, stop))
            self._outputs = np.concatenate([self._outputs, new[: self.most]], axis=1)
            self._heard = stop
        surplus = self._outputs.shape[1] - (REACH + LEAD)
        if surplus > 0:
            self._outputs = self._outputs[:, surplus:]
            self._begin += surplus

    def _seat(self, stop: int, chains: Sequence[int]) -> None:
        """An output for each chain: the best order by when each was active, old seats preferred."""
        assert self._stream is not None
        outputs = self._outputs[: self._stream.count]
        past = [(max(a, stop - REACH), min(b, stop), who) for a, b, who in self._plan]
        self._seats |= seats(outputs, self._begin, past, chains, self._seats)

    def again(self, talk: Sequence[Talk], chain: int, start: int, stop: int) -> Work[Samples]:
        """What a chain says in samples [start, stop), in pieces; `talk` reaches further.

        The recording where it talks alone or nobody does, nothing where others do, its voice where
        several do. As it was, (0,), where there is no careful separator.
        """
        if self._careful is None:
            return np.zeros(0, np.float32)
        mixture = self._audio.read(start, stop)
        apart = np.zeros_like(mixture)
        alone = np.zeros(stop - start, np.float32)
        several = np.zeros(stop - start, np.float32)
        crowd: list[list[Talk]] = []
        for a, b, who in talk:
            if b <= start or a >= stop:
                continue
            here = slice(max(a - start, 0), b - start)
            if not who or who == (chain,):
                alone[here] = 1
            elif chain in who:
                several[here] = 1
                if crowd and a - crowd[-1][-1][1] < GAP and b - crowd[-1][0][0] < LONGEST:
                    crowd[-1].append((a, b, who))
                else:
                    crowd.append([(a, b, who)])
        for group in crowd:
            first = max(0, group[0][0] - CONTEXT)
            last = min(self._audio.end, group[-1][1] + CONTEXT)
            seconds = Counter[int]()
            for a, b, who in group:
                seconds.update({c: b - a for c in who if c != chain})
            # In the same order whoever asks, so that no two are given the same output.
            chains = sorted([chain, *(c for c, _ in seconds.most_common(self.most - 1))])
            outputs = self._careful(self._audio.read(first, last), len(chains))
            yield CAREFUL_MS * (last - first) / RATE
            near = [(max(a, first), min(b, last), who) for a, b, who in talk]
            voice = outputs[seats(outputs, first, near, chains, {})[chain]]
            low, high = max(first, start), min(last, stop)
            apart[low - start : high - start] = voice[low - first : high - first]
            for a, b, who in talk:
                if who and chain not in who and a >= group[0][0] and b <= group[-1][1]:
                    several[max(a - start, 0) : b - start] = 1
        return _smooth(alone) * mixture + _smooth(several) * apart


def seats(
    outputs: Samples,
    begin: int,
    talk: Sequence[Talk],
    chains: Sequence[int],
    before: Mapping[int, int],
) -> dict[int, int]:
    """An output (count, n), from sample `begin` on, for each chain, by when each talks alone."""
    count = len(outputs)
    scores = np.zeros((count, len(chains)))
    for first, last, who in talk:
        first = max(first, begin)
        if last - first < RATE // 100 or not who:
            continue
        here = outputs[:, first - begin : last - begin]
        power = np.square(here, dtype=np.float64).sum(axis=1)
        if power.sum() <= 1e-9 * here.shape[1]:
            continue
        share = (last - first) / RATE * power / power.sum()
        for k, chain in enumerate(chains):
            if who == (chain,):
                scores[:, k] += share
            elif len(who) == 1:
                scores[:, k] -= share
    for k, chain in enumerate(chains):
        if chain in before and before[chain] < count:
            scores[before[chain], k] += KEPT
    columns = np.arange(len(chains))
    best = max(
        permutations(range(count), len(chains)),
        key=lambda order: float(scores[list(order), columns].sum()),
    )
    return dict(zip(chains, best, strict=True))


def _smooth(gate: Samples) -> Samples:
    """0 and 1 with ramps of 10 ms."""
    width = RATE // 100
    padded = np.pad(gate, (width // 2, width - 1 - width // 2), mode="edge")
    return np.convolve(padded, np.full(width, 1 / width, np.float32), "valid").astype(np.float32)
