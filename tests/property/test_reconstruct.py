"""Laws of reconstruction: exact length, bits kept outside the slots, bounded steps at the joins."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from podtool.artifacts import Take
from podtool.audio import Audio
from podtool.errors import InputError
from podtool.segments import Span
from podtool.stages.reconstruct import (
    ReconstructParams,
    changed_spans,
    null_test,
    place,
    placements,
    render,
)

RATE = 8000
Samples = NDArray[np.float32]


def take(name: str, start: float, end: float, audio: Audio, **more: object) -> Take:
    return Take(
        id=name, recording="r", speaker="S1", voice="v", method="convert", path=f"{name}.wav",
        sha256="0", sample_rate=audio.sample_rate, channels=audio.channels, frames=audio.frames,
        start=start, end=end, **more,  # type: ignore[arg-type]
    )  # fmt: skip


def speechlike(frames: int, seed: int, channels: int = 1, rate: int = RATE) -> Samples:
    rng = np.random.default_rng(seed)
    wave = np.cumsum(rng.standard_normal((channels, frames)), axis=1)
    wave -= np.linspace(0, 1, frames) * wave[:, -1:]
    swing = 0.6 + 0.4 * np.sin(2 * np.pi * 3 * np.arange(frames) / rate)
    wave = wave * swing
    return np.asarray(0.1 * wave / (np.sqrt(np.mean(wave**2)) + 1e-9), np.float32)


def rendered(
    original: Audio, takes: dict[str, Audio], rows: list[Take], speech: Audio | None = None,
    params: ReconstructParams | None = None, block_s: float = 10.0,
) -> tuple[Samples, list[Span]]:  # fmt: skip
    params = params or ReconstructParams()
    slots = place(rows, original, lambda t: takes[t.id], speech, params)
    out = render(slots, original, lambda t: takes[t.id], speech, params, block_s=block_s)
    return np.concatenate([b.samples for b in out], axis=1), changed_spans(slots, RATE)


@st.composite
def scenes(draw: st.DrawFn) -> tuple[Audio, dict[str, Audio], list[Take], Audio | None]:
    frames = draw(st.integers(2, 6000))
    channels = draw(st.integers(1, 2))
    pcm = np.rint(speechlike(frames, draw(st.integers(0, 99)), channels) * 32768) / 32768
    original = Audio(pcm.astype(np.float32), RATE)
    audio: dict[str, Audio] = {}
    rows = []
    for k in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, frames - 1))
        stop = draw(st.integers(start + 1, frames))
        length = draw(st.integers(1, stop - start))
        name = f"k{k}"
        audio[name] = Audio(speechlike(length, k, draw(st.sampled_from([1, channels]))), RATE)
        keep = None
        if draw(st.booleans()):
            a = draw(st.integers(0, frames))
            keep = ((a / RATE, (a + draw(st.integers(1, 500))) / RATE),)
        rows.append(take(name, start / RATE, stop / RATE, audio[name], keep=keep))
    speech = None
    if draw(st.booleans()):
        speech = Audio((original.samples * 0.7).astype(np.float32), RATE)
    return original, audio, rows, speech


@settings(max_examples=100, deadline=None)
@given(scenes(), st.floats(0.003, 2.0))
def test_outside_of_the_slots_every_bit_is_the_originals(
    scene: tuple[Audio, dict[str, Audio], list[Take], Audio | None], block_s: float
) -> None:
    original, audio, rows, speech = scene
    out, spans = rendered(original, audio, rows, speech, block_s=block_s)
    assert out.shape == original.samples.shape and out.dtype == np.float32
    assert np.isfinite(out).all()
    result = null_test(original, Audio(out, RATE), spans)
    assert result.passed and result.outside_max == 0.0
    mask = np.ones(original.frames, bool)
    for row in rows:
        inside = np.zeros_like(mask)
        inside[round(row.start * RATE) : round(row.end * RATE)] = True
        for a, b in row.keep or ():
            inside[round(a * RATE) : round(b * RATE)] = False
        mask &= ~inside
    assert (out[:, mask] == original.samples[:, mask]).all()


@settings(max_examples=40, deadline=None)
@given(scenes(), st.floats(0.003, 0.5))
def test_blocks_do_not_change_the_samples(
    scene: tuple[Audio, dict[str, Audio], list[Take], Audio | None], block_s: float
) -> None:
    original, audio, rows, speech = scene
    whole, _ = rendered(original, audio, rows, speech)
    cut, _ = rendered(original, audio, rows, speech, block_s=block_s)
    assert (whole == cut).all()


def test_a_take_that_is_the_speech_gives_the_original_back() -> None:
    """With the stem's own audio as the take, nothing changes but rounding."""
    mixture, speech = speechlike(16000, 1, 2), speechlike(16000, 2, 2)
    original = Audio(mixture + speech, RATE)
    audio = {"a": Audio(speech[:, 4000:12000], RATE)}
    row = take("a", 0.5, 1.5, audio["a"])
    out, _ = rendered(original, audio, [row], Audio(speech, RATE))
    assert np.abs(out - original.samples).max() < 1e-6


