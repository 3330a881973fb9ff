"""Training scenes: repeatable, at the levels asked for, and with truths that sum to the mixture."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from podtool.errors import ConfigError, EngineUnavailableError
from podtool.training import degrade
from podtool.training.corpus import RATE, Clip, Corpus
from podtool.training.mixing import Mixer, MixingParams, _convolve
from podtool.training.rooms import TAPS, Rooms

Samples = NDArray[np.float32]

VOICES = {f"s{k}": 300.0 + 170.0 * k for k in range(12)}  # each speaker is a tone of their own
PLAIN = MixingParams(  # nothing but talkers
    silence_share=0, noise_share=0, music_share=0, babble_share=0, self_noise_share=0,
    speed_share=0, reverb_share=0, eq_share=0, telephone_share=0, clip_share=0, quantise_share=0,
    codec_share=0, synthetic_noise_share=0, synthetic_music_share=0, blend_share=0,
    bed_speed_share=0, bed_eq_share=0, reverse_share=0,
)  # fmt: skip


def _clip(samples: NDArray[np.float64], speaker: str = "") -> Clip:
    scaled = np.atleast_2d(np.round(samples / np.abs(samples).max() * 29000)).astype(np.int16)
    return Clip(speaker, speaker, scaled, float(np.sqrt(np.mean(np.square(scaled, dtype=float)))))


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    t, rng = np.arange(6 * RATE) / RATE, np.random.default_rng(5)
    speakers = {
        name: [_clip(np.sin(2 * np.pi * hz * t[: int(s * RATE)]), name) for s in (1.3, 2.5, 6.0)]
        for name, hz in VOICES.items()
    }
    music = [_clip(np.stack([np.sin(2 * np.pi * hz * t[: 3 * RATE]) for hz in (5000, 6000)]))]
    return Corpus(speakers, music, [_clip(rng.standard_normal(RATE))])


@pytest.fixture(scope="module")
def rooms() -> Rooms:
    """Decaying noise, so that the tests of mixing need no simulator."""
    rng = np.random.default_rng(3)
    lengths = np.full((3, 4), 3000, np.int32)
    decay = np.exp(-np.arange(TAPS) / 600)
    responses = (0.2 * rng.standard_normal((3, 4, TAPS)) * decay).astype(np.float32)
    responses[..., 0] = 1
    return Rooms(responses, lengths)


def _db(samples: Samples) -> float:
    return 10 * float(np.log10(np.mean(np.square(samples, dtype=np.float64)) + 1e-20))


def test_a_scene_depends_on_its_number_alone(corpus: Corpus, rooms: Rooms) -> None:
    first, second = (Mixer(corpus, MixingParams(), 1, rooms) for _ in range(2))
    forth = [first.scene(index) for index in range(12)]
    back = [second.scene(index) for index in reversed(range(12))][::-1]
    for a, b in zip(forth, back, strict=True):
        assert np.array_equal(a.mixture, b.mixture) and np.array_equal(a.talkers, b.talkers)
        assert np.array_equal(a.background, b.background) and a.count == b.count
    other = Mixer(corpus, MixingParams(), 2, rooms).scene(0)
    assert not np.array_equal(forth[0].mixture, other.mixture)
    assert len({s.mixture.tobytes() for s in forth}) == 12


def test_the_parts_sum_to_the_mixture_through_rooms_and_filters(
    corpus: Corpus, rooms: Rooms
) -> None:
    params = MixingParams(
        reverb_share=1, eq_share=1, telephone_share=1, clip_share=0, quantise_share=0, codec_share=0
    )
    mixer = Mixer(corpus, params, 1, rooms)
    for index in range(20):
        scene = mixer.scene(index)
        assert scene.mixture.shape == scene.background.shape == (4 * RATE,)
        assert scene.talkers.shape == (3, 4 * RATE)
        assert {a.dtype for a in (scene.mixture, scene.talkers, scene.background)} == {
            np.dtype(np.float32)
        }
        assert np.isfinite(scene.mixture).all() and np.abs(scene.mixture).max() <= 0.99
        total = scene.talkers.sum(axis=0) + scene.background
        np.testing.assert_allclose(scene.mixture, total, atol=1e-6)
        assert list(np.any(scene.talkers, axis=1)) == [row < scene.count for row in range(3)]


def test_clipping_rounding_and_codecs_change_the_mixture_alone(corpus: Corpus) -> None:
    clean = Mixer(corpus, PLAIN, 1, None).scene(0)
    for params in (
        replace(PLAIN, clip_share=1),
        replace(PLAIN, quantise_share=1),
        replace(PLAIN, codec_share=1),
    ):
        scene = Mixer(corpus, params, 1, None).scene(0)
        assert np.array_equal(scene.talkers, clean.talkers)
        assert not np.array_equal(scene.mixture, clean.mixture)
        assert scene.mixture.shape == clean.mixture.shape


def test_silence_is_exactly_zero_also_behind_reverberation(corpus: Corpus, rooms: Rooms) -> None:
    params = replace(PLAIN, sparse_share=1.0, counts=(0, 1))
    dry = Mixer(corpus, params, 1, rooms)
    wet = Mixer(corpus, replace(params, reverb_share=1.0), 1, rooms)
    silent = 0
    for index in range(12):
        heard, plain = wet.scene(index), dry.scene(index)
        for row in range(2):
            assert np.count_nonzero(heard.talkers[row]) > 0.15 * RATE
        silent += int(np.sum(heard.talkers[:2] == 0))
        assert np.mean(plain.talkers[:2] == 0) > 0.05
    assert silent > 12 * RATE  # a second of each scene


def test_sparse_scenes_overlap_by_parts_and_full_ones_throughout(corpus: Corpus) -> None:
    def overlap(share: float) -> float:
        mixer = Mixer(corpus, replace(PLAIN, sparse_share=share, counts=(0, 1)), 1, None)
        active = [mixer.scene(i).talkers != 0 for i in range(20)]
        return float(np.mean([np.mean(a.sum(axis=0) > 1) for a in active]))

    assert 0.05 < overlap(1.0) < 0.5
    assert overlap(0.0) > 0.75


def test_the_talkers_of_a_scene_are_different_people(corpus: Corpus) -> None:
    mixer = Mixer(corpus, replace(PLAIN, counts=(0, 0, 1)), 1, None)
    seen = set()
    for index in range(20):
        spectra = np.abs(np.fft.rfft(mixer.scene(index).talkers)).argmax(axis=1) / 4.0
        voices = {min(VOICES, key=lambda name: abs(VOICES[name] - hz)) for hz in spectra}
        assert len(voices) == 3
        seen |= voices
    assert len(seen) == len(VOICES)


def test_levels_are_those_asked_for(corpus: Corpus) -> None:
    params = replace(PLAIN, counts=(0, 1), sparse_share=0, level_db=(-30, -20))
    mixer = Mixer(corpus, params, 1, None)
    scenes = [mixer.scene(index) for index in range(40)]
    levels = [_db(s.mixture) for s in scenes]
    assert -30.01 < min(levels) < -28 and -22 < max(levels) < -19.99
    apart = [_db(s.talkers[0][s.talkers[0] != 0]) - _db(s.talkers[1][s.talkers[1] != 0])
             for s in scenes]  # fmt: skip
    assert 3 < max(map(abs, apart)) < 5.3
    noisy = replace(params, noise_share=1, snr_db=(5, 5), entry_share=0)
    for index in range(5):
        scene = Mixer(corpus, noisy, 1, None).scene(index)
        assert _db(scene.talkers.sum(axis=0)) - _db(scene.background) == pytest.approx(5, abs=0.5)


def test_counts_and_silence_come_as_often_as_asked(corpus: Corpus) -> None:
    params = replace(PLAIN, seconds=1.0, counts=(1, 0, 3), silence_share=0.2)
    mixer = Mixer(corpus, params, 1, None)
    counts = [mixer.scene(index).count for index in range(400)]
    found = np.bincount(counts, minlength=4) / 400
    np.testing.assert_allclose(found, [0.2, 0.2, 0, 0.6], atol=0.07)
    nothing = Mixer(corpus, replace(PLAIN, silence_share=1), 1, None).scene(0)
    assert nothing.count == 0 and not nothing.mixture.any() and not nothing.talkers.any()


def test_music_is_heard_as_left_right_or_both_and_short_noise_goes_on(corpus: Corpus) -> None:
    music = replace(PLAIN, silence_share=1, music_share=1, entry_share=0)
    heard = set()
    mixer = Mixer(corpus, music, 1, None)
    for index in range(30):
        spectrum = np.abs(np.fft.rfft(mixer.scene(index).background))
        left, right = (spectrum[hz * 4 - 8 : hz * 4 + 8].max() for hz in (5000, 6000))
        heard.add((left > 0.1 * right, right > 0.1 * left))
    assert heard == {(True, False), (False, True), (True, True)}
    noise = replace(PLAIN, silence_share=1, noise_share=1, entry_share=0)  # 1 s clips, 4 s scenes
    for index in range(5):
        background = Mixer(corpus, noise, 1, None).scene(index).background
        parts = [_db(part) for part in background.reshape(16, -1)]
        assert max(parts) - min(parts) < 3


def test_speed_changes_the_pitch(corpus: Corpus) -> None:
    params = replace(PLAIN, counts=(1,), speed=(1.1, 1.1), speed_share=1, sparse_share=0)
    hz = np.abs(np.fft.rfft(Mixer(corpus, params, 1, None).scene(3).talkers[0])).argmax() / 4
    assert min(abs(hz / (1.1 * voice) - 1) for voice in VOICES.values()) < 0.005


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seconds": 0.1}, "seconds"),
        ({"counts": (0, 0, 0, 1)}, "talkers = 3"),
        ({"counts": (0, 0)}, "counts"),
        ({"counts": ()}, "counts"),
        ({"talkers": 20, "counts": (1,) * 20}, "scenes of 20 talkers"),
    ],
)
def test_a_mixture_that_cannot_be_is_refused(
    corpus: Corpus, change: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Mixer(corpus, replace(PLAIN, **change), 1, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(("n", "taps"), [(100, 1), (64000, 256), (5000, 3000), (64000, 8500)])
def test_convolution_is_convolution(n: int, taps: int) -> None:
    rng = np.random.default_rng(n + taps)
    samples, filter = (rng.standard_normal(size).astype(np.float32) for size in (n, taps))
    got = _convolve(samples, filter)
    size = n + taps - 1
    want = np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(filter, size), size)[:n]
    np.testing.assert_allclose(got, want, atol=1e-3)


@pytest.mark.parametrize(("format", "subtype"), degrade.CODECS)
@pytest.mark.parametrize("compression", [0.3, 0.9])
def test_codecs_stay_aligned(format: str, subtype: str, compression: float) -> None:
    rng = np.random.default_rng(2)
    syllables = np.repeat(rng.uniform(0, 1, 40), RATE // 20)
    voice = np.convolve(rng.standard_normal(2 * RATE) * syllables, np.ones(6) / 6, "same") * 0.2
    samples = voice.astype(np.float32)
    out = degrade.through(samples, format, subtype, compression)
    assert out.shape == samples.shape and not np.array_equal(out, samples)
    size = 4 * RATE
    cross = np.fft.irfft(np.fft.rfft(out, size) * np.conj(np.fft.rfft(samples, size)), 8 * size)
    lag = (int(np.argmax(cross)) + 4 * size) % (8 * size) - 4 * size
    assert abs(lag / 8) <= 1


def test_filters_are_causal_and_bounded() -> None:
    hz = np.fft.rfftfreq(4096, 1 / RATE)
    for seed in range(10):
        taps = degrade.equaliser(np.random.default_rng(seed), depth_db=6)
        gain = 20 * np.log10(np.abs(np.fft.rfft(taps, 4096)))
        assert np.abs(gain[hz > 100]).max() < 7 and np.ptp(gain[hz > 100]) > 2
        assert np.sum(taps[:32] ** 2) > 0.9 * np.sum(taps**2)  # no delay
        narrow = 20 * np.log10(np.abs(np.fft.rfft(degrade.telephone(np.random.default_rng(seed)))))
        assert narrow[-4:].max() < -3 and abs(np.median(narrow[10:40])) < 2


def test_clipping_and_rounding_do_what_they_say() -> None:
    rng = np.random.default_rng(1)
    samples = (0.1 * rng.standard_normal(RATE)).astype(np.float32)
    clipped = degrade.clip(np.random.default_rng(4), samples)
    limit = np.abs(clipped).max()
    assert 0.14 < limit < np.abs(samples).max()
    assert np.array_equal(clipped, np.clip(samples, -limit, limit))
    coarse = degrade.quantise(rng, samples)
    assert 100 < len(np.unique(coarse)) < 2 * 2**12
    assert 25 < _db(samples) - _db(coarse - samples) < 70


def test_rooms_begin_with_the_direct_sound_and_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyroomacoustics")
    cache = tmp_path / "run" / "rooms.npz"
    made = Rooms.make(3, 9, cache)
    assert made.responses.shape == (3, 4, TAPS)
    assert np.allclose(made.responses[..., 0], 1, atol=0.01)
    assert 0.05 * RATE < made.lengths.min() and made.lengths.max() <= TAPS
    left = np.cumsum(np.square(made.responses[..., ::-1]), axis=-1)[..., ::-1]
    left_db = 10 * np.log10(left / left[..., :1] + 1e-12)
    rt60 = ((left_db > -25).sum(axis=-1) - (left_db > -5).sum(axis=-1)) * 3 / RATE
    assert 0.08 < rt60.min() and rt60.max() < 0.9
    assert len({r.tobytes() for room in made.responses for r in room}) == 12

    monkeypatch.setitem(sys.modules, "pyroomacoustics", None)  # the cache needs none
    assert np.array_equal(Rooms.make(3, 9, cache).responses, made.responses)
    cache.write_bytes(cache.read_bytes()[:5000])
    with pytest.raises(EngineUnavailableError, match="pyroomacoustics") as error:
        Rooms.make(3, 9, cache)
    assert "podtool[train]" in str(error.value.hint)


def test_talkers_share_a_room_but_not_a_place(rooms: Rooms) -> None:
    def found(response: Samples) -> tuple[int, int]:
        same = (rooms.responses[..., :3000] == response).all(axis=-1)
        ((room, source),) = np.argwhere(same)
        return int(room), int(source)

    together = [found(r) for r in rooms.pick(np.random.default_rng(0), 4)]
    assert len({room for room, _ in together}) == 1 and len({s for _, s in together}) == 4
    apart = [found(r) for r in rooms.pick(np.random.default_rng(1), 4, shared=False)]
    assert len({room for room, _ in apart}) > 1
