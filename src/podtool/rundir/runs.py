"""Run directories seen from outside: finding them, how far they are, cleaning up."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from podtool.errors import InputError
from podtool.keys import Components
from podtool.replace.plan import STAGES, Request, read_request
from podtool.rundir import POOL, RunDir, read_done
from podtool.rundir.lock import holder_of
from podtool.rundir.takepool import TakePool


@dataclass(frozen=True, slots=True)
class RunFacts:
    """One run directory."""

    path: Path
    request: Request
    done: tuple[str, ...]  # stages that are finished
    state: str  # finished, unfinished, or running (pid)
    bytes: int


def find_runs(folder: Path) -> list[RunFacts]:
    """The run directories in a folder (and the folder itself, if it is one), by name."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder")
    places = [folder, *sorted(p for p in folder.iterdir() if p.is_dir())]
    return [_facts(p) for p in places if (p / "run.json").is_file()]


def _facts(path: Path) -> RunFacts:
    request = read_request(path)
    done = tuple(s for s in STAGES if read_done(path / s) is not None)
    pid = holder_of(path / "lock")
    state = "finished" if (path / "delivered.json").exists() else "unfinished"
    return RunFacts(path, request, done, f"running ({pid})" if pid else state, _size(path))


def _size(path: Path) -> int:
    seen: dict[int, int] = {}
    for file in path.rglob("*"):
        if file.is_file():
            facts = file.stat()
            seen[facts.st_ino] = facts.st_size  # a take has two names
    return sum(seen.values())


def clean_run(path: Path) -> tuple[int, int]:
    """Sweep leftovers, and remove pooled takes that no stage uses; (files, bytes).

    Raises InputError for a folder that is no run, OutputError where it is in use.
    """
    read_request(path)
    before = sum(1 for _ in path.rglob("*")), _size(path)
    with RunDir(path, STAGES) as run:
        TakePool(run.pool).prune(_used(run))
    after = sum(1 for _ in path.rglob("*")), _size(path)
    return before[0] - after[0], before[1] - after[1]


def _used(run: RunDir) -> Iterable[str]:
    """Keys of the takes that the current `synthesize` stage names by content."""
    done = run.done("synthesize")
    if done is None:
        return [p.stem for p in run.pool.glob("*.wav")]
    hashes = set(done.outputs.values())
    keys = []
    for facts in run.pool.glob("*.json"):
        try:
            record: Components = json.loads(facts.read_text(encoding="utf-8"))
        except ValueError:
            continue
        if record.get("sha256") in hashes:
            keys.append(facts.stem)
    return keys


def remove_run(path: Path) -> int:
    """Remove a run directory with all that podtool put there; bytes freed.

    Raises InputError for a folder that is no run, or that holds files of somebody else.
    """
    read_request(path)
    ours = {*STAGES, POOL, "run.json", "journal.jsonl", "run.log", "lock", "delivered.json"}
    known = {*ours, *(f"{s}{end}" for s in STAGES for end in (".part", ".old", ".gone"))}
    strange = sorted(p.name for p in path.iterdir() if p.name not in known)
    if strange:
        raise InputError(
            f"{path} also holds {strange[0]}, which is no part of the run",
            "Move it away, or remove the folder yourself.",
        )
    size = _size(path)
    with RunDir(path, STAGES):
        for name in [*STAGES, POOL]:
            if (path / name).exists():
                shutil.rmtree(path / name)
    shutil.rmtree(path)
    return size
