#!/usr/bin/env python3
"""What a worker costs over the same engine in process, and what a killed one costs.

usage: workers.py [--seconds S] [--rounds N] [--kills N] [--seed N]

Cost: a minute of the demo's speech through each embedded engine, in this process and in a worker,
turn about. What counts is processor time, that of both processes together, so that other work of
the machine does not matter: nothing runs at the same time, so on a free machine it is the time that
passes. That is told too, as the shortest of the rounds. The transport alone is timed with an engine
that gives back what it gets. Kills: SIGKILL at random moments while windows are read; the time from
the kill to the next answer, less what loading and reading take in process, and the rows that differ
from an undisturbed reading.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from harness import say

from podtool import demo, engines
from podtool.audio import Audio
from podtool.engines.protocols import EngineContext, EngineInfo, WorkerParams
from podtool.engines.worker import Worker
from podtool.resample import resample, to_mono
from podtool.store import ModelStore

WINDOW_S = {"segmentation": 10.0, "embedding": 3.0, "separation": 20.0, "transcription": 15.0}
TIMED = (
    ("vad", "silero"),
    ("segmentation", "pyannote"),
    ("embedding", "campplus"),
    ("separation", "spectral"),
    ("alignment", "pocketsphinx"),
    ("transcription", "moonshine"),
)
ENOUGH_S = 6.0  # of processor time; slow engines get fewer rounds
CALLS: dict[str, tuple[str, tuple[Any, ...]]] = {
    "vad": ("detect", ()),
    "segmentation": ("activity", ()),
    "embedding": ("embed", ()),
    "separation": ("separate", ()),
    "alignment": ("align", (["it", "was", "the", "best", "of", "times"],)),
    "transcription": ("transcribe", ("en",)),
}


class Echo:
    """Gives back what it gets: what is left is the transport."""

    info: ClassVar[EngineInfo] = EngineInfo("echo", "separation", "1", "MIT", "embedded", 0, 0)

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        return cls()

    def separate(self, audio: Audio) -> dict[str, Audio]:
        return {"speech": audio}


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--seconds", type=float, default=60.0)
    options.add_argument("--rounds", type=int, default=10)
    options.add_argument("--kills", type=int, default=5)
    options.add_argument("--seed", type=int, default=7)
    given = options.parse_args()
    store = ModelStore()
    episode = demo.build(store.folder("demo-recordings"), store.folder("demo-voice")).episode
    audio = episode.read(0, round(given.seconds * episode.sample_rate))
    here = EngineContext(store, threads=1, worker=WorkerParams(isolate="never"))
    transport(audio, here, given.rounds)
    costs = []
    for stage, name in TIMED:
        status = engines.availability(stage, name, here)
        if not status.available:
            print(f"{name}: {status.reason}", file=sys.stderr)
            continue
        costs.append(cost(stage, name, audio, here, given.rounds))
    if costs:
        say("worker_cost_worst", max(costs), "share", n=len(costs))
        say("worker_cost_median", statistics.median(costs), "share", n=len(costs))
    kills(audio, here, given.kills, random.Random(given.seed))


def apart(context: EngineContext) -> EngineContext:
    return replace(context, worker=WorkerParams(isolate="always"), incidents=[])


def transport(audio: Audio, here: EngineContext, rounds: int) -> None:
    """A minute of the recording as it is, to a worker and back."""
    sys.modules.setdefault("workers", sys.modules[__name__])
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    engines.BUILTIN["separation"]["echo"] = "workers:Echo"
    pieces = windows(audio, 20.0)
    with engines.load("separation", "echo", apart(here)) as engine:
        best = min(timed(lambda: [engine.separate(p) for p in pieces]) for _ in range(rounds))
    del engines.BUILTIN["separation"]["echo"]
    megabytes = 2 * audio.samples.nbytes / 1e6
    say(
        "transport", best, "s", f"{audio.duration:.0f} s, {audio.channels} channels, there and back"
    )
    say("transport_rate", megabytes / best, "MB/s")


def cost(stage: str, name: str, audio: Audio, here: EngineContext, rounds: int) -> float:
    """How much longer the worker takes, as a share of the time in process."""
    method, more = CALLS[stage]
    inside = engines.load(stage, name, here)
    heard = prepared(inside, audio)
    pieces = windows(heard, WINDOW_S.get(stage, 20.0))
    wall: dict[bool, list[float]] = {False: [], True: []}
    cpu = {False: 0.0, True: 0.0}
    with engines.load(stage, name, apart(here)) as outside:
        for engine in (inside, outside):
            getattr(engine, method)(pieces[0], *more)
        done = 0
        while done < rounds and (done == 0 or cpu[False] < ENOUGH_S):
            for worker, engine in ((False, inside), (True, outside)):
                ask = getattr(engine, method)
                before = cpu_of(outside)
                wall[worker].append(timed(lambda ask=ask: [ask(p, *more) for p in pieces]))
                cpu[worker] += cpu_of(outside) - before
            done += 1
    subject = f"{stage} {name}"
    share = cpu[True] / cpu[False] - 1
    say("in_process", cpu[False] / done, "s of processor", subject, n=done)
    say("worker_cost", share, "share", subject, n=done)
    say("worker_cost_wall", min(wall[True]) / min(wall[False]) - 1, "share", subject, n=done)
    return share


def cpu_of(worker: Worker) -> float:
    """Processor time of this process and a worker, in seconds."""
    fields = Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def kills(audio: Audio, here: EngineContext, count: int, rng: random.Random) -> None:
    """SIGKILL while a window is read: the time to its answer, and rows that are lost."""
    began = time.perf_counter()
    inside = engines.load("transcription", "moonshine", here)
    load_s = time.perf_counter() - began
    pieces = windows(prepared(inside, audio), 6.0)
    wanted, durations = [], []
    for piece in pieces:
        began = time.perf_counter()
        wanted.append(inside.transcribe(piece, "en"))
        durations.append(time.perf_counter() - began)
    context = apart(here)
    found, waits = [], []
    victims = set(rng.sample(range(len(pieces)), min(count, len(pieces))))
    with engines.load("transcription", "moonshine", context) as engine:
        for k, piece in enumerate(pieces):
            if k not in victims:
                found.append(engine.transcribe(piece, "en"))
                continue
            killed = Kill(engine, rng.uniform(0.1, 0.9) * durations[k])
            found.append(engine.transcribe(piece, "en"))
            if killed.at is not None and killed.done():
                waits.append(time.perf_counter() - killed.at - durations[k])
    say("load_average", os.getloadavg()[0], "processes", f"of {os.cpu_count()} cores")
    say("kills", len(waits), "kills", n=len(victims))
    say("rows_lost", sum(a != b for a, b in zip(wanted, found, strict=True)), "rows", n=len(pieces))
    if waits:
        say("after_kill", statistics.median(waits), "s", "with loading", n=len(waits))
        besides = [w - load_s for w in waits]
        say("after_kill", statistics.median(besides), "s", "besides loading", n=len(waits))
        say("after_kill_worst", max(besides), "s", "besides loading", n=len(waits))
    say("engine_load", load_s, "s", "in process, first time")


class Kill:
    """Kills a worker after a while, unless it has answered by then."""

    def __init__(self, engine: Worker, after_s: float) -> None:
        self.at: float | None = None
        self._pid = engine.pid
        self._timer = threading.Timer(after_s, self._kill)
        self._timer.start()

    def _kill(self) -> None:
        assert self._pid is not None
        os.kill(self._pid, signal.SIGKILL)
        self.at = time.perf_counter()

    def done(self) -> bool:
        self._timer.cancel()
        self._timer.join()
        return self.at is not None


def prepared(engine: Any, audio: Audio) -> Audio:
    """The audio at the rate and channels of an engine."""
    info: EngineInfo = engine.info
    heard = audio if info.channels != 1 else to_mono(audio)
    return resample(heard, info.sample_rate or audio.sample_rate)


def windows(audio: Audio, seconds: float) -> list[Audio]:
    size = round(seconds * audio.sample_rate)
    parts = [audio.read(s, min(s + size, audio.frames)) for s in range(0, audio.frames, size)]
    return [Audio(np.ascontiguousarray(p.samples), p.sample_rate) for p in parts]


def timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
