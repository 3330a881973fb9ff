"""Rows to a stream as they happen, on a thread of its own: a slow reader holds up nobody."""

from __future__ import annotations

import io
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self, TextIO

from podtool.artifacts import Metric, Partial, Row
from podtool.live.status import Status
from podtool.rowio import encode

WAITING = 200  # rows beyond which those that can be done without are left out
PATIENCE_S = 5.0  # for a reader that does not read, where the session failed


class Emitter:
    """A sink of a session. Partials and metrics are left out while many rows wait; others never."""

    def __init__(
        self,
        stream: TextIO,
        stop: Callable[[], None],
        hurried: Callable[[], bool] = lambda: False,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        """`stop` is called when the reader is gone; `__exit__` raises its BrokenPipeError then.

        `__exit__` waits until everything is read, or `hurried`. `warn` gets each warning once.
        """
        self.dropped = 0
        self._stop, self._hurried, self._warn = stop, hurried, warn
        self._write = _writer(stream)
        self._rows: deque[Row] = deque()
        self._warned = 0
        self._ready = threading.Condition()
        self._closed = False
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._work, name="podtool-rows", daemon=True)

    def rows(self, rows: Iterable[Row]) -> None:
        with self._ready:
            for row in rows:
                if len(self._rows) >= WAITING and isinstance(row, Partial | Metric):
                    self.dropped += 1
                else:
                    self._rows.append(row)
            self._ready.notify()

    def status(self, status: Status) -> None:
        """Only warnings; the rest of what it tells goes out as metric rows."""
        for text in status.warnings[self._warned :]:
            self._warn(text)
        self._warned = len(status.warnings)

    def _work(self) -> None:
        try:
            while True:
                with self._ready:
                    self._ready.wait_for(lambda: self._rows or self._closed)
                    if not self._rows:
                        return
                    row = self._rows.popleft()
                self._write(encode(row) + "\n")
        except OSError as error:
            self._error = error
            self._stop()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        with self._ready:
            self._closed = True
            self._ready.notify()
        patience = PATIENCE_S if kind is not None else float("inf")
        while self._thread.is_alive() and patience > 0 and not self._hurried():
            self._thread.join(0.1)
            patience -= 0.1
        if self._error is not None and kind is None:
            raise self._error


def _writer(stream: TextIO) -> Callable[[str], None]:
    """What writes a text at once: to the descriptor, where there is one.

    A thread that hangs in a buffered stream would keep the interpreter from ending.
    """
    try:
        fd = stream.fileno()
        stream.flush()
    except (AttributeError, io.UnsupportedOperation):
        return lambda text: (stream.write(text), stream.flush())[1]

    def write(text: str) -> None:
        view = memoryview(text.encode("utf-8"))
        while view:
            view = view[os.write(fd, view) :]

    return write
