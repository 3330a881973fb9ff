"""A live session: a source, the pipeline, and whoever wants its rows, with load kept in bounds.

One thread takes audio in, saves it and puts it into the spool; the caller's thread listens. What
waits is bounded in memory and goes to disk beyond that. Where listening cannot keep up with a live
source, guesses are left out first, then the separation of voices; never audio, never last words.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from podtool.artifacts import Metric, Partial, Row, Utterance
from podtool.errors import OutputError
from podtool.live.intake import Intake
from podtool.live.latency import Latencies
from podtool.live.pipeline import Pipeline
from podtool.live.recorder import Recorder, Spool
from podtool.live.status import Block, Shed, Source, Status

SHED_AT_S = (2.0, 5.0)  # behind by more than this: no partials; no separation
CAUGHT_UP_S = 0.5
GAP_S = 0.3  # without audio for longer, whatever was said is over
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
    ) -> None:
        """A pipeline for each row of the intake."""
        self.source, self.pipelines, self.sinks = source, list(pipelines), list(sinks)
        self.latencies = Latencies()
        self._intake, self._recorder = intake, recorder
        self._spool = Spool(source.sample_rate)
        self._status = Status(source=source.name, saved=saved)
        self._error: BaseException | None = None
        self._paused = threading.Event()
        self._stopped = threading.Event()
        self._hurry = threading.Event()
        self._orders: list[Callable[[], list[Row]]] = []
        self._lock = threading.Lock()
        self._taken = 0  # frames that came
        self._taken_at = time.monotonic()
        self._lost_s = 0.0
        self._shed = Shed.NOTHING
        self._told = self._shown = 0.0
        self._cpu = (time.monotonic(), time.process_time())
        self._level_db = -120.0
        for pipeline in self.pipelines:
            pipeline.keep_spoken = recorder is not None

    # ------------------------------------------------------------------ commands

    def stop(self, hurry: bool = False) -> None:
        """No more audio; what came is listened to, unless in a `hurry`."""
        self._stopped.set()
        if hurry:
            self._hurry.set()
        self.source.close()

    def pause(self) -> None:
        """Leave out what comes, or go on."""
        (self._paused.clear if self._paused.is_set() else self._paused.set)()

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
        intake = threading.Thread(target=self._take, name="podtool-intake", daemon=True)
        intake.start()
        while not self._hurry.is_set():
            block = self._spool.get(timeout=STATUS_S)
            if block is not None:
                self._listen(block)
            elif self._spool.ended:
                break
            self._obey()
            self._keep_up()
            self._show()
        self._give(self._push(self._intake.flush()))
        for pipeline in self.pipelines:
            self._give(pipeline.end())
        self._give(self._metrics())
        self._show(force=True)
        if self._error is not None:
            raise self._error
        return Outcome(self._heard_s(), self._lost_s, self.latencies, self._status.warnings)

    def _take(self) -> None:
        """The intake's thread."""
        try:
            skipped = 0.0
            for block in self.source.blocks():
                if self._paused.is_set():
                    skipped += block.gap_s + block.samples.shape[1] / self.source.sample_rate
                    continue
                if skipped:
                    block = Block(block.samples, block.gap_s + skipped)
                    skipped = 0.0
                self._taken += block.samples.shape[1]
                self._taken_at = time.monotonic()
                if self._recorder is not None:
                    self._save(lambda b=block: self._recorder.audio(b))  # type: ignore[misc]
                self._spool.put(block)
        except BaseException as error:
            self._error = error
        finally:
            self._spool.close()

    def _save(self, act: Callable[[], None]) -> None:
        try:
            act()
        except OutputError as error:
            self._warn(f"{error.message}: nothing more is saved")

    def _warn(self, text: str) -> None:
        self._status = replace(self._status, warnings=(*self._status.warnings, text)[-5:])

    def _listen(self, block: Block) -> None:
        if block.gap_s:
            self._gap(block.gap_s)
        samples = block.samples
        if samples.shape[1]:
            power = float(np.mean(np.square(samples, dtype=np.float64)))
            self._level_db = 10 * float(np.log10(power + 1e-12))
        self._give(self._push(self._intake.push(block)))

    def _gap(self, seconds: float) -> None:
        if not self._paused.is_set():
            self._lost_s += seconds
        at = {"at": round(self._heard_s(), 6)}
        rows: list[Row] = [Metric("gap", round(seconds, 6), "s", extra=at)]
        if seconds >= GAP_S:
            rows = [*self._push(self._intake.flush()), *rows]
            for pipeline in self.pipelines:
                rows += pipeline.flush()
        self._give(rows)

    def _push(self, samples: np.ndarray) -> list[Row]:
        rows: list[Row] = []
        for pipeline, own in zip(self.pipelines, samples, strict=True):
            pipeline.shed = self._shed
            rows += pipeline.push(own)
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
        for row in rows:
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
        if not self.source.live:
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
        if self.source.live and not self._stopped.is_set():
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
            paused=self._paused.is_set(),
            waiting=getattr(self.source, "waiting", None),
        )
        for sink in self.sinks:
            sink.status(self._status)
        if now - self._told >= METRICS_S:
            self._told = now
            self._give(self._metrics())
