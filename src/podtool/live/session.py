"""A live session: a source, the pipeline, and whoever wants its rows, with load kept in bounds.

One thread takes audio in, saves it and puts it into the spool; the caller's thread listens. What
waits is bounded in memory and goes to disk beyond that. Where listening cannot keep up with audio
that comes at its own pace, guesses are left out first, then the separation of voices; never audio,
never last words. Audio that is there already, such as a file on stdin, is taken as it is heard.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from podtool.artifacts import Metric, Partial, Row, Turn, Utterance
from podtool.errors import OutputError
from podtool.live.intake import Intake
from podtool.live.latency import Latencies
from podtool.live.pipeline import Pipeline
from podtool.live.recorder import Recorder, Spool
from podtool.live.status import Block, Shed, Source, Status

SHED_AT_S = (2.0, 5.0)  # behind by more than this: no partials; no separation
CAUGHT_UP_S = 0.5
GAP_S = 0.3  # without audio for longer, whatever was said is over
PACE_S = 2.0  # of audio by which it is told whether it comes at its own pace
ROOM_S = 10.0  # of audio that could be had faster, this much waits at most
METRICS_S = 10.0
STATUS_S = 0.1


class Sink(Protocol):
    """Whoever wants to see rows and status as they happen; neither call may block for long."""

    def rows(self, rows: Iterable[Row]) -> None: ...

    def status(self, status: Status) -> None: ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a session ended."""

    heard_s: float
    lost_s: float
    latencies: Latencies
    warnings: tuple[str, ...]


