"""Conversion: the map does what its mathematics says, and takes keep their length to the sample."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from podtool.artifacts import Turn
from podtool.audio import Audio
from podtool.engines.voice_world import VoiceMap, World, cepstral_order
from podtool.engines.world_frames import BANDS, FROM_MEL, TO_MEL, analyse, cosines, synthesise
from podtool.engines.world_mapping import (
    MappingParams,
    Mixture,
    Step,
    apply,
    fit,
    stacked,
    transport,
)
from podtool.engines.world_profile import SpeechProfile, bandwidth
from podtool.errors import InputError
from podtool.resample import resample
from podtool.segments import Span, total
from podtool.stages.convert import (
    ConvertParams,
    analyse_speaker,
    convert,
    drift_ms,
    speaker_spans,
)

RATE = 16000


def voice(
    seconds: float, pitch: float, formants: tuple[float, ...], seed: int, rate: int = RATE
) -> Audio:
    """Pulses through moving resonances, with pauses and hiss between: speech to a vocoder."""
    rng = np.random.default_rng(seed)
    n = round(seconds * rate)
    t = np.arange(n) / rate
    f0 = pitch * (1 + 0.1 * np.sin(2 * np.pi * 0.7 * t) + 0.03 * np.sin(2 * np.pi * 2.3 * t))
    phase = np.cumsum(f0) / rate
    pulses = np.diff(np.floor(phase), prepend=0.0)
    syllables = np.clip(np.sin(2 * np.pi * 1.7 * t) * 3, 0, 1)
    excitation = pulses * syllables + 0.02 * rng.normal(size=n) * (1 - syllables)
    out = np.zeros(n)
    for k, f in enumerate(formants):
        centre = f * (1 + 0.1 * np.sin(2 * np.pi * (0.9 + 0.4 * k) * t[::160]).mean())
        r = np.exp(-np.pi * 90 / rate)
        from scipy.signal import lfilter

        out += lfilter([1 - r], [1, -2 * r * np.cos(2 * np.pi * centre / rate), r * r], excitation)
    out *= 0.1 / np.sqrt(np.mean(out**2))
    return Audio(out.astype(np.float32)[None, :], rate)


LOW = voice(3.0, 110.0, (600.0, 1300.0, 2500.0), 1)
HIGH = voice(3.0, 210.0, (800.0, 1700.0, 3100.0), 2)


@pytest.fixture(scope="module")
def profiles() -> tuple[SpeechProfile, SpeechProfile]:
    return World().enrol([LOW]), World().enrol([HIGH])


@pytest.fixture(scope="module")
def mapping(profiles: tuple[SpeechProfile, SpeechProfile]) -> VoiceMap:
    return World().voice_map(*profiles)


def spread_of(rng: np.random.Generator, d: int) -> NDArray[np.float64]:
    m = rng.normal(size=(d, d))
    return np.asarray(m @ m.T + 0.1 * np.eye(d))


def fitted(
    source: NDArray[np.float64],
    target: NDArray[np.float64],
    params: MappingParams | None = None,
) -> list[Step]:
    everything = np.ones(len(source), bool), np.ones(len(target), bool)
    return fit(source, target, *everything, params or MappingParams(), 4)


def test_transport_takes_one_covariance_into_the_other() -> None:
    rng = np.random.default_rng(0)
    a, b = spread_of(rng, 6), spread_of(rng, 6)
    m = transport(a, b)
    assert np.allclose(m @ a @ m.T, b, atol=1e-6)
    assert np.allclose(m, m.T)  # the optimal map is symmetric: no rotation that is not needed
    assert np.allclose(transport(a, a), np.eye(6), atol=1e-6)


def test_the_map_brings_means_and_covariances_to_the_target() -> None:
    rng = np.random.default_rng(1)
    source = rng.normal(size=(3000, 20)) @ rng.normal(size=(20, 20)) + 3.0
    target = rng.normal(size=(2500, 20)) @ rng.normal(size=(20, 20)) - 1.0
    moved = apply(fitted(source, target, MappingParams(ridge=0.0)), source)
    assert np.allclose(moved.mean(axis=0), target.mean(axis=0), atol=1e-6)
    assert np.allclose(np.cov(moved.T), np.cov(target.T), rtol=1e-3, atol=1e-3)


def test_a_speaker_mapped_onto_himself_stays() -> None:
    x = np.random.default_rng(2).normal(size=(2000, 20))
    assert np.abs(apply(fitted(x, x), x) - x).max() < 0.05


def test_hardly_any_frames_give_a_careful_shift_and_none_give_nothing() -> None:
    rng = np.random.default_rng(3)
    many, few = rng.normal(size=(500, 20)), rng.normal(size=(10, 20)) + 5
    moved = apply(fitted(many, few), many)
    expected = 0.1 * (few.mean(axis=0) - many.mean(axis=0))
    assert np.allclose(moved - many, expected)
    assert fitted(many, np.zeros((0, 20))) == []


def test_frames_are_stacked_with_their_neighbours() -> None:
    x = np.arange(5.0)[:, None]
    assert stacked(x, 2).T.tolist() == [[0, 1, 2, 3, 4], [0, 0, 0, 1, 2], [2, 3, 4, 4, 4]]
    assert stacked(x, 9).T.tolist() == [[0, 1, 2, 3, 4], [0] * 5, [4] * 5]


def test_mixture_finds_two_clusters_and_posteriors_sum_to_one() -> None:
    rng = np.random.default_rng(4)
    x = np.concatenate([rng.normal(-4, 1, (400, 3)), rng.normal(4, 1, (600, 3))])
    mixture = Mixture.fit(x, 2, seed=0)
    assert sorted(np.round(mixture.weights, 1)) == [0.4, 0.6]
    p = mixture.posteriors(x, 0.3)
    assert np.allclose(p.sum(axis=1), 1)
    first, second = p[:400].mean(axis=0).argmax(), p[400:].mean(axis=0).argmax()
    assert first != second


def test_grids_and_cosines() -> None:
    smooth_curve = np.cos(np.linspace(0, 3, BANDS))
    assert np.abs(TO_MEL @ (FROM_MEL @ smooth_curve) - smooth_curve).max() < 0.02
    dct = cosines(BANDS, BANDS)
    assert np.allclose(dct @ dct.T, np.eye(BANDS))
    assert cepstral_order(BANDS) == 40 and cepstral_order(40) == 20 and cepstral_order(9) == 8


@pytest.mark.parametrize("frames", [1, 7, 100, 1599, 1600, 4001])
def test_analysis_and_synthesis_keep_the_length(frames: int) -> None:
    assert len(synthesise(analyse(LOW.samples[0, :frames]))) == frames


@pytest.mark.slow
def test_conversion_reaches_the_pitch_and_the_spectrum(
    profiles: tuple[SpeechProfile, SpeechProfile], mapping: VoiceMap
) -> None:
    source, target = profiles
    world = World()
    got = world.enrol([world.convert(LOW, mapping)])

    def median(p: SpeechProfile) -> float:
        return p.statistics()["f0_median_hz"]

    assert abs(median(source) - 110) < 8 and abs(median(target) - 210) < 12
    assert abs(np.log(median(got) / median(target))) < 0.05

    def shape(p: SpeechProfile) -> NDArray[np.float64]:
        mean = p.envelope[p.voiced].mean(axis=0).astype(np.float64)
        return np.asarray(mean - mean.mean())

    before = np.abs(shape(source) - shape(target)).mean()
    after = np.abs(shape(got) - shape(target)).mean()
    assert after < 0.4 * before


def test_strength_scales_the_change_of_timbre(
    profiles: tuple[SpeechProfile, SpeechProfile], mapping: VoiceMap
) -> None:
    frames = analyse(LOW.samples[0, :RATE])
    half = World().voice_map(*profiles, ConvertParams(strength=0.5).mapping())
    assert np.allclose(half.change(frames), 0.5 * mapping.change(frames))
    with pytest.raises(InputError, match="strength 0 to 2"):
        ConvertParams(strength=3).mapping()


def test_conversion_is_deterministic(mapping: VoiceMap) -> None:
    world, piece = World(), LOW.read(0, 2 * RATE)
    assert np.array_equal(
        world.convert(piece, mapping).samples, world.convert(piece, mapping).samples
    )


@pytest.mark.parametrize("rate", [8000, 44100, 192000])
def test_any_rate_keeps_the_frames(rate: int, mapping: VoiceMap) -> None:
    audio = resample(LOW.read(0, RATE // 2 + 17), rate)
    out = World().convert(audio, mapping)
    assert (out.frames, out.sample_rate, out.channels) == (audio.frames, rate, 1)
    assert np.isfinite(out.samples).all() and np.abs(out.samples).max() > 0.01


def test_silence_stays_silent_and_nothing_stays_nothing(mapping: VoiceMap) -> None:
    silence = Audio(np.zeros((1, RATE), np.float32), RATE)
    assert np.abs(World().convert(silence, mapping).samples).max() < 1e-4
    assert World().convert(Audio(np.zeros((1, 0), np.float32), RATE), mapping).frames == 0


def test_a_whisper_is_converted_without_pitch(mapping: VoiceMap) -> None:
    noise = np.random.default_rng(5).normal(0, 0.05, (1, RATE)).astype(np.float32)
    out = World().convert(Audio(noise, RATE), mapping)
    assert out.frames == RATE and np.isfinite(out.samples).all()
    empty = World().enrol([Audio(noise, RATE)])
    World().convert(LOW.read(0, RATE), World().voice_map(empty, empty))


def test_the_band_above_8_khz_is_kept(mapping: VoiceMap) -> None:
    rate = 44100
    low = resample(LOW.read(0, RATE), rate).samples[0]
    t = np.arange(len(low)) / rate
    tone = 0.01 * np.sin(2 * np.pi * 12000 * t)
    out = World().convert(Audio((low + tone).astype(np.float32)[None, :], rate), mapping)
    spectrum = np.abs(np.fft.rfft(out.samples[0] * np.hanning(len(low))))
    at = np.fft.rfftfreq(len(low), 1 / rate)
    assert 11500 < at[(at > 9000)][spectrum[at > 9000].argmax()] < 12500


@pytest.mark.slow
def test_a_narrow_reference_is_said_and_bounds_the_map() -> None:
    world = World()
    narrow = world.enrol([resample(HIGH, 8000)])
    assert 3500 < narrow.bandwidth_hz <= 4000
    mapping = world.voice_map(world.enrol([LOW]), narrow)
    assert "nothing above 4.0 kHz" in mapping.warnings[0] or "3." in mapping.warnings[0]
    assert mapping.bands < BANDS
    change = mapping.change(analyse(LOW.samples[0, :RATE]))
    assert np.allclose(change[:, mapping.bands :].std(axis=1), 0)  # no shape is invented above
    assert not world.voice_map(narrow, narrow).warnings


def test_bandwidth_of_an_empty_profile_is_zero() -> None:
    assert bandwidth(np.zeros((0, BANDS)), RATE) == 0.0


def test_state_file_round_trip(
    profiles: tuple[SpeechProfile, SpeechProfile], tmp_path: Path
) -> None:
    path = tmp_path / "voice.safetensors"
    profiles[1].save(path)
    again = SpeechProfile.load(path)
    assert again.digest() == profiles[1].digest()
    path2 = tmp_path / "again.safetensors"
    again.save(path2)
    assert path.read_bytes() == path2.read_bytes()
    assert profiles[0].digest() != profiles[1].digest()


def test_a_file_that_is_no_voice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_text("hello")
    with pytest.raises(InputError, match="cannot read the voice"):
        SpeechProfile.load(path)
    from safetensors.numpy import save

    path.write_bytes(save({"a": np.zeros(3, np.float32)}))
    with pytest.raises(InputError, match="not a voice"):
        SpeechProfile.load(path)
    with pytest.raises(InputError, match="cannot read the voice"):
        SpeechProfile.load(tmp_path / "missing.safetensors")


def turns_of(*spans: tuple[float, float]) -> list[Turn]:
    return [Turn(f"t{n}", "r", a, b, "S1") for n, (a, b) in enumerate(spans)]


@pytest.mark.slow
def test_takes_have_the_length_of_their_slots_whatever_the_cutting(mapping: VoiceMap) -> None:
    turns = turns_of((0.1, 0.2333), (0.5, 2.9371), (0.0, 0.001))
    world = World()
    params = ConvertParams(block_s=1.0)
    one = list(convert(LOW, turns, world, mapping, params, workers=1))
    two = list(convert(LOW, turns, world, mapping, params, workers=3))
    for turn, a, b in zip(turns, one, two, strict=True):
        assert a.turn is turn
        assert a.audio.frames == round(turn.end * RATE) - round(turn.start * RATE)
        assert np.array_equal(a.audio.read().samples, b.audio.read().samples)
        assert a.checks["length_error_frames"] == 0
    assert one[1].checks["first_word_drift_ms"] == 0
    assert one[1].checks["last_word_drift_ms"] == 0
    assert abs(one[1].checks["level_change_db"]) < 4


@pytest.mark.slow
def test_pieces_join_without_clicks(mapping: VoiceMap) -> None:
    world = World()
    turn = turns_of((0.0, 2.0))
    whole = next(iter(convert(LOW, turn, world, mapping, ConvertParams(block_s=9.0))))
    cut = next(iter(convert(LOW, turn, world, mapping, ConvertParams(block_s=0.8))))
    a, b = whole.audio.read().samples[0], cut.audio.read().samples[0]
    assert np.abs(np.diff(b)).max() < 1.3 * np.abs(np.diff(a)).max()


@pytest.mark.slow
def test_long_turns_are_kept_on_disk(mapping: VoiceMap, monkeypatch: pytest.MonkeyPatch) -> None:
    from podtool.stages import convert as stage

    turn = turns_of((0.0, 1.5))
    expected = next(iter(convert(LOW, turn, World(), mapping))).audio
    monkeypatch.setattr(stage, "SPOOL_S", 1.0)
    spooled = next(iter(convert(LOW, turn, World(), mapping))).audio
    assert not isinstance(spooled, Audio)
    assert np.array_equal(spooled.read().samples, expected.read().samples)


def test_takes_stay_below_full_scale(mapping: VoiceMap) -> None:
    loud = Audio(LOW.samples * np.float32(0.98 / np.abs(LOW.samples).max()), RATE)
    take = next(iter(convert(loud, turns_of((0.0, 1.0)), World(), mapping)))
    assert take.audio.frames == RATE
    assert take.checks["peak"] <= 10 ** (-0.5 / 20)


def test_stereo_is_converted_as_its_mean(mapping: VoiceMap) -> None:
    stereo = Audio(np.concatenate([LOW.samples * 1.5, LOW.samples * 0.5]), RATE)
    a = next(iter(convert(stereo, turns_of((0.0, 1.0)), World(), mapping))).audio
    b = next(iter(convert(LOW, turns_of((0.0, 1.0)), World(), mapping))).audio
    assert a.channels == 1
    assert np.abs(a.read().samples - b.read().samples).max() < 1e-3


def test_a_turn_outside_the_recording_is_refused(mapping: VoiceMap) -> None:
    for span in ((2.0, 4.0), (9.0, 10.0), (2.0, 2.0)):
        with pytest.raises(InputError, match="outside the recording"):
            list(convert(LOW, turns_of(span), World(), mapping))


def test_drift_is_measured() -> None:
    late = Audio(np.roll(LOW.samples, 320), RATE)
    assert drift_ms(LOW, late, first=True) == 20.0
    assert drift_ms(late, LOW, first=False) == -20.0
    assert drift_ms(LOW, LOW, first=True) == 0.0
    quiet = Audio(np.zeros((1, RATE), np.float32), RATE)
    assert drift_ms(quiet, quiet, first=True) == 0.0


def test_the_speaker_is_heard_where_nobody_else_talks() -> None:
    turns = [
        Turn("a", "r", 0.0, 4.0, "S1"),
        Turn("b", "r", 3.0, 6.0, "S2"),
        Turn("c", "r", 8.0, 9.0, "S1"),
    ]
    assert speaker_spans(turns, "S1") == [Span(0.0, 3.0), Span(8.0, 9.0)]
    assert speaker_spans(turns, "S2") == [Span(4.0, 6.0)]
    assert speaker_spans(turns[:1] + [Turn("d", "r", 0.0, 5.0, "S2")], "S1") == [Span(0.0, 4.0)]


def test_profile_of_a_long_recording_is_bounded() -> None:
    class Counting:
        seconds = 0.0

        def enrol(self, clips: list[Audio], workers: int = 1) -> SpeechProfile:
            self.seconds = sum(c.duration for c in clips)
            return World().enrol([LOW.read(0, RATE)])

    counting = Counting()
    long = Audio(np.zeros((1, 600 * RATE), np.float32), RATE)
    spans = [Span(k * 12.0, k * 12.0 + 8.0) for k in range(50)]
    analyse_speaker(long, spans, counting, ConvertParams(profile_s=60.0))  # type: ignore[arg-type]
    assert 50 <= counting.seconds <= 80 < total(spans)
    with pytest.raises(InputError, match="no speech"):
        analyse_speaker(LOW, [], World())
