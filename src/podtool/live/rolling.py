"""Segmentation as audio comes in: a window that rolls, and the vote of all windows on each frame.

Window after window is heard a fraction of a second apart. Its local speakers are linked with those
of the window before (chains), and each frame's activity is the mean over the windows that saw it,
as in offline diarization; what was said a moment ago has been seen by few, and by their ends.
"""

from __future__ import annotations

from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from podtool.audio import Audio
from podtool.engines.protocols import SegmentationEngine
from podtool.engines.segmentation_pyannote import CLASSES, LOCAL_SPEAKERS, RATE

Floats = NDArray[np.float32]
WINDOW_FRAMES = 592  # of a whole window, in steps: just under 10 s
_KEEP = 3000  # frames whose votes are kept, 50 s
_ORDERS = np.array(list(permutations(range(LOCAL_SPEAKERS))))
_MEMBERS = np.array([[s in c for s in range(LOCAL_SPEAKERS)] for c in CLASSES], np.float32)


class Rolling:
    """Votes on the last frames. Frames are numbered from the start of the recording."""

    def __init__(self, engine: SegmentationEngine, agreement: float = 0.6) -> None:
        self._engine, self._agreement = engine, agreement
        self._base = 0  # the first frame whose votes are kept
        self.end = 0  # frames heard so far
        self._weight = np.zeros(_KEEP, np.float32)
        self._many = np.zeros((_KEEP, 3), np.float32)
        self._sums: dict[int, Floats] = {}
        self._before: tuple[int, Floats, list[int]] | None = None  # first frame, activity, chains
        self._free = 0

    def hear(self, samples: NDArray[np.float32], first: int) -> None:
        """A window of 16 kHz samples (n,) that begins with frame `first`."""
        classes = self._engine.activity(Audio(samples[None], RATE))
        local = classes @ _MEMBERS
        chains = self._linked(first, local)
        self._room_for(first + len(classes))
        here = slice(first - self._base, first - self._base + len(classes))
        trust = np.hamming(len(classes)).astype(np.float32)
        many = np.stack([classes[:, 0], classes[:, 1:4].sum(1), classes[:, 4:].sum(1)], 1)
        self._weight[here] += trust
        self._many[here] += many * trust[:, None]
        for place, chain in enumerate(chains):
            if chain not in self._sums:
                self._sums[chain] = np.zeros(_KEEP, np.float32)
            self._sums[chain][here] += local[:, place] * trust
        self.end = max(self.end, first + len(classes))
        self._before = first, local, chains

    def forget(self) -> None:
        """What comes next has nothing to do with what was: chains end here."""
        self._before = None

    def chains(self, start: int, stop: int) -> list[int]:
        """The chains that are active anywhere in frames [start, stop), most active first."""
        sums = {c: float(self.trace(c, start, stop).sum()) for c in self._sums}
        active = [c for c in sums if self.trace(c, start, stop).max(initial=0.0) > 0.3]
        return sorted(active, key=lambda c: (-sums[c], c))

    def trace(self, chain: int, start: int, stop: int) -> Floats:
        """(stop - start,): the activity of a chain, zero where nothing is kept."""
        return self._mean(self._sums[chain], start, stop)

    def how_many(self, start: int, stop: int) -> Floats:
        """(stop - start, 3): probability of nobody, one, two; nobody where nothing is kept."""
        found = np.stack([self._mean(self._many[:, k], start, stop) for k in range(3)], 1)
        found[found.sum(1) == 0, 0] = 1
        return found

    def _mean(self, sums: Floats, start: int, stop: int) -> Floats:
        out = np.zeros(stop - start, np.float32)
        a, b = max(start, self._base), min(stop, self.end)
        if b > a:
            here = slice(a - self._base, b - self._base)
            out[a - start : b - start] = sums[here] / np.maximum(self._weight[here], 1e-6)
        return out

    def _linked(self, first: int, local: Floats) -> list[int]:
        """A chain for each local speaker: the one of the window before that was active with it."""
        chains = [-1] * LOCAL_SPEAKERS
        if self._before is not None:
            start, before, known = self._before
            a = before[first - start :]
            n = min(len(a), len(local))
            a, b = a[:n], local[:n]
            common = a.T @ b
            size = (a * a).sum(0)[:, None] + (b * b).sum(0)[None, :]
            dice = 2 * common / np.maximum(size, 1e-6)
            rows = np.arange(LOCAL_SPEAKERS)
            order = _ORDERS[np.argmax([common[rows, o].sum() for o in _ORDERS])]
            for s, t in enumerate(order):
                if dice[s, t] >= self._agreement and common[s, t] >= 6.0:
                    chains[t] = known[s]
        for t, chain in enumerate(chains):
            if chain < 0:
                chains[t] = self._free
                self._free += 1
        return chains

    def _room_for(self, end: int) -> None:
        if end - self._base <= _KEEP:
            return
        by = max(end - self._base - _KEEP, _KEEP // 3)
        for kept in (self._weight, self._many, *self._sums.values()):
            kept[:-by] = kept[by:].copy()
            kept[-by:] = 0
        self._base += by
        now = set(self._before[2]) if self._before else set()
        self._sums = {c: s for c, s in self._sums.items() if c in now or s.any()}
