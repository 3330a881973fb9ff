"""Whether something other than voices is in a recording: the level of what nobody speaks over."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from podtool.audio import AudioSource, blocks
from podtool.segments import Span, dilate

FRAME_S = 0.05
GUARD_S = 0.25  # around turns: breaths and reverberation are the speaker's
QUIET_DB = 38.0  # a background this far below the speech is left in the mixture
INAUDIBLE_DBFS = -72.0
ENOUGH_S = 1.0  # of pauses; with less, the quietest moments stand for the background
SILENT_DB = -120.0


@dataclass(frozen=True, slots=True)
class Bed:
    """Levels in dBFS: of speech, and of what is heard when nobody speaks."""

    speech_db: float
    background_db: float
    pauses_s: float

    @property
    def below_db(self) -> float:
        """How far the background lies under the speech."""
        return self.speech_db - self.background_db

    @property
    def present(self) -> bool:
        """Whether it is worth separating."""
        return self.background_db > INAUDIBLE_DBFS and self.below_db < QUIET_DB


def measure_bed(audio: AudioSource, speech: Sequence[Span]) -> Bed:
    """Mean level of speech, and the level that the background reaches half of the time."""
    rate = audio.sample_rate
    size = max(1, round(FRAME_S * rate))
    levels: list[np.ndarray] = []
    left = np.zeros((audio.channels, 0), np.float32)
    for _, block in blocks(audio):
        samples = np.concatenate([left, block.samples], axis=1)
        whole = samples.shape[1] // size * size
        framed = samples[:, :whole].reshape(audio.channels, -1, size)
        levels.append(np.mean(np.square(framed, dtype=np.float64), axis=(0, 2)))
        left = samples[:, whole:]
    power = np.concatenate(levels) if levels else np.zeros(0)
    if not len(power):
        return Bed(SILENT_DB, SILENT_DB, 0.0)
    whole_span = Span(0.0, audio.frames / rate)
    talking = _mask(list(speech), len(power))
    near = _mask(dilate(speech, GUARD_S, whole_span), len(power))
    pauses = power[~near]
    voice = power[talking] if talking.any() else power
    if len(pauses) * FRAME_S >= ENOUGH_S:
        background = float(np.median(pauses))
    else:
        background = float(np.quantile(power, 0.03))
    loud = voice[voice >= np.quantile(voice, 0.5)]
    return Bed(_db(float(loud.mean())), _db(background), round(len(pauses) * FRAME_S, 3))


def _mask(spans: Sequence[Span], count: int) -> np.ndarray:
    mask = np.zeros(count, bool)
    for start, end in spans:
        mask[int(start / FRAME_S) : math.ceil(end / FRAME_S)] = True
    return mask


def _db(power: float) -> float:
    return round(10 * math.log10(power), 2) if power > 1e-12 else SILENT_DB
