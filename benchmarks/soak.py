"""podtool live for an hour at real pace: what is lost, how memory grows, whether latency drifts.

usage: python benchmarks/soak.py [--minutes 60] [--keep FOLDER]

The shows of make_podcasts.py one after the other, over and over, as one file; `podtool live
--simulate` on it with rows to a pipe and --save to a folder, as a process of its own.
  soak_lost        seconds of audio, as its metric rows tell
  soak_growth      of memory (proportional set size), from minute five to the end
  soak_latency     p50 from a word's end to its first partial, first and last quarter of the time
  soak_cpu         cores, mean
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile as sf
from harness import CROSSTALK, SHOWS, _pss_kb, say, shows_folder

RATE = 16000


def long_file(path: Path, minutes: float) -> None:
    import soxr

    wanted = round(minutes * 60 * RATE)
    with sf.SoundFile(path, "w", RATE, 1, subtype="PCM_16") as out:
        while out.frames < wanted:
            for show in (*SHOWS, CROSSTALK):
                samples, rate = sf.read(shows_folder() / show / "mix.flac", dtype="float32")
                mono = soxr.resample(samples.mean(axis=1), rate, RATE)
                out.write(mono[: max(0, wanted - out.frames)])


def main() -> None:
    parser = argparse.ArgumentParser(description="an hour of live")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        audio, rows = folder / "hour.wav", folder / "rows.jsonl"
        long_file(audio, options.minutes)
        command = [sys.executable, "-m", "podtool", "live", "--simulate", str(audio), "--jsonl"]
        command += ["--save", str(folder / "saved")]
        memory: list[tuple[float, float]] = []
        began = time.monotonic()
        with rows.open("w") as out, subprocess.Popen(command, stdout=out) as process:
            while process.poll() is None:
                time.sleep(5)
                memory.append(((time.monotonic() - began) / 60, _pss_kb(process.pid) / 1024))
        if process.returncode != 0:
            sys.exit(f"podtool live ended with {process.returncode}")
        report(rows, [m for m in memory if m[1] > 0], options.minutes)


def report(path: Path, memory: list[tuple[float, float]], minutes: float) -> None:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    metrics = [r for r in rows if r["kind"] == "metric" and "at" in r.get("extra", {})]
    subject = f"{minutes:g} min"
    say(
        "soak_lost",
        max((r["value"] for r in metrics if r["name"] == "lost"), default=0),
        "s",
        subject,
    )
    start = np.median([mb for at, mb in memory if 5 <= at <= 6] or [memory[0][1]])
    end = np.median([mb for _, mb in memory[-12:]])
    say("soak_growth", float(end - start), "MB", f"{subject}, from minute five")
    say("soak_memory", float(max(mb for _, mb in memory)), "MB", subject)
    waits = [(r["extra"]["at"], r["value"]) for r in metrics if r["name"] == "latency_p50"]
    quarter = minutes * 60 / 4
    for name, chosen in (
        ("first quarter", [v for at, v in waits if at <= quarter]),
        ("last quarter", [v for at, v in waits if at >= 3 * quarter]),
    ):
        if chosen:
            say("soak_latency", float(np.median(chosen)), "s", f"{subject}, {name}", len(chosen))
    behind = [r["value"] for r in metrics if r["name"] == "behind"]
    say("soak_behind", max(behind, default=0.0), "s", f"{subject}, the most", len(behind))
    say(
        "soak_cpu",
        float(np.mean([r["value"] for r in metrics if r["name"] == "cpu"])),
        "cores",
        subject,
    )
    said = sum(r["kind"] == "utterance" for r in rows)
    say("soak_utterances", said, "rows", subject)


if __name__ == "__main__":
    main()
