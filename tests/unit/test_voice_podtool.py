"""The learnt converter around its network: lengths, doubt, what follows it, state files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from podtool.audio import Audio
from podtool.engines import converter_frames as seen
from podtool.engines.converter_frames import DCT, Habits
from podtool.engines.voice_podtool import (
    Known,
    LearntMap,
    Network,
    PodtoolVoice,
    certainty,
    convert,
    doubled,
    refitted,
)
from podtool.engines.voice_podtool_model import SpeakingHalf, adapted_of
from podtool.engines.voice_world import World, frames_of, steady
from podtool.engines.world_frames import analyse
from podtool.engines.world_mapping import MappingParams
from podtool.engines.world_profile import SpeechProfile
from podtool.errors import InputError, ModelError
from podtool.resample import resample
from podtool.stages.convert import ConvertParams
from podtool.training import adapt as adapting
from podtool.training.adapt import AdaptParams, adapt

RATE = 16000
PLAIN = MappingParams(classes=2, classes_unvoiced=2, rounds=0)


def buzz(seconds: float, pitch: float, colour: float, seed: int) -> Audio:
    """Pulses and hiss in turns through one resonance."""
    from scipy.signal import lfilter

    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * RATE)) / RATE
    f0 = pitch * (1 + 0.15 * np.sin(2 * np.pi * 0.8 * t))
    pulses = np.diff(np.floor(np.cumsum(f0) / RATE), prepend=0.0)
    voiced = np.clip(np.sin(2 * np.pi * 1.3 * t) * 3 + 1, 0, 1)
    x = pulses * voiced + 0.02 * rng.normal(size=len(t)) * (1 - voiced)
    r = np.exp(-np.pi * 150 / RATE)
    y = lfilter([1.0], [1, -2 * r * np.cos(2 * np.pi * colour / RATE), r * r], x)
    return Audio((0.1 * y / np.sqrt(np.mean(y**2))).astype(np.float32)[None], RATE)


LOW, HIGH = buzz(4.0, 110.0, 900.0, 1), buzz(4.0, 200.0, 1500.0, 2)


def hear(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """In place of the recogniser's encoder: levels of what is there, spread over 288 values."""
    count = max(1, (samples.shape[1] - seen.CENTRE) // seen.STEP)
    parts = samples[0, : count * seen.STEP].reshape(count, seen.STEP)
    spectrum = np.log(np.abs(np.fft.rfft(parts, 2 * seen.STATES - 2)) + 1e-3)
    return np.asarray(spectrum[None], np.float32)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    from podtool.engines.voice_podtool_model import Converter, ConverterParams, save

    torch.manual_seed(1)
    network = Converter(ConverterParams(channels=16, sound_layers=1, voice_layers=1, sounds=6))
    with torch.no_grad():
        network.phones.weight.mul_(30)  # sure of its phones
    path = tmp_path_factory.mktemp("converter") / "converter.safetensors"
    save(network, path)
    return path


@pytest.fixture(scope="module")
def engine(weights: Path) -> PodtoolVoice:
    target = weights.with_suffix(".onnx")
    convert(weights, target)
    return PodtoolVoice(Network(target, 1), hear, lambda: weights)


@pytest.fixture(scope="module")
def profiles(engine: PodtoolVoice) -> tuple[SpeechProfile, SpeechProfile]:
    return engine.enrol([LOW]), engine.enrol([HIGH])


@pytest.fixture(scope="module")
def mapping(engine: PodtoolVoice, profiles: tuple[SpeechProfile, SpeechProfile]) -> LearntMap:
    return engine.voice_map(*profiles, PLAIN)


def test_the_exported_network_is_the_network(weights: Path, engine: PodtoolVoice) -> None:
    import torch

    from podtool.engines.voice_podtool_model import load

    network, rng = load(weights), np.random.default_rng(3)
    states = rng.normal(size=(30, seen.STATES)).astype(np.float32)
    shape = rng.normal(size=(30, seen.SHAPE)).astype(np.float32)
    with torch.no_grad():
        sounds, odds = network.listen(torch.from_numpy(states)[None], torch.from_numpy(shape)[None])
    found, phones = engine._network.listen(states, shape)
    assert np.allclose(found, sounds[0].numpy(), atol=1e-3)
    assert np.allclose(phones, odds[0].softmax(dim=1).numpy(), atol=1e-3)


def test_weights_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"nothing")
    with pytest.raises(ModelError, match="does not hold a converter"):
        convert(path, tmp_path / "x.onnx")


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_any_rate_keeps_the_frames(rate: int, engine: PodtoolVoice, mapping: LearntMap) -> None:
    audio = resample(LOW.read(0, RATE + 17), rate)
    out, left = engine.convert_and_tell(audio, mapping)
    assert (out.frames, out.sample_rate, out.channels) == (audio.frames, rate, 1)
    assert np.isfinite(out.samples).all() and np.abs(out.samples).max() > 0.01
    assert 0.0 <= left <= 1.0