def test_of_a_speaker_with_a_stem_that_alone_goes_out_and_sets_the_level() -> None:
    """Two people at once over a bed: the one replaced goes, the other and the bed stay."""
    bed, one, other, new = (speechlike(24000, s, 2) for s in (1, 2, 3, 4))
    one = one * np.float32(0.5)
    original = Audio(bed + one + other, RATE)
    audio = {"a": Audio(new[:, 8000:16000], RATE)}
    rows = [take("a", 1.0, 2.0, audio["a"])]
    speech, voices = Audio(one + other, RATE), {"S1": Audio(one, RATE)}
    slots = place(rows, original, lambda t: audio[t.id], speech, voices=voices)
    assert all(0.3 < gain < 0.7 for gain in slots[0].gains)
    for block_s in (10.0, 0.313):
        blocks = render(
            slots, original, lambda t: audio[t.id], speech, block_s=block_s, voices=voices
        )
        out = np.concatenate([b.samples for b in blocks], axis=1)
        inside = slice(8200, 15800)
        gain = np.array(slots[0].gains)[:, None]
        rest = out[:, inside] - gain * new[:, inside] - (bed + other)[:, inside]
        assert np.abs(rest).max() < 1e-6
        assert (out[:, :8000] == original.samples[:, :8000]).all()
        assert (out[:, 16000:] == original.samples[:, 16000:]).all()
    with pytest.raises(InputError):
        place(rows, original, lambda t: audio[t.id], voices={"S1": original.read(1)})


def test_speakers_without_a_stem_lose_the_speech_as_before() -> None:
    voice, new = speechlike(24000, 2), speechlike(24000, 3)
    original = Audio(voice, RATE)
    audio = {"a": Audio(new[:, 8000:16000], RATE)}
    rows = [take("a", 1.0, 2.0, audio["a"])]
    stems = {"S2": Audio(voice, RATE)}
    slots = place(rows, original, lambda t: audio[t.id], voices=stems)
    out = render(slots, original, lambda t: audio[t.id], voices=stems)
    plain, _ = rendered(original, audio, rows)
    assert (np.concatenate([b.samples for b in out], axis=1) == plain).all()


def test_background_stays_and_the_old_voice_goes() -> None:
    bed, voice, new = (speechlike(24000, s) for s in (1, 2, 3))
    original = Audio(bed + voice, RATE)
    audio = {"a": Audio(new[:, 8000:16000], RATE)}
    out, _ = rendered(original, audio, [take("a", 1.0, 2.0, audio["a"])], Audio(voice, RATE))
    inside = slice(8200, 15800)
    rest = out[0, inside] - bed[0, inside]
    gain = rest @ new[0, inside] / (new[0, inside] @ new[0, inside])
    assert 0.5 < gain < 2
    assert np.abs(rest - gain * new[0, inside]).max() < 1e-5


@pytest.mark.parametrize("level_db", [-20.0, -6.0, 0.0, 10.0])
def test_a_take_gets_the_level_of_the_turn_it_replaces(level_db: float) -> None:
    original = Audio(speechlike(32000, 5), RATE)
    quiet = original.samples[:, 8000:24000] * np.float32(10 ** (-level_db / 20))
    audio = {"a": Audio(quiet, RATE)}
    slots = place([take("a", 1.0, 3.0, audio["a"])], original, lambda t: audio[t.id])
    expected = max(-18.0, min(18.0, level_db))
    assert slots[0].gain_db == pytest.approx(expected, abs=0.01)
    out, _ = rendered(original, audio, [take("a", 1.0, 3.0, audio["a"])])
    before, after = original.samples[0, 9000:23000], out[0, 9000:23000]
    if abs(level_db) < 18:
        assert 20 * np.log10(np.std(after) / np.std(before)) == pytest.approx(0, abs=0.1)


