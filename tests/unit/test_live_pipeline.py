"""The path of live with engines that are made up: people are tones, and reading is listening to
which tone sounds. Whatever way the audio is cut, the rows are the same."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from podtool.artifacts import Correction, Partial, Row, Speaker, Turn, Utterance, Word
from podtool.audio import Audio
from podtool.corrections import corrected, settled
from podtool.engines.beam_search import Work, finished
from podtool.engines.segmentation_pyannote import CLASSES, FRAME_SIZE, FRAME_STEP
from podtool.engines.vad_silero import CHUNK
from podtool.live.intake import Intake
from podtool.live.parting import Stream
from podtool.live.pipeline import LiveEngines, LiveParams, Pipeline
from podtool.live.readers import EngineReader, agreed
from podtool.live.solo import solo
from podtool.live.status import Block, Shed
from podtool.live.voice import VoiceParams
from podtool.rowio import encode, of_kind

RATE = 16000
Floats = NDArray[np.float32]
TONES = np.array([300, 500, 800, 1250, 1900, 2800, 4000, 5600], np.float32)
_ANGLES = 2 * np.pi * TONES[None] * np.arange(480)[:, None] / RATE
_SPAN = (np.concatenate([np.cos(_ANGLES), np.sin(_ANGLES)], 1) / 240).astype(np.float32)


def loud(samples: Floats, step: int, size: int = 480) -> Floats:
    """(pieces, tones): how loud each tone is in pieces of `size` samples, `step` apart."""
    padded = np.pad(samples, (0, max(0, size - len(samples))))
    views = np.lib.stride_tricks.sliding_window_view(padded, size)[::step]
    both = np.ascontiguousarray(views[:, :480]) @ _SPAN
    found: Floats = np.hypot(both[:, : len(TONES)], both[:, len(TONES) :])
    return found


class Segmenter:
    """Tones that sound, in classes; the local order says nothing of who they are."""

    def __init__(self) -> None:
        self.calls = 0

    def activity(self, audio: Audio) -> Floats:
        self.calls += 1
        samples = audio.samples[0]
        frames = (len(samples) - FRAME_SIZE) // FRAME_STEP + 1
        heard = loud(samples[(FRAME_SIZE - 480) // 2 :], FRAME_STEP)[:frames] > 0.04
        order = np.argsort(-heard.sum(0), kind="stable")[:3]
        order = np.roll(order, self.calls)
        out = np.full((frames, len(CLASSES)), 0.01, np.float32)
        for frame, active in enumerate(heard[:, order]):
            who = tuple(np.flatnonzero(active)[:2].tolist())
            out[frame, CLASSES.index(who)] = 0.94
        return out


class Vad:
    def start(self) -> int:
        return 0

    def probabilities(self, samples: Floats, state: int) -> tuple[Floats, int]:
        chunks = samples.reshape(-1, CHUNK)
        speech = np.sqrt(np.square(chunks).mean(1)) > 0.02
        return np.where(speech, 0.95, 0.02).astype(np.float32), state + len(chunks)


class Embedder:
    """A direction for each tone, with some noise that depends on the samples alone."""

    def __init__(self, noise: float = 0.5) -> None:
        self._noise = noise
        rng = np.random.default_rng(0)
        self._voices = rng.standard_normal((len(TONES), 192)).astype(np.float32)

    def features(self, samples: Floats) -> Floats:
        found: Floats = np.pad(loud(samples, 160), ((0, 0), (0, 80 - len(TONES))))
        return found

    def embed_features(self, features: Floats) -> Floats:
        mean = features.mean(0)[: len(TONES)]
        rng = np.random.default_rng(int(1e6 * float(mean.sum())) % 2**31)
        vector = mean / max(float(mean.sum()), 1e-6) @ self._voices
        vector = vector + self._noise * rng.standard_normal(192)
        return np.asarray(vector / np.linalg.norm(vector), np.float32)


class Reader:
    """A word for each .3 s: which tones sound."""

    def guess(self, samples: Floats, memory: Any) -> Work[tuple[list[str], Any]]:
        words = yield from self.read(samples)
        return [w.text for w in words], (memory or 0) + 1

    def read(self, samples: Floats) -> Work[list[Word]]:
        size = RATE * 3 // 10
        found = []
        yield 30.0 + len(samples) / 1000
        for at in range(0, len(samples) - size + 1, size):
            here = loud(samples[at : at + size], 480).mean(0) > 0.04
            text = "".join("abcdefgh"[k] for k in np.flatnonzero(here))
            if text:
                found.append(Word(text, at / RATE, (at + size) / RATE, 0.9))
        return found


class Splitter:
    """The two loudest tones so far, apart."""

    count = 2

    def __init__(self, count: int) -> None:
        self.count = count
        self._past = np.zeros(len(TONES))
        self._seen = np.zeros(0, np.float32)

    def push(self, block: Floats) -> Floats:
        self._seen = np.concatenate([self._seen, block])[-8000:]
        self._past += loud(self._seen, 480).sum(0)
        order = sorted(np.argsort(-self._past, kind="stable")[: self.count].tolist())
        at = np.arange(len(block)) / RATE
        out = np.zeros((3, len(block)), np.float32)
        for row, k in enumerate(order):
            wave = np.exp(2j * np.pi * TONES[k] * at)
            out[row] = (2 * np.mean(block * wave.conj()) * wave).real
        return out


class Mumble:
    """A denoiser that is 20 ms late, as the real one is late."""

    def __init__(self) -> None:
        self._held = np.zeros(0, np.float32)

    def push(self, block: Floats) -> Floats:
        both = np.concatenate([self._held, block])
        keep = min(320, len(both))
        self._held = both[len(both) - keep :]
        return both[: len(both) - keep]

    def flush(self) -> Floats:
        rest, self._held = self._held, np.zeros(0, np.float32)
        return rest


def engines(segmenter: Segmenter | None = None, noise: float = 0.3) -> LiveEngines:
    made: dict[str, Any] = {
        "vad": Vad(),
        "segmentation": segmenter or Segmenter(),
        "embedding": Embedder(noise),
        "reader": Reader(),
        "denoiser": Mumble,
        "separator": lambda count: cast(Stream, Splitter(count)),
    }
    return LiveEngines(**made)


def scene(*spans: tuple[int, float, float], seconds: float, seed: int = 0) -> Floats:
    """Tones of people (number, start, end) over a little noise."""
    rng = np.random.default_rng(seed)
    out = rng.normal(0, 1e-4, round(seconds * RATE)).astype(np.float32)
    for who, start, end in spans:
        a, b = round(start * RATE), round(end * RATE)
        at = np.arange(a, b) / RATE
        slow = 1 + 0.2 * np.sin(2 * np.pi * 3.3 * at + who)
        out[a:b] += (0.12 * slow * np.sin(2 * np.pi * TONES[who] * at)).astype(np.float32)
    return out


TALK = scene(
    (0, 0.5, 3.1), (1, 3.3, 6.0), (0, 6.4, 8.0), (1, 7.2, 9.5), (2, 10.5, 13.0),
    (1, 13.6, 16.2), seconds=17.0,
)  # fmt: skip


def heard(audio: Floats, sizes: Iterable[int], **made: Any) -> list[Row]:
    pipeline = Pipeline(engines(**made))
    rows: list[Row] = []
    at = 0
    for size in sizes:
        rows += pipeline.push(audio[at : at + size])
        at += size
    return [*rows, *pipeline.push(audio[at:]), *pipeline.end()]


@pytest.fixture(scope="module")
def whole() -> list[Row]:
    return heard(TALK, [])


# ---------------------------------------------------------------- the law


@settings(max_examples=8)
@given(st.lists(st.integers(0, 40_000), max_size=30))
def test_however_audio_is_cut_the_rows_are_the_same(sizes: list[int]) -> None:
    part = TALK[: 10 * RATE]
    if not AT_ONCE:
        AT_ONCE.extend(encode(r) for r in heard(part, []))
    assert [encode(r) for r in heard(part, sizes)] == AT_ONCE


AT_ONCE: list[str] = []


def test_sample_by_sample(whole: list[Row]) -> None:
    short = TALK[: 2 * RATE]
    assert heard(short, [1] * len(short)) == heard(short, [])


@settings(max_examples=25)
@given(
    st.lists(st.integers(0, 30_000), max_size=30),
    st.sampled_from([8000, 16000, 44100, 48000]),
    st.sampled_from(["mix", "2", "apart"]),
)
def test_however_blocks_are_cut_pipelines_hear_the_same(
    sizes: list[int], rate: int, choice: str
) -> None:
    audio = np.random.default_rng(1).uniform(-0.5, 0.5, (2, 2 * rate)).astype(np.float32)
    audio[1] *= np.linspace(0, 2, audio.shape[1])

    def taken(cuts: list[int]) -> Floats:
        intake = Intake(rate, 2, choice)
        parts = [intake.push(Block(b)) for b in np.split(audio, cuts, axis=1)]
        return np.concatenate([*parts, intake.flush()], axis=1)

    cuts = np.minimum(np.cumsum(sizes, dtype=int), audio.shape[1]).tolist()
    once = taken([])
    assert abs(once.shape[1] - 2 * RATE) <= 2
    np.testing.assert_array_equal(taken(cuts), once)


# ---------------------------------------------------------------- what comes out


def test_who_says_what(whole: list[Row]) -> None:
    said = of_kind(settled(whole), Utterance)
    letters = {"a": set[str](), "b": set[str](), "c": set[str]()}
    for u in said:
        for word in u.words or ():
            if len(word.text) == 1 and u.speaker is not None:
                letters[word.text].add(u.speaker)
    assert letters == {"a": {"S1"}, "b": {"S2"}, "c": {"S3"}}
    overlapping = [u for u in said if u.start < 8.0 and u.end > 7.4]
    assert {u.speaker for u in overlapping} == {"S1", "S2"}
    assert all(set(u.text) <= {"a", "b", " "} for u in overlapping)
    last = of_kind(whole, Speaker)[-3:]
    assert [s.id for s in last] == ["S1", "S2", "S3"] and all(s.embedding for s in last)
    for turn in of_kind(settled(whole), Turn):
        assert 0 <= turn.start < turn.end <= len(TALK) / RATE


def test_ids_and_the_order_of_rows(whole: list[Row]) -> None:
    """Partials go before their final, which is said once; nothing is taken back."""
    finals = of_kind(whole, Utterance)
    assert len({u.id for u in finals}) == len(finals)
    assert len({t.id for t in of_kind(whole, Turn)}) == len(of_kind(whole, Turn))
    over: set[str] = set()
    open_: set[str] = set()
    for row in whole:
        if isinstance(row, Partial):
            assert row.id not in over
            open_.add(row.id)
            assert 0 <= (row.stable or 0) <= len(row.text.split())
            if not row.text:
                over.add(row.id)
        elif isinstance(row, Utterance):
            assert row.id not in over
            over.add(row.id)
    assert open_ <= over and len(open_) >= 5
    for u in finals:
        assert u.words and u.start == u.words[0].start <= u.end


def test_speakers_are_told_of_before_they_are_named_in_rows(whole: list[Row]) -> None:
    known = {"S?", None}
    for row in whole:
        if isinstance(row, Speaker):
            known.add(row.id)
        elif isinstance(row, Partial | Utterance | Turn):
            assert row.speaker in known
        elif isinstance(row, Correction):
            assert {row.source, row.target} <= known


@pytest.mark.parametrize(("noise", "seed"), [(0.3, 0), (0.9, 1), (1.4, 2)])
def test_corrections_lead_to_what_the_tracker_ends_with(noise: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    spans, at = [], 0.5
    while at < 38:
        length = float(rng.uniform(0.4, 3.0))
        spans.append((int(rng.integers(3)), at, at + length))
        at += length + float(rng.uniform(-0.5, 0.8))
    pipeline = Pipeline(engines(noise=noise))
    audio = scene(*spans, seconds=42, seed=seed)
    rows = [*pipeline.push(audio), *pipeline.end()]
    corrections = of_kind(rows, Correction)
    told = {
        (type(r), r.start): corrected(str(r.speaker), r.start, corrections)
        for r in rows
        if isinstance(r, Turn | Utterance)
    }
    after = {
        (type(r), r.start): r.speaker for r in settled(rows) if isinstance(r, Turn | Utterance)
    }
    assert after == told
    written = list(pipeline._labels._rows)
    assert written
    for row in written:
        labels = {label for (_, start), label in told.items() if start == row.start}
        assert row.label in labels, (row, corrections)
        assert pipeline._labels._now(row) == row.label


def test_a_voice_that_nobody_knows_yet_gets_its_name_later() -> None:
    audio = scene((0, 0.5, 1.1), (0, 3.0, 6.0), seconds=9)
    rows = heard(audio, [])
    finals = of_kind(rows, Utterance)
    assert [u.speaker for u in finals][0] in ("S?", "S1")
    assert {u.speaker for u in of_kind(settled(rows), Utterance)} == {"S1"}


# ---------------------------------------------------------------- silence, gaps, load


def test_silence_costs_nothing() -> None:
    segmenter = Segmenter()
    pipeline = Pipeline(engines(segmenter))
    pipeline.push(scene((0, 0.5, 2.0), seconds=5))
    before = segmenter.calls
    rows = pipeline.push(scene(seconds=60, seed=2))
    assert segmenter.calls == before and not of_kind(rows, Partial)
    assert [t.speaker for t in of_kind(rows, Turn)] in ([], ["S1"])
    assert pipeline.end()[-1].kind == "speaker"


@pytest.mark.parametrize("frames", [0, 1, 100, 1619, 1620, 4000, 16000])
def test_scraps_and_silence_say_nothing(frames: int) -> None:
    pipeline = Pipeline(engines())
    assert pipeline.push(np.zeros(frames, np.float32)) == []
    assert pipeline.end() == []
    assert pipeline.at_s == pytest.approx(frames / RATE)


def test_a_flush_ends_what_is_being_said_and_people_are_known_after_it() -> None:
    pipeline = Pipeline(engines())
    rows = pipeline.push(scene((0, 0.5, 3.0), seconds=3.0)[: round(2.95 * RATE)])
    assert not of_kind(rows, Utterance)
    first = pipeline.flush()
    assert [u.speaker for u in of_kind(first, Utterance)] == ["S1"]
    assert pipeline.flush() == []  # nothing came in between
    assert pipeline._raw.end == pipeline._clean.end == round(2.95 * RATE)
    again = [
        *pipeline.push(scene((1, 0.3, 2.5), (0, 3.0, 5.0), seconds=6, seed=4)),
        *pipeline.end(),
    ]
    said = of_kind(settled([*rows, *first, *again]), Utterance)
    assert [u.speaker for u in said] == ["S1", "S2", "S1"]
    assert [u.id for u in said] == ["u0001", "u0002", "u0003"]
    assert said[1].start == pytest.approx(2.95 + 0.3, abs=0.25)
    assert pipeline.at_s == pytest.approx(8.95)


def careful(mixture: Floats, count: int) -> Floats:
    """The loudest tones, apart, by their frequencies."""
    order = sorted(np.argsort(-loud(mixture, 480).sum(0), kind="stable")[:count].tolist())
    spectrum, hertz = np.fft.rfft(mixture), np.fft.rfftfreq(len(mixture), 1 / RATE)
    apart = [np.where(abs(hertz - TONES[k]) < 90, spectrum, 0) for k in order]
    return np.fft.irfft(np.stack(apart), len(mixture)).astype(np.float32)


def test_who_talks_only_while_others_do_is_known_by_their_voice_apart() -> None:
    alone = [(0, 1.0, 3.5), (1, 4.5, 7.0), (2, 8.0, 10.5)]
    together = [(1, 12.0, 15.0), (2, 12.0, 15.0), (0, 17.0, 20.0), (2, 17.2, 20.0)]
    together += [(0, 22.0, 25.0), (1, 22.0, 25.1)]
    pipeline = Pipeline(replace(engines(), careful=careful))
    rows = [*pipeline.push(scene(*alone, *together, seconds=27)), *pipeline.end()]
    said = [u for u in of_kind(list(settled(rows)), Utterance) if u.end - u.start > 1]
    assert len(said) == len(alone) + len(together)
    for u in said:
        letter = "abc"[int((u.speaker or "S0")[1:]) - 1]
        assert u.text.count(letter) >= 7 and set(u.text) == {letter, " "}


class SlowReader(Reader):
    """The last word takes six pieces of 60 ms; counts how often one is begun."""

    def __init__(self) -> None:
        self.begun = 0

    def read(self, samples: Floats) -> Work[list[Word]]:
        self.begun += 1
        for _ in range(6):
            yield 60.0
        return finished(super().read(samples))

    def guess(self, samples: Floats, memory: Any) -> Work[tuple[list[str], Any]]:
        words = yield from super().read(samples)
        return [w.text for w in words], memory


def finals_at(audio: Floats, reader: Reader) -> list[tuple[float, Utterance]]:
    """When each utterance came, on the clock of the audio."""
    pipeline = Pipeline(replace(engines(), reader=reader))
    found = []
    for at in range(0, len(audio), RATE // 10):
        rows = pipeline.push(audio[at : at + RATE // 10])
        found += [(pipeline.at_s, row) for row in of_kind(rows, Utterance)]
    return found


def test_a_last_word_that_takes_long_is_read_while_the_pause_lasts() -> None:
    reader = SlowReader()
    (when, said), *more = finals_at(scene((0, 1.0, 4.0), seconds=7.0), reader)
    assert not more and said.text.count("a") >= 9
    assert when - said.end < 1.2  # .5 s of pause, and no .6 s of reading after it
    assert reader.begun <= 2


def test_what_is_said_after_a_short_pause_is_in_the_last_word() -> None:
    audio = scene((0, 1.0, 3.0), (0, 3.4, 5.0), seconds=8.0)
    found = finals_at(audio, SlowReader())
    assert len(found) == 1 and found[0][1].end == pytest.approx(5.0, abs=0.25)
    assert found[0][1].text.count("a") >= 10


def test_load_leaves_out_partials_then_separation() -> None:
    started: list[int] = []

    def separator(count: int) -> Stream:
        started.append(count)
        return cast(Stream, Splitter(count))

    for shed, partials, parted in ((0, True, True), (1, False, True), (2, False, False)):
        started.clear()
        made = engines()
        pipeline = Pipeline(
            LiveEngines(made.vad, made.segmentation, made.embedding, made.reader, None, separator)
        )
        pipeline.shed = Shed(shed)
        rows = [*pipeline.push(TALK), *pipeline.end()]
        assert bool(of_kind(rows, Partial)) == partials and bool(started) == parted
        assert len(of_kind(rows, Utterance)) >= 5


def test_partials_can_be_left_out() -> None:
    pipeline = Pipeline(engines(), LiveParams(partials=False))
    rows = [*pipeline.push(TALK), *pipeline.end()]
    assert not of_kind(rows, Partial) and of_kind(rows, Utterance)


def test_what_is_spoken_is_kept_where_it_is_wanted(whole: list[Row]) -> None:
    pipeline = Pipeline(engines())
    pipeline.keep_spoken = True
    finals = of_kind([*pipeline.push(TALK), *pipeline.end()], Utterance)
    assert len(pipeline.spoken) >= len(finals)
    for u in finals:
        around = [
            s for s in pipeline.spoken
            if s.start / RATE <= u.start + 1e-3 and u.end <= (s.start + len(s.samples)) / RATE + 0.3
        ]  # fmt: skip
        assert u.speaker in {s.speaker for s in around}


def test_names() -> None:
    pipeline = Pipeline(engines())
    pipeline.push(TALK[: 5 * RATE])
    assert pipeline.rename("S1", "Ann") and not pipeline.rename("S9", "Nobody")
    assert [(s.id, s.name) for s in of_kind(pipeline.news(), Speaker)][:1] == [("S1", "Ann")]
    rows = [*pipeline.push(TALK[5 * RATE :]), *pipeline.end()]
    assert {s.id: s.name for s in of_kind(rows, Speaker)}["S1"] == "Ann"
    known = Embedder(0.0)
    voice = known.embed_features(known.features(scene((0, 0, 2), seconds=2)))
    enrolled = Pipeline(engines(), enrolled={"Kim": voice})
    rows = [*enrolled.push(TALK), *enrolled.end()]
    assert {s.id: s.name for s in of_kind(rows, Speaker)} == {"S1": "Kim", "S2": None, "S3": None}


def test_talkers_of_the_moment() -> None:
    pipeline = Pipeline(engines())
    pipeline.push(TALK[: round(7.9 * RATE)])
    talking = {t.speaker: (t.active, t.overlapped) for t in pipeline.talkers()}
    assert talking == {"S1": (True, True), "S2": (True, True)}
    pipeline.push(scene(seconds=3))
    assert not any(t.active for t in pipeline.talkers())


# ---------------------------------------------------------------- a person on each channel


def test_a_person_on_each_channel() -> None:
    """Each microphone hears the other person, 20 dB down; who talks at once is heard at once."""
    first = scene((0, 0.5, 3.0), (0, 6.0, 9.0), seconds=11)
    second = scene((1, 3.5, 5.5), (1, 7.0, 9.5), seconds=11, seed=1)
    stereo = np.stack([first + 0.1 * second, second + 0.1 * first])
    intake = Intake(RATE, 2, "apart")
    segmenter = Segmenter()
    params = LiveParams(), VoiceParams()
    lines = [solo(engines(segmenter), *params, k) for k in range(intake.rows)]
    rows: list[list[Row]] = [[], []]
    for at in range(0, stereo.shape[1], 1111):
        for k, own in enumerate(intake.push(Block(stereo[:, at : at + 1111]))):
            rows[k] += lines[k].push(own)
    for k, rest in enumerate(intake.flush()):
        rows[k] += [*lines[k].push(rest), *lines[k].end()]
    assert segmenter.calls == 0
    for k, (letter, spans) in enumerate((("a", 2), ("b", 2))):
        finals = of_kind(rows[k], Utterance)
        assert len(finals) == spans and {u.speaker for u in finals} == {f"S{k + 1}"}
        assert set("".join(u.text for u in finals)) <= {letter, " ", "a", "b"}
        assert letter in finals[0].text and len(set(finals[0].text) - {" "}) == 1
        assert {s.id for s in of_kind(rows[k], Speaker)} == {f"S{k + 1}"}
        assert {t.speaker for t in of_kind(rows[k], Turn)} == {f"S{k + 1}"}
        assert not of_kind(rows[k], Correction)


def test_a_channel_with_nobody_on_it_is_quiet() -> None:
    intake = Intake(RATE, 2, "apart")
    one = scene((0, 0.5, 3.0), seconds=4)
    heard_ = intake.push(Block(np.stack([one, 0.2 * one])))
    loudest = np.abs(heard_[1, RATE : 2 * RATE]).max()
    assert loudest == 0 and np.abs(heard_[0]).max() > 0.1


# ---------------------------------------------------------------- hours


def weight(thing: Any, seen: set[int]) -> int:
    """How much a pipeline remembers: items of containers and of arrays."""
    if id(thing) in seen or isinstance(thing, str | bytes | int | float | bool | type(None) | type):
        return 0
    seen.add(id(thing))
    if isinstance(thing, np.ndarray):
        return int(thing.size)
    if isinstance(thing, dict):
        return len(thing) + sum(weight(v, seen) for v in thing.values())
    if isinstance(thing, list | tuple | set | frozenset | deque):
        return len(thing) + sum(weight(v, seen) for v in thing)
    found = weight(getattr(thing, "__dict__", None), seen)
    for kind in type(thing).__mro__:
        for name in getattr(kind, "__slots__", ()):
            found += weight(getattr(thing, name, None), seen)
    return found


@pytest.mark.slow
def test_memory_does_not_grow_with_time() -> None:
    pipeline = Pipeline(engines())
    spans = [(k % 4, 3.0 * k, 3.0 * k + 3.0 + (k % 3 == 0)) for k in range(6)]
    minute = scene(*spans, seconds=60)
    weights = []
    for _ in range(8):
        pipeline.push(minute)
        p = pipeline
        parts = [p.scene, p._voices, p._labels, p._turns, p._parting, p._finals]
        weights.append(weight(parts, set()))
    assert weights[-1] < 1.1 * max(weights[3:6]), weights


# ---------------------------------------------------------------- readers


class Recogniser:
    def transcribe(self, audio: Audio, language: str | None = None) -> list[Utterance]:
        words = (Word("One", 0.0, 0.4, 0.5), Word("two.", 0.5, 0.9, 0.7))
        return [Utterance("u1", "r", 0.0, 1.0, "One two.", words=words)]


def test_any_recogniser_reads() -> None:
    reader = EngineReader(cast(Any, Recogniser()), None, "en")
    samples = np.zeros(RATE, np.float32)
    assert finished(reader.guess(samples, None)) == (["One", "two."], None)
    words = finished(reader.read(samples))
    assert [(w.text, w.score) for w in words] == [("One", 0.5), ("two.", 0.7)]


@pytest.mark.parametrize(
    ("before", "now", "same"),
    [
        ([], [], 0),
        (["One"], [], 0),
        (["One", "two"], ["one,", "two", "three"], 2),
        (["One", "two", "three"], ["One", "too", "three"], 1),
    ],
)
def test_words_that_two_guesses_share(before: Sequence[str], now: Sequence[str], same: int) -> None:
    assert agreed(before, now) == same
