"""podtool live on the shows: who and what, how soon, at what cost.

usage: python benchmarks/live.py [--only shows|waits|start] [SHOW ...]

shows   the full mix of each show through the path, as fast as it goes, corrections applied:
  live_der             collar .25 (.25 s on either side), overlap scored; beside `podtool diarize`
  live_cpwer           beside `podtool transcribe` on the same file
  live_kept_label      share of what each talker says alone, after their first 3 s, under the label
                       that they have most: the least of the show
  live_overlap_recall  words said while two, or three, talk, that the stream of their talker has,
                       against those that the same recogniser has from the clean track of each
                       talker (crosstalk show)
waits   `podtool live --bench` on one show with one talker at a time and on the crosstalk show:
        time from push to rows, by part; at the pace of real time, from a word's end to its first
        partial and from the end of an utterance to its final
start   from the start of the process to the first sound accepted

An hour at real pace is `python benchmarks/soak.py`. Needs PODTOOL_DATA (default ../shared/data),
weights (`podtool models pull embedded`), meeteval, pyannote.metrics.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from diarization import error, read_rttm
from harness import CROSSTALK, SHOWS, podtool, say, shows_folder
from overlap import same_people
from recognition import context, cpwer

from podtool import engines
from podtool.artifacts import Correction, Partial, Row, Turn, Utterance
from podtool.audio import Audio, open_audio
from podtool.corrections import settled
from podtool.engines.beam_search import finished
from podtool.live.intake import Intake
from podtool.live.loading import load
from podtool.live.pipeline import LiveEngines, LiveParams, Pipeline
from podtool.resample import resample, to_mono
from podtool.rowio import of_kind, parse_rows
from podtool.segments import Span, intersect, subtract, total, union
from podtool.stages.align import place_words
from podtool.text import normalise

RATE = 16000
PUSH = RATE // 10
COLLAR = 0.5  # pyannote.metrics counts both sides of a boundary
FIRST_S = 3.0
Samples = np.ndarray


@cache
def loaded() -> LiveEngines:
    found, missing = load(context(), LiveParams(), "moonshine")
    for line in missing:
        print(line, file=sys.stderr)
    return found


def mono(path: Path) -> Samples:
    with open_audio(path) as file:
        return resample(to_mono(file.read()), RATE).samples[0]


def heard(samples: Samples) -> list[Row]:
    """All rows of the path on a recording, in pushes of 100 ms."""
    pipeline = Pipeline(loaded())
    rows: list[Row] = []
    for at in range(0, len(samples), PUSH):
        rows += pipeline.push(samples[at : at + PUSH])
    return [*rows, *pipeline.end()]


def rows_of(*command: object) -> list[Row]:
    done = podtool(*command)
    if done.code != 0:
        sys.exit(f"podtool {' '.join(map(str, command))} ended with {done.code}: {done.stderr}")
    return list(parse_rows(iter(done.stdout.splitlines(True)), "rows"))


# ---------------------------------------------------------------- who and what


def score_shows(shows: Sequence[str]) -> None:
    figures: dict[str, list[float]] = {}
    for show in shows:
        folder = shows_folder() / show
        samples = mono(folder / "mix.flac")
        live = heard(samples)
        found = settled(live)
        turns, said = of_kind(found, Turn), of_kind(found, Utterance)
        offline = rows_of("transcribe", folder / "mix.flac")
        values = {
            "live_der": _der(folder, turns, samples),
            "offline_der": _der(folder, of_kind(offline, Turn), samples),
            "live_cpwer": cpwer(folder, said),
            "offline_cpwer": cpwer(folder, of_kind(offline, Utterance)),
            "live_kept_label": kept_label(folder, turns),
        }
        for name, value in values.items():
            say(name, value, "share", show)
            if show in SHOWS:
                figures.setdefault(name, []).append(value)
        say("corrections", len(of_kind(live, Correction)), "rows", show)
        say("partials", len(of_kind(live, Partial)), "rows", show)
        if show == CROSSTALK:
            say("live_der_ratio", values["live_der"] / values["offline_der"], "x", show)
            recall(folder, turns, said)
    if set(SHOWS) <= set(shows):
        mean = {name: float(np.mean(v)) for name, v in figures.items()}
        for name in ("live_der", "offline_der", "live_cpwer", "offline_cpwer"):
            say(name, mean[name], "share", "five shows", len(SHOWS))
        say("live_der_ratio", mean["live_der"] / mean["offline_der"], "x", "five shows")
        say("live_cpwer_ratio", mean["live_cpwer"] / mean["offline_cpwer"], "x", "five shows")
        say("live_kept_label", min(figures["live_kept_label"]), "share", "five shows, the least")


def _der(folder: Path, turns: Sequence[Turn], samples: Samples) -> float:
    rows = [(t.start, t.end, t.speaker) for t in turns]
    return error(read_rttm(folder / "truth.rttm"), rows, len(samples) / RATE, COLLAR)


def kept_label(folder: Path, turns: Sequence[Turn]) -> float:
    """Of each talker's speech alone, labelled by anything, the share of their main label."""
    truth = read_rttm(folder / "truth.rttm")
    least = 1.0
    for who in sorted({w for _, _, w in truth}):
        own = union(Span(a, b) for a, b, w in truth if w == who)
        others = union(Span(a - 0.25, b + 0.25) for a, b, w in truth if w != who)
        alone = _after(subtract(own, others), own, FIRST_S)
        shares: dict[str, float] = {}
        for label in {t.speaker for t in turns}:
            spans = [Span(t.start, t.end) for t in turns if t.speaker == label]
            shares[label] = total(intersect(alone, spans))
        if sum(shares.values()):
            least = min(least, max(shares.values()) / sum(shares.values()))
    return least


