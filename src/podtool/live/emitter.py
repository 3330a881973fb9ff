"""Rows to a stream as they happen, on a thread of its own: a slow reader holds up nobody."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self, TextIO

from podtool.artifacts import Metric, Partial, Row
from podtool.live.status import Status
from podtool.rowio import encode

WAITING = 200  # rows beyond which those that can be done without are left out
PATIENCE_S = 5.0  # for a reader that does not read, at the end


class Emitter:
    """A sink of a session. Partials and metrics are left out while many rows wait; others never."""

    def __init__(self, stream: TextIO, stop: Callable[[], None]) -> None:
        """`stop` is called when the reader is gone; `__exit__` raises its BrokenPipeError then."""
        self.dropped = 0
        self._stream, self._stop = stream, stop
        self._rows: deque[Row] = deque()
        self._ready = threading.Condition()
        self._closed = False
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._write, name="podtool-rows", daemon=True)

    def rows(self, rows: Iterable[Row]) -> None:
        with self._ready:
            for row in rows:
                if len(self._rows) >= WAITING and isinstance(row, Partial | Metric):
                    self.dropped += 1
                else:
                    self._rows.append(row)
            self._ready.notify()

    def status(self, status: Status) -> None:
        """Not for a stream: what it tells goes out as metric rows."""

    def _write(self) -> None:
        try:
            while True:
                with self._ready:
                    self._ready.wait_for(lambda: self._rows or self._closed)
                    if not self._rows:
                        return
                    row = self._rows.popleft()
                self._stream.write(encode(row) + "\n")
                self._stream.flush()
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
        self._thread.join(None if kind is None else PATIENCE_S)
        if self._error is not None and kind is None:
            raise self._error
