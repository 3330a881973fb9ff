"""Laws of the separation stage: stems sum to the mixture, nothing depends on the reading."""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from podtool.audio import Audio
from podtool.engines.protocols import EngineContext, EngineInfo
from podtool.engines.separation_spectral import Spectral
from podtool.errors import EngineFailure
from podtool.segments import Span
from podtool.stages.separate import SeparateParams, StemBlock, StemSummary, on_grid, separate, split

Samples = NDArray[np.float32]


class Half:
    """An engine of its own rate, mono, in short windows, that calls half of everything speech."""

    info: ClassVar[EngineInfo] = EngineInfo(
        name="half", stage="separation", version="1", licence="MIT", tier="embedded",
        sample_rate=16000, channels=1, window_s=0.5,
    )  # fmt: skip
    stems: tuple[str, ...] = ("speech",)

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        return cls()

    def separate(self, audio: Audio) -> dict[str, Audio]:
        assert audio.sample_rate == 16000 and audio.channels == 1
        return {"speech": Audio(audio.samples * np.float32(0.5), 16000)}


def stems(
    source: Audio, engine: object, spans: list[Span] | None, **more: object
) -> tuple[Samples, Samples]:
    found = list(separate(source, engine, spans, **more))  # type: ignore[arg-type]
    assert [b.start for b in found] == list(np.cumsum([0] + [b.speech.frames for b in found])[:-1])
    return (
        np.concatenate([b.speech.samples for b in found], axis=1),
        np.concatenate([b.background.samples for b in found], axis=1),
    )


def pcm(frames: int, channels: int, bits: int, seed: int) -> Samples:
    rng = np.random.default_rng(seed)
    scale = 2.0 ** (bits - 1)
    return (np.rint(rng.uniform(-1, 1, (channels, frames)) * (scale - 1)) / scale).astype(
        np.float32
    )


@given(
    arrays(np.float32, st.integers(1, 50), elements=st.floats(-4, 4, width=32)),
    st.floats(-3, 3, width=32),
    st.floats(0, 3, width=32),
)
def test_stems_of_any_estimate_sum_to_the_bit(mixture: Samples, offset: float, gain: float) -> None:
    mixture = on_grid(mixture[None])
    speech, background = split(mixture, mixture * np.float32(gain) + np.float32(offset))
    assert ((speech + background) == mixture).all()


@pytest.mark.parametrize("bits", [8, 16, 24])
def test_pcm_lies_on_the_grid_already(bits: int) -> None:
    samples = pcm(10000, 2, bits, 1)
    assert (on_grid(samples) == samples).all()


@settings(max_examples=15, deadline=None)
@given(
    st.integers(2, 60000), st.integers(1, 3), st.sampled_from([8000, 16000, 44100]),
    st.sampled_from([16, 24]), st.booleans(),
)  # fmt: skip
def test_stems_of_a_recording_sum_to_it(
    frames: int, channels: int, rate: int, bits: int, own_rate: bool
) -> None:
    source = Audio(pcm(frames, channels, bits, frames), rate)
    spans = [Span(0.1, 0.5), Span(0.7, 2.0)]
    engine = Half() if own_rate else Spectral()
    speech, background = stems(source, engine, spans)
    assert ((speech + background) == source.samples).all()
    assert (on_grid(speech) == speech).all()


class Jerky:
    """A source that counts how it is read."""

    def __init__(self, audio: Audio) -> None:
        self.audio, self.longest = audio, 0
        self.sample_rate, self.channels, self.frames = (
            audio.sample_rate,
            audio.channels,
            audio.frames,
        )

    def read(self, start: int = 0, stop: int | None = None) -> Audio:
        block = self.audio.read(start, stop)
        self.longest = max(self.longest, block.frames)
        return block


def test_memory_is_a_window_and_workers_change_nothing() -> None:
    source = Jerky(Audio(pcm(16000 * 6, 2, 16, 3), 16000))
    one = stems(source, Half(), None, params=SeparateParams(overlap_s=0.1), workers=1)  # type: ignore[arg-type]
    two = stems(source.audio, Half(), None, params=SeparateParams(overlap_s=0.1), workers=3)
    assert source.longest <= 8000
    assert (one[0] == two[0]).all()


def test_nobody_speaks_where_the_spans_say_so() -> None:
    source = Audio(pcm(32000, 2, 16, 4) * np.float32(0.1), 16000)
    speech, _ = stems(source, Spectral(), [Span(0.8, 1.0)])
    assert not speech[:, : int(0.5 * 16000)].any() and not speech[:, int(1.3 * 16000) :].any()
    assert not stems(source, Spectral(), [])[0].any()


def test_summary_says_the_energies_and_the_sum_error() -> None:
    source = Audio(pcm(16000, 1, 16, 4), 16000)
    summary = StemSummary()
    for block in separate(source, Half(), None):
        summary.add(block)
    assert summary.frames == 16000 and summary.sum_error == 0.0
    assert summary.speech_share == pytest.approx(0.5, abs=0.05)


def test_a_float_mixture_is_met_to_half_a_step_of_the_grid_and_told() -> None:
    samples = (0.01 * np.random.default_rng(2).standard_normal((2, 20000))).astype(np.float32)
    speech, background = split(samples, samples + np.float32(0.3))  # stems far above the mixture
    summary = StemSummary()
    parts = (Audio(x, 16000) for x in (samples, speech, background))
    summary.add(StemBlock(0, *parts))
    assert 0 < summary.sum_error <= 2**-24
    silent = list(separate(Audio(samples, 16000), Half(), []))
    assert all((b.background.samples == b.mixture.samples).all() for b in silent)


def test_an_engine_that_breaks_its_contract_is_a_failure() -> None:
    class Short(Half):
        def separate(self, audio: Audio) -> dict[str, Audio]:
            return {"speech": Audio(audio.samples[:, 1:], 16000)}

    class Broken(Half):
        def separate(self, audio: Audio) -> dict[str, Audio]:
            raise RuntimeError("out of memory")

    source = Audio(pcm(16000, 1, 16, 4), 16000)
    for engine in (Short(), Broken()):
        with pytest.raises(EngineFailure):
            stems(source, engine, None)