def test_a_mono_take_sits_where_the_turn_sat_in_the_stereo_picture() -> None:
    voice = speechlike(32000, 5)
    original = Audio(np.concatenate([voice, voice * np.float32(0.25)]), RATE)
    audio = {"a": Audio(speechlike(16000, 6), RATE)}
    out, _ = rendered(original, audio, [take("a", 1.0, 3.0, audio["a"])])
    left, right = np.std(out[:, 9000:23000], axis=1)
    assert left / right == pytest.approx(4, rel=0.05)


def test_steps_at_the_joins_are_no_larger_than_the_signals_own() -> None:
    t = np.arange(32000) / RATE
    original = Audio((0.3 * np.sin(2 * np.pi * 110 * t)).astype(np.float32)[None], RATE)
    audio = {"a": Audio((0.3 * np.cos(2 * np.pi * 130 * t[:16000])).astype(np.float32)[None], RATE)}
    row = take("a", 1.0, 3.0, audio["a"], keep=((1.7, 1.9),))
    out, _ = rendered(original, audio, [row])
    own = max(np.abs(np.diff(original.samples)).max(), np.abs(np.diff(audio["a"].samples)).max())
    ramp_step = 2 * 0.3 * np.pi / 2 / (0.012 * RATE)
    assert np.abs(np.diff(out)).max() <= 2 * own + ramp_step
    hard, _ = rendered(original, audio, [row], params=ReconstructParams(crossfade_ms=0.0))
    assert np.abs(np.diff(hard)).max() > 2 * np.abs(np.diff(out)).max()


def test_a_take_longer_than_its_slot_is_kept_whole() -> None:
    original = Audio(speechlike(32000, 5), RATE)
    audio = {"a": Audio(speechlike(20000, 6), RATE)}
    row = take("a", 1.0, 2.0, audio["a"], fits=False)
    out, spans = rendered(original, audio, [row])
    assert spans == [Span(1.0, 3.5)]
    assert (out[:, 28000:] == original.samples[:, 28000:]).all()
    late = slice(17000, 27500)
    assert np.abs(out[:, late] - original.samples[:, late]).max() > 0.01


def test_wrong_stems_and_takes_outside_are_refused() -> None:
    original = Audio(speechlike(8000, 5), RATE)
    audio = {"a": Audio(speechlike(800, 6), RATE)}
    with pytest.raises(InputError, match="outside the recording"):
        place([take("a", 2.0, 2.1, audio["a"])], original, lambda t: audio[t.id])
    with pytest.raises(InputError, match="speech stem has 7999"):
        place([], original, lambda t: audio[t.id], Audio(original.samples[:, 1:], RATE))


def test_null_test_finds_one_wrong_sample() -> None:
    original = Audio(speechlike(8000, 5), RATE)
    wrong = original.samples.copy()
    wrong[0, 4000] += 1 / 32768
    result = null_test(original, Audio(wrong, RATE), [Span(0.6, 0.7)])
    assert not result.passed
    assert result.outside_max == pytest.approx(1 / 32768) and result.outside_at_s == 0.5
    assert null_test(original, Audio(wrong, RATE), [Span(0.45, 0.55)]).passed
    shorter = Audio(original.samples[:, :-1], RATE)
    assert not null_test(original, shorter, []).passed


def test_placements_say_what_was_put_where() -> None:
    original = Audio(speechlike(32000, 5), RATE)
    audio = {"a": Audio(speechlike(16000, 6), RATE)}
    row = take("a", 1.0, 3.0, audio["a"], keep=((1.5, 2.0),))
    slots = place([row], original, lambda t: audio[t.id])
    rows = placements(slots, RATE, ReconstructParams())
    assert [(p.start, p.end, p.take) for p in rows] == [(1.0, 1.5, "a"), (2.0, 3.0, "a")]
    assert all(p.fade_in_s == 0.012 for p in rows)