def _after(spans: Sequence[Span], own: Sequence[Span], seconds: float) -> list[Span]:
    """The spans, less the first seconds of what somebody says."""
    left = seconds
    for span in own:
        if left < span.duration:
            return intersect(spans, [Span(span.start + left, 1e9)])
        left -= span.duration
    return []


# ---------------------------------------------------------------- words in overlaps


def recall(folder: Path, turns: Sequence[Turn], said: Sequence[Utterance]) -> None:
    """Words of the overlaps: how many are there, against the clean tracks."""
    truth = json.loads((folder / "truth.seglst.json").read_text())
    people = same_people(folder, turns)
    spans = [(r["start_time"], r["end_time"], r["speaker"]) for r in truth]
    clean = {who: _read_track(folder, who, truth) for who in people}
    for count in (2, 3):
        hits = {"live": 0, "clean": 0}
        words = 0
        for who, label in people.items():
            reference = _true_words(folder, who, truth)
            crowded = [
                sum(a <= (w.start + w.end) / 2 < b for a, b, _ in spans) == count for w in reference
            ]
            own = [u for u in said if u.speaker == label]
            live = " ".join(u.text for u in sorted(own, key=lambda u: u.start))
            texts = [w.text for w in reference]
            for name, text in (("live", live), ("clean", clean[who])):
                found = _found(texts, normalise(text).split())
                hits[name] += sum(f for f, c in zip(found, crowded, strict=True) if c)
            words += sum(crowded)
        subject = f"{CROSSTALK}, {count} at once"
        say("overlap_recall", hits["live"] / max(words, 1), "share", f"{subject}, live", words)
        say("overlap_recall", hits["clean"] / max(words, 1), "share", f"{subject}, clean", words)
        say("live_overlap_recall", hits["live"] / max(hits["clean"], 1), "share", subject, words)


def _found(reference: Sequence[str], hypothesis: Sequence[str]) -> list[bool]:
    """Which reference words the hypothesis has, in an alignment of the two."""
    import jiwer

    found = [False] * len(reference)
    if not hypothesis:
        return found
    aligned = jiwer.process_words(" ".join(reference), " ".join(hypothesis))
    for chunk in aligned.alignments[0]:
        if chunk.type == "equal":
            for k in range(chunk.ref_start_idx, chunk.ref_end_idx):
                found[k] = True
    return found


def _true_words(folder: Path, who: str, truth: Sequence[dict]) -> list:  # type: ignore[type-arg]
    """The words of a talker with times, aligned on the clean track."""
    aligner = engines.load("alignment", "pocketsphinx", context())
    track = mono(folder / f"speaker-{who}.flac")
    words = []
    for row in truth:
        if row["speaker"] == who:
            a, b = round(row["start_time"] * RATE), round(row["end_time"] * RATE)
            texts = normalise(row["words"]).split()
            words += place_words(Audio(track[None, a:b], RATE), texts, aligner, row["start_time"])
    return words


def _read_track(folder: Path, who: str, truth: Sequence[dict]) -> str:  # type: ignore[type-arg]
    """What the recogniser of live reads on the clean track, utterance by utterance."""
    track = mono(folder / f"speaker-{who}.flac")
    texts = []
    for row in truth:
        if row["speaker"] == who:
            a, b = round((row["start_time"] - 0.2) * RATE), round((row["end_time"] + 0.2) * RATE)
            words = finished(loaded().reader.read(track[max(0, a) : b]))
            texts.append(" ".join(w.text for w in words))
    return " ".join(texts)


# ---------------------------------------------------------------- how soon


def waits(shows: Sequence[str]) -> None:
    from podtool.live.bench import bench

    def make(_: Intake) -> list[Pipeline]:
        return [Pipeline(loaded())]

    for show in shows:
        rows, _ = bench(shows_folder() / show / "mix.flac", "mix", make)
        for row in rows:
            subject = f"{show}, {row.subject}" if row.subject else show  # type: ignore[union-attr]
            say(row.name, row.value, row.unit, subject, row.n)  # type: ignore[union-attr]


def start(times: int = 3) -> None:
    """Silence is offered to stdin; a pipe holds 64 KiB, so what goes beyond was accepted."""
    values = []
    for _ in range(times):
        with tempfile.TemporaryFile() as out:
            command = [sys.executable, "-m", "podtool", "-q", "live", "-", "--rate", "16000"]
            began = time.perf_counter()
            with subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=out, stderr=subprocess.DEVNULL
            ) as process:
                assert process.stdin is not None
                process.stdin.write(bytes((64 << 10) + 4096))
                process.stdin.flush()
                values.append(time.perf_counter() - began)
                process.stdin.close()
    say("live_start", float(np.median(values)), "s", "first sound accepted", times)


def main() -> None:
    parser = argparse.ArgumentParser(description="the figures of live")
    parser.add_argument("--only", choices=("shows", "waits", "start"))
    parser.add_argument("shows", nargs="*")
    options = parser.parse_args()
    steps: dict[str, Callable[[], None]] = {
        "waits": lambda: waits(options.shows or ("clean-2spk", CROSSTALK)),
        "start": start,
        "shows": lambda: score_shows(options.shows or (*SHOWS, CROSSTALK)),
    }
    for name, step in steps.items():
        if options.only in (None, name):
            step()


if __name__ == "__main__":
    main()
