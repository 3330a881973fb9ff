"""Whose voice it is, from embeddings alone; rolling segmentation; cutting; seats of a separator."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from podtool.artifacts import Correction, Speaker
from podtool.audio import Audio
from podtool.engines.beam_search import finished
from podtool.engines.segmentation_pyannote import CLASSES
from podtool.live.parting import Parting, Stream
from podtool.live.rolling import Rolling
from podtool.live.scene import Ring
from podtool.live.tracker import FRAME_S, Tracker, TrackerParams, Unit
from podtool.live.turns import Labels
from podtool.live.voice import Voice, VoiceParams
from podtool.rowio import of_kind

RATE = 16000
Floats = NDArray[np.float32]


def normal(vector: NDArray[Any]) -> Floats:
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


class Voices:
    """Random directions, and noisy looks at them: cosines as CAM++ has them for real voices."""

    def __init__(self, count: int, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)
        self.own = [normal(self._rng.standard_normal(192)) for _ in range(count)]
        self._at = 0

    def say(self, who: int, seconds: float = 2.5, chain: int = 0, clean: bool = True) -> Unit:
        noise = normal(self._rng.standard_normal(192)) * (0.9 / np.sqrt(seconds))
        start = self._at
        self._at += round((seconds + 0.3) / FRAME_S)
        stop = start + round(seconds / FRAME_S)
        return Unit(chain, start, stop, normal(self.own[who] + noise), clean, ())


def people(tracker: Tracker, units: list[Unit]) -> list[int | None]:
    return [tracker.who(u.chain, u.start, u.stop) for u in units]


@pytest.mark.parametrize("seed", range(5))
def test_two_voices_keep_a_label_each_and_a_third_arrives(seed: int) -> None:
    voices, tracker = Voices(3, seed), Tracker(TrackerParams())
    units = [voices.say(k % 2, chain=k) for k in range(20)]
    for u in units:
        tracker.hear(u)
    assert people(tracker, units) == [0, 1] * 10
    late = [voices.say(k, chain=100 + k) for k in (2, 0, 2, 1, 2)]
    for u in late:
        tracker.hear(u)
    assert people(tracker, late) == [2, 0, 2, 1, 2]
    assert [p.number for p in tracker.living] == [0, 1, 2]


def test_ten_people_at_a_table() -> None:
    voices, tracker = Voices(10), Tracker(TrackerParams())
    order = [*range(10), *np.random.default_rng(1).permutation(10).tolist(), 9, 0, 4]
    units = [voices.say(who, chain=k) for k, who in enumerate(order)]
    for u in units:
        tracker.hear(u)
    assert people(tracker, units) == order


def test_more_people_than_are_told_apart_join_the_nearest() -> None:
    voices, tracker = Voices(6), Tracker(TrackerParams(most=3))
    for k in range(12):
        tracker.hear(voices.say(k % 6, chain=k))
    assert len(tracker.living) == 3


def test_short_scraps_make_nobody() -> None:
    voices, tracker = Voices(2), Tracker(TrackerParams())
    scrap = voices.say(0, 0.4)
    tracker.hear(scrap)
    assert tracker.people == [] and people(tracker, [scrap]) == [None]
    tracker.hear(voices.say(0, 0.5))
    tracker.hear(voices.say(0, 0.9))  # together they are enough
    assert people(tracker, [scrap]) == [0] and len(tracker.people) == 1


def test_overlapped_speech_founds_nobody() -> None:
    voices, tracker = Voices(2), Tracker(TrackerParams())
    mixed = voices.say(0, 2.0, clean=False)
    tracker.hear(mixed)
    assert tracker.people == []
    tracker.hear(voices.say(0, 2.0, chain=1))
    assert len(tracker.people) == 1


def test_enrolled_people_have_names() -> None:
    voices = Voices(3)
    enrolled = {"Ann": voices.own[1], "Kim": voices.own[2]}
    tracker = Tracker(TrackerParams(), enrolled)
    labels = Labels(tracker, "live")
    for k in range(6):
        tracker.hear(voices.say(k % 2, chain=k))
    assert [(p.number, p.name) for p in tracker.living] == [(0, None), (1, "Ann")]
    names = {s.id: s.name for s in of_kind(labels.told(), Speaker)}
    assert names == {"S1": None, "S2": "Ann"}
    assert labels.told() == []


def test_one_who_was_two_is_merged_and_a_correction_says_so() -> None:
    """Somebody is taken for another person, until more of them is heard."""
    voices, tracker = Voices(2), Tracker(TrackerParams())
    labels = Labels(tracker, "live")
    units = [voices.say(who, chain=who) for who in (0, 1)]
    for u in units:
        tracker.hear(u)
    at = units[1].start * FRAME_S
    labels.wrote(at, labels.of(1), ((1, units[1].start, units[1].stop, True),))
    labels.told()
    one, two = tracker.people
    two.total, two.seconds = one.total.copy(), 10.0
    tracker.hear(voices.say(0, chain=9))
    assert two.heir == 0 and tracker.person(1) is one and tracker.living == [one]
    told = of_kind(labels.told(), Correction)
    assert [(c.source, c.target, c.until) for c in told] == [("S2", "S1", None)]
    assert told[0].since <= at
    assert labels.of(1) == "S1" and labels.told() == []


def test_a_label_that_was_a_guess_is_corrected() -> None:
    """Written down as the nearest's before it was heard; then its own voice tells."""
    voices, tracker = Voices(2), Tracker(TrackerParams())
    labels = Labels(tracker, "live")
    for k in range(4):
        tracker.hear(voices.say(k % 2, chain=k % 2))
    unheard = voices.say(1, chain=0)
    guessed = labels.label(tracker.who(0, unheard.start, unheard.stop))
    assert guessed == "S1"
    labels.told()
    at = unheard.start * FRAME_S
    labels.wrote(at, guessed, ((0, unheard.start, unheard.stop, True),))
    tracker.hear(unheard)
    told = of_kind(labels.told(), Correction)
    assert [(c.source, c.target) for c in told] == [("S1", "S2")]
    assert told[0].since == pytest.approx(at, abs=1e-5) and told[0].until is not None


