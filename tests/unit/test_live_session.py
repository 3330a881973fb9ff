"""A live session with made-up parts: load, pauses, gaps, sinks that are slow or gone."""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO, cast

import numpy as np
import pytest

from podtool.artifacts import Metric, Partial, Provenance, Row, Utterance, Word
from podtool.errors import InputError, OutputError
from podtool.live.emitter import WAITING, Emitter
from podtool.live.intake import Intake
from podtool.live.latency import OPEN, Latencies
from podtool.live.pipeline import Pipeline
from podtool.live.recorder import Recorder
from podtool.live.session import ROOM_S, Session
from podtool.live.status import Block, Samples, Shed, Status, Talker
from podtool.rowio import of_kind

RATE = 16000


class Words:
    """A pipeline that says an utterance for each second, and remembers what it was given."""

    recording = "live"
    shed = Shed.NOTHING
    keep_spoken = False

    def __init__(self, cost: float = 0.0) -> None:
        self.cost = cost  # seconds of work for a second of audio; half of it without partials
        self.heard = np.zeros(0, np.float32)
        self.flushed: list[int] = []
        self.sheds: list[Shed] = []
        self.spoken: list[Any] = []
        self.names: dict[str, str] = {}

    @property
    def at_s(self) -> float:
        return len(self.heard) / RATE

    def push(self, samples: Samples) -> list[Row]:
        before = int(self.at_s)
        self.heard = np.concatenate([self.heard, samples])
        self.sheds.append(self.shed)
        cost = self.cost * (1.0, 0.5, 0.1)[self.shed]
        time.sleep(cost * len(samples) / RATE)
        rows: list[Row] = []
        for at in range(before, int(self.at_s)):
            if self.shed == Shed.NOTHING:
                rows.append(Partial(f"u{at}", "live", at, at + 0.9, "so"))
            word = Word("so", at, at + 0.9)
            rows.append(Utterance(f"u{at}", "live", at, at + 0.9, "so", "S1", words=(word,)))
        return rows

    def flush(self) -> list[Row]:
        self.flushed.append(len(self.heard))
        return []

    def end(self) -> list[Row]:
        self.flush()
        return [Utterance("end", "live", self.at_s, self.at_s, "end", "S1")]

    def rename(self, speaker: str, name: str) -> bool:
        self.names[speaker] = name
        return speaker == "S1"

    def news(self) -> list[Row]:
        return [Metric("renamed", 1.0, "x")]

    def talkers(self) -> tuple[Talker, ...]:
        return ()


class Feed:
    """A source of blocks of .1 s that are there at once, or at a pace."""

    name = "feed"
    sample_rate = RATE
    channels = 1
    waiting: str | None = None

    def __init__(
        self,
        seconds: float,
        speed: float = 0.0,
        live: bool = False,
        gaps: dict[int, float] | None = None,
    ) -> None:
        self.live, self._speed, self._gaps = live, speed, gaps or {}
        self._count = round(seconds * 10)
        self.closed = threading.Event()
        self.given = 0
        self.error: Exception | None = None

    def blocks(self) -> Iterator[Block]:
        began = time.monotonic()
        for at in range(self._count):
            if self._speed:
                due = began + (at + 1) / 10 / self._speed
                self.closed.wait(max(0.0, due - time.monotonic()))
            if self.closed.is_set():
                return
            self.given = at + 1
            yield Block(np.full((1, 1600), at + 1, np.float32), self._gaps.get(at, 0.0))
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        self.closed.set()


class Notes:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.all: list[Row] = []
        self.seen: list[Status] = []

    def rows(self, rows: Iterable[Row]) -> None:
        self.all += rows

    def status(self, status: Status) -> None:
        self.seen.append(status)


def session(
    feed: Feed, words: Words, notes: Notes, recorder: Recorder | None = None, **more: Any
) -> Session:
    pipelines = [cast(Pipeline, words)]
    return Session(feed, pipelines, Intake(RATE, 1, "mix"), [notes], recorder, **more)


def numbers(words: Words) -> list[int]:
    return [int(x) for x in words.heard[::1600]]


# ---------------------------------------------------------------- all that comes is heard


def test_everything_is_heard_and_said_in_order() -> None:
    feed, words, notes = Feed(5), Words(), Notes()
    head = Provenance("live", "0")
    outcome = session(feed, words, notes, head=[head]).run()
    assert numbers(words) == list(range(1, 51)) and outcome.heard_s == 5
    assert notes.all[0] is head
    assert [u.id for u in of_kind(notes.all, Utterance)] == ["u0", "u1", "u2", "u3", "u4", "end"]
    assert outcome.latencies.now() is None  # a file that is there already keeps nobody waiting
    assert feed.closed.is_set()


