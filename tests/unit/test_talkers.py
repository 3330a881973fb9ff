"""Stems per speaker: exact sums, whose output is whose, windows, other rates and channels."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Literal, Self

import numpy as np
import pytest
from numpy.typing import NDArray

from podtool.artifacts import Turn
from podtool.audio import Audio
from podtool.engines.protocols import EngineContext, EngineInfo
from podtool.errors import EngineFailure, EngineUnavailableError, InputError
from podtool.resample import resample
from podtool.stages.assignment import assign
from podtool.stages.overlaps import Plan, Region, overlaps, regions, windows
from podtool.stages.separate import on_grid
from podtool.stages.talkers import TalkerBlock, TalkersParams, speaker_streams, talkers

RATE = 16000
Samples = NDArray[np.float32]
PARAMS = TalkersParams()


class Oracle:
    """Knows the dry tracks (16 kHz mono); finds the window in their sum; shuffles its answers."""

    info: ClassVar[EngineInfo] = EngineInfo(
        name="oracle", stage="talkers", version="1", licence="MIT", tier="embedded",
        sample_rate=RATE,
    )  # fmt: skip
    max_talkers = 3

    def __init__(self, tracks: Sequence[Samples], hidden: float = 0.0) -> None:
        self.tracks = np.stack(tracks)
        self.hidden = hidden  # share of each talker that the engine misses
        self.asked: list[tuple[int, int]] = []
        self._rng = np.random.default_rng(3)

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        raise NotImplementedError

    def talkers(self, audio: Audio, count: int) -> Samples:
        self.asked.append((audio.frames, count))
        whole = self.tracks.sum(axis=0)
        size = 1 << (len(whole) + audio.frames).bit_length()
        spectrum = np.fft.rfft(whole, size) * np.conj(np.fft.rfft(audio.samples[0], size))
        at = int(np.fft.irfft(spectrum, size)[: len(whole)].argmax())
        here = self.tracks[:, at : at + audio.frames]
        here = np.pad(here, ((0, 0), (0, audio.frames - here.shape[1])))
        loudest = np.argsort(-np.square(here).sum(axis=1))[:count]
        found: Samples = here[self._rng.permutation(loudest)] * np.float32(1 - self.hidden)
        return found


class Refuses(Oracle):
    def __init__(self) -> None:
        self.asked = []

    def talkers(self, audio: Audio, count: int) -> Samples:
        raise AssertionError("nobody talks over anybody")


class Pitch:
    """Voices told apart by their loudest frequency: an embedding for tones."""

    info: ClassVar[EngineInfo] = replace(Oracle.info, name="pitch", stage="embedding")
    dim = 400

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        return cls()

    def embed(self, audio: Audio) -> Samples:
        power = np.abs(np.fft.rfft(audio.samples[0], RATE // 10))[: self.dim] ** 2
        return np.asarray(power / np.linalg.norm(power), np.float32)


def turn(speaker: str, start: float, end: float) -> Turn:
    return Turn(f"t{start:g}-{speaker}", "ep", start, end, speaker)


def scene(
    turns: Sequence[Turn], seconds: float, rate: int = RATE, seed: int = 1
) -> dict[str, Samples]:
    """A buzz of its own pitch for each speaker during their turns, on the grid, mono."""
    rng = np.random.default_rng(seed)
    frames = round(seconds * rate)
    t = np.arange(frames) / rate
    tracks: dict[str, Samples] = {}
    for k, label in enumerate(sorted({x.speaker for x in turns})):
        tone = np.sin(2 * np.pi * (170 + 230 * k) * t) + 0.02 * rng.standard_normal(frames)
        tone *= 0.6 + 0.4 * np.sin(2 * np.pi * (3 + k) * t + k)
        heard = np.zeros(frames)
        for x in turns:
            if x.speaker == label:
                heard[round(x.start * rate) : round(x.end * rate)] = 1
        tracks[label] = on_grid((0.1 * tone * heard).astype(np.float32))
    return tracks


def mixed(tracks: dict[str, Samples]) -> Samples:
    return np.asarray(np.sum(list(tracks.values()), axis=0, dtype=np.float32))


def joined(found: Sequence[TalkerBlock], label: str | None) -> Samples:
    parts = [b.background if label is None else b.stems[label] for b in found]
    return np.concatenate([p.samples for p in parts], axis=1)


def si_sdr(estimate: Samples, truth: Samples) -> float:
    truth, estimate = truth.astype(np.float64), estimate.astype(np.float64)
    target = truth * (estimate @ truth) / (truth @ truth)
    return float(10 * np.log10(target @ target / (np.square(estimate - target).sum() + 1e-12)))


CROSSING = [
    turn("A", 0.5, 6.0), turn("B", 4.5, 9.0), turn("A", 8.2, 12.0), turn("C", 12.5, 16.0),
    turn("B", 13.0, 14.0), turn("A", 15.0, 20.0),
]  # fmt: skip


@pytest.mark.parametrize("rest", ["background", "talkers"])
@pytest.mark.parametrize("hidden", [0.0, 0.3])
def test_stems_are_the_input_where_one_talks_and_sum_to_it_everywhere(
    hidden: float, rest: Literal["background", "talkers"]
) -> None:
    tracks = scene(CROSSING, 21.0)
    noise = on_grid((0.003 * np.random.default_rng(5).standard_normal(21 * RATE)).astype("f4"))
    mixture = Audio((mixed(tracks) + noise)[None], RATE)
    params = replace(PARAMS, rest=rest)
    engine = Oracle(list(tracks.values()), hidden)
    found = list(talkers(mixture, CROSSING, engine, params=params))
    stems = {label: joined(found, label) for label in "ABC"}
    background = joined(found, None)
    assert (sum(stems.values()) + background == mixture.samples).all()
    for region in regions(CROSSING, mixture.frames, RATE, PARAMS):
        here = slice(region.start, region.stop)
        if len(region.who) == 1:
            own = stems[region.who[0]][:, here]
            assert (own == mixture.samples[:, here]).all()
            assert not background[:, here].any()
        elif not region.who:
            inner = slice(region.start + 240, region.stop - 240)
            assert (background[:, inner] == mixture.samples[:, inner]).all()
    if not hidden:
        for label, truth in tracks.items():
            assert si_sdr(stems[label][0], truth) > 18  # the noise stays with who talks alone
    overlapped = slice(round(4.6 * RATE), round(5.9 * RATE))
    left = np.square(background[0, overlapped]).sum() / np.square(noise[overlapped]).sum()
    assert left < 1e-6 if rest == "talkers" else left > 0.9
    assert sum(n for n, _ in engine.asked) < 21 * RATE


def test_without_overlap_the_engine_is_not_asked() -> None:
    turns = [turn("A", 0.5, 2.0), turn("B", 2.0, 3.0), turn("A", 2.96, 4.0)]
    tracks = scene(turns, 5.0)
    mixture = Audio(mixed(tracks)[None], RATE)
    found = list(talkers(mixture, turns, Refuses()))
    again = list(talkers(mixture, turns, None))
    assert not overlaps(turns, PARAMS) and overlaps(CROSSING, PARAMS)
    assert all((joined(found, s) == joined(again, s)).all() for s in "AB")
    assert (joined(found, "A")[0, 8000:32000] == mixture.samples[0, 8000:32000]).all()
    assert not speaker_streams(mixture, turns, Refuses())
    with pytest.raises(EngineUnavailableError):
        list(talkers(mixture, CROSSING, None))
    nobody = list(talkers(mixture, [], None))
    assert nobody[0].stems == {}
    assert (joined(nobody, None) == mixture.samples).all()


def test_an_overlap_from_end_to_end_is_sorted_by_voices_and_stitched() -> None:
    """40 s of two people without a pause: windows agree by their seams, the first by voices."""
    turns = [
        turn("A", 0.0, 8.0),
        turn("B", 8.0, 14.0),
        turn("A", 16.0, 60.0),
        turn("B", 16.0, 60.0),
    ]
    tracks = scene(turns, 60.0)
    mixture = Audio(mixed(tracks)[None], RATE)
    params = replace(PARAMS, context_s=1.0)
    engine = Oracle(list(tracks.values()))
    found = list(talkers(mixture, turns, engine, Pitch(), params))
    assert len(engine.asked) >= 4 and max(n for n, _ in engine.asked) <= 12.02 * RATE
    for label, truth in tracks.items():
        inside = slice(round(16.1 * RATE), round(59.9 * RATE))
        assert si_sdr(joined(found, label)[0, inside], truth[inside]) > 60
    assert max(b.mixture.frames for b in found) <= 12.5 * RATE


def test_speaker_streams_are_the_stems_however_they_are_read() -> None:
    tracks = scene(CROSSING, 21.0)
    mixture = Audio(np.stack([mixed(tracks)] * 2), RATE)
    engine = Oracle(list(tracks.values()))
    found = list(talkers(mixture, CROSSING, engine))
    streams = speaker_streams(mixture, CROSSING, engine)
    assert sorted(streams) == ["A", "B", "C"]
    for label, stream in streams.items():
        whole = joined(found, label)
        for start, stop in [(0, None), (4 * RATE, 9 * RATE + 7), (70001, 70002), (330000, 400000)]:
            assert (stream.read(start, stop).samples == whole[:, start:stop]).all()


@pytest.mark.parametrize("rate", [44100, 8000, 48000])
def test_other_rates_and_channels(rate: int) -> None:
    """A on the left, B on the right, sibilants above 8 kHz: all of it finds its owner."""
    turns = [turn("A", 0.0, 4.0), turn("B", 3.0, 7.0)]
    tracks = scene(turns, 7.0, rate)
    t = np.arange(7 * rate) / rate
    if rate > 20000:
        hiss = np.sin(2 * np.pi * 9500 * t) + np.sin(2 * np.pi * 6300 * t)
        tracks["B"] = on_grid((tracks["B"] + 0.03 * hiss * (t >= 3)).astype(np.float32))
    sides = {"A": (1.0, 0.25), "B": (0.25, 1.0)}
    placed = {k: np.stack([on_grid(tracks[k] * np.float32(g)) for g in sides[k]]) for k in "AB"}
    mixture = Audio(placed["A"] + placed["B"], rate)
    middles = [resample(Audio(p.mean(axis=0, keepdims=True), rate), RATE) for p in placed.values()]
    found = list(talkers(mixture, turns, Oracle([m.samples[0] for m in middles])))
    total = joined(found, "A") + joined(found, "B") + joined(found, None)
    assert (total == mixture.samples).all()
    both = slice(round(3.1 * rate), round(3.9 * rate))
    for label in "AB":
        for channel in (0, 1):
            heard, truth = joined(found, label)[channel, both], placed[label][channel, both]
            assert si_sdr(heard, truth) > 22
    if rate > 20000:
        from scipy.signal import butter, sosfiltfilt

        band = butter(6, 8600, "highpass", fs=rate, output="sos")
        power = {k: np.square(sosfiltfilt(band, joined(found, k)[1])[both]).sum() for k in "AB"}
        assert power["B"] > 20 * power["A"]


def test_background_is_what_stems_leave_of_the_mixture_itself() -> None:
    tracks = scene(CROSSING, 21.0)
    speech = mixed(tracks)[None]
    music = on_grid((0.05 * np.random.default_rng(1).standard_normal(speech.shape)).astype("f4"))
    mixture = Audio(on_grid(speech + music), RATE)
    engine = Oracle(list(tracks.values()))
    found = list(talkers(Audio(speech, RATE), CROSSING, engine, mixture=mixture))
    stems = sum(joined(found, k) for k in "ABC")
    assert (stems + joined(found, None) == mixture.samples).all()
    assert si_sdr(joined(found, None)[0], music[0]) > 30
    with pytest.raises(InputError):
        list(talkers(mixture.read(0, 9), CROSSING, engine, mixture=mixture))


def test_even_stems_beyond_full_scale_sum_to_the_bit() -> None:
    turns = [turn("A", 0.0, 2.0), turn("B", 0.0, 2.0)]
    tracks = {k: v * 70 for k, v in scene(turns, 2.0).items()}
    mixture = Audio(mixed(tracks)[None], RATE)
    assert np.abs(mixture.samples).max() > 8
    found = list(talkers(mixture, turns, Oracle(list(tracks.values()), 0.2)))
    assert (joined(found, "A") + joined(found, "B") + joined(found, None) == mixture.samples).all()


@pytest.mark.parametrize("broken", ["raises", "shape", "nan"])
def test_a_broken_engine_is_named(broken: str) -> None:
    class Broken(Oracle):
        def talkers(self, audio: Audio, count: int) -> Samples:
            if broken == "raises":
                raise RuntimeError("out of luck")
            shape = (count, audio.frames - (broken == "shape"))
            return np.full(shape, np.nan if broken == "nan" else 0, np.float32)

    tracks = scene(CROSSING, 21.0)
    with pytest.raises(EngineFailure, match="oracle"):
        list(talkers(Audio(mixed(tracks)[None], RATE), CROSSING, Broken([*tracks.values()])))


# ---------------------------------------------------------------- who, when, which window


def test_regions_cover_the_recording_and_brief_overlaps_have_one_owner() -> None:
    turns = [turn("A", 1.0, 3.0), turn("A", 2.5, 4.0), turn("B", 3.95, 9.0), turn("C", 8.0, 99.0)]
    found = regions(turns, 10 * RATE, RATE, PARAMS)
    assert found[0].start == 0 and found[-1].stop == 10 * RATE
    assert all(a.stop == b.start for a, b in itertools.pairwise(found))
    assert [r.who for r in found] == [(), ("A",), ("B",), ("B", "C"), ("C",)]
    assert found[1] == Region(RATE, 4 * RATE, ("A",))


def test_every_overlap_is_in_one_core_and_no_window_has_too_many_people() -> None:
    rng = np.random.default_rng(7)
    for _ in range(30):
        turns = []
        for label in "ABCDE":
            at = 0.0
            while at < 60:
                at += float(rng.exponential(8))
                end = at + float(rng.exponential(4))
                turns.append(turn(label, at, min(end, 60.0)))
                at = end
        rate = 44100
        plan = regions([t for t in turns if t.end > t.start], 60 * rate, rate, PARAMS)
        found = windows(plan, rate, RATE, 3, PARAMS)
        assert all(a.last <= b.first for a, b in itertools.pairwise(found))
        for window in found:
            assert window.start * RATE % rate == 0 and window.stop - window.start <= 12.02 * rate
            assert window.start <= window.first < window.last <= window.stop
            assert 2 <= len(window.who) <= 3
        for region in plan:
            if len(region.who) > 1:
                inside = sum(
                    max(0, min(w.last, region.stop) - max(w.first, region.start)) for w in found
                )
                assert inside == region.stop - region.start


def test_context_ends_where_somebody_else_speaks() -> None:
    turns = [turn("D", 0.0, 4.5), turn("A", 4.5, 6.0), turn("B", 5.0, 6.5), turn("C", 6.5, 8.0)]
    plan = regions(turns, 9 * RATE, RATE, PARAMS)
    (window,) = windows(plan, RATE, RATE, 3, PARAMS)
    assert (window.start, window.stop) == (4.5 * RATE, 6.5 * RATE)
    assert window.who == ("A", "B")
    (window,) = windows(regions(turns[1:3], 9 * RATE, RATE, PARAMS), RATE, RATE, 3, PARAMS)
    assert (window.start, window.stop) == (4 * RATE, 7 * RATE)


def test_assignment_by_presence_by_voice_and_by_the_window_before() -> None:
    t = np.arange(3 * RATE) / RATE
    low, high = (np.sin(2 * np.pi * f * t).astype(np.float32) for f in (200, 500))
    outputs = np.stack([high, low])
    alone = np.stack([high * (t >= 1), low * (t < 2)])
    plan = [(0.0, 1.0, ("A",)), (1.0, 2.0, ("A", "B")), (2.0, 3.0, ("B",))]
    assert assign(alone, RATE, plan, ("A", "B")) == [1, 0]
    together = [(0.0, 3.0, ("A", "B"))]
    voices = {"A": Pitch().embed(Audio(low[None], RATE))}
    assert assign(outputs, RATE, together, ("A", "B"), voices, Pitch()) == [1, 0]
    assert assign(outputs[::-1], RATE, together, ("A", "B"), voices, Pitch()) == [0, 1]
    assert assign(outputs, RATE, together, ("A", "B"), before={"B": high[:4000]}) == [1, 0]
    assert assign(outputs, RATE, together, ("A", "B"), before={"A": high[:4000]}) == [0, 1]


def test_a_plan_knows_whether_an_engine_is_needed() -> None:
    assert Plan(regions(CROSSING, 20 * RATE, RATE, PARAMS), RATE, PARAMS).overlapped
    assert not Plan(regions(CROSSING[:1], 20 * RATE, RATE, PARAMS), RATE, PARAMS).overlapped
