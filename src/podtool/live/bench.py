"""`live --bench`: the path on a file, as fast as it goes and at its pace, and where time goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from podtool.artifacts import Metric, Row
from podtool.live.intake import RATE, Intake
from podtool.live.pipeline import Pipeline
from podtool.live.session import Session
from podtool.live.sources import Simulated
from podtool.live.status import Status

PUSH = RATE // 10
PARTS = ("denoise", "vad", "segmentation", "separation", "embedding", "turns", "recognition")
Make = Callable[[Intake], list[Pipeline]]
Line = tuple[str, ...]


class _Deaf:
    """A sink that only wants the session to go on."""

    def rows(self, rows: Iterable[Row]) -> None: ...

    def status(self, status: Status) -> None: ...


def bench(path: Path, channel: str, make: Make, paced: bool = True) -> tuple[list[Row], list[Line]]:
    """Metric rows, and the lines of a table. Raises InputError for a file that cannot be read.

    First as fast as it goes, in pushes of 100 ms, each timed by itself and by what goes on in it;
    then (`paced`) through a session at the pace of real time, for what people have to wait for.
    """
    rows, lines = _pushes(path, channel, make)
    if paced:
        source = Simulated(path)
        intake = Intake(source.sample_rate, source.channels, channel)
        session = Session(source, make(intake), intake, [_Deaf()])
        used = time.process_time()
        outcome = session.run()
        used = time.process_time() - used
        for name, waits in (
            ("word_to_partial", outcome.latencies.words),
            ("end_to_final", outcome.latencies.finals),
        ):
            if waits:
                p50, p95 = np.percentile(np.array(waits), (50, 95))
                rows += [
                    Metric(f"{name}_p50", round(float(p50), 4), "s", n=len(waits)),
                    Metric(f"{name}_p95", round(float(p95), 4), "s", n=len(waits)),
                ]
        rows.append(Metric("lost", round(outcome.lost_s, 4), "s"))
        rows.append(Metric("paced_cpu", round(used / max(outcome.heard_s, 1e-9), 4), "cores"))
    return rows, lines


def _pushes(path: Path, channel: str, make: Make) -> tuple[list[Row], list[Line]]:
    source = Simulated(path, realtime=False)
    intake = Intake(source.sample_rate, source.channels, channel)
    pipelines = make(intake)
    pieces = [intake.push(b) for b in source.blocks()]
    audio = np.concatenate([*pieces, intake.flush()], axis=1)
    walls: dict[str, list[float]] = {"one": [], "several": [], "nobody": []}
    shares: dict[str, list[float]] = {p: [] for p in PARTS}
    began = time.perf_counter()
    for at in range(0, audio.shape[1], PUSH):
        before = [dict(p.clock.seconds) for p in pipelines]
        start = time.perf_counter()
        for pipeline, own in zip(pipelines, audio[:, at : at + PUSH], strict=True):
            pipeline.push(own)
        wall = time.perf_counter() - start
        talking = sum(t.active for p in pipelines for t in p.talkers())
        walls["nobody" if not talking else "one" if talking == 1 else "several"].append(wall)
        for part in PARTS:
            spent = [
                p.clock.seconds.get(part, 0.0) - b.get(part, 0.0)
                for p, b in zip(pipelines, before, strict=True)
            ]
            shares[part].append(sum(spent))
    for pipeline in pipelines:
        pipeline.end()
    took = time.perf_counter() - began
    seconds = audio.shape[1] / RATE
    rows: list[Row] = [Metric("live_rtf", round(took / max(seconds, 1e-9), 4), "x")]
    lines: list[Line] = [("p50 ms", "p95 ms", "worst ms", "of real time")]
    for name, subject in (("one", "one talks"), ("several", "several talk"), ("nobody", "nobody")):
        rows += _figures("push", subject, walls[name])
        lines.append(_line(f"100 ms of audio, {subject}", walls[name], seconds))
    for part in PARTS:
        rows += _figures("part", part, shares[part])
        lines.append(_line(part, shares[part], seconds))
    return rows, lines


def _figures(name: str, subject: str, spent: list[float]) -> list[Row]:
    if not spent:
        return []
    ms = 1000 * np.array(spent)
    p50, p95 = np.percentile(ms, (50, 95))
    values = (("p50", p50), ("p95", p95), ("worst", ms.max()), ("mean", ms.mean()))
    return [Metric(f"{name}_{k}", round(float(v), 3), "ms", subject, len(spent)) for k, v in values]


def _line(label: str, spent: list[float], seconds: float) -> Line:
    if not spent:
        return (label, "", "", "", "")
    ms = 1000 * np.array(spent)
    p50, p95 = np.percentile(ms, (50, 95))
    share = sum(spent) / max(seconds, 1e-9)
    return (label, f"{p50:.1f}", f"{p95:.1f}", f"{ms.max():.1f}", f"{share:.3f}")
