#!/usr/bin/env python3
"""Diarization error of ours and of the senko package on the same files, in the same run.

usage: diarization.py [--no-senko] [--no-robustness]   (pip install senko, for the comparison)

DER by pyannote.metrics: on the shows with collar=0.5, which is .25 s on either side, overlap
scored, the number of speakers unknown; on the AMI clips of trust "high" with no collar. Robustness:
every threshold of DiarizeParams times 0.8 and times 1.2, one at a time, and the counts again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from harness import CROSSTALK, SHOWS, data_folder, say, shows_folder

from podtool.audio import Audio, open_audio
from podtool.engines import load
from podtool.engines.protocols import EngineContext
from podtool.resample import resample, to_mono
from podtool.stages.diarize import DiarizeEngines, DiarizeParams, diarize
from podtool.store import ModelStore

Rows = list[tuple[float, float, str]]
# Settings that are no threshold of a decision: what is asked for, and how windows are laid.
NO_THRESHOLD = {"speakers", "min_speakers", "max_speakers", "fill_gap_s", "denoise"}


def read_rttm(path: Path) -> Rows:
    rows = []
    for line in path.read_text().splitlines():
        part = line.split()
        if part and part[0] == "SPEAKER":
            start = float(part[3])
            rows.append((start, start + float(part[4]), part[7]))
    return rows


def error(truth: Rows, found: Rows, seconds: float, collar: float) -> float:
    """DER with `collar` in pyannote.metrics' sense: the whole width around a boundary."""
    from pyannote.core import Annotation, Segment, Timeline
    from pyannote.metrics.diarization import DiarizationErrorRate

    def annotation(rows: Rows) -> Annotation:
        result = Annotation()
        for i, (a, b, who) in enumerate(rows):
            result[Segment(a, b), i] = who
        return result

    metric = DiarizationErrorRate(collar=collar, skip_overlap=False)
    whole = Timeline([Segment(0, seconds)])
    return float(metric(annotation(truth), annotation(found), uem=whole))


def ours(engines: DiarizeEngines, params: DiarizeParams) -> Callable[[Path], Rows]:
    def run(path: Path) -> Rows:
        with open_audio(path) as audio:
            found = diarize(audio, path.stem, engines, params)
        return [(t.start, t.end, t.speaker) for t in found.turns]

    return run


def senkos() -> Callable[[Path], Rows]:
    """senko 0.2.2 as it comes; its input is made beforehand and is not in its time."""
    with contextlib.redirect_stdout(sys.stderr):
        import senko

        diarizer = senko.Diarizer(device="cpu", warmup=False, quiet=True)

    def run(path: Path) -> Rows:
        with contextlib.redirect_stdout(sys.stderr):
            found = diarizer.diarize(str(path))
        rows = found["merged_segments"] if found else []
        return [(r["start"], r["end"], r["speaker"]) for r in rows]

    return run


def for_senko(path: Path, folder: Path) -> Path:
    with open_audio(path) as audio:
        mono = resample(to_mono(audio.read()), 16000)
    target = folder / f"{path.parent.name}-{path.stem}.wav"
    import soundfile

    soundfile.write(target, mono.samples[0], 16000, format="WAV", subtype="PCM_16")
    return target


def seconds_of(path: Path) -> float:
    with open_audio(path) as audio:
        return audio.frames / audio.sample_rate


def score(
    system: Callable[[Path], Rows], files: Sequence[tuple[Path, Rows, float]], collar: float
) -> tuple[list[float], list[bool], float]:
    """(DER of each, count right, wall seconds of all)."""
    errors, right, spent = [], [], 0.0
    for path, truth, seconds in files:
        began = time.perf_counter()
        found = system(path)
        spent += time.perf_counter() - began
        errors.append(error(truth, found, seconds, collar))
        right.append(len({w for *_, w in found}) == len({w for *_, w in truth}))
    return errors, right, spent


def show_files(name: str, names: Iterable[str]) -> list[tuple[Path, Rows, float]]:
    folder = shows_folder()
    result = []
    for show in names:
        path = folder / show / f"{name}.flac"
        result.append((path, read_rttm(folder / show / "truth.rttm"), seconds_of(path)))
    return result


