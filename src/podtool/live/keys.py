"""Single keys from the terminal, on a thread of their own; termios is put back whatever happens.

Keys come from `/dev/tty`, so that stdin may carry audio; stdin is the second choice, and where
neither is a terminal there are no keys. A process in the background neither reads nor changes the
terminal: it would be stopped for it.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import select
import sys
import termios
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

ESCAPE_S = 0.1  # after Esc alone, how long the rest of a sequence is waited for
PASTE_LIMIT = 1000  # characters of a paste that are kept
SEQUENCES = {
    "A": "up", "B": "down", "C": "right", "D": "left", "H": "home", "F": "end", "Z": "backtab",
    "1~": "home", "7~": "home", "4~": "end", "8~": "end", "3~": "delete", "5~": "pgup",
    "6~": "pgdn", "200~": "paste",
}  # fmt: skip
CONTROLS = {
    "\r": "enter", "\n": "enter", "\t": "tab", "\x7f": "backspace", "\b": "backspace",
    "\x0c": "redraw", "\x15": "kill", "\x17": "kill-word",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Key:
    """A key by its name; `char` and `paste` bring what they type."""

    name: str
    text: str = ""


class Parser:
    """Bytes of a terminal into keys. A sequence that is not known is swallowed whole."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""
        self._paste: str | None = None

    @property
    def pending(self) -> bool:
        """Whether an Esc waits for what may follow it."""
        return bool(self._rest) and self._paste is None

    def feed(self, data: bytes) -> list[Key]:
        self._rest += self._decoder.decode(data)
        keys: list[Key] = []
        while self._rest:
            if self._paste is not None:
                if not self._take_paste(keys):
                    break
            elif self._rest[0] == "\x1b":
                if not self._take_sequence(keys):
                    break
            else:
                char, self._rest = self._rest[0], self._rest[1:]
                if char in CONTROLS:
                    keys.append(Key(CONTROLS[char]))
                elif char.isprintable():
                    keys.append(Key("char", char))
        return keys

    def flush(self) -> list[Key]:
        """Nothing followed: the Esc was the key."""
        rest, self._rest = self._rest, ""
        return [Key("esc"), *self.feed(rest[1:].encode())] if rest else []

    def _take_sequence(self, keys: list[Key]) -> bool:
        """Take an escape sequence from the front; False where more must come."""
        rest = self._rest
        if len(rest) < 2:
            return False
        if rest[1] not in "[O":  # Esc, then another key
            keys.append(Key("esc"))
            self._rest = rest[1:]
            return True
        end = next((i for i in range(2, len(rest)) if "@" <= rest[i] <= "~"), None)
        if end is None:
            if len(rest) > 32:  # of no terminal
                self._rest = ""
            return False
        name = SEQUENCES.get(rest[2 : end + 1])
        self._rest = rest[end + 1 :]
        if name == "paste":
            self._paste = ""
        elif name is not None:
            keys.append(Key(name))
        return True

    def _take_paste(self, keys: list[Key]) -> bool:
        text, mark, after = self._rest.partition("\x1b[201~")
        if not mark:  # a part of the mark may be at the end
            keep = max(0, len(text) - 5) if "\x1b" in text[-5:] else len(text)
            text, after = text[:keep], text[keep:]
        assert self._paste is not None
        self._paste = (self._paste + text)[:PASTE_LIMIT]
        self._rest = after
        if mark:
            keys.append(Key("paste", self._paste))
            self._paste = None
        return bool(mark)


def open_terminal() -> int | None:
    """A descriptor of the terminal that keys come from, to be closed; None where there is none."""
    with contextlib.suppress(OSError):
        return os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if os.isatty(sys.stdin.fileno()):
            return os.dup(sys.stdin.fileno())
    return None


def in_foreground(fd: int) -> bool:
    """Whether this process may use the terminal behind `fd` now."""
    try:
        return os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:  # not our controlling terminal: nobody stops us for using it
        return True


class Keys:
    """Calls `on_key` for every key of the terminal `stream` (None: of none), on its own thread.

    Ctrl-C and Ctrl-Z keep their meaning; Ctrl-S does not stop the output. `hold` gives the
    terminal back for a while, `resume` takes it again.
    """

    def __init__(self, stream: int | None, on_key: Callable[[Key], None]) -> None:
        self._fd = stream
        self._on_key = on_key
        self._before: list[Any] | None = None
        self._held = self._closed = False
        self._lock = threading.RLock()
        self._wake_r = self._wake_w = -1
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Keys:
        if self._fd is None:
            return self
        try:
            self._before = termios.tcgetattr(self._fd)
        except termios.error:
            return self
        self._wake_r, self._wake_w = os.pipe()
        self._raw()
        self._thread = threading.Thread(target=self._run, name="keys", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def running(self) -> bool:
        return self._thread is not None and not self._closed

    def close(self) -> None:
        """Put the terminal back and end the thread. May be called twice, and from `on_key`."""
        if not self.running:
            return
        self.hold()
        self._closed = True
        self._wake()
        assert self._thread is not None
        if threading.current_thread() is not self._thread:
            self._thread.join(1.0)

    def hold(self) -> None:
        if not self.running or self._held:
            return
        with self._lock:
            self._held = True
            self._restore()
        self._wake()

    def resume(self) -> None:
        if not self.running or not self._held:
            return
        with self._lock:
            self._held = False
            self._raw()
        self._wake()

    def _raw(self) -> None:
        if self._fd is None or self._before is None or not in_foreground(self._fd):
            return
        attributes = list(self._before)
        attributes[0] &= ~termios.IXON
        attributes[3] &= ~(termios.ICANON | termios.ECHO | termios.IEXTEN)
        controls = list(attributes[6])
        controls[termios.VMIN], controls[termios.VTIME] = 1, 0
        attributes[6] = controls
        self._set(attributes)

    def _restore(self) -> None:
        if self._fd is not None and self._before is not None and in_foreground(self._fd):
            self._set(self._before)

    def _set(self, attributes: list[Any]) -> None:
        assert self._fd is not None
        with contextlib.suppress(termios.error):  # the terminal is gone
            termios.tcsetattr(self._fd, termios.TCSANOW, attributes)

    def _wake(self) -> None:
        with self._lock:
            if self._wake_w >= 0:
                os.write(self._wake_w, b".")

    def _run(self) -> None:
        parser = Parser()
        assert self._fd is not None
        try:
            while not self._closed:
                watched = [self._wake_r] if self._held else [self._fd, self._wake_r]
                ready, _, _ = select.select(watched, [], [], ESCAPE_S if parser.pending else None)
                if self._wake_r in ready:
                    os.read(self._wake_r, 64)
                    continue
                keys = self._read(parser) if ready else parser.flush()
                if keys is None:
                    return
                for key in keys:
                    self._on_key(key)
        except OSError:  # the terminal is gone
            return
        finally:
            with self._lock:
                if not self._closed:
                    self._restore()
                for pipe in (self._wake_r, self._wake_w):
                    os.close(pipe)
                self._wake_r = self._wake_w = -1

    def _read(self, parser: Parser) -> list[Key] | None:
        assert self._fd is not None
        with self._lock:
            if in_foreground(self._fd):
                if self._held:
                    return []
                data = os.read(self._fd, 1024)
                return parser.feed(data) if data else None
        time.sleep(0.2)  # the keys are somebody else's
        return []