def test_an_error_of_the_source_comes_after_everything_before_it() -> None:
    feed, words, notes = Feed(2), Words(), Notes()
    feed.error = InputError("it broke")
    with pytest.raises(InputError, match="it broke"):
        session(feed, words, notes).run()
    assert len(of_kind(notes.all, Utterance)) == 3


def test_an_error_of_the_pipeline_closes_the_source() -> None:
    class Broken(Words):
        def push(self, samples: Samples) -> list[Row]:
            raise ValueError("a bug")

    feed = Feed(60, 1.0, live=True)
    with pytest.raises(ValueError, match="a bug"):
        session(feed, Broken(), Notes()).run()
    assert feed.closed.is_set()


def test_a_file_is_taken_as_it_is_heard() -> None:
    feed, words = Feed(600), Words(cost=0.02)
    one = session(feed, words, Notes())
    threading.Timer(0.5, one.stop).start()
    one.run()
    ahead = feed.given / 10 - words.at_s
    assert feed.given < 6000 and -0.01 <= ahead <= ROOM_S + 1
    assert not one.paced and set(words.sheds) == {Shed.NOTHING}


# ---------------------------------------------------------------- load


def test_a_pipe_that_brings_a_microphone_is_known_by_its_pace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("podtool.live.session.PACE_S", 0.3)
    one = session(Feed(1.2, 1.0), Words(), Notes())
    assert one.run().latencies.now() is not None and one.paced


def test_load_is_shed_in_order_and_taken_up_again() -> None:
    """A clock that runs twenty times too fast for the slow pipeline."""
    feed, words, notes = Feed(50, 20, live=True), Words(cost=0.2), Notes()
    one = session(feed, words, notes)

    def rest() -> None:
        time.sleep(1.6)
        words.cost = 0.0

    threading.Thread(target=rest).start()
    one.run()
    levels = [int(m.value) for m in of_kind(notes.all, Metric) if m.name == "shed"]
    up = levels[: levels.index(2) + 1]  # a busy machine may be late for the first step
    assert up in ([1, 2], [2]) and levels[-1] == 0
    assert numbers(words) == list(range(1, 501))  # nothing is lost
    assert len(of_kind(notes.all, Utterance)) == 51
    assert len(of_kind(notes.all, Partial)) < 50
    assert max(s.behind_s for s in notes.seen) > 2 and max(s.shed for s in notes.seen) == 2


# ---------------------------------------------------------------- pauses, gaps, people


def test_a_gap_ends_what_is_said_and_counts_as_lost() -> None:
    feed, words, notes = Feed(3, gaps={10: 0.1, 20: 7.5}), Words(), Notes()
    outcome = session(feed, words, notes).run()
    gaps = [(m.value, (m.extra or {})["at"]) for m in of_kind(notes.all, Metric) if m.name == "gap"]
    assert gaps == [(0.1, 1.0), (7.5, 2.0)] and outcome.lost_s == pytest.approx(7.6)
    assert words.flushed == [2 * RATE, 3 * RATE]  # a short gap interrupts nobody


def test_a_source_that_waits_is_waited_for() -> None:
    feed, notes = Feed(1.5, 5, live=True), Notes()
    feed.waiting = "a microphone to come back"
    session(feed, Words(), notes).run()
    assert notes.seen[0].waiting == "a microphone to come back"


def test_pause_lets_people_finish_and_is_no_loss() -> None:
    feed, words, notes = Feed(8, 10, live=True), Words(), Notes()
    one = session(feed, words, notes)
    runner = threading.Thread(target=one.run)
    runner.start()
    time.sleep(0.25)
    one.pause()
    time.sleep(0.3)
    paused_at = words.at_s
    assert words.flushed == [len(words.heard)] and notes.seen[-1].paused
    one.rename("S1", "Ann")
    one.rename("S7", "Nobody")
    one.mark()
    one.pause()
    runner.join(5)
    assert not runner.is_alive()
    missing = sorted(set(range(1, 81)) - set(numbers(words)))
    assert missing and missing == list(range(missing[0], missing[-1] + 1))
    assert notes.seen[-1].lost_s == 0
    told = {m.name: m.value for m in of_kind(notes.all, Metric)}
    assert told["gap"] == pytest.approx(len(missing) / 10)
    assert told["mark"] == pytest.approx(paused_at, abs=0.25)
    assert words.names == {"S1": "Ann", "S7": "Nobody"}
    assert [m.name for m in of_kind(notes.all, Metric)].count("renamed") == 1


def test_stop_says_what_was_heard_and_a_hurry_does_not() -> None:
    for hurry in (False, True):
        feed, words, notes = Feed(60, 10, live=True), Words(), Notes()
        one = session(feed, words, notes)
        threading.Timer(0.3, one.stop, [hurry]).start()
        began = time.monotonic()
        one.run()
        assert time.monotonic() - began < 2
        assert ("end" in [u.id for u in of_kind(notes.all, Utterance)]) is not hurry
        if not hurry:
            assert len(words.heard) == 1600 * feed.given


