"""The display of `podtool live`, without a terminal: what it shows, and the bytes it sends."""

from __future__ import annotations

import io
import os
import pty
import re
import termios
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import get_character_cell_size
from rich.console import Console

from podtool.artifacts import Correction, Metric, Partial, Row, Speaker, Utterance
from podtool.live import board
from podtool.live.display import Command, Display, Mark, Pause, Quit, Rename
from podtool.live.keys import Key, Keys, Parser, in_foreground
from podtool.live.lines import plain, width_of, wrap
from podtool.live.screen import ASCII
from podtool.live.status import Shed, Status, Talker
from podtool.live.terminal import Painter

SGR = re.compile(r"\x1b\[[0-9;]*m")


class Terminal:
    """As much of a terminal as the painter needs; `styles` holds the style of each cell."""

    def __init__(self, width: int, height: int) -> None:
        self.width = width
        self.rows = [[" "] * width for _ in range(height)]
        self.styles = [[""] * width for _ in range(height)]
        self.x = self.y = 0
        self.style = ""

    def feed(self, text: str) -> None:
        for escape, char in re.findall(r"(\x1b\[[?0-9;]*[A-Za-z])|(.)", text, re.DOTALL):
            if escape:
                self._obey(escape[2:-1], escape[-1])
            elif (size := get_character_cell_size(char)) == 0:
                self.rows[self.y][self.x - 1] += char
            else:
                for i in range(size):
                    self.rows[self.y][self.x + i] = "" if i else char
                    self.styles[self.y][self.x + i] = self.style
                self.x += size

    def _obey(self, numbers: str, letter: str) -> None:
        if letter == "H":
            self.y, self.x = (int(n) - 1 for n in (numbers or "1;1").split(";"))
        elif letter == "G":
            self.x = int(numbers) - 1
        elif letter == "K":
            self.rows[self.y][self.x :] = [" "] * (self.width - self.x)
            self.styles[self.y][self.x :] = [""] * (self.width - self.x)
        elif letter == "J":
            for row, styles in zip(self.rows, self.styles, strict=True):
                row[:], styles[:] = [" "] * self.width, [""] * self.width
        elif letter == "m":
            self.style = f"{self.style};{numbers}".strip(";") if numbers else ""

    @property
    def lines(self) -> list[str]:
        return ["".join(row).rstrip() for row in self.rows]

    def style_of(self, word: str) -> str:
        """The style of the last place where the word is shown."""
        for row, styles in zip(reversed(self.rows), reversed(self.styles), strict=True):
            if (at := "".join(c or "\0" for c in row).rfind(word)) >= 0:
                return styles[at]
        raise AssertionError(f"{word} is not shown")


class Stage:
    """A display of a given size, and what it reported."""

    def __init__(self, width: int = 80, height: int = 24, **options: object) -> None:
        self.commands: list[Command] = []
        self.file = io.StringIO()
        chosen: dict[str, object] = {
            "file": self.file, "force_terminal": True, "width": width, "height": height,
            "color_system": "256", "_environ": {"TERM": "xterm-256color"},
        }  # fmt: skip
        console = Console(**(chosen | options))  # type: ignore[arg-type]
        self.display = Display(console, self.commands.append)
        self.terminal = Terminal(width, height)
        self._read = 0

    def sent(self) -> str:
        """What drawing writes now."""
        self.display.draw()
        new = self.file.getvalue()[self._read :]
        self._read += len(new)
        return new

    def shown(self, *rows: Row) -> list[str]:
        self.display.rows(rows)
        self.terminal.feed(self.sent())
        return self.terminal.lines

    def type(self, text: str) -> None:
        for char in text:
            self.display.key(Key("char", char))

    def press(self, *names: str) -> None:
        for name in names:
            self.display.key(Key(name))


def said(id: str, start: float, end: float, text: str, speaker: str | None = "S1") -> Utterance:
    return Utterance(id, "live", start, end, text, speaker)


def saying(id: str, text: str, speaker: str | None = "S1", stable: int = 0) -> Partial:
    return Partial(id, "live", 1.0, 2.0, text, speaker, stable)


def find(lines: list[str], text: str) -> int:
    return next(i for i, line in enumerate(lines) if text in line)


