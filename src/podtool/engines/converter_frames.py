"""What the converter's networks see of speech, in frames of 10 ms; for training and use alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from podtool.engines.world_frames import BANDS, RATE, cosines
from podtool.engines.world_profile import frame_level

FRAME_S = 0.01
STATES = 288  # values of the recogniser's encoder
CEPSTRA = 40  # of the envelope on the mel grid
SHAPE = 31  # level and 30 cepstra, the speaker's mean and spread taken out
PITCH = 4
VOICE = 4 * CEPSTRA + 1
STEP, CENTRE = 384, 447  # samples between the encoder's states, and where the first is centred
# CMU's phones; "SIL" is all that is none.
PHONES = (
    "SIL", "AA", "AE", "AH", "AO", "AW", "AY", "B", "CH", "D", "DH", "EH", "ER", "EY", "F", "G",
    "HH", "IH", "IY", "JH", "K", "L", "M", "N", "NG", "OW", "OY", "P", "R", "S", "SH", "T", "TH",
    "UH", "UW", "V", "W", "Y", "Z", "ZH",
)  # fmt: skip

Floats = NDArray[np.float32]
DCT = cosines(BANDS, CEPSTRA)
MIDDLE_F0 = float(np.log(150.0))


@dataclass(frozen=True, slots=True)
class Habits:
    """What is a speaker's rather than what is said: level (natural log power of loud frames),
    median of log F0, mean and spread (31,) of the shape in speech."""

    level: float
    log_f0: float
    mean: Floats
    spread: Floats

    @classmethod
    def of(cls, envelope: NDArray[np.floating], f0: NDArray[np.floating]) -> Habits:
        """From (n, 80) envelopes and (n,) F0 of speech frames; n may be 0."""
        if not len(f0):
            return cls(0.0, MIDDLE_F0, np.zeros(SHAPE, np.float32), np.ones(SHAPE, np.float32))
        level = float(np.percentile(frame_level(envelope), 95))
        voiced = f0[f0 > 0]
        shape = (envelope @ DCT[:SHAPE].T).astype(np.float32)
        return cls(
            level,
            float(np.median(np.log(voiced))) if len(voiced) else MIDDLE_F0,
            shape.mean(axis=0),
            shape.std(axis=0) + 1e-3,
        )


def states_at(frames: int, states: int) -> tuple[NDArray[np.int64], Floats]:
    """For each frame the number of the state before it and the share of the one after that."""
    at = (np.arange(frames) * FRAME_S * RATE - CENTRE) / STEP
    at = np.clip(at, 0, max(0, states - 1))
    left = np.minimum(at.astype(np.int64), max(0, states - 2))
    return left, (at - left).astype(np.float32)


def interpolated(states: NDArray[np.floating], frames: int) -> Floats:
    """(m, 288) states 24 ms apart -> (frames, 288)."""
    if len(states) < 2:
        return np.repeat(states[:1], frames, axis=0).astype(np.float32)
    left, share = states_at(frames, len(states))
    before, after = states[left].astype(np.float32), states[left + 1].astype(np.float32)
    return np.asarray(before + share[:, None] * (after - before))


def shape(envelope: NDArray[np.floating], habits: Habits) -> Floats:
    """(n, 80) -> (n, 31) as the content network sees it."""
    found = (envelope @ DCT[:SHAPE].T).astype(np.float32)
    return np.asarray(np.clip((found - habits.mean) / habits.spread, -5.0, 5.0), np.float32)


def cepstra(envelope: NDArray[np.floating], level: float) -> Floats:
    """(n, 80) -> (n, 40) mel-cepstra, the envelope at a loud level of 0."""
    return np.asarray((envelope - level) @ DCT.T, np.float32)


def pitch(
    f0: NDArray[np.floating], envelope: NDArray[np.floating], habits: Habits, given: Habits
) -> Floats:
    """(n, 4): voiced or not, F0 against the speaker's (`habits`) and against all, level.

    `f0` is that of the voice `given`, the envelope gives the level of the speaker.
    """
    voiced = f0 > 0
    log = np.log(np.where(voiced, f0, 1.0))
    level = frame_level(envelope) - habits.level
    return np.stack(
        [
            voiced,
            np.where(voiced, log - given.log_f0, 0.0) / 0.25,
            np.where(voiced, log - MIDDLE_F0, 0.0) / 0.4,
            np.maximum(level, -10.0) / 4.0,
        ],
        axis=1,
    ).astype(np.float32)


def voice(known: Floats, f0: NDArray[np.floating], habits: Habits) -> Floats:
    """(161,) means and spreads of (m, 40) cepstra, voiced and unvoiced, and the median of F0."""
    parts = []
    for chosen in (known[f0 > 0], known[f0 <= 0]):
        use = chosen if len(chosen) > 10 else known
        parts += [use.mean(axis=0), use.std(axis=0)]
    return np.concatenate([*parts, [(habits.log_f0 - MIDDLE_F0) / 0.4]]).astype(np.float32)