def test_memory_of_a_voice_is_bounded() -> None:
    voices, tracker = Voices(1), Tracker(TrackerParams())
    for k in range(100):
        tracker.hear(voices.say(0, chain=k))
    assert len(tracker.people) == 1 and tracker.people[0].seconds <= 90.0
    assert len(tracker._units) < 60


# ---------------------------------------------------------------- the ring, the rolling window


@given(st.lists(st.integers(0, 250), max_size=20), st.integers(-50, 900), st.integers(0, 300))
def test_a_ring_holds_the_last_samples(sizes: list[int], start: int, length: int) -> None:
    keep = 100
    ring = Ring(keep)
    whole = np.arange(1, sum(sizes) + 1, dtype=np.float32)
    at = 0
    for size in sizes:
        ring.push(whole[at : at + size])
        at += size
    assert ring.end == len(whole)
    got = ring.read(start, start + length)
    for place, value in enumerate(got.tolist(), start):
        if 0 <= place < len(whole) and place >= len(whole) - keep:
            assert value == whole[place]
        else:
            assert value == 0 or (0 <= place < len(whole) and value == whole[place])


class Played:
    """A segmentation engine that gives what it is told."""

    def __init__(self) -> None:
        self.next: Floats = np.zeros((0, 7), np.float32)

    def activity(self, audio: Audio) -> Floats:
        return self.next


def classes(*who: tuple[int, ...]) -> Floats:
    out = np.zeros((len(who), len(CLASSES)), np.float32)
    for frame, active in enumerate(who):
        out[frame, CLASSES.index(active)] = 1
    return out