class Session:
    """`run` until the source ends or `stop`; other methods may be called from other threads."""

    def __init__(
        self,
        source: Source,
        pipelines: Sequence[Pipeline],
        intake: Intake,
        sinks: Sequence[Sink],
        recorder: Recorder | None = None,
        saved: str | None = None,
        head: Sequence[Row] = (),
    ) -> None:
        """A pipeline for each row of the intake. `head`: rows that go before all others."""
        self.source, self.pipelines, self.sinks = source, list(pipelines), list(sinks)
        self.latencies = Latencies()
        self._intake, self._recorder = intake, recorder
        self._spool = Spool(source.sample_rate)
        self._status = Status(source=source.name, saved=saved)
        self._error: BaseException | None = None
        self._head = list(head)
        self._paused = self._stopped = self._hurry = False  # signal handlers set them: no locks
        self._quiet = False  # what was said before a pause is given out
        self._waited = 0.0  # share of the time of the last audio for which the source was waited
        self._orders: list[Callable[[], list[Row]]] = []
        self._lock = threading.Lock()
        self._taken = 0  # frames that came
        self._taken_at = time.monotonic()
        self._lost_s = 0.0
        self._shed = Shed.NOTHING
        self._told, self._shown = time.monotonic(), 0.0
        self._cpu = (time.monotonic(), time.process_time())
        self._level_db = -120.0
        for pipeline in self.pipelines:
            pipeline.keep_spoken = recorder is not None

    # ------------------------------------------------------------------ commands

    def stop(self, hurry: bool = False) -> None:
        """No more audio; what came is listened to, unless in a `hurry`."""
        self._hurry |= hurry
        if not self._stopped:
            self._stopped = True
            self.source.close()

    @property
    def hurried(self) -> bool:
        """Whether it was stopped in a hurry."""
        return self._hurry

    @property
    def paced(self) -> bool:
        """Whether audio comes at its own pace, as from a microphone, also one behind a pipe."""
        return self.source.live or self._waited > 0.5

    def pause(self) -> None:
        """Leave out what comes, or go on."""
        self._paused = not self._paused

    def rename(self, speaker: str, name: str) -> None:
        """Give a person a name."""
        with self._lock:
            self._orders.append(lambda: self._renamed(speaker, name))

    def mark(self) -> None:
        """Remember this moment."""
        at = self._arrived_s()
        row = Metric("mark", round(at, 3), "s", self.pipelines[0].recording)
        with self._lock:
            self._orders.append(lambda: [row])

    def _renamed(self, speaker: str, name: str) -> list[Row]:
        for pipeline in self.pipelines:
            if pipeline.rename(speaker, name):
                return pipeline.news()
        return []

    # ------------------------------------------------------------------ the session

    def run(self) -> Outcome:
        """Raises what the source raises, once everything before that was given out."""
        self._give(self._head)
        intake = threading.Thread(target=self._take, name="podtool-intake", daemon=True)
        intake.start()
        try:
            self._hear()
        finally:
            self._stopped = True
            self.source.close()
        if self._error is not None:
            raise self._error
        return Outcome(self._heard_s(), self._lost_s, self.latencies, self._status.warnings)

    def _hear(self) -> None:
        while not self._hurry:
            block = self._spool.get(timeout=STATUS_S)
            if block is not None:
                self._listen(block)
            elif self._spool.ended:
                break
            elif self._paused and not self._quiet:
                self._give(self._flush())
                self._quiet = True
            self._obey()
            self._keep_up()
            self._show()
        self._obey()
        if not self._hurry:
            self._give(self._push(self._intake.flush()))
            for k, pipeline in enumerate(self.pipelines):
                self._give(self._own(k, pipeline.end()))
        self._give(self._metrics())
        self._show(force=True)

    def _take(self) -> None:
        """The intake's thread."""
        try:
            skipped = 0.0
            blocks = iter(self.source.blocks())
            while (block := self._next(blocks)) is not None:
                if self._paused:
                    skipped += block.gap_s + block.samples.shape[1] / self.source.sample_rate
                    continue
                self._lost_s += block.gap_s
                if skipped:
                    block = Block(block.samples, block.gap_s + skipped)
                    skipped = 0.0
                self._taken += block.samples.shape[1]
                self._taken_at = time.monotonic()
                if self._recorder is not None:
                    self._save(lambda b=block: self._recorder.audio(b))  # type: ignore[misc]
                self._spool.put(block)
                while self._spool.behind_s > ROOM_S and not self.paced and not self._stopped:
                    time.sleep(0.02)
        except BaseException as error:
            self._error = error
        finally:
            self._spool.close()

    def _next(self, blocks: Iterator[Block]) -> Block | None:
        """The next block, and whether the source kept us waiting for it."""
        began = time.monotonic()
        block = next(blocks, None)
        if block is not None and block.samples.shape[1]:
            seconds = block.samples.shape[1] / self.source.sample_rate
            share = min(1.0, (time.monotonic() - began) / seconds)
            self._waited += min(1.0, seconds / PACE_S) * (share - self._waited)
        return block

    def _save(self, act: Callable[[], None]) -> None:
        try:
            act()
        except OutputError as error:
            self._warn(f"{error.message}: nothing more is saved")

    def _warn(self, text: str) -> None:
        self._status = replace(self._status, warnings=(*self._status.warnings, text))

    def _listen(self, block: Block) -> None:
        if block.gap_s:
            self._gap(block.gap_s)
        self._quiet = False
        samples = block.samples
        if samples.shape[1]:
            power = float(np.mean(np.square(samples, dtype=np.float64)))
            self._level_db = 10 * float(np.log10(power + 1e-12))
        self._give(self._push(self._intake.push(block)))

    def _gap(self, seconds: float) -> None:
        at = {"at": round(self._heard_s(), 6)}
        rows: list[Row] = [Metric("gap", round(seconds, 6), "s", extra=at)]
        if seconds >= GAP_S and not self._quiet:
            rows = [*self._flush(), *rows]
        self._give(rows)

    def _flush(self) -> list[Row]:
        """Whatever is being said is over."""
        rows = self._push(self._intake.flush())
        for k, pipeline in enumerate(self.pipelines):
            rows += self._own(k, pipeline.flush())
        return rows

    def _own(self, number: int, rows: Sequence[Row]) -> list[Row]:
        """Rows of one pipeline, their ids different from those of the others."""
        if len(self.pipelines) < 2:
            return list(rows)
        return [
            replace(r, id=f"{r.id}-{number + 1}")
            if isinstance(r, Partial | Utterance | Turn)
            else r
            for r in rows
        ]

    def _push(self, samples: np.ndarray) -> list[Row]:
        rows: list[Row] = []
        for k, (pipeline, own) in enumerate(zip(self.pipelines, samples, strict=True)):
            pipeline.shed = self._shed
            rows += self._own(k, pipeline.push(own))
        return rows

    def _give(self, rows: Sequence[Row]) -> None:
        if self._recorder is not None:
            for pipeline in self.pipelines:
                for said in pipeline.spoken:
                    voice = said.speaker, said.start, said.samples
                    self._save(lambda v=voice: self._recorder.voice(*v))  # type: ignore[misc]
                pipeline.spoken.clear()
        if not rows:
            return
        now = self._arrived_s()
        for row in rows if self.paced else ():
            if isinstance(row, Partial):
                self.latencies.partial(row, now)
            elif isinstance(row, Utterance):
                self.latencies.final(row, now)
        recorder = self._recorder
        if recorder is not None:
            self._save(lambda: recorder.rows(rows))
        for sink in self.sinks:
            sink.rows(rows)

    def _obey(self) -> None:
        with self._lock:
            orders, self._orders = self._orders, []
        for order in orders:
            self._give(order())

    # ------------------------------------------------------------------ load, status

    def _keep_up(self) -> None:
        """Leave out what matters least where listening falls behind a live source."""
        behind, before = self._spool.behind_s, self._shed
        if not self.paced:
            return
        if behind > SHED_AT_S[1]:
            self._shed = Shed.SEPARATION
        elif behind > SHED_AT_S[0]:
            self._shed = max(self._shed, Shed.PARTIALS)
        elif behind < CAUGHT_UP_S:
            self._shed = Shed.NOTHING
        if self._shed != before:
            extra = {"at": round(self._heard_s(), 6), "behind_s": round(behind, 3)}
            self._give([Metric("shed", float(self._shed), "level", extra=extra)])

    def _heard_s(self) -> float:
        return self.pipelines[0].at_s

    def _arrived_s(self) -> float:
        """Seconds of audio that have come by now, the block on its way included."""
        arrived = self._taken / self.source.sample_rate
        if self.paced and not self._stopped:
            arrived += min(time.monotonic() - self._taken_at, 0.2)
        return arrived

    def _metrics(self) -> list[Row]:
        told = self.latencies.now()
        rows: list[Row] = []
        if told is not None:
            rows = [Metric("latency_p50", round(told[0], 3), "s")]
            rows += [Metric("latency_p95", round(told[1], 3), "s")]
        rows += [
            Metric("behind", round(self._spool.behind_s, 3), "s"),
            Metric("lost", round(self._lost_s + self._spool.lost_s, 3), "s"),
            Metric("cpu", round(self._status.cpu, 3), "cores"),
        ]
        at = {"at": round(self._heard_s(), 6)}
        return [replace(r, extra=at) for r in rows if isinstance(r, Metric)]

    def _show(self, force: bool = False) -> None:
        now = time.monotonic()
        if now - self._shown < STATUS_S and not force:
            return
        self._shown = now
        if now - self._cpu[0] >= 1.0:
            used = time.process_time()
            cpu = (used - self._cpu[1]) / (now - self._cpu[0])
            self._cpu = now, used
            self._status = replace(self._status, cpu=cpu)
        self._status = replace(
            self._status,
            at_s=self._heard_s(),
            level_db=self._level_db,
            talkers=tuple(t for p in self.pipelines for t in p.talkers()),
            latency_s=self.latencies.now(),
            behind_s=self._spool.behind_s,
            lost_s=self._lost_s + self._spool.lost_s,
            shed=self._shed,
            paused=self._paused,
            waiting=getattr(self.source, "waiting", None),
        )
        for sink in self.sinks:
            sink.status(self._status)
        if now - self._told >= METRICS_S:
            self._told = now
            _give_back()
            self._give(self._metrics())


def _give_back() -> None:
    """Have the C library give back what is free: engines leave holes of many sizes, for hours."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL("libc.so.6").malloc_trim(0)
