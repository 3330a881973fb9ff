"""Streams whose outputs swap places are routed back by their voices."""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
import pytest
from numpy.typing import NDArray

from podtool.audio import Audio
from podtool.engines.protocols import EngineContext, EngineInfo
from podtool.stages.steady import RATE, SteadyTalkers

Samples = NDArray[np.float32]


class Pitch:
    """An embedding that tells voices of sine tones by their frequency."""

    dim = 64
    info: ClassVar[EngineInfo] = EngineInfo("pitch", "embedding", "1", "MIT", "embedded", RATE)

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        return cls()

    def embed(self, audio: Audio) -> NDArray[np.float32]:
        size = len(audio.samples[0]) // 1000 * 1000
        spectrum = np.abs(np.fft.rfft(audio.samples[0][:size].reshape(-1, 1000), axis=1)).mean(0)
        vector = spectrum[:64] + 1e-3
        return np.asarray(vector / np.linalg.norm(vector), np.float32)


class Swapping:
    """Two tones on two outputs which change places at `swap_s`."""

    def __init__(self, swap_s: float) -> None:
        self.count, self.at, self.swap = 2, 0, round(swap_s * RATE)

    def push(self, block: Samples) -> Samples:
        t = (self.at + np.arange(len(block))) / RATE
        self.at += len(block)
        first, second = (0.1 * np.sin(2 * np.pi * f * t) for f in (200, 480))
        # They take turns in being louder, so that both are heard alone.
        turn = np.floor(t * 2) % 2
        tones = np.stack([first * (0.2 + turn), second * (1.2 - turn), 0 * first])
        swapped = t * RATE >= self.swap
        tones[:2, swapped] = tones[1::-1, swapped]
        return tones.astype(np.float32)

    def flush(self) -> Samples:
        return np.zeros((3, 0), np.float32)


def run(swap_s: float, seconds: float = 20.0) -> Samples:
    steady = SteadyTalkers(Swapping(swap_s), Pitch())
    silence = np.zeros(RATE // 10, np.float32)
    pieces = [steady.push(silence) for _ in range(round(seconds * 10))]
    return np.concatenate([*pieces, steady.flush()], axis=1)


def pitch(samples: Samples) -> float:
    """Of the strongest tone, in Hz."""
    return float(np.abs(np.fft.rfft(samples)).argmax() * RATE / len(samples))


@pytest.mark.parametrize("swap_s", [6.0, 10.3])
def test_swapped_outputs_are_routed_back(swap_s: float) -> None:
    found = run(swap_s)
    early, late = found[:, : 4 * RATE], found[:, -4 * RATE :]
    for place, hertz in ((0, 200), (1, 480)):
        assert pitch(early[place]) == pytest.approx(hertz, abs=2)
        assert pitch(late[place]) == pytest.approx(hertz, abs=2)


def test_a_steady_stream_is_left_alone() -> None:
    plain = Swapping(1e9).push(np.zeros(20 * RATE, np.float32))
    np.testing.assert_array_equal(run(1e9), plain)


def test_silence_decides_nothing() -> None:
    class Silent(Swapping):
        def push(self, block: Samples) -> Samples:
            return np.zeros((3, len(block)), np.float32)

    steady = SteadyTalkers(Silent(0), Pitch())
    for _ in range(100):
        steady.push(np.zeros(1600, np.float32))
    assert steady.route == [0, 1, 2]
    assert not steady.voices