def test_two_people_at_once_have_a_lane_each_and_stand_in_history_by_time() -> None:
    stage = Stage()
    talkers = tuple(Talker(s, None, -20.0, True, True) for s in ("S1", "S2"))
    stage.display.status(Status("mic", 12.0, -18.0, talkers))
    lines = stage.shown(
        said("u2", 11.0, 12.0, "The short one ends first.", "S2"),
        said("u1", 10.0, 14.0, "The long one began before it.", "S1"),
        saying("u3", "and goes on", "S1"),
        saying("u4", "so does the other", "S2"),
    )
    now = find(lines, "now")
    history, lanes = lines[:now], lines[now:]
    assert find(history, "The long one") == find(history, "The short one") - 1
    assert all("⇄" in line for line in history if "one" in line)
    assert "2 talk at once" in lines[now]
    assert find(lanes, "and goes on") < find(lanes, "so does the other")
    assert sum("⇄" in line for line in lanes) == 2


def test_unstable_words_are_dim_until_they_are_final_and_stay_where_they_are() -> None:
    stage = Stage()
    lines = stage.shown(saying("u1", "surely perhaps", "S1", 1))
    where = find(lines, "surely perhaps")
    assert stage.terminal.style_of("surely") == "" and stage.terminal.style_of("perhaps") == "2"
    lines = stage.shown(said("u1", 1.0, 2.0, "surely perhaps"))
    assert stage.terminal.style_of("perhaps") == ""
    assert "surely perhaps" in lines[where]


def test_a_partial_of_nobody_yet_has_a_lane_and_moves_when_known() -> None:
    stage = Stage()
    lines = stage.shown(said("u0", 0.0, 1.0, "Before."), saying("u1", "who is this", None))
    assert re.match(r"\s+\?\s+┃ who is this", lines[find(lines, "who is this")])
    lines = stage.shown(saying("u1", "who is this", "S1"))
    assert not any(re.match(r"\s+\?\s+. who", line) for line in lines)
    lines = stage.shown(saying("u1", ""))
    assert not any("who is this" in line for line in lines)


def test_a_correction_relabels_what_is_shown_and_is_told() -> None:
    stage = Stage()
    stage.shown(
        said("u1", 50.0, 52.0, "An early line.", "S3"),
        said("u2", 59.0, 60.0, "A late line.", "S3"),
        saying("u3", "a running one", "S1"),
    )
    lines = stage.shown(Correction("live", "S3", "S1", 58.0))
    assert "S3" in lines[find(lines, "An early")] and "S1" in lines[find(lines, "A late")]
    assert "S3 is S1 since 00:58" in lines[-1]
    now = find(lines, "now")
    assert "A late line." in lines[find(lines[now:], "S1") + now]
    lines = stage.shown(said("u4", 61.0, 62.0, "A row that was on its way.", "S3"))
    assert "S1" in lines[find(lines, "on its way")]


def test_somebody_unknown_gets_a_name_without_a_word() -> None:
    stage = Stage()
    lines = stage.shown(said("u1", 50.0, 52.0, "Who was that.", "S?"))
    assert "S?" not in "".join(lines) and "?" in lines[find(lines, "Who was that")]
    lines = stage.shown(Correction("live", "S?", "S2", 50.0, 50.1))
    assert "S2" in lines[find(lines, "Who was that")] and "S2 since" not in "".join(lines)
    assert not any(" is S2" in line for line in lines)


def test_names_take_the_place_of_labels_and_stay_apart() -> None:
    stage = Stage()
    stage.shown(said("u1", 0.0, 1.0, "One."), said("u2", 2.0, 3.0, "Two.", "S2"))
    lines = stage.shown(Speaker("S1", "live", 1.0, name="Kim"))
    assert "Kim" in lines[find(lines, "One.")]
    lines = stage.shown(Speaker("S2", "live", 1.0, name="Kim"))
    assert "Kim S1" in lines[find(lines, "One.")] and "Kim S2" in lines[find(lines, "Two.")]
    stage.display.status(Status(at_s=4.0, talkers=(Talker("S2", "Lee"),)))
    assert "Lee" in stage.shown()[find(lines, "Two.")]


