"""Text in the lines of a terminal: made harmless, measured, cut, wrapped."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

from rich.cells import get_character_cell_size

Span = tuple[str, str]  # text, and the escape sequence of its style
Line = tuple[Span, ...]
BLANK: Line = ()

_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"  # CSI
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"  # OSC, DCS
    r"|\x1b[ -/]*[0-~]?"
)


def plain(text: str) -> str:
    """Text that does nothing to a terminal: no controls, no invisible characters, one space each.

    Joiners and variation selectors go too: terminals disagree on the width of what they make.
    """
    if not text.isascii() or not text.isprintable() or "  " in text:
        text = _ESCAPES.sub("", text)
        text = "".join(_harmless(c) for c in text)
        text = " ".join(text.split())
    return text.strip()


def _harmless(char: str) -> str:
    if char == " " or char.isspace():
        return " "
    if unicodedata.category(char)[0] == "C" or char in "\ufe0e\ufe0f\u034f":
        return ""
    return char


def width_of(text: str) -> int:
    return len(text) if text.isascii() else sum(map(get_character_cell_size, text))


def cut(text: str, width: int, ellipsis: str) -> str:
    """The text, or as much of its beginning as fits with an ellipsis."""
    if width_of(text) <= width:
        return text
    if width < 1:
        return ""
    left, kept = width - 1, ""
    for char in text:
        left -= get_character_cell_size(char)
        if left < 0:
            break
        kept += char
    return kept + ellipsis


@lru_cache(maxsize=1024)
def wrap(text: str, width: int) -> tuple[str, ...]:
    """Lines of at most `width` cells, from the left: what is appended moves nothing before it."""
    lines, line, room = [], "", width
    for piece, spaced in _pieces(text):
        size = width_of(piece)
        gap = 1 if spaced and line else 0
        if size + gap <= room:
            line, room = line + " " * gap + piece, room - size - gap
            continue
        if line:
            lines.append(line)
        line, room = piece, width - size
        while room < 0:  # a long word
            end = _fitting(line, width)
            lines.append(line[:end])
            line = line[end:]
            room = width - width_of(line)
    return (*lines, line) if line else tuple(lines)


def _pieces(text: str) -> Iterable[tuple[str, bool]]:
    """What may stand on lines of its own, and whether a space comes before it."""
    for word in text.split(" "):
        if word.isascii():
            yield word, True
            continue
        piece, spaced = "", True
        for char in word:  # between double-width characters a line may end
            if get_character_cell_size(char) == 2:
                if piece:
                    yield piece, spaced
                    spaced = False
                yield char, spaced
                piece, spaced = "", False
            else:
                piece += char
        if piece:
            yield piece, spaced


def _fitting(text: str, width: int) -> int:
    used = 0
    for i, char in enumerate(text):
        used += get_character_cell_size(char)
        if used > width:
            return max(i, 1)
    return len(text)


def clock(seconds: float, hours: bool = False) -> str:
    """12:34, or 1:12:34."""
    minutes, s = divmod(max(0, int(seconds)), 60)
    h, m = divmod(minutes, 60)
    return f"{h}:{m:02d}:{s:02d}" if hours or h else f"{m:02d}:{s:02d}"
