"""People who talk at once, apart, as they talk: a causal separator that runs while there is need.

It is started a little before an overlap, where somebody usually talks alone, and hears on while
the overlap lasts. Which output is whose follows from when each chain is active.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import permutations
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from podtool.live.scene import Ring

Samples = NDArray[np.float32]
RATE = 16000
LEAD = 3 * RATE // 2  # heard before an overlap
REST = 3 * RATE // 2  # without overlap, after which the separator is let go
REACH = 4 * RATE  # of the past by which outputs are given to chains
AHEAD = 1024  # samples behind a region that are heard, so that it is complete
KEPT = 0.15  # share of the evidence by which another order has to be better


class Stream(Protocol):
    """A causal separator, block by block; see `TalkerStream`."""

    count: int

    def push(self, block: Samples) -> Samples: ...


class Parting:
    """`voices` for one region after the other, in order of time."""

    def __init__(self, audio: Ring, start: Callable[[int], Stream], most: int = 3) -> None:
        """`start` makes a stream for so many talkers; `audio` is at 16 kHz."""
        self._audio, self._start, self.most = audio, start, most
        self._stream: Stream | None = None
        self._begin = 0  # sample that the outputs begin with
        self._heard = 0  # sample up to which the stream was fed
        self._outputs = np.zeros((most, 0), np.float32)
        self._plan: list[tuple[int, int, tuple[int, ...]]] = []  # who talked when, samples
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
        count = self._stream.count
        scores = np.zeros((count, len(chains)))
        for first, last, who in self._plan:
            first, last = max(first, self._begin, stop - REACH), min(last, stop)
            if last - first < RATE // 100 or not who:
                continue
            here = self._outputs[:count, first - self._begin : last - self._begin]
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
            if chain in self._seats and self._seats[chain] < count:
                scores[self._seats[chain], k] += KEPT
        columns = np.arange(len(chains))
        best = max(
            permutations(range(count), len(chains)),
            key=lambda order: float(scores[list(order), columns].sum()),
        )
        self._seats |= dict(zip(chains, best, strict=True))