@pytest.mark.parametrize("width", [10, 24, 40, 59, 60, 80, 133, 250])
@pytest.mark.parametrize("people", [0, 1, 3, 12])
def test_every_size_is_filled_and_never_overrun(width: int, people: int) -> None:
    text = "words and 二人が同時に話す and averyverylongwordindeed " * 4
    talkers = tuple(Talker(f"S{i}", None, -9.0, True, True) for i in range(people))
    status = Status("a microphone " * 9, 4000.0, -3.0, talkers, (0.5, 1.0), saved="x" * 60)
    for height in (1, 2, 5, 10, 13, 14, 20, 24, 60):
        stage = Stage(width, height)
        for i in range(people):
            stage.display.rows([said(f"u{i}", i, i + 1.5, text, f"S{i}")])
            stage.display.rows([saying(f"p{i}", text, f"S{i}", 3), saying("p", text, None)])
        for shed in Shed:
            stage.display.status(replace(status, shed=shed, lost_s=float(shed)))
            assert len(stage.display.lines()) == height
            stage.shown()  # the terminal of the test fails where a line is too long
            stage.type("?")
            assert len(drawn := stage.display.lines()) == height
            if width >= 40:
                assert max(sum(width_of(text) for text, _ in line) for line in drawn) <= width
            stage.type("?")
        if height >= 10 and width >= 40 and people:
            assert any("S" in line for line in stage.shown())


def test_forty_by_ten_has_lanes_and_no_history() -> None:
    stage = Stage(40, 10)
    talkers = tuple(Talker(f"S{i}", None, -20.0) for i in range(1, 6))
    stage.display.status(Status("mic", 20.0, talkers=talkers))
    rows = [said(f"u{i}", i, i + 1, f"This is number {i} of five.", f"S{i}") for i in range(1, 6)]
    lines = stage.shown(*rows)
    assert "LIVE" in lines[0] and "0:00:20" in lines[0]
    assert not any("now" in line for line in lines)
    assert [re.findall(r"S\d", line) for line in lines if "│" in line and "S" in line] == [
        ["S3"], ["S4"], ["S5"]
    ]  # fmt: skip


def test_a_newcomer_takes_the_lane_of_who_was_silent_longest_and_nobody_else_moves() -> None:
    stage = Stage(40, 10)

    def lanes(*rows: Row) -> list[str]:
        return re.findall(r"S\d(?= +[│┃])", "\n".join(stage.shown(*rows)))

    assert lanes(*(said(f"u{i}", i, i + 1, "Yes.", f"S{i}") for i in (1, 2, 3))) == [
        "S1", "S2", "S3"
    ]  # fmt: skip
    assert lanes(said("u4", 4.0, 5.0, "Yes.", "S1")) == ["S1", "S2", "S3"]
    assert lanes(said("u5", 5.0, 6.0, "New.", "S4")) == ["S1", "S4", "S3"]


def test_nothing_new_sends_nothing_and_little_news_little() -> None:
    stage = Stage(120, 40)
    stage.display.rows([said(f"u{i}", i, i + 1, "Something was said here.") for i in range(60)])
    assert len(stage.sent()) > 1000
    assert stage.sent() == ""
    stage.display.rows([saying("p", "one")])
    stage.sent()
    stage.display.rows([saying("p", "one two")])
    assert len(stage.sent()) < 60
    stage.display.status(Status(at_s=0.5))
    stage.sent()
    stage.display.status(Status(at_s=0.6))
    assert stage.sent() == ""


def test_what_is_drawn_bit_by_bit_is_what_is_drawn_at_once() -> None:
    stage = Stage(64, 20)
    words = "then 二人 spoke at once, café and Ünïcode éverywhere, ok ".split()
    for i in range(120):
        stage.display.rows(
            [
                saying("a", " ".join(words[: i % 9]), "S1", i % 4),
                saying("b", " ".join(words[i % 5 :]), "S二" if i % 2 else None),
                said(f"u{i}", i, i + 2.0, " ".join(words[: 1 + i % 8]), f"S{i % 3}"),
            ]
        )
        stage.display.status(Status("mic", i / 3, -(i % 50), saved="x"))
        stage.shown()
        fresh = Terminal(64, 20)
        fresh.feed(Painter().update(stage.display.lines(), 64, 20))
        assert stage.terminal.rows == fresh.rows
        assert stage.terminal.styles == fresh.styles


texts = st.text(st.sampled_from("ab é二人́ "), max_size=30)


