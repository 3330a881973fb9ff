"""What a person looks at during `podtool live`, and the keys that they press.

board.py knows what was said, screen.py lays it out, terminal.py sends it.

It is drawn on the alternate screen, not inline. Finals arrive out of order where people overlap,
and corrections relabel what has been shown: neither can be done to lines that have scrolled away,
and terminals garble inline areas when they are resized. Up, down, PgUp and PgDn look back (in most
terminals the wheel does too). On leaving, the transcript as it stands by then, sorted, corrected
and with names, is printed as plain lines: the scrollback holds what was said, once and right.
Where the cursor cannot be moved, lines are all there is: one per final, correction and warning.

`rows` and `status` only note what is new. A thread of its own draws, at most eight times a second,
so a slow terminal never holds up the session.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from types import FrameType
from typing import TYPE_CHECKING, Any

from podtool.artifacts import Correction, Metric, Partial, Row, Speaker, Utterance
from podtool.corrections import UNKNOWN
from podtool.live.board import KEPT, NAME_LENGTH, Board, Entry, index_of, told, troubles
from podtool.live.keys import Key, Keys, in_foreground, open_terminal
from podtool.live.lines import Line, clock, plain
from podtool.live.screen import ASCII, Glyphs, Screen, Theme, View, unicode_locale
from podtool.live.status import Status
from podtool.live.terminal import ENTER, LEAVE, TOGETHER, Output, Painter, Stray

if TYPE_CHECKING:
    from rich.color import ColorSystem
    from rich.console import Console

FRAME_S = 1 / 8
IDLE_S = 0.5  # how often the size is looked at while nothing comes in
NOTICE_S = 8.0


@dataclass(frozen=True, slots=True)
class Pause:
    """Pause, or go on."""


@dataclass(frozen=True, slots=True)
class Rename:
    speaker: str
    name: str


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment to come back to, in seconds of audio."""

    at_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Quit:
    """The person has had enough."""


Command = Pause | Rename | Mark | Quit


