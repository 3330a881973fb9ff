"""From blocks of a source to what pipelines hear: a choice of channels, 16 kHz, a fixed grid."""

from __future__ import annotations

from typing import Any

import numpy as np

from podtool.live.sources import channels
from podtool.live.status import Block, Samples

RATE = 16000
GRID_S = 0.02  # the resampler gets pieces of one length, however the audio comes
BLEED_DB = 10.0  # a microphone hears the other's person so much weaker, or not at all


class Intake:
    """`push` blocks, get (pipelines, n) samples: one row, or with 'apart' one for each channel."""

    def __init__(self, sample_rate: int, count: int, choice: str | int) -> None:
        """`count`: channels of the source. Raises InputError for a channel that is not there."""
        probe = channels(Block(np.zeros((count, 1), np.float32)), choice)
        self.rows = len(probe.samples)
        self._choice, self._rate = choice, sample_rate
        self._grid = max(1, round(GRID_S * sample_rate))
        self._left = np.zeros((self.rows, 0), np.float32)
        self._resampler = self._new()
        self._levels = np.zeros(self.rows)

    def push(self, block: Block) -> Samples:
        """The samples that are complete by now."""
        chosen = channels(block, self._choice).samples
        self._left = np.concatenate([self._left, chosen], axis=1)
        whole = self._left.shape[1] // self._grid * self._grid
        pieces = [self._left[:, k : k + self._grid] for k in range(0, whole, self._grid)]
        self._left = self._left[:, whole:]
        return self._joined([self._resampled(self._alone(p), False) for p in pieces])

    def flush(self) -> Samples:
        """What is left at the end, or before a gap."""
        rest, self._left = self._left, np.zeros((self.rows, 0), np.float32)
        found = self._resampled(self._alone(rest), True)
        self._resampler = self._new()
        return found

    def _alone(self, piece: Samples) -> Samples:
        """Each person's channel without what it hears of the others."""
        if self.rows < 2 or piece.shape[1] == 0:
            return piece
        power = np.square(piece, dtype=np.float64).mean(axis=1)
        self._levels = np.maximum(power, self._levels * 0.9)  # holds for some tenths of a second
        loudest = self._levels.max()
        quiet = self._levels < loudest * 10 ** (-BLEED_DB / 10)
        return np.where(quiet[:, None], np.float32(0), piece)

    def _resampled(self, piece: Samples, last: bool) -> Samples:
        if self._resampler is None:
            return piece
        out = self._resampler.resample_chunk(np.ascontiguousarray(piece.T), last=last)
        return np.asarray(out, np.float32).reshape(-1, self.rows).T

    def _new(self) -> Any:
        """A resampler with nothing in it, None where none is needed."""
        import soxr

        if self._rate == RATE:
            return None
        return soxr.ResampleStream(self._rate, RATE, self.rows, dtype="float32")

    def _joined(self, pieces: list[Samples]) -> Samples:
        if not pieces:
            return np.zeros((self.rows, 0), np.float32)
        return np.concatenate(pieces, axis=1)
