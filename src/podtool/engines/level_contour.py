"""What was said in another voice, as loud and as long as the source, moment by moment."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from podtool.audio import Audio
from podtool.engines.world_frames import smooth
from podtool.resample import resample

Samples = NDArray[np.float32]
GAIN_LIMIT = 10 ** (12 / 20)  # beside that of the whole


def levelled(said: Samples, source: Samples, rate: int) -> Samples:
    """(n,) at the source's level, over 50 ms: silence stays silent."""
    size = rate // 100
    count = -(-len(source) // size)

    def contour(x: Samples) -> NDArray[np.float64]:
        whole = np.zeros(count * size)
        whole[: len(x)] = x
        power = np.square(whole).reshape(count, size).mean(axis=1)
        return np.sqrt(smooth(power[:, None], min(5, 2 * count - 1))[:, 0])

    wanted, have = contour(source), contour(said)
    whole = np.sqrt(np.square(wanted).sum() / max(1e-12, np.square(have).sum()))
    gain = np.clip(wanted / np.maximum(have, 1e-6), 0.0, whole * GAIN_LIMIT)
    at = (np.arange(len(said)) + 0.5) / size - 0.5
    return np.asarray(said * np.interp(at, np.arange(count), gain), np.float32)


def as_long_as(said: Samples, rate: int, like: Audio) -> Samples:
    """(n,) at `rate` -> as many samples as `like` has, at its rate."""
    out = resample(Audio(said[None, :], rate), like.sample_rate).samples[0][: like.frames]
    return np.pad(out, (0, like.frames - len(out)))