def test_silence_whispers_and_nothing(engine: PodtoolVoice, mapping: LearntMap) -> None:
    silence = Audio(np.zeros((1, RATE), np.float32), RATE)
    assert np.abs(engine.convert(silence, mapping).samples).max() < 1e-4
    for frames in (0, 1, 100, 900):
        piece = LOW.read(0, frames)
        assert engine.convert(piece, mapping).frames == frames
    noise = np.random.default_rng(5).normal(0, 0.05, (1, RATE)).astype(np.float32)
    whisper = engine.enrol([Audio(noise, RATE)])
    engine.convert(LOW.read(0, RATE), engine.voice_map(whisper, whisper, PLAIN))


def test_the_result_has_the_statistics_of_the_target(
    engine: PodtoolVoice, profiles: tuple[SpeechProfile, SpeechProfile], mapping: LearntMap
) -> None:
    source, target = profiles
    got = engine.enrol([engine.convert(LOW, mapping)])
    pitches = [p.statistics()["f0_median_hz"] for p in (got, target, source)]
    assert abs(np.log(pitches[0] / pitches[1])) < 0.05 < abs(np.log(pitches[2] / pitches[1]))

    def mean(p: SpeechProfile) -> NDArray[np.float64]:
        shape = (p.envelope[p.voiced] @ DCT.T).mean(axis=0).astype(np.float64)
        return np.asarray(shape[1:])

    before = np.abs(mean(source) - mean(target)).mean()
    assert np.abs(mean(got) - mean(target)).mean() < 0.5 * before


def test_the_last_layer_is_fitted_to_the_enrolment(
    engine: PodtoolVoice, profiles: tuple[SpeechProfile, SpeechProfile]
) -> None:
    known = Known.of(profiles[1])
    last = refitted(engine.speaking, known)
    pitch = seen.pitch(
        known.f0, known.cepstra @ DCT, replace(known.habits, level=0.0), known.habits
    )
    found, hidden = engine._network.speak(known.sounds, pitch, known)
    fitted = found + np.concatenate([hidden, np.ones((len(hidden), 1))], axis=1) @ last
    assert np.abs(fitted - known.cepstra).mean() < 0.7 * np.abs(found - known.cepstra).mean()


