"""A complete engine for podtool: voices stand in the middle of a stereo mix, music spreads out.

An engine is a class with an `info`, a `load`, and the method of its stage; here `separate`. It sees
one window of audio at the rate and with the channels that it asks for. Whatever it imports beyond
numpy and podtool, it imports in `load`, so that `podtool engines` can list it where its backend is
not installed.
"""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from podtool.audio import Audio
from podtool.engines.protocols import EngineContext, EngineInfo

FRAME, HOP = 2048, 512


class Centre:
    """What both channels agree on, bin by bin, is speech."""

    stems = ("speech",)
    info: ClassVar[EngineInfo] = EngineInfo(
        name="centre",
        stage="separation",
        version="1",  # raise it when the output changes: results are remembered by it
        licence="MIT",
        tier="standard",  # not "embedded": it gets a process of its own
        sample_rate=0,  # any
        channels=2,
        window_s=30.0,
    )

    def __init__(self, sharpness: float) -> None:
        self._sharpness = sharpness

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        """The option `sharpness`; weights would come from `context.model(id)`."""
        return cls(float((context.options or {}).get("sharpness", 4.0)))

    def separate(self, audio: Audio) -> dict[str, Audio]:
        """(2, n) of any rate -> the speech in it, of the same shape."""
        left, right = (_spectrum(channel) for channel in audio.samples)
        shared = _spread((left * right.conj()).real)
        power = _spread(np.abs(left) ** 2 + np.abs(right) ** 2)
        mask = np.clip(2 * shared / (power + 1e-12), 0.0, 1.0) ** self._sharpness
        middle = _signal(mask * (left + right) / 2, audio.frames)
        return {"speech": Audio(np.stack([middle, middle]), audio.sample_rate)}


def _window() -> NDArray[np.float64]:
    return np.sqrt(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FRAME) / FRAME))


def _spectrum(samples: NDArray[np.float32]) -> NDArray[np.complex128]:
    """(n,) -> (frames, bins)."""
    padded = np.pad(samples.astype(np.float64), (FRAME, 2 * FRAME))
    frames = np.lib.stride_tricks.sliding_window_view(padded, FRAME)[::HOP]
    return np.fft.rfft(frames * _window(), axis=1)


def _signal(spectrum: NDArray[np.complex128], length: int) -> NDArray[np.float32]:
    """(frames, bins) -> (length,), by overlap-add."""
    frames = np.fft.irfft(spectrum, FRAME, axis=1) * _window() / (FRAME / HOP / 2)
    out = np.zeros(HOP * len(frames) + FRAME)
    for k, frame in enumerate(frames):
        out[k * HOP : k * HOP + FRAME] += frame
    return out[FRAME : FRAME + length].astype(np.float32)


def _spread(values: NDArray[np.float64], reach: int = 2) -> NDArray[np.float64]:
    """The sum over neighbouring frames and bins: one bin alone always agrees with itself."""
    for axis in (0, 1):
        width = [(reach, reach) if a == axis else (0, 0) for a in (0, 1)]
        padded = np.pad(values, width)
        view = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1, axis=axis)
        values = view.sum(axis=-1)
    return values