def test_channels_apart_have_ids_of_their_own() -> None:
    class Two(Feed):
        channels = 2

        def blocks(self) -> Iterator[Block]:
            for block in super().blocks():
                yield Block(np.repeat(block.samples, 2, 0))

    both, notes = [Words(), Words()], Notes()
    intake = Intake(RATE, 2, "apart")
    Session(Two(2), [cast(Pipeline, w) for w in both], intake, [notes]).run()
    ids = [u.id for u in of_kind(notes.all, Utterance)]
    assert sorted(ids) == ["end-1", "end-2", "u0-1", "u0-2", "u1-1", "u1-2"]
    assert {p.id for p in of_kind(notes.all, Partial)} == {i for i in ids if i[0] == "u"}


# ---------------------------------------------------------------- saving


def test_a_disk_that_is_full_ends_the_saving_only(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, RATE, 1)

    def full(block: Block) -> None:
        if recorder.broken is None:
            recorder.broken = "the disk is full"
            raise OutputError("cannot write: the disk is full")

    recorder.audio = full  # type: ignore[method-assign]
    feed, notes = Feed(3), Notes()
    outcome = session(feed, Words(), notes, recorder).run()
    assert outcome.warnings == ("cannot write: the disk is full: nothing more is saved",)
    assert len(of_kind(notes.all, Utterance)) == 4


# ---------------------------------------------------------------- the emitter


def metric(at: int) -> Metric:
    return Metric("behind", float(at), "s")


def test_rows_reach_a_stream_without_a_descriptor() -> None:
    out = io.StringIO()
    with Emitter(out, lambda: None) as emitter:
        emitter.rows([metric(1), metric(2)])
    assert out.getvalue().count("\n") == 2


def pipe() -> tuple[int, TextIO]:
    read, write = os.pipe()
    return read, os.fdopen(write, "w")


def test_a_reader_that_stalls_gets_every_final_later() -> None:
    read, out = pipe()
    text = "so " * 200
    with Emitter(out, lambda: None) as emitter:
        began = time.monotonic()
        for at in range(1000):
            emitter.rows([Partial(f"u{at}", "live", at, at + 1, text), metric(at)])
            emitter.rows([Utterance(f"u{at}", "live", at, at + 1, text, "S1")])
        assert time.monotonic() - began < 2  # nobody was held up
        assert emitter.dropped > 1500 and len(emitter._rows) <= 1000 + WAITING
        got: list[bytes] = []

        def later() -> None:
            while data := os.read(read, 1 << 16):
                got.append(data)

        reader = threading.Thread(target=later)
        reader.start()
    out.close()
    reader.join(10)
    lines = b"".join(got).decode().splitlines()
    finals = [line for line in lines if '"kind": "utterance"' in line]
    assert [f'"id": "u{at}"' in line for at, line in enumerate(finals)] == [True] * 1000
    os.close(read)


def test_a_reader_that_is_gone_stops_the_session() -> None:
    read, out = pipe()
    os.close(read)
    stopped = threading.Event()
    with pytest.raises(BrokenPipeError), Emitter(out, stopped.set) as emitter:
        emitter.rows([metric(1)])
        assert stopped.wait(5)
    out.close()


def test_a_hurry_does_not_wait_for_a_reader() -> None:
    read, out = pipe()
    hurried = threading.Event()
    threading.Timer(0.3, hurried.set).start()
    began = time.monotonic()
    with Emitter(out, lambda: None, hurried.is_set) as emitter:
        emitter.rows([Utterance(f"u{at}", "live", 0, 1, "so " * 9999) for at in range(20)])
    assert time.monotonic() - began < 2
    os.close(read)


def test_warnings_are_told_once() -> None:
    told: list[str] = []
    with Emitter(io.StringIO(), lambda: None, warn=told.append) as emitter:
        for warnings in ((), ("a",), ("a",), ("a", "b")):
            emitter.status(Status(warnings=warnings))
    assert told == ["a", "b"]


# ---------------------------------------------------------------- waiting


def test_latencies_are_of_the_first_partial_that_has_the_word_and_stays() -> None:
    waits = Latencies()
    waits.partial(Partial("u1", "live", 0, 1, "hello"), 1.5)
    waits.partial(Partial("u1", "live", 0, 2, "Hello whirl"), 2.2)
    words = (Word("Hello", 0.5, 1.0), Word("world.", 1.0, 2.0))
    waits.final(Utterance("u1", "live", 0.5, 2.0, "Hello world.", "S1", words=words), 3.0)
    assert waits.words == [0.5, 1.0] and waits.finals == [1.0]
    assert waits.now() == pytest.approx((0.75, 0.975))
    for at in range(500):
        waits.partial(Partial(f"x{at}", "live", 0, 1, "never said"), 1.0)
    assert len(waits._shown) <= OPEN
