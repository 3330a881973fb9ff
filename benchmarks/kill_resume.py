#!/usr/bin/env python3
"""`kill -9` at random moments of replace, then again: the same bytes, nothing finished done twice.

usage: kill_resume.py [--kills N] [--seed N] [--seconds S] [--method convert|speak]

Every moment gets a fresh run directory: replace is started as a process of its own, killed with
its children after a random time, checked for leftovers under final names, and run again. What
the two runs left is compared with an uninterrupted run, file by file (journal, log and lock hold
times and are left out), and the journal is searched for a stage or take that was finished and
then started again. Prints metric rows; exits with 1 on any difference.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness import say

from podtool import demo
from podtool.audio import Audio, write_audio
from podtool.store import ModelStore

VOLATILE = {"journal.jsonl", "run.log", "lock", "run.json"}  # run.json names the output


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--kills", type=int, default=20)
    options.add_argument("--seed", type=int, default=7)
    options.add_argument("--seconds", type=float, default=30.0)
    options.add_argument("--method", default="convert")
    given = options.parse_args()
    rng = random.Random(given.seed)
    with tempfile.TemporaryDirectory(prefix="podtool-kill-") as name:
        folder = Path(name)
        store = ModelStore()
        made = demo.build(store.folder("demo-recordings"), store.folder("demo-voice"))
        stop = round(given.seconds * made.episode.sample_rate)
        episode, voice = folder / "episode.wav", folder / "voice.wav"
        write_audio(episode, Audio(made.episode.samples[:, :stop], made.episode.sample_rate))
        write_audio(voice, made.voice)
        profile = folder / "voice.jsonl"
        consent = ("--consent", "benchmark on public recordings")
        podtool("clone", voice, "-o", profile, *consent).check_returncode()

        def command(place: Path) -> list[str]:
            place.mkdir()
            new = ["--speaker", "S1", "--voice", str(voice), *consent, "-o", str(place / "new.wav")]
            return line("replace", episode, *new, "--method", given.method, "--allow-draft")

        plain = folder / "plain"
        began = time.perf_counter()
        first = subprocess.run(command(plain), capture_output=True, text=True)
        whole_s = time.perf_counter() - began
        if first.returncode:
            sys.exit(f"the uninterrupted run ended with {first.returncode}:\n{first.stderr}")
        wanted = tree(plain)
        say("uninterrupted_run", whole_s, "s", n=len(wanted))
        bad = repeated = interrupted = 0
        for number in range(1, 3 * given.kills + 1):
            if interrupted == given.kills:
                break
            place = folder / f"kill{number:02d}"
            after = rng.uniform(0.2, 0.98) * whole_s
            run = command(place)
            began = time.perf_counter()
            killed = kill_after(run, after)
            interrupted += killed
            if not killed:  # the machine was busier before: aim earlier from now on
                whole_s = min(whole_s, time.perf_counter() - began)
            again = subprocess.run(run, capture_output=True, text=True)
            differences = compare(wanted, tree(place))
            twice = done_twice(place / "new.podtool" / "journal.jsonl")
            bad += bool(again.returncode or differences)
            repeated += len(twice)
            state = "ok" if not (again.returncode or differences or twice) else "BAD"
            what = f"killed after {after:.1f} s" if killed else "ended by itself"
            told = f"run {number}, {what}: {state} {differences} {twice}"
            print(told, again.stderr if again.returncode else "", file=sys.stderr, flush=True)
            shutil.rmtree(place)
        say("kills", interrupted, "runs", n=given.kills)
        say("runs_that_differ", bad, "runs", n=given.kills)
        say("finished_work_done_again", repeated, "stages and takes", n=given.kills)
    sys.exit(1 if bad or repeated or interrupted < given.kills else 0)


def line(*args: object) -> list[str]:
    return [sys.executable, "-m", "podtool", *(str(a) for a in args)]


def podtool(*args: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(line(*args), capture_output=True, text=True)


def kill_after(command: list[str], seconds: float) -> bool:
    """Start, wait, SIGKILL the whole process group; False where it had ended by itself."""
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        process.wait(seconds)
        return False
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True


def tree(folder: Path) -> dict[str, str]:
    """Relative path -> sha256 of every file, the folder's own path taken out of the rows."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in VOLATILE:
            data = path.read_bytes()
            if path.suffix in (".json", ".jsonl"):
                data = data.replace(str(folder).encode(), b"FOLDER")
            found[path.relative_to(folder).as_posix()] = hashlib.sha256(data).hexdigest()
    return found


def compare(wanted: dict[str, str], found: dict[str, str]) -> list[str]:
    return sorted(k for k in {*wanted, *found} if wanted.get(k) != found.get(k))


def done_twice(journal: Path) -> list[str]:
    """Stages started after they had finished with the same key, and takes made twice."""
    finished: set[str] = set()
    twice: list[str] = []
    for text in journal.read_text().splitlines():
        try:
            event = json.loads(text)
        except ValueError:
            continue  # cut short by the kill
        what = f"{event.get('stage', event.get('take', ''))} {event.get('key', '')[:12]}"
        if event["event"] in ("started", "take") and what in finished:
            twice.append(what)
        if event["event"] in ("finished", "take"):
            finished.add(what)
    return twice


if __name__ == "__main__":
    main()
