"""What a separator of talkers gives, as loud as it was in the mixture.

Separators trained on SI-SDR answer at any level: it costs them nothing. A stem has to be as loud as
the voice was in the recording, so that what the stems leave of it is the rest and nothing else.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]


def at_their_levels(outputs: Samples, mixture: Samples, count: int) -> Samples:
    """(k, n) outputs of any level and the (n,) mixture -> the (count, n) loudest of them.

    The gains are those, none of them negative, with which the outputs explain the mixture best.
    Outputs beyond `count` hold what is nobody's voice. Raises ValueError where k is below `count`.
    """
    from scipy.optimize import nnls

    if not 1 <= count <= len(outputs):
        raise ValueError(f"{count} talkers: 1 to {len(outputs)} can be told apart")
    wave = outputs.astype(np.float64)
    size = np.sqrt(np.sum(wave**2, axis=1, keepdims=True))
    heard = np.divide(wave, size, out=np.zeros_like(wave), where=size > 0)
    if not heard.any() or not mixture.any():
        return np.zeros((count, outputs.shape[1]), np.float32)
    gains, _ = nnls(heard.T, mixture.astype(np.float64))
    loudest = np.sort(np.argsort(-gains, kind="stable")[:count])
    return np.asarray(gains[loudest, None] * heard[loudest], np.float32)
