"""How a board is laid out: history, a lane per talker, how it is doing; as lines for any size."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.style import Style

from podtool.live.board import Board, Entry, index_of, troubles
from podtool.live.lines import BLANK, Line, Span, clock, cut, plain, width_of, wrap
from podtool.live.status import Status

if TYPE_CHECKING:
    from rich.color import ColorSystem

CURRENT_S = 180.0  # a talker silent for longer gives up the lane where there are more than MANY
MANY = 3


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
            end = index_of(entries, view.anchor) + 1
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
