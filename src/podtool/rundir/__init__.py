"""A run directory: one visible folder per stage, reused by key and hashes, resumable after a kill.

A stage is built in `<stage>.part`, `done.json` (key, components, sha256 of every output) is
written last, and the folder is renamed into place. JSONL edited by hand pins its stage; audio that
changed counts as damage. Times and the process go to the journal only, never into an artifact.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from podtool.audio import sha256_of
from podtool.errors import InputError, OutputError
from podtool.keys import Components, first_difference, key_of
from podtool.rowio import read_rows
from podtool.rundir.journal import Journal
from podtool.rundir.lock import FolderLock

log = logging.getLogger(__name__)

DONE = "done.json"
POOL = "takes"
Action = Literal["reuse", "run", "pinned"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a run does with a stage, and why; `differs` is the first key component that changed."""

    stage: str
    action: Action
    reason: str
    differs: str | None = None
    edited: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Done:
    """The content of done.json."""

    key: str
    components: Components
    outputs: dict[str, str]


class RunDir:
    """A run directory that this process holds. Use as a context: it locks, sweeps and releases."""

    def __init__(self, path: str | Path, stages: Sequence[str]) -> None:
        self.path = Path(path)
        self.stages = tuple(stages)
        self.journal = Journal(self.path / "journal.jsonl")
        self._lock: FolderLock | None = None
        self._log: _RunLog | None = None

    def __enter__(self) -> Self:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror}") from None
        lock = FolderLock(self.path / "lock")
        lock.__enter__()
        self._lock = lock
        try:
            self._log = _RunLog(self.path / "run.log")
            self.sweep()
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._log is not None:
            self._log.close()
            self._log = None
        if self._lock is not None:
            self._lock.__exit__(kind, value, trace)
            self._lock = None

    # ------------------------------------------------------------ stages

    def folder(self, stage: str) -> Path:
        return self.path / stage

    @property
    def pool(self) -> Path:
        """Finished takes by key; outlives the stages."""
        return self.path / POOL

    def done(self, stage: str) -> Done | None:
        """What is recorded of a stage, None where it was never finished."""
        return read_done(self.folder(stage))

    def verdict(self, stage: str, components: Components | None) -> Verdict:
        """Whether a stage with these key components is reused, run, or pinned by an edit.

        Without components (what comes before has to run first) only edits and damage are told.
        Raises InputError for an edited file that is not valid, or an edit beside damaged audio.
        """
        folder = self.folder(stage)
        done = read_done(folder)
        if done is None:
            return Verdict(stage, "run", "not done yet")
        edited, damaged = _changes(folder, done)
        differs = None if components is None else first_difference(done.components, components)
        if edited:
            if damaged:
                raise InputError(
                    f"{folder / edited[0]} was edited, but {folder / damaged[0]} beside it is "
                    "damaged or missing",
                    f"Put the file back, or drop the edit with --restart-from {stage}.",
                )
            for name in edited:
                read_rows(folder / name)
            return Verdict(stage, "pinned", f"{edited[0]} was edited by hand", differs, edited)
        if damaged:
            return Verdict(stage, "run", f"{damaged[0]} is damaged or missing", differs)
        if components is None:
            return Verdict(stage, "run", "depends on what comes before")
        if differs is not None:
            return Verdict(stage, "run", f"{differs} changed", differs)
        return Verdict(stage, "reuse", "nothing changed")

    def run(
        self, stage: str, components: Components, build: Callable[[Path], None]
    ) -> tuple[Path, Verdict]:
        """The folder of a finished stage, built by `build(folder)` unless it can be reused.

        `build` writes every output into the folder that it is given. A pin is told on the log as a
        warning. Raises whatever `build` raises; nothing of a failed stage stays visible.
        """
        verdict = self.verdict(stage, components)
        folder, key = self.folder(stage), key_of(components)
        if verdict.action == "pinned":
            log.warning("%s", pin_message(folder, verdict))
            self.journal.write("pinned", stage=stage, key=key, edited=list(verdict.edited))
            return folder, verdict
        if verdict.action == "reuse":
            log.info("%s: reused, nothing changed", stage)
            self.journal.write("reused", stage=stage, key=key)
            return folder, verdict
        log.info("%s: running (%s)", stage, verdict.reason)
        part = self.path / f"{stage}.part"
        began = time.perf_counter()
        self.journal.write("started", stage=stage, key=key)
        try:
            part.mkdir()
            build(part)
            _seal(part, key, components)
        except BaseException as error:
            shutil.rmtree(part, ignore_errors=True)  # first: it may be what fills the disk
            with contextlib.suppress(OSError):
                self.journal.write("failed", stage=stage, key=key, error=type(error).__name__)
            raise
        self._install(stage)
        seconds = round(time.perf_counter() - began, 3)
        self.journal.write("finished", stage=stage, key=key, seconds=seconds)
        return folder, verdict

    def forget_from(self, stage: str) -> None:
        """Drop the results and pins of a stage and of all that follow it."""
        if stage not in self.stages:
            raise InputError(
                f"there is no stage {stage!r} in this run", f"Stages: {', '.join(self.stages)}"
            )
        for name in reversed(self.stages[self.stages.index(stage) :]):
            if self.folder(name).exists():
                self.journal.write("dropped", stage=name)
                _remove(self.folder(name))

    # ------------------------------------------------------------ after a kill

    def sweep(self) -> None:
        """Finish or undo what a killed run left half done; nothing finished is lost."""
        for old in sorted(self.path.glob("*.old")):
            stage = old.name.removesuffix(".old")
            if not self.folder(stage).exists() and not _complete(self.path / f"{stage}.part"):
                os.replace(old, self.folder(stage))
        for part in sorted(self.path.glob("*.part")):
            stage = part.name.removesuffix(".part")
            if part.is_dir() and _complete(part) and not _edited(self.folder(stage)):
                self._install(stage)
            else:
                _remove(part)
        for leftover in sorted([*self.path.glob("*.old"), *self.path.glob("*.gone")]):
            _remove(leftover)
        for leftover in sorted([*self.pool.glob("*.part*"), *self.pool.glob(".*.part")]):
            _remove(leftover)

    def _install(self, stage: str) -> None:
        """`<stage>.part` becomes `<stage>`; the older one steps aside until it has."""
        folder, old = self.folder(stage), self.path / f"{stage}.old"
        if folder.exists():
            os.replace(folder, old)
        os.replace(self.path / f"{stage}.part", folder)
        _sync_folder(self.path)
        if old.exists():
            _remove(old)


