"""The null test: two recordings compared sample by sample, outside the slots that may differ."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from podtool.audio import AudioSource
from podtool.errors import InputError
from podtool.segments import Span

BLOCK_S = 10.0
Samples = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class SlotDifference:
    """How far the result is from the original in one slot."""

    start: float
    end: float
    max_abs: float
    rms_db: float


@dataclass(frozen=True, slots=True)
class NullTest:
    """Largest difference outside the slots, where it is, and the differences inside."""

    outside_max: float
    outside_at_s: float | None
    slots: tuple[SlotDifference, ...]
    same_length: bool

    @property
    def passed(self) -> bool:
        """Not one sample outside the slots differs."""
        return self.same_length and self.outside_max == 0.0


class NullMeter:
    """Compares blocks of two recordings; `slots` are spans of seconds that may differ."""

    def __init__(self, rate: int, channels: int, slots: Sequence[Span]) -> None:
        self._rate, self._channels, self._slots = rate, channels, slots
        self._edges = [(round(s[0] * rate), round(s[1] * rate)) for s in slots]
        self._peaks, self._energies = [0.0] * len(slots), [0.0] * len(slots)
        self._outside_max: float = 0.0
        self._outside_at: float | None = None

    def push(self, start: int, original: Samples, result: Samples) -> None:
        """Blocks of one shape (channels, frames) that begin at frame `start`."""
        difference = np.abs(result.astype(np.float64) - original)
        outside = difference.max(axis=0)
        stop = start + len(outside)
        for k, (first, last) in enumerate(self._edges):
            if first >= stop or last <= start:
                continue
            here = slice(max(0, first - start), min(last, stop) - start)
            part = difference[:, here]
            self._peaks[k] = max(self._peaks[k], float(part.max()))
            self._energies[k] += float(np.sum(part**2))
            outside[here] = 0.0
        worst = int(outside.argmax())
        if outside[worst] > self._outside_max:
            self._outside_max = float(outside[worst])
            self._outside_at = (start + worst) / self._rate

    def finish(self, same_length: bool = True) -> NullTest:
        """The numbers of all that was pushed."""
        found = zip(self._slots, self._peaks, self._energies, self._edges, strict=True)
        return NullTest(
            self._outside_max,
            self._outside_at,
            tuple(
                SlotDifference(s[0], s[1], peak, _db(energy, (last - first) * self._channels))
                for s, peak, energy, (first, last) in found
            ),
            same_length,
        )


def null_test(
    original: AudioSource, result: AudioSource, slots: Sequence[Span], block_s: float = BLOCK_S
) -> NullTest:
    """Compare two recordings sample by sample outside of `slots` (seconds), and within each.

    Raises InputError where rate or channels differ: then there is nothing to compare.
    """
    rate, channels = original.sample_rate, original.channels
    if (result.sample_rate, result.channels) != (rate, channels):
        raise InputError(
            f"the result has {result.channels} channels at {result.sample_rate} Hz, "
            f"the original {channels} at {rate} Hz: they cannot be compared"
        )
    meter = NullMeter(rate, channels, slots)
    frames = min(original.frames, result.frames)
    size = max(1, round(block_s * rate))
    for start in range(0, frames, size):
        stop = min(start + size, frames)
        a, b = original.read(start, stop), result.read(start, stop)
        meter.push(start, a.samples, b.samples)
    return meter.finish(original.frames == result.frames)


def _db(energy: float, count: int) -> float:
    mean = energy / max(1, count)
    return 10 * math.log10(mean) if mean > 1e-12 else -120.0
