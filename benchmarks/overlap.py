#!/usr/bin/env python3
"""Shows in which people talk at once, with and without podtool's own separators.

usage: overlap.py [SHOW ...]      (default: noisy-room-3spk crosstalk-3spk)

Commands as a user runs them, on the full mix, the number of speakers unknown:
  without      diarize, transcribe --overlap mixture
  background   separate, then the same on the speech stem (transcribe --from speech)
  talkers      diarize, transcribe --overlap separate
  stem         separate, diarize and transcribe --overlap separate on the speech stem
  with         separate, diarize the speech stem, transcribe --overlap separate: words are read from
               the recording
overlap_der    collar .25 (.25 s on either side), overlap scored
overlap_cpwer  of the embedded recogniser
others_si_sdr  on the show of crosstalk, where a speaker to be replaced and others talk at once:
               what replace leaves of the others under the new voice, against their true tracks, for
               each speaker in turn. `keep` leaves the recording, `separate` the recording without
               the stem of the replaced speaker (`podtool separate --speakers`)
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile as sf
from diarization import error, read_rttm, seconds_of
from harness import CROSSTALK, podtool, say, shows_folder
from mixtures import Samples
from recognition import cpwer
from talkers import si_sdr

from podtool.artifacts import Row, Turn, Utterance
from podtool.rowio import of_kind, parse_rows
from podtool.segments import Span, intersect, union

SHOWS = ("noisy-room-3spk", CROSSTALK)
RATE = 16000
WAYS = (
    ("without", "mixture"),
    ("talkers", "separate"),
    ("background", "mixture", "--from", "speech"),
    ("stem", "separate", "--from", "speech"),
    ("with", "separate"),
)
COLLAR = 0.5  # pyannote.metrics counts both sides of a boundary


def rows_of(target: Path, *args: object) -> list[Row]:
    """Run a command, keep its rows in a file, and read them."""
    done = podtool(*args)
    if done.code != 0:
        sys.exit(f"podtool {' '.join(map(str, args))} ended with {done.code}: {done.stderr}")
    target.write_text(done.stdout)
    return list(parse_rows(iter(done.stdout.splitlines(True)), target.name))


def score(show: str, scratch: Path) -> None:
    folder = shows_folder() / show
    mix = folder / "mix.flac"
    truth, seconds = read_rttm(folder / "truth.rttm"), seconds_of(mix)
    rows_of(scratch / "stems", "separate", mix, "--engine", "podtool", "--out-dir", scratch / "out")
    figures: dict[tuple[str, str], float] = {}
    for source, heard, labels in (
        ("mix", mix, WAYS[:2]),
        ("stem", scratch / "stems", WAYS[2:]),
    ):
        diarized = scratch / f"diarized-{source}"
        turns = of_kind(rows_of(diarized, "diarize", heard), Turn)
        der = error(truth, [(t.start, t.end, t.speaker) for t in turns], seconds, COLLAR)
        for label, *options in labels:
            read = rows_of(scratch / "read", "transcribe", diarized, "--overlap", *options)
            figures["der", label] = der
            figures["cpwer", label] = cpwer(folder, of_kind(read, Utterance))
    for (name, label), value in figures.items():
        say(f"overlap_{name}", value, "share", f"{show}, {label}")
    for name in ("der", "cpwer"):
        ratio = figures[name, "with"] / figures[name, "without"]
        say(f"overlap_{name}_ratio", ratio, "x", show)


def others(scratch: Path) -> None:
    """The other talkers under a replaced voice, mean over the speakers of the show."""
    folder = shows_folder() / CROSSTALK
    mix, out = folder / "mix.flac", scratch / "speakers"
    turns = of_kind(rows_of(scratch / "turns", "diarize", mix), Turn)
    rows_of(scratch / "by-speaker", "separate", scratch / "turns", "--speakers", "--out-dir", out)
    tracks = {p.stem.removeprefix("speaker-"): mono(p) for p in folder.glob("speaker-*.flac")}
    kept = mono(mix)
    values: dict[str, list[float]] = {"keep": [], "separate": []}
    for who, label in same_people(folder, turns).items():
        slots = intersect(
            union(Span(t.start, t.end) for t in turns if t.speaker == label),
            union(Span(t.start, t.end) for t in turns if t.speaker != label),
        )
        truth = np.sum([x for name, x in tracks.items() if name != who], axis=0)
        left = kept - mono(out / f"speaker-{label}.wav")[: len(kept)]
        for way, found in (("keep", kept), ("separate", left)):
            values[way].append(si_sdr(within(found, slots), within(truth, slots)))
    for way, each in values.items():
        say("others_si_sdr", float(np.mean(each)), "dB", f"{CROSSTALK}, {way}", len(each))
    gain = np.mean(values["separate"]) - np.mean(values["keep"])
    say("others_si_sdr_gain", float(gain), "dB", CROSSTALK)


def same_people(folder: Path, turns: Sequence[Turn]) -> dict[str, str]:
    """Speaker of the show -> the label of the diarization that is theirs, no label twice: so that
    the time that they share is most in all."""
    from scipy.optimize import linear_sum_assignment

    rows = json.loads((folder / "truth.seglst.json").read_text())
    people = sorted({r["speaker"] for r in rows})
    labels = sorted({t.speaker for t in turns})
    shared = np.zeros((len(people), len(labels)))
    for k, who in enumerate(people):
        true = union(Span(r["start_time"], r["end_time"]) for r in rows if r["speaker"] == who)
        for j, label in enumerate(labels):
            own = union(Span(t.start, t.end) for t in turns if t.speaker == label)
            shared[k, j] = sum(s.end - s.start for s in intersect(true, own))
    chosen = zip(*linear_sum_assignment(shared, maximize=True), strict=True)
    return {people[k]: labels[j] for k, j in chosen}


def mono(path: Path) -> Samples:
    """(n,) at 16 kHz."""
    import soxr

    samples, rate = sf.read(path, dtype="float32", always_2d=True)
    return np.asarray(soxr.resample(samples.mean(1), rate, RATE), np.float32)


def within(samples: Samples, spans: Sequence[Span]) -> Samples:
    return np.concatenate([samples[round(a * RATE) : round(b * RATE)] for a, b in spans])


def main() -> None:
    chosen = sys.argv[1:] or SHOWS
    for show in chosen:
        with tempfile.TemporaryDirectory() as scratch:
            score(show, Path(scratch))
    if CROSSTALK in chosen:
        with tempfile.TemporaryDirectory() as scratch:
            others(Path(scratch))


if __name__ == "__main__":
    main()