class Display:
    """Shows a session on `console` while it is entered.

    `on_command` is called on the thread of the keys with what the person asks for. `lanes` is the
    most that are shown. `transcript`: print what was said on leaving. Enter it on the main thread:
    Ctrl-Z, SIGTERM and SIGHUP are then seen to, unless somebody else handles them.
    """

    def __init__(
        self,
        console: Console,
        on_command: Callable[[Command], None] | None = None,
        *,
        lanes: int = 8,
        keys: bool = True,
        transcript: bool = True,
    ) -> None:
        self._console = console
        self._on_command = on_command or (lambda _: None)
        self._transcript = transcript
        self._out = Output(console.file)
        self.full_screen = self._can_draw()
        fancy = console.encoding.startswith("utf") and unicode_locale()
        self.theme = Theme(_colours(console), not console.no_color, Glyphs() if fancy else ASCII)
        self.board = Board()
        self.view = View()
        self._screen = Screen(self.theme, lanes)
        self._painter = Painter(self._out.encoding)
        self._stray = Stray()
        self._with_keys = keys
        self._keys: Keys | None = None
        self._key_fd: int | None = None
        self._lock = threading.RLock()  # of board and view
        self._out_lock = threading.RLock()
        self._pending: deque[str] = deque(maxlen=KEPT)  # lines, where there is no screen
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._entered = self._closed = False
        self._held = True  # the terminal is not ours now
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._signals: dict[int, Any] = {}
        self._warned: tuple[str, ...] = ()
        self._second = -1.0
        self._cursor: tuple[int, int] | None = None

    def _can_draw(self) -> bool:
        console, fd = self._console, self._out.fd
        if not console.is_terminal or console.is_dumb_terminal or console.legacy_windows:
            return False
        if fd is None:
            return True
        return bool(os.environ.get("TERM")) and os.isatty(fd) and in_foreground(fd)

    # ------------------------------------------------------------ what happens

    def rows(self, rows: Iterable[Row]) -> None:
        """Rows as they happen; kinds that have no place here are passed over."""
        with self._lock:
            for row in rows:
                self._row(row)
        self._wake.set()

    def _row(self, row: Row) -> None:
        board = self.board
        if isinstance(row, Partial | Utterance) and row.speaker == UNKNOWN:
            row = replace(row, speaker=None)
        if isinstance(row, Partial):
            board.partial(row)
        elif isinstance(row, Utterance):
            if entry := board.utterance(row):
                self._say(self._written(entry))
        elif isinstance(row, Correction):
            words = told(row, board)
            board.correct(row)
            if row.source != UNKNOWN:
                self._event(words)
        elif isinstance(row, Speaker):
            if row.name:
                was = board.label(row.id)
                if board.rename(row.id, row.name):
                    self._event(f"{was} is called {board.names[row.id]}")
        elif isinstance(row, Metric):
            board.metrics[row.name, row.subject or ""] = row
            while len(board.metrics) > 64:
                del board.metrics[next(iter(board.metrics))]

    def status(self, status: Status) -> None:
        """How the session is doing, some ten times a second."""
        with self._lock:
            if status == self.board.status:
                return
            before = self.board.status
            self.board.take(status)
            self.view.peak_db = max(self.view.peak_db, status.level_db)
            now = time.monotonic()
            if now - self._second >= 1 or troubles(before) != troubles(status):
                self._second = now
                self.view.figures = status
                self.view.peak_db = status.level_db
            self._news(before, status)
        self._wake.set()

    def _news(self, before: Status, status: Status) -> None:
        """What has changed for the worse or the better, in words."""
        for warning in status.warnings:
            if warning not in self._warned:
                self.notice(warning, warn=True)
        self._warned = status.warnings
        if self.full_screen:  # signs and the line of figures show the others
            return
        old, new = troubles(before), troubles(status)
        for words in new:
            if words not in old:
                self._say(f"warning: {words}")
        if old and not new:
            self._say("all is well again")
        if status.lost_s >= before.lost_s + 0.05:
            self._say(f"warning: {status.lost_s:.1f} s of audio lost")
        if status.paused != before.paused:
            self._say(f"{'paused' if status.paused else 'goes on'} at {clock(status.at_s)}")

    def notice(self, text: str, warn: bool = False) -> None:
        """A line that is shown for some seconds."""
        with self._lock:
            view = self.view
            view.notice, view.warned = plain(text), warn
            view.notice_until = time.monotonic() + NOTICE_S
            self._say(f"warning: {view.notice}" if warn else view.notice)
        self._wake.set()

    def _event(self, words: str) -> None:
        """A notice that stays in the history."""
        at = self.board.status.at_s
        if self.board.entries:
            at = max(at, self.board.entries[-1].start)
        self.board.add(Entry(at, at, words, kind="note"))
        self.notice(words)

    def _say(self, line: str) -> None:
        if not self.full_screen:
            self._pending.append(line)

    def _written(self, entry: Entry, coloured: bool = False) -> str:
        at = clock(entry.start)
        if entry.kind != "final":
            return f"[{at}] {entry.text}"
        label = self.board.label(entry.speaker)
        style = self.theme.person(self.board.colour(entry.speaker)) if coloured else ""
        return f"[{at}] {style}{label}{chr(27) + '[m' if style else ''}: {entry.text}"

    # ------------------------------------------------------------ keys

    def key(self, key: Key) -> None:
        """A key was pressed."""
        with self._lock:
            command = self._typed(key) if self.view.renaming is not None else self._pressed(key)
        self._wake.set()
        if command is not None:
            self._on_command(command)

    def _pressed(self, key: Key) -> Command | None:
        board, view = self.board, self.view
        if key.name == "redraw":
            self._painter.forget()
        elif view.help:
            view.help = False
        elif key.name == "char":
            match key.text:
                case " " | "p":
                    return Pause()
                case "q":
                    return Quit()
                case "?":
                    view.help = True
                case "m":
                    at = board.status.at_s
                    words = f"{self.theme.glyphs.rule * 2} mark {self.theme.glyphs.rule * 2}"
                    board.add(Entry(at, at, words, kind="mark"))
                    self.notice(f"mark at {clock(at)}")
                    return Mark(at)
                case "r" if (who := board.last_speaker()) is not None:
                    view.renaming, view.typed = who, ""
        else:
            self._scroll(key.name)
        return None

    def _typed(self, key: Key) -> Command | None:
        view = self.view
        assert view.renaming is not None
        if key.name in ("char", "paste"):
            view.typed = (view.typed + _printable(key.text))[:NAME_LENGTH]
        elif key.name == "backspace":
            view.typed = view.typed[:-1]
        elif key.name == "kill":
            view.typed = ""
        elif key.name == "kill-word":
            view.typed = " ".join(view.typed.split()[:-1])
        elif key.name in ("tab", "backtab"):
            people = view.lanes or list(self.board.speakers)
            at = people.index(view.renaming) if view.renaming in people else 0
            view.renaming = people[(at + (1 if key.name == "tab" else -1)) % len(people)]
        elif key.name == "esc":
            view.renaming = None
        elif key.name == "enter":
            who, name = view.renaming, plain(view.typed)
            view.renaming = None
            was = self.board.label(who)
            if self.board.rename(who, name):
                self._event(f"{was} is called {self.board.names[who]}")
                return Rename(who, self.board.names[who])
        return None

    def _scroll(self, name: str) -> None:
        entries, view = self.board.entries, self.view
        steps = {"up": -1, "down": 1, "pgup": -view.page, "pgdn": view.page}
        steps |= {"home": -len(entries), "end": len(entries)}
        if name not in steps or not entries:
            return
        at = len(entries) - 1 if view.anchor is None else index_of(entries, view.anchor)
        at += steps[name]
        lowest = min(view.page, len(entries) - 1)  # the first screenful
        view.anchor = entries[max(at, lowest)] if at < len(entries) - 1 else None

    # ------------------------------------------------------------ drawing

    def draw(self) -> None:
        """Bring the terminal up to date now; where nothing has changed, nothing is written."""
        with self._out_lock:
            if not self.full_screen:
                with self._lock:
                    lines = "".join(f"{line}\n" for line in self._pending)
                    self._pending.clear()
                self._out.write(lines)
                return
            if self._held and self._entered:
                return
            width, height = self._out.size(self._console)
            with self._lock:
                if time.monotonic() > self.view.notice_until:
                    self.view.notice = ""
                lines_ = self._screen.lines(self.board, self.view, width, height)
                cursor = self.view.cursor
            text = self._painter.update(lines_, width, height)
            if cursor is not None and (text or cursor != self._cursor):
                text += f"\x1b[{cursor[1] + 1};{cursor[0] + 1}H\x1b[?25h"
            elif cursor is None and self._cursor is not None:
                text += "\x1b[?25l"
            self._cursor = cursor
            if text:
                self._out.write(TOGETHER[0] + text + TOGETHER[1])

    def lines(self) -> list[Line]:
        """The lines of the screen as it should be now."""
        with self._lock:
            return self._screen.lines(self.board, self.view, *self._out.size(self._console))

    def _run(self) -> None:
        size = (0, 0)
        while not self._closing.is_set():
            woken = self._wake.wait(IDLE_S)
            self._wake.clear()
            if self._closing.is_set():
                return
            if self.full_screen:
                self._take_back()
                if line := self._stray.news():
                    self.notice(line, warn=True)
            before, size = size, self._out.size(self._console)
            expired = self.view.notice and time.monotonic() > self.view.notice_until
            if woken or size != before or expired:
                self.draw()
            self._closing.wait(FRAME_S)

    # ------------------------------------------------------------ coming and going

    def __enter__(self) -> Display:
        self._entered = True
        if self.full_screen:
            self._handle_signals()
            if self._with_keys:
                self._key_fd = open_terminal()
                self._keys = Keys(self._key_fd, self.key)
                self._keys.__enter__()
                self._keys.hold()
            atexit.register(self._release)
            self._take_back()
            self.draw()
        self._thread = threading.Thread(target=self._run, name="display", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the terminal as it was, with the transcript in it. May be called twice."""
        if self._closed:
            return
        self._closed = True
        self._closing.set()
        self._wake.set()
        if self.full_screen and self._entered:
            self._release()  # first of all: another Ctrl-C may come at any moment
            if self._transcript:
                self._out.write(self._said())
        if self._keys:
            self._keys.close()
        if self._thread and threading.current_thread() is not self._thread:
            self._thread.join(1.0)
        if not self.full_screen:
            self.draw()
        self._forget_signals()
        if self._key_fd is not None:
            os.close(self._key_fd)
        atexit.unregister(self._release)
        self._out.close()

    def _said(self) -> str:
        """Everything said, as lines, and a line about the session."""
        board, t = self.board, self.theme
        lines = []
        if board.forgotten:
            lines.append(f"(the first {board.forgotten} lines are not here)")
        lines += [self._written(e, coloured=True) for e in board.entries if e.kind != "note"]
        people = len({e.speaker for e in board.entries if e.speaker})
        words = f"{clock(board.status.at_s)} of audio, {people} talking, {board.finals} utterances"
        if board.status.saved:
            words += f", saved in {plain(board.status.saved)}"
        reset = "\x1b[m" if t.dim else ""
        return "".join(f"{line}\n" for line in [*lines, f"{t.dim}{words}{reset}"])

    def _take_back(self) -> None:
        """Take the terminal where it may be used: at the start, after `fg`."""
        with self._out_lock:
            fd = self._out.fd
            if not self._held or self._stopping or self._closed:
                return
            if fd is not None and not in_foreground(fd):
                return
            self._held = False
            if fd is not None:
                self._stray.divert(fd)
            self._out.write(ENTER)
            self._painter.forget()
            self._cursor = None
            if self._keys:
                self._keys.resume()
        self._wake.set()

    def _release(self) -> None:
        """Give the terminal back: at the end, at Ctrl-Z."""
        with self._out_lock:
            if self._held:
                return
            if self._keys:
                self._keys.hold()
            self._out.write(LEAVE)
            self._stray.put_back()
            self._held = True

    def _handle_signals(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        wanted: dict[str, Callable[[int, FrameType | None], None]] = {
            "SIGTSTP": self._on_stop,
            "SIGCONT": self._on_continue,
            "SIGTERM": self._on_end,
            "SIGHUP": self._on_end,
        }
        for name, handler in wanted.items():
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                self._signals[number] = signal.signal(number, handler)

    def _forget_signals(self) -> None:
        with contextlib.suppress(ValueError):  # not on the main thread
            while self._signals:
                number, before = self._signals.popitem()
                signal.signal(number, before)

    def _on_stop(self, number: int, _: FrameType | None) -> None:
        self._stopping = True
        self._release()
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)  # here the process stops
        signal.signal(number, self._on_stop)
        self._stopping = False
        self._wake.set()

    def _on_continue(self, *_: object) -> None:
        """Stopped by SIGSTOP, nobody was asked: what the screen and the modes are is not known."""
        with self._out_lock:
            if not self._held:
                self._held = True
                if self._keys:
                    self._keys.hold()
                self._stray.put_back()
        self._wake.set()

    def _on_end(self, number: int, _: FrameType | None) -> None:
        self.close()
        raise SystemExit(128 + number)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)


def _colours(console: Console) -> ColorSystem | None:
    """What styles are rendered for; a terminal without colours still has bold and dim."""
    from rich.color import ColorSystem

    names = {"standard": "STANDARD", "256": "EIGHT_BIT", "truecolor": "TRUECOLOR"}
    name = names.get(console.color_system or "")
    return ColorSystem[name] if name else None
