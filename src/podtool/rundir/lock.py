"""One process at a time per folder: a lock file that names its holder.

The lock is a POSIX record lock: the system drops it when the process dies, however it dies, and
forked workers do not inherit it. Where there is none (Windows), the holder's pid is looked up.
"""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from podtool.errors import OutputError

_held: set[str] = set()  # record locks do not exclude within one process


class FolderLock:
    """Holds `path` while the context is open. Raises OutputError that names the other process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._name = str(path.resolve())
        self._fd = -1

    def __enter__(self) -> Self:
        if self._name in _held:
            raise self._busy({"pid": os.getpid(), "host": socket.gethostname()})
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror}") from None
        if not _take(fd):
            holder = _holder(fd)
            os.close(fd)
            raise self._busy(holder)
        self._fd = fd
        _held.add(self._name)
        record = json.dumps({"pid": os.getpid(), "host": socket.gethostname()})
        os.ftruncate(fd, 0)
        os.pwrite(fd, record.encode() + b"\n", 0)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.ftruncate(self._fd, 0)  # not unlinked: another process may be waiting on this file
        os.close(self._fd)
        self._fd = -1
        _held.discard(self._name)

    def _busy(self, holder: dict[str, Any]) -> OutputError:
        return OutputError(
            f"{self.path.parent} is in use by process {holder.get('pid', '?')} "
            f"on {holder.get('host', 'an unknown host')}",
            "Wait for it to end, or give this run a folder of its own with --run-dir.",
        )


def _take(fd: int) -> bool:
    try:
        import fcntl
    except ImportError:
        return not _alive(_holder(fd))
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _holder(fd: int) -> dict[str, Any]:
    try:
        os.lseek(fd, 0, os.SEEK_SET)
        record = json.loads(os.read(fd, 4096) or b"{}")
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _alive(holder: dict[str, Any]) -> bool:
    if holder.get("host") != socket.gethostname() or not isinstance(holder.get("pid"), int):
        return bool(holder)
    try:
        os.kill(holder["pid"], 0)
    except OSError:
        return False
    return True


def holder_of(path: Path) -> int | None:
    """The pid that holds a lock file now, None where nobody does (or it cannot be told)."""
    try:
        record = json.loads(path.read_text(encoding="utf-8") or "{}")
    except (OSError, ValueError):
        return None
    if not isinstance(record, dict) or not _alive(record):
        return None
    pid = record.get("pid")
    return pid if isinstance(pid, int) else None