def test_chains_go_on_however_windows_order_their_speakers() -> None:
    engine = Played()
    rolling = Rolling(cast(Any, engine))
    nothing = np.zeros(10, np.float32)
    assert rolling.chains(0, 50) == [] and rolling.how_many(0, 2).tolist() == [[1, 0, 0]] * 2
    engine.next = classes(*[(0,)] * 100, *[(1,)] * 100)
    rolling.hear(nothing, 0)
    first, second = rolling.chains(0, 100)[0], rolling.chains(100, 200)[0]
    engine.next = classes(*[(2,)] * 70, *[(0,)] * 100, *[(0, 2)] * 30)
    rolling.hear(nothing, 30)
    assert rolling.chains(0, 100) == [first] and rolling.chains(100, 200) == [second]
    assert set(rolling.chains(200, 230)) == {first, second}
    assert rolling.how_many(210, 230).argmax(1).tolist() == [2] * 20
    assert rolling.trace(first, 500, 600).max() == 0
    rolling.forget()
    rolling.hear(nothing, 60)
    assert not {first, second} & set(rolling.chains(235, 260))


def test_rolling_forgets_what_is_long_ago() -> None:
    engine = Played()
    rolling = Rolling(cast(Any, engine))
    engine.next = classes(*[(0,)] * 500)
    for first in range(0, 20_000, 100):
        rolling.hear(np.zeros(10, np.float32), first)
    assert rolling.end == 20_400 and len(rolling._sums) < 300
    assert len(rolling.chains(20_000, 20_400)) == 1
    assert rolling.how_many(0, 10).tolist() == [[1, 0, 0]] * 10


# ---------------------------------------------------------------- cutting


def spoken(seconds: float, level: float = 0.1) -> Floats:
    at = np.arange(round(seconds * RATE))
    return (level * np.sin(at / 9)).astype(np.float32)


def test_a_pause_ends_an_utterance() -> None:
    voice = Voice(0, VoiceParams())
    lead = spoken(0.2, 0.001)
    voice.speak(8000, spoken(1.0), lead, None, False)
    assert voice.saying is not None and voice.saying.start == 8000 - len(lead)
    voice.rest(24000, spoken(0.3, 0.001), 4800)
    assert voice.done == []
    voice.speak(28800, spoken(0.5), np.zeros(0, np.float32), None, True)
    voice.rest(36800, None, 16000)
    (said,) = voice.done
    assert voice.saying is None
    assert (said.first, said.last, said.apart) == (8000, 36800, True)
    assert said.stop == 36800 + 3200 and not said.samples[-3200:].any()  # somebody else talks
    assert said.speech == 24000


def test_long_speech_is_cut_where_it_is_quietest_and_nothing_is_lost() -> None:
    voice = Voice(0, VoiceParams())
    audio = spoken(13.0)
    audio[round(10.4 * RATE) : round(10.6 * RATE)] *= 0.01
    for at in range(0, len(audio), 8000):
        voice.speak(at, audio[at : at + 8000], audio[:0], None, False)
    (first,) = voice.done
    rest = voice.saying
    assert rest is not None and first.stop / RATE == pytest.approx(10.5, abs=0.1)
    assert first.stop == rest.start == first.last
    np.testing.assert_array_equal(np.concatenate([first.samples, rest.samples]), audio)
    assert first.speech + rest.speech == len(audio)


def test_clicks_are_not_read() -> None:
    voice = Voice(0, VoiceParams())
    voice.speak(0, spoken(0.1), spoken(0), None, False)
    voice.rest(1600, None, 16000)
    assert voice.done == [] and voice.saying is None


def test_a_change_of_source_is_faded() -> None:
    voice = Voice(0, VoiceParams())
    voice.speak(0, np.ones(1600, np.float32), np.zeros(0, np.float32), None, False)
    fade = np.ones(160, np.float32)
    voice.speak(1600, np.zeros(1600, np.float32), np.zeros(0, np.float32), fade, True)
    assert voice.saying is not None
    assert np.abs(np.diff(voice.saying.samples)).max() < 0.1


# ---------------------------------------------------------------- seats