@given(st.lists(st.lists(st.tuples(texts, st.sampled_from(["", "\x1b[1m"])), max_size=3)))
def test_the_painter_brings_any_line_to_any_other(lines: list[list[tuple[str, str]]]) -> None:
    painter, terminal = Painter(), Terminal(20, 1)
    for spans in lines:
        line = tuple(("x" + text, style) for text, style in spans)
        terminal.feed(painter.update([line], 20, 1))
        fresh = Terminal(20, 1)
        fresh.feed(Painter().update([line], 20, 1))
        assert terminal.rows == fresh.rows and terminal.styles == fresh.styles


@given(st.text(st.sampled_from("abcde 二人三"), max_size=80), st.integers(4, 20))
def test_wrapping_keeps_the_text_within_the_width_and_grows_at_the_end(
    text: str, width: int
) -> None:
    text = plain(text)
    lines = wrap(text, width)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert all(width_of(line) <= width for line in lines)
    assert wrap(f"{text} more", width)[: max(0, len(lines) - 1)] == lines[:-1]


@pytest.mark.parametrize(
    ("hostile", "harmless"),
    [
        ("\x1b[2Jgone", "gone"),
        ("\x1b]0;title\x07x\x1b]8;;http://a\x1b\\y", "xy"),
        ("a\x9b31mb\x90dcs\x9cc", "abc"),
        ("one\ntwo\r\tthree\x00\x08", "one two three"),
        ("\u202eright\u2066 to\u200d left\u200b", "right to left"),
        ("a\x1b", "a"),
        ("\ud800x", "x"),
        ("naïve 二人", "naïve 二人"),
    ],
)
def test_texts_do_nothing_to_the_terminal(hostile: str, harmless: str) -> None:
    assert plain(hostile) == harmless
    assert plain(f" {harmless}  ") == harmless


def test_hostile_rows_bring_no_escape_of_their_own() -> None:
    stage = Stage()
    bad = "\x1b[2J\x1b]0;x\x07\x1b[31m\x9b5mwords"
    status = Status(f"mic{bad}", 3.0, talkers=(Talker(f"S1{bad}", f"n{bad}"),), saved=bad)
    with stage.display:
        stage.display.status(status)
        stage.display.rows(
            [
                said(bad, 0.0, 1.0, bad, f"S1{bad}"),
                saying("p", bad, f"S2{bad}"),
                Speaker(f"S1{bad}", "live", 1.0, name=bad),
                Correction("live", f"S2{bad}", f"S1{bad}", 0.0),
                Metric(bad, 1.0, bad),
            ]
        )
        stage.display.notice(bad)
        stage.display.key(Key("char", "?"))
        stage.display.draw()
    out = stage.file.getvalue()
    assert "\x9b" not in out and "\x07" not in out and "\x1b]" not in out
    assert "\x1b[31m" not in out and ";x" not in out


def test_without_colours_bold_dim_and_labels_are_left() -> None:
    stage = Stage(no_color=True)
    talkers = (Talker("S1", None, -20.0, True), Talker("S2"))
    stage.display.status(Status("mic", 3.0, talkers=talkers, shed=Shed.PARTIALS))
    stage.display.rows([said("u", 0.0, 1.0, "Hello.", "S2"), saying("p", "and so", "S1")])
    sent = stage.sent()
    stage.terminal.feed(sent)
    assert set(SGR.findall(sent)) <= {"\x1b[m", "\x1b[1m", "\x1b[2m"}
    lines = stage.terminal.lines
    assert "┃" in lines[find(lines, "and so")] and "│" in "\n".join(lines)
    assert stage.terminal.style_of("S1") == "1" and stage.terminal.style_of("and so") == "2"


def test_where_the_stream_is_not_unicode_signs_are_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii")
    stage = Stage(file=file)
    stage.display.status(Status("mic", 3.0, -20.0, (Talker("S1", None, -9.0, True, True),)))
    stage.display.rows([said("u", 0.0, 1.0, "Café 二人.")])
    stage.display.draw()
    assert b"Caf? ??." in raw.getvalue() and b"====" in raw.getvalue()
    monkeypatch.setenv("LC_ALL", "C")
    assert Stage().display.theme.glyphs == ASCII


