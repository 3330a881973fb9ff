"""What a person looks at during `podtool live`: a lane per talker, the history, how it is doing.

It is drawn on the alternate screen, not inline. Finals arrive out of order where people overlap,
and corrections relabel what has been shown: neither can be done to lines that have scrolled away,
and terminals garble inline areas when they are resized. Up, down, PgUp and PgDn look back (in most
terminals the wheel does too). On leaving, the transcript as it stands by then, sorted, corrected
and with names, is printed as plain lines: the scrollback holds what was said, once and right.
Where the cursor cannot be moved, lines are all there is: one per final, correction and warning.

`rows` and `status` only note what is new. A thread of its own draws, at most eight times a second,
and writes the cells that differ, so a slow terminal never holds up the session.
"""

from __future__ import annotations

import atexit
import bisect
import contextlib
import os
import re
import select
import signal
import sys
import tempfile
import threading
import time
import unicodedata
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from types import FrameType
from typing import IO, TYPE_CHECKING, Any

from rich.cells import get_character_cell_size
from rich.style import Style

from podtool.artifacts import Correction, Metric, Partial, Row, Speaker, Utterance
from podtool.corrections import UNKNOWN
from podtool.live.keys import Key, Keys, in_foreground, open_terminal
from podtool.live.status import Shed, Status, Talker

if TYPE_CHECKING:
    from rich.color import ColorSystem
    from rich.console import Console

FRAME_S = 1 / 8
IDLE_S = 0.5  # how often the size is looked at while nothing comes in
NOTICE_S = 8.0
CURRENT_S = 180.0  # a talker silent for longer gives up the lane where there are more than MANY
MANY = 3
KEPT = 20_000  # finals in memory: some twenty hours of talk
SEEN = 300  # of the newest finals, those that lanes and overlaps are looked for in
OVERLAP_S = 0.3
NAME_LENGTH = 40

# ---------------------------------------------------------------- commands


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

# ---------------------------------------------------------------- text

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


# ---------------------------------------------------------------- looks

Span = tuple[str, str]  # text, and the escape sequence of its style
Line = tuple[Span, ...]
BLANK: Line = ()


@dataclass(frozen=True, slots=True)
class Glyphs:
    live: str = "●"
    paused: str = "‖"
    overlap: str = "⇄"
    full: str = "━"
    half: str = "╸"
    empty: str = "─"
    rule: str = "─"
    active: str = "┃"
    silent: str = "│"
    ellipsis: str = "…"
    dot: str = "·"
    arrow: str = "→"


ASCII = Glyphs("*", "=", "&", "=", "-", ".", "-", "|", ":", "~", "-", ">")

COLOURS_256 = "color(38) color(208) color(71) color(170) color(178) color(99) color(80) color(168)"
COLOURS_16 = "cyan magenta green bright_blue bright_red bright_cyan bright_magenta bright_green"


