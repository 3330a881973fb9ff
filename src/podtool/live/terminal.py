"""How lines reach the terminal: as the cells that differ, past whatever else writes there."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import tempfile
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING

from rich.cells import get_character_cell_size

from podtool.live.lines import BLANK, Line, Span, plain, width_of

if TYPE_CHECKING:
    from rich.console import Console

ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[?2004h"
LEAVE = "\x1b[m\x1b[2J\x1b[H\x1b[?2004l\x1b[?7h\x1b[?25h\x1b[?1049l"
TOGETHER = ("\x1b[?2026h", "\x1b[?2026l")  # one picture, where the terminal can wait for it
Cells = list[Span]  # one character each; "" behind a double-width one


class Painter:
    """Turns lines into the fewest bytes that make the terminal show them."""

    def __init__(self, encoding: str = "utf-8") -> None:
        self._encoding = encoding
        self._lines: list[Line] = []
        self._cells: list[Cells] = []
        self._size = (0, 0)

    def forget(self) -> None:
        """The screen is not what it was: the next time everything is drawn."""
        self._size = (0, 0)

    def update(self, lines: Sequence[Line], width: int, height: int) -> str:
        out = []
        if self._size != (width, height):
            self._size = (width, height)
            self._lines = [BLANK] * height
            self._cells = [[] for _ in range(height)]
            out.append("\x1b[m\x1b[2J")
        for row, line in enumerate(lines[:height]):
            if line != self._lines[row]:
                new = cells(line, width, self._encoding)
                out.append(_difference(row, self._cells[row], new))
                self._lines[row], self._cells[row] = line, new
        return "".join(out)


def cells(line: Line, width: int, encoding: str = "utf-8") -> Cells:
    """The characters of a line, cut at the width, without blanks at the end."""
    row: Cells = []
    for text, style in line:
        if text.isascii():
            row += [(char, style) for char in text]
            continue
        for char in text.encode(encoding, "replace").decode(encoding, "replace"):
            size = get_character_cell_size(char)
            if size == 0:
                if row and row[-1][0]:
                    row[-1] = (row[-1][0] + char, row[-1][1])
                continue
            row.append((char, style))
            if size == 2:
                row.append(("", style))
    if len(row) > width:
        del row[width:]
        if width_of(row[-1][0]) == 2:  # half of it would be seen
            row[-1] = (" ", "")
    while row and row[-1] == (" ", ""):
        row.pop()
    return row


def _difference(row: int, old: Cells, new: Cells) -> str:
    out: list[str] = []
    at, size = 0, len(new)
    blank = (" ", "")
    padded = old + [blank] * (size - len(old))
    while at < size:
        if new[at] == padded[at]:
            at += 1
            continue
        begin = at
        while begin > 0 and not (new[begin][0] and padded[begin][0]):
            begin -= 1
        end, same = at, 0
        while end < size and same < 8:  # a gap of eight is worth a jump
            same = 0 if new[end] != padded[end] or not padded[end][0] else same + 1
            end += 1
        end -= same if same >= 8 else 0
        while end < size and not new[end][0]:
            end += 1
        out.append(f"\x1b[{row + 1};{begin + 1}H{_styled(new, begin, end)}")
        at = end
    if len(old) > size:
        out.append(f"\x1b[{row + 1};{size + 1}H\x1b[K")
    return "".join(out)


def _styled(row: Cells, begin: int, end: int) -> str:
    """A run of cells. After what terminals may measure differently, the column is said anew."""
    out: list[str] = []
    style, risky = "", False
    for at in range(begin, end):
        char, wanted = row[at]
        if not char:
            continue
        if risky:
            out.append(f"\x1b[{at + 1}G")
        if wanted != style:
            out.append(wanted if not style else f"\x1b[m{wanted}")
            style = wanted
        out.append(char)
        risky = len(char) > 1 or char >= "\u2e80"
    return "".join(out) + ("\x1b[m" if style else "")


class Output:
    """Writes to the console's file, past its buffer and past a diverted stderr where it has one."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self.encoding: str = getattr(file, "encoding", None) or "utf-8"
        self.fd: int | None = None
        with contextlib.suppress(OSError, ValueError, AttributeError):
            self.fd = os.dup(file.fileno())
        self.lost = False

    def write(self, text: str) -> None:
        """Raises nothing: where the terminal is gone, nobody looks."""
        if self.lost or not text:
            return
        try:
            data = text.encode(self.encoding, "replace")
            if self.fd is None:
                self._file.write(data.decode(self.encoding))
                self._file.flush()
                return
            while data:
                try:
                    data = data[os.write(self.fd, data) :]
                except BlockingIOError:
                    select.select([], [self.fd], [], 1.0)
        except (OSError, ValueError):
            self.lost = True

    def close(self) -> None:
        if self.fd is not None:
            os.close(self.fd)
            self.fd, self.lost = None, True

    def size(self, console: Console) -> tuple[int, int]:
        with contextlib.suppress(OSError):
            if self.fd is not None:
                size = os.get_terminal_size(self.fd)
                if size.columns and size.lines:
                    return size.columns, size.lines
        return console.size.width, console.size.height


class Stray:
    """What libraries write to a stderr that is this terminal is kept for later, not on screen."""

    def __init__(self) -> None:
        self._saved: int | None = None
        self._file: IO[bytes] | None = None
        self._seen = 0

    def divert(self, terminal: int) -> None:
        with contextlib.suppress(OSError, ValueError):
            if not os.isatty(2) or os.fstat(2).st_rdev != os.fstat(terminal).st_rdev:
                return
            sys.stderr.flush()
            self._file = tempfile.TemporaryFile("a+b")
            self._seen = 0
            self._saved = os.dup(2)
            os.dup2(self._file.fileno(), 2)

    def news(self) -> str:
        """The last line that was written since the last time."""
        if self._file is None:
            return ""
        size = os.fstat(self._file.fileno()).st_size
        if size == self._seen:
            return ""
        data = os.pread(self._file.fileno(), 4096, max(self._seen, size - 4096))
        self._seen = size
        if size > 1_000_000:
            os.truncate(self._file.fileno(), 0)
            self._seen = 0
        lines = data.decode("utf-8", "replace").split("\n")
        return next((plain(line) for line in reversed(lines) if plain(line)), "")

    def put_back(self) -> None:
        """Stderr is itself again; the end of what was kept is shown there."""
        if self._saved is None or self._file is None:
            return
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
            os.dup2(self._saved, 2)
            os.close(self._saved)
            size = os.fstat(self._file.fileno()).st_size
            os.write(2, os.pread(self._file.fileno(), 4096, max(0, size - 4096)))
            self._file.close()
        self._saved = self._file = None