@pytest.mark.parametrize("term", ["dumb", None])
def test_without_a_cursor_there_are_lines(term: str | None) -> None:
    stage = Stage(_environ={"TERM": "dumb"}) if term else Stage(force_terminal=False)
    with stage.display:
        assert not stage.display.full_screen
        stage.display.rows([saying("u1", "not shown"), said("u1", 61.0, 62.0, "Hello.", "S3")])
        stage.display.rows([Speaker("S1", "live", 1.0, name="Kim")])
        stage.display.rows([Correction("live", "S3", "S1", 58.0)])
        stage.display.status(Status(at_s=63.0, shed=Shed.SEPARATION, warnings=("all is\nlost",)))
        stage.display.status(Status(at_s=64.0, lost_s=1.5, paused=True))
    assert stage.file.getvalue().splitlines() == [
        "[01:01] S3: Hello.",
        "S1 is called Kim",
        "S3 is Kim since 00:58",
        "warning: all is lost",
        "warning: partials off",
        "warning: separation off",
        "all is well again",
        "warning: 1.5 s of audio lost",
        "paused at 01:04",
    ]


def test_figures_and_troubles_are_in_words() -> None:
    stage = Stage()
    status = Status(
        "USB", 3.0, -20.0, (), (0.62, 1.1), 3.4, 2.0, Shed.SEPARATION, 0.5, False, "USB", "out"
    )
    stage.display.status(status)
    lines = stage.shown()
    assert "WAIT" in lines[0]
    for words in ("waiting for USB", "partials off", "separation off"):
        assert words in lines[-2]
        assert "33" in stage.terminal.style_of(words)
    stage.display.status(Status("USB", 9.0, -20.0, (), (0.62, 1.1), 0.4, 2.0, cpu=0.5, saved="out"))
    lines = stage.shown()
    assert "REC" in lines[0] and "→ out" in lines[0]
    assert lines[-2] == " latency 0.6 s, p95 1.1   behind 0.4 s   lost 2.0 s   CPU 50 %"
    assert "33" in stage.terminal.style_of("lost 2.0 s")
    stage.display.status(Status("USB", 9.1, paused=True))
    assert "PAUSED" in stage.shown()[0]


def test_keys_report_commands() -> None:
    stage = Stage()
    stage.display.status(Status(at_s=42.0))
    stage.type("r")  # nobody to name
    stage.type(" pm")
    assert stage.commands == [Pause(), Pause(), Mark(42.0)]
    assert any("mark" in line and "00:42" in line for line in stage.shown())
    stage.type("?q")  # any key leaves the help
    assert stage.commands[3:] == []
    stage.type("q")
    assert stage.commands[3:] == [Quit()]


def test_renaming_edits_a_line_and_tab_takes_the_next_speaker() -> None:
    stage = Stage()
    stage.display.rows([said("u1", 0.0, 1.0, "One."), said("u2", 2.0, 3.0, "Two.", "S2")])
    stage.type("r")
    assert "name of S2:" in stage.shown()[-1]
    stage.press("tab")
    stage.type("Zoëq")
    stage.press("backspace")
    assert "name of S1: Zoë" in stage.shown()[-1]
    assert (stage.terminal.x, stage.terminal.y) == (16, 23)
    assert stage.commands == []
    stage.press("enter")
    assert stage.commands == [Rename("S1", "Zoë")]
    assert "Zoë" in stage.shown()[find(stage.terminal.lines, "One.")]
    stage.type("rNo")
    stage.press("esc")
    stage.type("r")
    stage.display.key(Key("paste", "Ann\nLee\x1b[2J"))
    stage.press("enter")
    assert stage.commands[1:] == [Rename("S2", "Ann Lee [2J")]
    stage.type("r")
    stage.press("enter")  # no name
    assert len(stage.commands) == 2


def test_looking_back_stands_still_while_people_talk() -> None:
    stage = Stage()
    stage.shown(*(said(f"u{i}", i, i + 1, f"Line {i}.") for i in range(100)))
    stage.press("pgup", "up")
    before = stage.shown()
    assert "looking back" in before[now := find(before, "looking back")]
    after = stage.shown(said("x", 200.0, 201.0, "Something new."))
    assert after[:now] == before[:now]
    stage.press("home")
    assert "Line 0." in "\n".join(stage.shown())
    stage.press("end")
    assert "Something new." in "\n".join(stage.shown()[:now])


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board, "KEPT", 600)
    stage = Stage()
    with stage.display:
        for i in range(3000):
            stage.display.rows([saying(f"p{i}", "never ended"), said(f"u{i}", i, i + 1, "Yes.")])
        known = stage.display.board
        assert len(known.entries) <= 600 and len(known.partials) <= 64
    assert "lines are not here" in stage.file.getvalue()
    assert "3000 utterances" in stage.file.getvalue()