class Theme:
    """Styles as the terminal can show them; without colours, bold and dim are left."""

    def __init__(self, system: ColorSystem | None, colours: bool, glyphs: Glyphs) -> None:
        self.glyphs = glyphs
        self._system = system
        self._colours = colours
        self.dim = self._style("dim")
        self.bold = self._style("bold")
        self.warn = self._style("bold yellow")
        self.rec = self._style("bold red")
        self.live = self._style("bold green")
        self.loud = self._style("red")
        self.chosen = self._style("bold reverse")
        palette = (COLOURS_16 if system is None or system < 2 else COLOURS_256).split()
        self.people = [self._style(c) for c in palette]
        self.talking = [self._style(f"bold {c}") for c in palette]

    def _style(self, words: str) -> str:
        if self._system is None:
            return ""
        if not self._colours:
            words = " ".join(w for w in words.split() if w in ("dim", "bold", "reverse"))
        return Style.parse(words).render("|", color_system=self._system).partition("|")[0]

    def person(self, index: int | None, bold: bool = False) -> str:
        if index is None:
            return self.bold if bold else self.dim
        return (self.talking if bold else self.people)[index % len(self.people)]

    def meter(self, level_db: float, width: int, style: str) -> Line:
        """-60 to 0 dBFS as a bar."""
        halves = round(min(1.0, max(0.0, (level_db + 60) / 60)) * width * 2)
        g = self.glyphs
        bar = g.full * (halves // 2) + g.half * (halves % 2)
        return (bar, self.loud if level_db > -1 else style), (
            g.empty * (width - len(bar)),
            self.dim,
        )


def unicode_locale() -> bool:
    """Whether the locale, where it is explicit, is one of UTF-8."""
    said = next((v for k in ("LC_ALL", "LC_CTYPE", "LANG") if (v := os.environ.get(k))), "UTF-8")
    return "utf" in said.lower()


# ---------------------------------------------------------------- what is known


@dataclass(slots=True)
class Entry:
    """A line of history: a final, a mark, or a note (then `text` is all there is)."""

    start: float
    end: float
    text: str
    speaker: str | None = None
    id: str = ""
    kind: str = "final"
    overlapped: bool = False


class Board:
    """Rows and status, put together: who is who, what was said, what is being said."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.partials: dict[str, Partial] = {}
        self.names: dict[str, str] = {}
        self.metrics: dict[tuple[str, str], Metric] = {}
        self.status = Status()
        self.speakers: dict[str, float] = {}  # in order of arrival, with when last heard
        self.unknown = False  # whether anybody unknown was ever heard
        self.forgotten = 0
        self.finals = 0
        self.talkers: dict[str, Talker] = {}
        self.levels: dict[str, float] = {}
        self.level_db = -120.0
        self._corrections: deque[Correction] = deque(maxlen=1000)
        self._told: dict[str, str] = {}
        self._labels: dict[str, str] | None = None
        self._recent: dict[str | None, list[Entry]] | None = None
        self._colours: dict[str, int] = {}

    def who(self, speaker: str | None, start: float) -> str | None:
        """The speaker after all corrections."""
        for c in self._corrections:
            within = c.since <= start and (c.until is None or start < c.until)
            if (speaker or UNKNOWN) == c.source and within:
                speaker = c.target
        return speaker

    def heard(self, speaker: str | None, at: float) -> None:
        if speaker is None:
            self.unknown = True
        else:
            self.speakers[speaker] = max(at, self.speakers.get(speaker, at))
            self._colours.setdefault(speaker, len(self._colours))

    def colour(self, speaker: str | None) -> int | None:
        return None if speaker is None else self._colours.get(speaker, 0)

    def label(self, speaker: str | None) -> str:
        """The name, or the label; both where two people share a name."""
        if speaker is None:
            return "?"
        if self._labels is None:
            names = list(self.names.values())
            self._labels = {
                s: f"{n} {plain(s)}" if names.count(n) > 1 else n for s, n in self.names.items()
            }
        return self._labels.get(speaker) or plain(speaker)

    def rename(self, speaker: str, name: str) -> bool:
        """Whether that is news."""
        name = plain(name)[:NAME_LENGTH].strip()
        if not name or self.names.get(speaker) == name:
            return False
        self.names[speaker] = name
        self._labels = None
        return True

    def partial(self, row: Partial) -> None:
        self.partials.pop(row.id, None)
        if row.text.strip():
            self.partials[row.id] = row
            self.heard(self.who(row.speaker, row.start), row.end)
        while len(self.partials) > 64:  # nobody ended them
            del self.partials[next(iter(self.partials))]

    def utterance(self, row: Utterance) -> Entry | None:
        self.partials.pop(row.id, None)
        text = plain(row.text)
        if not text:
            return None
        speaker = self.who(row.speaker, row.start)
        entry = Entry(row.start, row.end, text, speaker, row.id)
        for other in self.entries[-SEEN:]:
            if other.kind == "final" and other.speaker != speaker:
                if min(other.end, row.end) - max(other.start, row.start) > OVERLAP_S:
                    other.overlapped = entry.overlapped = True
        self.heard(speaker, row.end)
        self.finals += 1
        self.add(entry)
        return entry

    def add(self, entry: Entry) -> None:
        bisect.insort(self.entries, entry, key=lambda e: e.start)
        self._recent = None
        if len(self.entries) > KEPT:
            self.forgotten += 500
            del self.entries[:500]

    def correct(self, row: Correction) -> None:
        self._corrections.append(row)
        for entry in self.entries:
            if (entry.speaker or UNKNOWN) == row.source and row.since <= entry.start:
                if row.until is None or entry.start < row.until:
                    entry.speaker = row.target
        self.heard(row.target, self.speakers.get(row.source, row.since))
        if row.until is None:
            self.speakers.pop(row.source, None)
            self.talkers.pop(row.source, None)
        self._recent = None

    def take(self, status: Status) -> None:
        """A status: meters rise at once and fall slowly, names are taken over as they change."""
        elapsed = status.at_s - self.status.at_s
        fall = 24.0 * elapsed if 0 < elapsed < 1 else 3.0
        self.status = status
        self.level_db = max(status.level_db, self.level_db - fall)
        self.talkers = {}
        for t in status.talkers:
            who = self.who(t.speaker, status.at_s) or t.speaker
            if t.name and self._told.get(who) != t.name:
                self._told[who] = t.name
                self.rename(who, t.name)
            last = status.at_s if t.active else self.speakers.get(who, 0.0)
            self.heard(who, last)
            if who not in self.talkers or t.active:
                self.talkers[who] = t
        for who in self.speakers:
            talker = self.talkers.get(who)
            level = talker.level_db if talker and talker.active else -120.0
            self.levels[who] = max(level, self.levels.get(who, -120.0) - fall)

    def recent(self, speaker: str | None) -> list[Entry]:
        """The newest finals of a speaker, the last one last."""
        if self._recent is None:
            self._recent = {}
            for entry in reversed(self.entries[-SEEN:]):
                if entry.kind == "final":
                    mine = self._recent.setdefault(entry.speaker, [])
                    if len(mine) < 4:
                        mine.insert(0, entry)
        return self._recent.get(speaker, [])

    def running(self, speaker: str | None) -> list[Partial]:
        mine = [p for p in self.partials.values() if self.who(p.speaker, p.start) == speaker]
        return sorted(mine, key=lambda p: p.start)

    def last_speaker(self) -> str | None:
        return max(self.speakers, key=lambda s: self.speakers[s], default=None)


def told(correction: Correction, board: Board) -> str:
    """S3 is S1 since 00:58."""
    source, target = board.label(correction.source), board.label(correction.target)
    if correction.until is None:
        return f"{source} is {target} since {clock(correction.since)}"
    return f"{source} is {target} from {clock(correction.since)} to {clock(correction.until)}"


def troubles(status: Status) -> list[str]:
    """What a person should know of, in words."""
    words = [f"waiting for {plain(status.waiting)}"] if status.waiting else []
    if status.shed >= Shed.PARTIALS:
        words.append("partials off")
    if status.shed >= Shed.SEPARATION:
        words.append("separation off")
    return words


# ---------------------------------------------------------------- the screen


@dataclass(slots=True)
class View:
    """What the person has done to the display, and what it tells them for a while."""

    help: bool = False
    anchor: Entry | None = None  # the last line of history where one looks back
    page: int = 1  # entries that were on screen
    renaming: str | None = None
    typed: str = ""
    notice: str = ""
    warned: bool = False
    notice_until: float = 0.0
    figures: Status = field(default_factory=Status)  # as of this second: digits do not flicker
    peak_db: float = -120.0
    lanes: list[str] = field(default_factory=list)
    cursor: tuple[int, int] | None = None  # column, row of the typed name


class Screen:
    """Lays a board out in lines of spans."""

    def __init__(self, theme: Theme, lanes: int = 8) -> None:
        self.theme = theme
        self.most = lanes

    def lines(self, board: Board, view: View, width: int, height: int) -> list[Line]:
        view.cursor = None
        ruled = height >= 20
        top = [self._header(board, view, width)] if height > 3 else []
        foot = [self._health(view, width)] if height > 5 else []
        if ruled:
            top.append(self._rule(width))
            foot.insert(0, self._rule(width))
        foot.append(self._prompt(board, view, width, height))
        room = height - len(top) - len(foot)
        body = self._body(board, view, width, room, height)
        if view.help:
            overlay = self._help(board, width)[:room]
            body[: len(overlay)] = overlay
        return top + body + foot

    def _rule(self, width: int, left: str = "", right: str = "") -> Line:
        g, dim = self.theme.glyphs, self.theme.dim
        if not left and not right:
            return ((g.rule * width, dim),)
        middle = max(0, width - 4 - len(left) - (len(right) + 4 if right else 0))
        end = ((f" {right} ", self.theme.warn), (g.rule * 2, dim)) if right else ()
        return ((f"{g.rule * 2} {left} ", dim), (g.rule * middle, dim), *end)

    def _header(self, board: Board, view: View, width: int) -> Line:
        t, s = self.theme, board.status
        if s.waiting:
            sign = (f" {t.glyphs.ellipsis} WAIT ", t.warn)
        elif s.paused:
            sign = (f" {t.glyphs.paused} PAUSED ", t.warn)
        elif s.saved:
            sign = (f" {t.glyphs.live} REC ", t.rec)
        else:
            sign = (f" {t.glyphs.live} LIVE ", t.live)
        size = 20 if width >= 100 else 12 if width >= 60 else 6
        level = -120.0 if s.paused or s.waiting else board.level_db
        spans = [sign, (f" {clock(s.at_s, hours=True)}  ", t.bold), *t.meter(level, size, t.live)]
        if width >= 60:
            peak = f"{view.peak_db:.0f} dB" if view.peak_db > -100 else "silent"
            spans.append((f" {peak:>7}", t.dim))
        room = width - sum(width_of(x) for x, _ in spans) - 3
        saved = plain(s.saved or "") if width >= 80 else ""
        if saved:
            saved = f"{t.glyphs.arrow} {saved if width >= 110 else os.path.basename(saved)}"
        source = cut(plain(s.source), max(room - width_of(saved) - 2, 0), t.glyphs.ellipsis)
        spans.append((f"  {source}", t.dim))
        if saved and (gap := room - width_of(source) - width_of(saved)) > 0:
            spans.append((" " * gap + saved, t.dim))
        return tuple(spans)

    def _health(self, view: View, width: int) -> Line:
        """Troubles first, then figures, as many as fit."""
        t, s = self.theme, view.figures
        short = width < 76
        fields = [(words, t.warn) for words in troubles(s)]
        if s.latency_s:
            p50, p95 = s.latency_s
            words = f"lat {p50:.1f}/{p95:.1f} s" if short else f"latency {p50:.1f} s, p95 {p95:.1f}"
            fields.append((words, t.dim))
        fields.append((f"behind {s.behind_s:.1f} s", t.warn if s.behind_s >= 2 else t.dim))
        lost = (f"lost {s.lost_s:.1f} s", t.warn if s.lost_s > 0 else t.dim)
        fields.insert(1 if s.lost_s > 0 and short else len(fields), lost)
        fields.append((f"CPU {s.cpu * 100:.0f} %", t.dim))
        spans: list[Span] = []
        left = width - 1
        for words, style in fields:
            words = cut(words, left - 1, t.glyphs.ellipsis) if not spans else words
            gap = 3 if spans else 1
            if width_of(words) + gap <= left:
                spans += [(" " * gap, ""), (words, style)]
                left -= width_of(words) + gap
        return tuple(spans)

    def _prompt(self, board: Board, view: View, width: int, height: int) -> Line:
        """The bottom line: the name that is typed, else news, else keys."""
        t = self.theme
        if view.renaming is not None:
            label = cut(board.label(view.renaming), 16, t.glyphs.ellipsis)
            ask = f" name of {label}: "
            typed, room = view.typed, max(4, width - width_of(ask) - 2)
            while width_of(typed) > room:
                typed = typed[1:]
            column = width_of(ask) + width_of(typed)
            view.cursor = (column, height - 1)
            hint = "Enter keep   Tab next   Esc leave"
            gap = width - column - len(hint) - 2
            after = ((" " * gap, ""), (hint, t.dim)) if gap > 2 else ()
            return ((ask, t.bold), (typed, ""), *after)
        if view.notice:
            words = cut(view.notice, width - 2, t.glyphs.ellipsis)
            return ((f" {words}", t.warn if view.warned else t.bold),)
        keys = [("space", "go on" if board.status.paused else "pause"), ("r", "rename")]
        keys += [("m", "mark"), ("q", "quit"), ("?", "help")]
        keys += [("up/down", "look back")] if width >= 76 and height >= 14 else []
        spans: list[Span] = []
        left = width - 1
        for key, does in keys:
            if (size := len(key) + len(does) + 1 + (3 if spans else 1)) <= left:
                spans += [("   " if spans else " ", ""), (key, t.bold), (f" {does}", t.dim)]
                left -= size
        return tuple(spans)

    def _body(self, board: Board, view: View, width: int, room: int, height: int) -> list[Line]:
        history = height >= 14
        area = room - 1 if history else room
        unknown = (2 if height >= 30 else 1) if board.unknown and area > 1 else 0
        current = self._current(board)
        if history:  # lanes take half, more where many talk
            area = max(area // 2, min(2 * len(current) + unknown, area * 2 // 3))
        people = self._who_has_lanes(board, view, current, (area - unknown) // 2)
        count = max(len(people), 2 if history else 1)
        each = max(1, min(3, (area - unknown) // count))
        gutter = Gutter.of(board, width, self.theme)
        rest = 0 if history or each == 3 else (area - unknown) % count
        lanes: list[Line] = []
        for i, who in enumerate(people):
            lanes += self._lane(board, view, gutter, who, each + (i < rest))
        lanes += [BLANK] * (count - len(people)) * each
        if unknown:
            lanes += self._lane(board, view, gutter, None, unknown)
        if not board.speakers and not board.unknown:
            lanes[0] = (("  nobody has spoken yet", self.theme.dim),)
        if not history:
            return (lanes + [BLANK] * room)[:room]
        past = self._history(board, view, gutter, room - 1 - len(lanes))
        talking = sum(t.active for t in board.talkers.values())
        both = f"{talking} talk at once" if talking > 1 else ""
        now = "now" if view.anchor is None else "looking back, End: now"
        return [*past, self._rule(width, now, both), *lanes]

    def _current(self, board: Board) -> list[str]:
        """Who talks in these minutes, the last one first; MANY at least."""
        newest = sorted(board.speakers, key=lambda s: -board.speakers[s])
        since = board.status.at_s - CURRENT_S
        return [s for i, s in enumerate(newest) if i < MANY or board.speakers[s] >= since]

    def _who_has_lanes(self, board: Board, view: View, current: list[str], room: int) -> list[str]:
        """In order of arrival; where there are too many, a newcomer takes the lane of who left."""
        chosen = current[: max(1, min(room, self.most))]
        if len(chosen) == len(current):
            view.lanes = [s for s in board.speakers if s in chosen]
        else:
            free = iter([s for s in board.speakers if s in chosen and s not in view.lanes])
            kept = [s if s in chosen else next(free, s) for s in view.lanes]
            view.lanes = [*(s for s in kept if s in chosen), *free]
        return view.lanes

    def _lane(
        self, board: Board, view: View, gutter: Gutter, who: str | None, size: int
    ) -> list[Line]:
        """The newest text of a talker, in rows that only grow and scroll; the label on the first.

        Every utterance begins a row, so that a final stands where its partial stood. What was
        said before the last final is dim.
        """
        t = self.theme
        talker = board.talkers.get(who) if who else None
        running = board.running(who)
        active = bool(running) if talker is None else talker.active
        rows: list[Line] = []
        for partial in reversed(running):
            text = plain(partial.text)
            sure = len("".join(text.split(" ")[: partial.stable or 0]))
            rows[:0] = self._unsure(wrap(text, gutter.text), sure)
        for i, entry in enumerate(reversed(board.recent(who))):
            if len(rows) >= size:
                break
            style = t.dim if i else ""
            rows[:0] = [((row, style),) for row in wrap(entry.text, gutter.text)]
        rows = rows[-size:]
        rows += [BLANK] * (size - len(rows))
        bar = (
            t.glyphs.active if active else t.glyphs.silent,
            t.person(board.colour(who), active),
        )
        style = t.person(board.colour(who), bold=True) if active else t.person(board.colour(who))
        if who is not None and who == view.renaming:
            style = t.chosen
        level = board.levels.get(who, -120.0) if who else -120.0
        meter = t.meter(level, gutter.time, t.person(board.colour(who))) if who else ()
        overlapped = talker is not None and talker.active and talker.overlapped
        head: Line = (*gutter.head(meter, overlapped, board.label(who), style), (" ", ""))
        left: Line = ((" " * (gutter.width - 2), ""),)
        return [(*(left if i else head), bar, (" ", ""), *row) for i, row in enumerate(rows)]

    def _unsure(self, rows: Sequence[str], sure: int) -> list[Line]:
        """The first `sure` letters normal, the others dim."""
        lines: list[Line] = []
        for row in rows:
            letters = len(row.replace(" ", ""))
            if sure >= letters:
                lines.append(((row, ""),))
            elif sure <= 0:
                lines.append(((row, self.theme.dim),))
            else:
                at, seen = 0, 0
                while seen < sure:
                    seen += row[at] != " "
                    at += 1
                lines.append(((row[:at], ""), (row[at:], self.theme.dim)))
            sure -= letters
        return lines

    def _history(self, board: Board, view: View, gutter: Gutter, room: int) -> list[Line]:
        """The newest lines that fit above `now`, or above where one looks back to."""
        entries = board.entries
        end = len(entries)
        if view.anchor is not None:
            end = _index(entries, view.anchor) + 1
        lines: list[Line] = []
        first = end
        while first > 0 and len(lines) < room:
            first -= 1
            lines[:0] = self._entry(board, gutter, entries[first])
        view.page = max(1, end - first - 1)
        lines = lines[-room:] if room > 0 else []
        return [BLANK] * (room - len(lines)) + lines

    def _entry(self, board: Board, gutter: Gutter, entry: Entry) -> list[Line]:
        t, final = self.theme, entry.kind == "final"
        at = clock(entry.start, hours=gutter.time > 5)
        stamp = ((f"{at:>{gutter.time}}", t.dim),) if gutter.time >= 5 else ()
        who = t.person(board.colour(entry.speaker))
        label = board.label(entry.speaker) if final else ""
        style = "" if final else t.bold if entry.kind == "mark" else t.dim
        head: Line = (*gutter.head(stamp, entry.overlapped, label, who), ("   ", ""))
        left: Line = ((" " * gutter.width, ""),)
        rows = wrap(entry.text, gutter.text)
        return [(*(left if i else head), (row, style)) for i, row in enumerate(rows)]

    def _help(self, board: Board, width: int) -> list[Line]:
        t, g = self.theme, self.theme.glyphs
        keys = [
            ("space, p", "pause, go on"),
            ("r", "name who spoke last; Tab takes another one"),
            ("m", "mark this moment"),
            ("up, down", "look back in the history; PgUp, PgDn; End: now"),
            ("Ctrl-L", "draw everything again"),
            ("q, Ctrl-C", "stop: the transcript stays in the terminal"),
            ("", ""),
            (g.overlap, "two or more talk at once"),
            ("dim", "may still change"),
            ("?", "not known yet who that is"),
        ]
        lines: list[Line] = [BLANK]
        for key, does in keys:
            lines.append(((f"  {key:<11}", t.bold), (cut(does, width - 14, g.ellipsis), "")))
        for m in list(board.metrics.values())[-4:]:
            words = plain(f"{m.name} {m.value:.4g} {m.unit} {m.subject or ''}")
            lines.append(((cut(f"  {words}", width - 1, g.ellipsis), t.dim),))
        return [*lines, BLANK, (("  any key: back", t.dim),), self._rule(width)]


@dataclass(frozen=True, slots=True)
class Gutter:
    """Columns before the text, the same in history and lanes: time or level, sign, label."""

    time: int
    label: int
    text: int
    theme: Theme

    @staticmethod
    def of(board: Board, width: int, theme: Theme) -> Gutter:
        time_ = 3 if width < 50 else 7 if board.status.at_s >= 3600 else 5
        longest = max((width_of(board.label(s)) for s in board.speakers), default=2)
        label = min(max(3, longest), max(4, min(16, width // 8)))
        return Gutter(time_, label, max(4, width - (time_ + label + 8)), theme)

    @property
    def width(self) -> int:
        return self.time + self.label + 7

    def head(self, left: Line, overlapped: bool, label: str, style: str) -> Line:
        sign = f" {self.theme.glyphs.overlap if overlapped else ' '} "
        label = cut(label, self.label, self.theme.glyphs.ellipsis)
        pad = " " * (self.label - width_of(label))
        used = sum(len(text) for text, _ in left)
        return (
            (" ", ""),
            *left,
            (" " * (self.time - used), ""),
            (sign, self.theme.warn),
            (label, style),
            (pad, ""),
        )


def _index(entries: Sequence[Entry], entry: Entry) -> int:
    at = bisect.bisect_left(entries, entry.start, key=lambda e: e.start)
    while at < len(entries) - 1 and entries[at] is not entry:
        at += 1
    return min(at, len(entries) - 1)


# ---------------------------------------------------------------- painting

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


# ---------------------------------------------------------------- the terminal

ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[?2004h"
LEAVE = "\x1b[m\x1b[2J\x1b[H\x1b[?2004l\x1b[?7h\x1b[?25h\x1b[?1049l"
TOGETHER = ("\x1b[?2026h", "\x1b[?2026l")  # one picture, where the terminal can wait for it


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
        at = len(entries) - 1 if view.anchor is None else _index(entries, view.anchor)
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