def test_where_no_phone_is_likely_the_source_stays(
    engine: PodtoolVoice, mapping: LearntMap, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = analyse(LOW.samples[0])
    sure, left = engine._change(mapping, frames, LOW.samples[0])
    assert np.abs(sure).max() > 0.5 and left < 0.5
    listen = engine._network.listen

    def doubtful(
        states: NDArray[np.float32], shape: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        sounds, phones = listen(states, shape)
        return sounds, np.full_like(phones, 1 / phones.shape[1])

    monkeypatch.setattr(engine._network, "listen", doubtful)
    change, left = engine._change(mapping, frames, LOW.samples[0])
    assert left == 1.0 and not change.any()


def test_certainty_rises_from_doubt_to_trust() -> None:
    phones = np.full((300, 40), 0.01, np.float32)
    phones[:100, 3], phones[100:200, 3] = 0.9, 0.2
    phones[200:, 3] = 0.375
    found = certainty(phones)
    assert (found[:80] == 1).all() and (found[115:185] == 0).all()
    assert np.allclose(found[215:], 0.5, atol=1e-6)
    assert certainty(phones[:1]).shape == (1,)


@pytest.mark.parametrize("count", [1, 2, 7, 8])
def test_doubling_is_linear_interpolation(count: int) -> None:
    at = np.arange(0, count, 2, dtype=np.float64)
    found = doubled(at[:, None], count)[:, 0]
    assert len(found) == count and np.allclose(
        found[: len(found) // 2 * 2 - 1], np.arange(count)[: len(found) // 2 * 2 - 1]
    )


def test_a_voice_keeps_its_sounds_on_disk(
    profiles: tuple[SpeechProfile, SpeechProfile], tmp_path: Path
) -> None:
    profiles[1].save(tmp_path / "v.safetensors")
    back = SpeechProfile.load(tmp_path / "v.safetensors")
    assert back.sounds is not None and profiles[1].sounds is not None
    assert np.array_equal(back.sounds, profiles[1].sounds)
    assert back.digest() == profiles[1].digest() != replace(back, sounds=back.sounds + 1).digest()
    assert len(back.sounds) == len(back.f0)


def test_voices_of_others_are_refused(
    engine: PodtoolVoice, profiles: tuple[SpeechProfile, SpeechProfile]
) -> None:
    plain = World().enrol([HIGH])
    assert np.array_equal(plain.envelope, profiles[1].envelope)  # one is the other, and the sounds
    with pytest.raises(InputError, match="another engine"):
        engine.voice_map(profiles[0], plain)
    with pytest.raises(InputError, match="another version"):
        engine.voice_map(profiles[0], replace(profiles[1], sounds_by="x"))
    assert World().voice_map(*profiles).strength == 1.0  # and WORLD takes any


def test_strength_scales_the_change(
    engine: PodtoolVoice, profiles: tuple[SpeechProfile, SpeechProfile], mapping: LearntMap
) -> None:
    half = engine.voice_map(*profiles, replace(PLAIN, strength=0.5))
    frames = analyse(LOW.samples[0, :RATE])
    a, _ = engine._change(half, frames, LOW.samples[0, :RATE])
    b, _ = engine._change(mapping, frames, LOW.samples[0, :RATE])
    assert np.allclose(a, 0.5 * b) and ConvertParams().mapping().strength == 1.0


def test_habits_are_the_speakers_and_not_the_recordings() -> None:
    envelope = np.random.default_rng(0).normal(-8, 1, (200, 80))
    f0 = np.full(200, 130.0)
    quiet = Habits.of(envelope - 3.0, f0)
    loud = Habits.of(envelope, f0)
    assert np.allclose(seen.shape(envelope, loud), seen.shape(envelope - 3.0, quiet), atol=1e-4)
    assert np.allclose(
        seen.cepstra(envelope, loud.level), seen.cepstra(envelope - 3.0, quiet.level), atol=1e-4
    )


# ---------------------------------------------------------------- adapting to a voice

CLIPS = [buzz(1.2, 180.0 + 5 * k, 1200.0 + 40 * k, 10 + k) for k in range(5)]
QUICK = AdaptParams(steps=4, batch=2, copies=1, validate_every=2)


@pytest.fixture(scope="module")
def profile(engine: PodtoolVoice) -> SpeechProfile:
    return engine.enrol(CLIPS)


@pytest.fixture()
def any_gain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapting, "LEAST_S", 4.0)
    monkeypatch.setattr(adapting, "LEAST_GAIN_DB", -100.0)


def test_a_voice_keeps_its_own_weights_and_is_said_with_them(
    engine: PodtoolVoice, profile: SpeechProfile, any_gain: None, tmp_path: Path
) -> None:
    told: list[tuple[int, int]] = []
    found, gain = adapt(engine, profile, CLIPS, QUICK, lambda *n: told.append(n))
    assert gain.steps in (2, 4) and gain.made == 4 and (gain.taught, gain.held_out) == (4, 1)
    assert told[0] == (1, 9) and told[-1] == (9, 9)
    path = tmp_path / "v.safetensors"
    found.save(path)
    back = SpeechProfile.load(path)
    assert back.digest() == found.digest() != profile.digest()
    untaught = replace(profile, adapted=adapted_of(engine.taught()))  # the same way, nothing learnt
    plain, same, own = (engine.voice_map(profile, p, PLAIN) for p in (profile, untaught, back))
    assert plain.speaker is engine.speaking and isinstance(own.speaker, SpeakingHalf)
    (a, left), (b, _), (c, _) = (engine.convert_and_tell(CLIPS[0], m) for m in (plain, same, own))
    assert left < 0.5  # else the network is unsure, and all three leave the source as it is
    assert a.samples.shape == c.samples.shape and np.isfinite(c.samples).all()
    assert np.abs(a.samples - b.samples).max() < 0.2 * np.abs(a.samples - c.samples).max()


def test_weights_that_do_not_fit_are_refused(
    engine: PodtoolVoice, profile: SpeechProfile, any_gain: None
) -> None:
    found, _ = adapt(engine, profile, CLIPS, QUICK)
    assert found.adapted is not None
    less = dict(list(found.adapted.tensors.items())[1:])
    for wrong in (replace(found.adapted, tensors=less), replace(found.adapted, network="{")):
        with pytest.raises(ModelError, match="do not fit"):
            engine.voice_map(profile, replace(found, adapted=wrong), PLAIN)


def test_too_little_speech_and_weights_that_are_not_there(
    engine: PodtoolVoice, profile: SpeechProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="6 s of speech in 5 clips") as raised:
        adapt(engine, profile, CLIPS)
    assert "without --adapt" in (raised.value.hint or "")
    monkeypatch.setattr(adapting, "LEAST_S", 4.0)
    bare = PodtoolVoice(engine._network, hear)
    with pytest.raises(ModelError, match="not to be had"):
        adapt(bare, profile, CLIPS)


def test_without_gain_the_voice_is_as_it_was(
    engine: PodtoolVoice, profile: SpeechProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapting, "LEAST_S", 4.0)
    monkeypatch.setattr(adapting, "LEAST_GAIN_DB", 100.0)
    found, gain = adapt(engine, profile, CLIPS, QUICK)
    assert found is profile and gain.steps == 0 and gain.before_db == gain.after_db


def test_an_interrupted_save_leaves_the_file_as_it_was(
    profile: SpeechProfile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "v.safetensors"
    profile.save(path)
    before = path.read_bytes()
    write = Path.write_bytes

    def half(self: Path, data: bytes) -> int:
        write(self, data[: len(data) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(KeyboardInterrupt):
        replace(profile, sample_rate=8000).save(path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_ctrl_c_while_adapting_ends_it(
    engine: PodtoolVoice, profile: SpeechProfile, any_gain: None
) -> None:
    def stop(done: int, whole: int) -> None:
        if done == 6:
            raise KeyboardInterrupt

    before = profile.digest()
    with pytest.raises(KeyboardInterrupt):
        adapt(engine, profile, CLIPS, QUICK, stop)
    assert profile.digest() == before


def test_pitches_beside_voicing_do_not_count() -> None:
    f0 = np.tile(np.r_[np.zeros(20), 240.0, np.linspace(110, 130, 60), 55.0], 6)
    assert 110 < steady(f0).min() and steady(f0).max() < 130
    assert len(steady(f0)) > 300
    few = np.array([0.0, 100.0, 200.0, 0.0])
    assert steady(few).tolist() == [100.0, 200.0]


def test_audio_of_any_rate_is_analysed_at_16_khz() -> None:
    samples, frames = frames_of(Audio(np.repeat(CLIPS[0].samples, 2, axis=0), RATE))
    assert len(samples) == CLIPS[0].frames == frames.length and len(frames.aperiodicity)