def ami_files() -> list[tuple[Path, Rows, float]]:
    result = []
    for line in (data_folder() / "MANIFEST.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["kind"] == "conversation" and row.get("reference_trust") == "high":
            path = data_folder() / row["path"]
            result.append((path, read_rttm(data_folder() / row["reference"]), seconds_of(path)))
    return result


class Remembered:
    """An engine whose answers to the same samples are kept: settings change, models do not."""

    def __init__(self, engine: Any, method: str) -> None:
        self._engine = engine
        self._known: dict[bytes, Any] = {}
        work = getattr(engine, method)

        def remembered(item: Any) -> Any:
            samples = item.samples if isinstance(item, Audio) else item
            key = hashlib.sha256(np.ascontiguousarray(samples).tobytes()).digest()
            if key not in self._known:
                self._known[key] = work(item)
            return self._known[key]

        setattr(self, method, remembered)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


def robustness(loaded: DiarizeEngines) -> None:
    """Each number among the settings moved by a fifth either way: are the counts still right?"""
    engines: Any = SimpleNamespace(
        vad=loaded.vad,
        segmentation=Remembered(loaded.segmentation, "activity"),
        embedding=Remembered(loaded.embedding, "embed_features"),
    )
    files = show_files("mix", SHOWS) + show_files("speech", SHOWS)
    clips = []
    for path, truth, _ in files:  # decoded once: the same samples for every setting
        with open_audio(path) as audio:
            clips.append((resample(to_mono(audio.read()), 16000), len({w for *_, w in truth})))
    plain = DiarizeParams()
    worst = 1.0
    for item in fields(DiarizeParams):
        value = getattr(plain, item.name)
        if item.name in NO_THRESHOLD or not isinstance(value, float):
            continue
        for factor in (0.8, 1.2):
            change: dict[str, Any] = {item.name: value * factor}
            moved = replace(plain, **change)
            right = [len(diarize(clip, "x", engines, moved).speakers) == n for clip, n in clips]
            share = sum(right) / len(right)
            worst = min(worst, share)
            say("counts_right", share, "ratio", f"{item.name} x {factor}", len(right))
    say("counts_right_worst", worst, "ratio", "any threshold moved by a fifth")


def main() -> None:
    context = EngineContext(ModelStore())
    engines = DiarizeEngines(
        load("vad", "silero", context),
        load("segmentation", "pyannote", context),
        load("embedding", "campplus", context),
    )
    diarize(Audio(np.zeros((1, 16000), np.float32), 16000), "warm-up", engines)
    stems = {"speech": show_files("speech", SHOWS), "mix": show_files("mix", SHOWS)}
    cross = {k: show_files(k, [CROSSTALK]) for k in ("mix", "speech")}
    for label, params in (
        ("default gaps", DiarizeParams()),
        ("gaps 0", DiarizeParams(fill_gap_s=0.0)),
    ):
        spent = length = 0.0
        for stem, files in stems.items():
            errors, right, seconds = score(ours(engines, params), files, 0.5)
            spent += seconds
            length += sum(s for *_, s in files)
            say("der", statistics.mean(errors), "ratio", f"{stem}, {label}", len(errors))
            say("counts_right", sum(right) / len(right), "ratio", f"{stem}, {label}", len(right))
            for (path, *_), value in zip(files, errors, strict=True):
                say("der_of_show", value, "ratio", f"{path.parent.name}, {stem}, {label}")
        for stem, files in cross.items():
            errors, right, _ = score(ours(engines, params), files, 0.5)
            subject = f"{CROSSTALK}, {label}" if stem == "mix" else f"{CROSSTALK}, {stem}, {label}"
            say("der", errors[0], "ratio", subject)
            say("counts_right", float(right[0]), "ratio", subject)
        if params == DiarizeParams():
            say("rtf", spent / length, "ratio", "engines loaded")
    clips = ami_files()
    errors, _, _ = score(ours(engines, DiarizeParams()), clips, 0.0)
    say("der", statistics.mean(errors), "ratio", "AMI clips of trust high, collar 0", len(errors))
    if "--no-senko" not in sys.argv:
        compare(stems, cross, clips)
    if "--no-robustness" not in sys.argv:
        robustness(engines)


def compare(
    stems: dict[str, list[tuple[Path, Rows, float]]],
    cross: dict[str, list[tuple[Path, Rows, float]]],
    clips: list[tuple[Path, Rows, float]],
) -> None:
    """senko on the same files."""
    try:
        system = senkos()
    except ImportError as missing:
        print(f"senko is not here ({missing}): pip install senko", file=sys.stderr)
        return
    with tempfile.TemporaryDirectory() as name:

        def made(files: list[tuple[Path, Rows, float]]) -> list[tuple[Path, Rows, float]]:
            return [(for_senko(p, Path(name)), t, s) for p, t, s in files]

        spent = length = 0.0
        for stem, files in stems.items():
            errors, right, seconds = score(system, made(files), 0.5)
            spent += seconds
            length += sum(s for *_, s in files)
            say("der_senko", statistics.mean(errors), "ratio", f"{stem}, default gaps", len(errors))
            say("counts_right_senko", sum(right) / len(right), "ratio", stem, len(right))
        for stem, files in cross.items():
            errors, right, _ = score(system, made(files), 0.5)
            label = CROSSTALK if stem == "mix" else f"{CROSSTALK}, {stem}"
            say("der_senko", errors[0], "ratio", f"{label}, default gaps")
        errors, _, _ = score(system, made(clips), 0.0)
        say("der_senko", statistics.mean(errors), "ratio", "AMI clips of trust high, collar 0")
        say("rtf_senko", spent / length, "ratio", "engines loaded")


if __name__ == "__main__":
    main()