class Apart:
    """A separator that knows the truth, in an order of its own."""

    def __init__(self, stems: Floats, begin: int, order: tuple[int, ...]) -> None:
        self.count = len(order)
        self._stems, self._at, self._order = stems, begin, order

    def push(self, block: Floats) -> Floats:
        a, self._at = self._at, self._at + len(block)
        out = np.zeros((3, len(block)), np.float32)
        for row, stem in enumerate(self._order):
            out[row] = self._stems[stem, a : self._at]
        return out


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_outputs_are_given_to_whoever_they_are(order: tuple[int, int]) -> None:
    """7 says it alone up to 2 s, then 7 and 9 talk at once, then 9 alone."""
    stems = np.zeros((2, 6 * RATE), np.float32)
    stems[0, : 4 * RATE] = spoken(4.0)
    stems[1, 2 * RATE : 5 * RATE] = spoken(3.0, 0.2)
    ring = Ring(30 * RATE)
    ring.push(stems.sum(0))
    begun: list[int] = []

    def start(count: int) -> Stream:
        begun.append(count)
        return cast(Stream, Apart(stems, 2 * RATE - 3 * RATE // 2, order))

    parting = Parting(ring, start)
    parting.told(0, 2 * RATE, (7,))
    for at in range(2 * RATE, 4 * RATE, 8100):
        stop = min(at + 8100, 4 * RATE)
        parting.told(at, stop, (7, 9))
        found = parting.voices(at, stop, (7, 9))
        np.testing.assert_array_equal(found[7], stems[0, at:stop])
        np.testing.assert_array_equal(found[9], stems[1, at:stop])
    tail = parting.after(9, 4 * RATE, 160)
    assert tail is not None and len(tail) == 160
    assert parting.after(5, 4 * RATE, 160) is None
    parting.told(4 * RATE, 6 * RATE, (9,))
    assert parting.after(9, 4 * RATE, 160) is None  # let go: nobody overlaps any more
    assert begun == [2]


def test_a_fourth_voice_is_not_taken_apart() -> None:
    ring = Ring(30 * RATE)
    ring.push(np.zeros(4 * RATE, np.float32))
    stems = np.zeros((3, 8 * RATE), np.float32)
    parting = Parting(ring, lambda count: cast(Stream, Apart(stems, 0, (0, 1, 2))))
    parting.told(2 * RATE, 3 * RATE, (1, 2, 3, 4))
    assert set(parting.voices(2 * RATE, 3 * RATE, (1, 2, 3, 4))) == {1, 2, 3}


def test_overlaps_are_taken_apart_again_as_they_look_by_now() -> None:
    """Alone the recording, in overlaps the own voice, nothing where only others talk."""
    ring = Ring(30 * RATE)
    rng = np.random.default_rng(0)
    stems = rng.normal(0, 0.1, (2, 8 * RATE)).astype(np.float32)
    stems[0, 4 * RATE :] = 0
    stems[1, : 2 * RATE] = 0
    mixture = stems.sum(axis=0)
    ring.push(mixture)
    asked: list[tuple[int, int]] = []

    def careful(samples: Floats, count: int) -> Floats:
        asked.append((len(samples), count))
        return stems[::-1, RATE : RATE + len(samples)]  # from a second before the overlap

    talk = [(0, 2 * RATE, (7,)), (2 * RATE, 4 * RATE, (7, 9)), (4 * RATE, 8 * RATE, (9,))]
    parting = Parting(ring, lambda count: cast(Stream, Apart(stems, 0, (0, 1))), careful)
    first = finished(parting.again(talk, 7, RATE, 5 * RATE))
    second = finished(parting.again(talk, 9, 3 * RATE, 6 * RATE))
    assert asked == [(4 * RATE, 2)] * 2
    edge = 200  # ramps
    np.testing.assert_array_equal(first[: RATE - edge], mixture[RATE : 2 * RATE - edge])
    np.testing.assert_allclose(
        first[RATE + edge : 3 * RATE - edge],
        stems[0, 2 * RATE + edge : 4 * RATE - edge],
        atol=1e-6,
    )
    assert not first[3 * RATE + edge :].any()
    np.testing.assert_allclose(
        second[: RATE - edge], stems[1, 3 * RATE : 4 * RATE - edge], atol=1e-6
    )
    np.testing.assert_array_equal(second[RATE + edge :], mixture[4 * RATE + edge : 6 * RATE])
    assert not len(finished(Parting(ring, parting._start).again(talk, 7, RATE, 5 * RATE)))