def test_on_leaving_the_terminal_is_given_back_and_the_transcript_printed() -> None:
    stage = Stage(no_color=True)
    with pytest.raises(KeyError), stage.display:
        stage.display.rows(
            [
                said("u2", 62.0, 63.0, "Second.", "S2"),
                said("u1", 60.0, 64.0, "First.", "S1"),
                Speaker("S1", "live", 1.0, name="Kim"),
                Correction("live", "S2", "S9", 61.0),
            ]
        )
        raise KeyError("something broke")
    out = stage.file.getvalue()
    assert out.startswith("\x1b[?1049h\x1b[?25l")
    _, left, after = out.rpartition("\x1b[?25h\x1b[?1049l")
    assert left
    assert SGR.sub("", after).splitlines() == [
        "[01:00] Kim: First.",
        "[01:02] S9: Second.",
        "00:00 of audio, 2 talking, 2 utterances",
    ]
    stage.display.close()
    assert stage.file.getvalue() == out


def keys_of(*parts: bytes) -> list[Key]:
    parser = Parser()
    keys = [key for part in parts for key in parser.feed(part)]
    return keys + parser.flush()


def test_bytes_become_keys() -> None:
    assert keys_of(b"a \xc3", b"\xa9") == [Key("char", "a"), Key("char", " "), Key("char", "é")]
    assert keys_of(b"\r\n\t\x7f\x08\x15\x17\x01") == [
        Key(n) for n in "enter enter tab backspace backspace kill kill-word".split()
    ]
    assert keys_of(b"\x1b[A\x1bOB\x1b[5~", b"\x1b[", b"6~\x1b[H\x1b[4~") == [
        Key(n) for n in "up down pgup pgdn home end".split()
    ]
    assert keys_of(b"\x1b") == [Key("esc")]
    assert keys_of(b"\x1bq") == [Key("esc"), Key("char", "q")]
    assert keys_of(b"\x1b[<0;3;4M\x1b[1;5Px") == [Key("char", "x")]
    assert keys_of(b"\x1b[200~q\nq\x1b[20", b"1~m") == [Key("paste", "q\nq"), Key("char", "m")]
    assert keys_of(b"\xff") == [Key("char", "\ufffd")]


@given(st.lists(st.binary(max_size=12), max_size=8))
def test_any_bytes_are_survived(parts: list[bytes]) -> None:
    keys_of(*parts, b"\x1b[201~")


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    ours, theirs = pty.openpty()
    yield ours, theirs
    os.close(ours)
    os.close(theirs)


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 5
    while not true():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.01)


def test_keys_of_a_terminal_come_singly_and_its_modes_come_back(
    terminal: tuple[int, int],
) -> None:
    ours, theirs = terminal
    before = termios.tcgetattr(theirs)
    got: list[Key] = []
    with Keys(theirs, got.append) as keys:
        assert not termios.tcgetattr(theirs)[3] & (termios.ECHO | termios.ICANON)
        assert termios.tcgetattr(theirs)[3] & termios.ISIG
        os.write(ours, b"x\x1b")
        until(lambda: got == [Key("char", "x"), Key("esc")])
        keys.hold()
        assert termios.tcgetattr(theirs) == before
        os.write(ours, b"no\n")
        time.sleep(0.05)
        assert len(got) == 2
        termios.tcflush(theirs, termios.TCIFLUSH)
        keys.resume()
        os.write(ours, b"y")
        until(lambda: got[2:] == [Key("char", "y")])
    assert termios.tcgetattr(theirs) == before


def test_keys_may_be_closed_by_a_key_and_without_a_terminal_there_are_none(
    terminal: tuple[int, int],
) -> None:
    ours, theirs = terminal
    with Keys(theirs, lambda _: keys.close()) as keys:
        os.write(ours, b"q")
        until(lambda: not keys.running)
    with Keys(None, lambda _: None) as none:
        assert not none.running
    reading, writing = os.pipe()
    with Keys(reading, lambda _: None) as none:
        assert not none.running
    os.close(reading)
    os.close(writing)
    assert in_foreground(theirs)  # of no concern to job control
