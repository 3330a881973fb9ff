#!/usr/bin/env python3
"""Speed and memory of whole commands, as a user runs them.

usage: performance.py [--minutes 10] [--hours 3] [--skip-long]

Prints metric rows: the real-time factor of diarize and replace on ten minutes (the shows joined),
where the one with the most speech is replaced, and the peak memory (whole process tree) on a
three-hour stereo 44.1 kHz file, where the one with the least is: there the length is the point.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile
from harness import SHOWS, Run, podtool, say, shows_folder

RATE = 44100
CONSENT = "benchmark on openly licensed recordings"


def joined(folder: Path, seconds: float) -> Path:
    """The five shows one after the other, repeated to the length asked for."""
    target = folder / f"joined-{round(seconds)}.wav"
    shows = [shows_folder() / name / "mix.flac" for name in SHOWS]
    left = round(seconds * RATE)
    with soundfile.SoundFile(target, "w", RATE, 2, "PCM_16", format="RF64") as out:
        while left > 0:
            for show in shows:
                samples, _ = soundfile.read(show, dtype="int16", always_2d=True)
                out.write(samples[:left])
                left -= min(left, len(samples))
    return target


def check(run: Run, what: str) -> Run:
    if run.code != 0:
        sys.exit(f"{what} ended with {run.code}:\n{run.stderr[-2000:]}")
    print(f"{what}: {run.seconds:.1f} s, {run.peak_mb:.0f} MB", file=sys.stderr)
    return run


def chosen_speaker(rows: str, most: bool) -> str:
    """The speaker with the most speech, or the one with the least of those with 20 s or more."""
    speakers = [r for r in map(json.loads, rows.splitlines()) if r["kind"] == "speaker"]
    if most:
        return str(max(speakers, key=lambda s: s["speech_s"])["id"])
    enough = [s for s in speakers if s["speech_s"] >= 20] or speakers
    return str(min(enough, key=lambda s: s["speech_s"])["id"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--hours", type=float, default=3)
    parser.add_argument("--skip-long", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        voice = shows_folder() / "clean-2spk" / "voice-target.flac"
        short = joined(folder, options.minutes * 60)
        seconds = options.minutes * 60
        run = check(podtool("diarize", short, "-o", folder / "a.jsonl"), "diarize")
        say("diarize_rtf", run.seconds / seconds, "x real time", "as it is")
        say("diarize_peak_memory", run.peak_mb, "MB", f"{options.minutes:g} min")
        run = check(
            podtool("diarize", short, "--denoise", "always", "-o", folder / "b.jsonl"),
            "diarize --denoise always",
        )
        say("diarize_rtf", run.seconds / seconds, "x real time", "denoising")
        speaker = chosen_speaker((folder / "a.jsonl").read_text(), most=True)
        replace = ("--speaker", speaker, "--voice", voice, "--consent", CONSENT)
        run = check(podtool("replace", short, *replace, "-o", folder / "new.wav"), "replace")
        say("replace_rtf", run.seconds / seconds, "x real time", f"{options.minutes:g} min")
        say("replace_peak_memory", run.peak_mb, "MB", f"{options.minutes:g} min")
        if options.skip_long:
            return
        for used in folder.iterdir():
            if used.is_file():
                used.unlink()
        long = joined(folder, options.hours * 3600)
        run = check(podtool("diarize", long, "-o", folder / "l.jsonl"), "diarize, long")
        say("diarize_peak_memory", run.peak_mb, "MB", f"{options.hours:g} h")
        say(
            "diarize_rtf", run.seconds / options.hours / 3600, "x real time", f"{options.hours:g} h"
        )
        speaker = chosen_speaker((folder / "l.jsonl").read_text(), most=False)
        replace = ("--speaker", speaker, "--voice", voice, "--consent", CONSENT)
        run = check(podtool("replace", long, *replace, "-o", folder / "l.wav"), "replace, long")
        say("replace_peak_memory", run.peak_mb, "MB", f"{options.hours:g} h")
        say(
            "replace_rtf", run.seconds / options.hours / 3600, "x real time", f"{options.hours:g} h"
        )


if __name__ == "__main__":
    np.seterr(all="raise")
    main()
