"""Shared by the benchmarks: data, shows, running podtool as a process, printing figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHOWS = ("clean-2spk", "music-2spk", "panel-3spk", "noisy-room-3spk", "show-4spk")
CROSSTALK = "crosstalk-3spk"


def data_folder() -> Path:
    """The folder of recordings: PODTOOL_DATA, default ../shared/data beside the project."""
    folder = Path(os.environ.get("PODTOOL_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "MANIFEST.jsonl").exists():
        sys.exit(f"no recordings at {folder}: set PODTOOL_DATA")
    return folder


def shows_folder(seed: int = 7) -> Path:
    """The six shows of make_podcasts.py, mixed once into a cache folder."""
    default = Path(tempfile.gettempdir()) / f"podtool-shows-{seed}"
    folder = Path(os.environ.get("PODTOOL_SHOWS", default))
    if not (folder / CROSSTALK / "about.json").exists():
        script = data_folder().parent / "tools" / "make_podcasts.py"
        command = [sys.executable, str(script), str(data_folder()), str(folder), str(seed)]
        subprocess.run(command, check=True, stdout=sys.stderr)
    return folder


@dataclass(frozen=True, slots=True)
class Run:
    """One finished process: exit code, wall seconds, peak memory of its whole tree in MB."""

    code: int
    seconds: float
    peak_mb: float
    stdout: str
    stderr: str


def podtool(*args: object, cwd: Path | None = None) -> Run:
    """Run a podtool command as a user would, and watch its time and memory."""
    command = [sys.executable, "-m", "podtool", *(str(a) for a in args)]
    began = time.perf_counter()
    with (
        tempfile.TemporaryFile("w+") as out,
        tempfile.TemporaryFile("w+") as err,
        subprocess.Popen(command, stdout=out, stderr=err, cwd=cwd) as process,
    ):
        peak = _PeakMemory(process.pid)
        code = process.wait()
        seconds = time.perf_counter() - began
        peak_mb = peak.stop()
        out.seek(0)
        err.seek(0)
        return Run(code, seconds, peak_mb, out.read(), err.read())


class _PeakMemory:
    """Samples the proportional set size of a process and its children ten times a second."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._peak_kb = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._done.wait(0.1):
            self._peak_kb = max(self._peak_kb, sum(_pss_kb(p) for p in _tree(self._pid)))

    def stop(self) -> float:
        self._done.set()
        self._thread.join()
        return self._peak_kb / 1024


def _tree(pid: int) -> Iterator[int]:
    yield pid
    try:
        tasks = Path(f"/proc/{pid}/task").iterdir()
        for task in tasks:
            for child in (task / "children").read_text().split():
                yield from _tree(int(child))
    except OSError:
        return


def _pss_kb(pid: int) -> int:
    """Private memory plus the share of what is shared (Linux)."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    except OSError:
        pass
    return 0


def say(
    name: str, value: float, unit: str, subject: str | None = None, n: int | None = None
) -> None:
    """Print one figure as a metric row on stdout."""
    row = {"kind": "metric", "v": 1, "name": name, "value": round(value, 6), "unit": unit}
    if subject is not None:
        row["subject"] = subject
    if n is not None:
        row["n"] = n
    print(json.dumps(row), flush=True)