def read_done(folder: Path) -> Done | None:
    """done.json of a stage folder, None where there is none that can be read."""
    try:
        record = json.loads((folder / DONE).read_text(encoding="utf-8"))
        return Done(str(record["key"]), dict(record["components"]), dict(record["outputs"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def pin_message(folder: Path, verdict: Verdict) -> str:
    """The line that tells of a pin."""
    text = f"{verdict.stage}: {folder / verdict.edited[0]} was edited by hand and is used as it is"
    if verdict.differs:
        text += f" (its settings have changed since: {verdict.differs})"
    return f"{text}; --restart-from {verdict.stage} drops the edit"


def write_json(path: Path, value: Any) -> None:
    """A JSON file, whole or not at all."""
    part = path.with_name(path.name + ".part")
    try:
        with part.open("w", encoding="utf-8", newline="\n") as stream:
            json.dump(value, stream, indent=2, ensure_ascii=False, allow_nan=False)
            stream.write("\n")
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from None


def _seal(part: Path, key: str, components: Mapping[str, Any]) -> None:
    outputs: dict[str, str] = {}
    for path in sorted(part.rglob("*")):
        if path.is_file():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
            outputs[path.relative_to(part).as_posix()] = sha256_of(path)
    write_json(part / DONE, {"key": key, "components": components, "outputs": outputs})


def _changes(folder: Path, done: Done) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(edited rows, damaged outputs) of a stage folder against its done.json."""
    edited: list[str] = []
    damaged: list[str] = []
    for name, digest in done.outputs.items():
        path = folder / name
        if not path.is_file():
            damaged.append(name)
        elif sha256_of(path) != digest:
            (edited if path.suffix == ".jsonl" else damaged).append(name)
    return tuple(edited), tuple(damaged)


def _edited(folder: Path) -> bool:
    done = read_done(folder)
    return done is not None and bool(_changes(folder, done)[0])


def _complete(folder: Path) -> bool:
    done = read_done(folder)
    return done is not None and _changes(folder, done) == ((), ())


def _remove(path: Path) -> None:
    """Remove a file or folder; a folder first loses the name under which it would count."""
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    if path.suffix not in (".gone", ".part", ".old"):
        gone = path.with_name(path.name + ".gone")
        if gone.exists():
            shutil.rmtree(gone)
        os.replace(path, gone)
        path = gone
    shutil.rmtree(path)


def _sync_folder(path: Path) -> None:
    if os.name != "posix":
        return
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class _QuietFileHandler(logging.FileHandler):
    """A log that cannot be written (a full disk) is no reason to fail, or to show a traceback."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass


class _RunLog:
    """Everything podtool logs, at debug level, into a file; other handlers keep their level."""

    def __init__(self, path: Path) -> None:
        try:
            self._handler = _QuietFileHandler(path, encoding="utf-8")
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror}") from None
        form = "%(asctime)s %(levelname)s %(name)s: %(message)s"
        self._handler.setFormatter(logging.Formatter(form))
        logger = logging.getLogger("podtool")
        self._level = logger.level
        self._others = [(h, h.level) for h in logger.handlers]
        for other, level in self._others:
            other.setLevel(max(level, logger.getEffectiveLevel()))
        logger.setLevel(logging.DEBUG)
        logger.addHandler(self._handler)

    def close(self) -> None:
        logger = logging.getLogger("podtool")
        logger.removeHandler(self._handler)
        logger.setLevel(self._level)
        for other, level in self._others:
            other.setLevel(level)
        self._handler.close()
