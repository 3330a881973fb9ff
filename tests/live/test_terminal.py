"""The display of `podtool live` in a real terminal: tmux, its keys, its size, its signals."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

NUMBERS = itertools.count()
TMUX = shutil.which("tmux")
pytestmark = pytest.mark.skipif(TMUX is None, reason="tmux is not here: no terminal to look at")

DRIVER = r"""
import os, sys, time
from rich.console import Console
from podtool.artifacts import Correction, Partial, Speaker, Utterance
from podtool.live.display import Display, Pause, Quit
from podtool.live.status import Status, Talker

log = open(sys.argv[1], "w", buffering=1)
log.write(f"pid {os.getpid()}\n")
state = {"run": True, "paused": False}

def command(c):
    log.write(f"{c}\n")
    if c == Quit():
        state["run"] = False
    if c == Pause():
        state["paused"] = not state["paused"]

def said(k, start, text, speaker):
    return Utterance(f"u{k}", "live", start, start + 3.0, text, speaker)

with Display(Console(), command) as display:
    display.rows(said(k, 5.0 * k, f"Earlier line {k} of many.", f"S{1 + k % 2}") for k in range(9))
    display.rows([said(20, 50.0, "A voice that is not new.", "S3")])
    display.rows([said(21, 51.0, "Both of us \x1b[2Jat once. 二人", "S2")])
    display.rows([Correction("live", "S3", "S1", 49.0)])
    beat = 0
    while state["run"]:
        beat += 1
        words = "these words are still being said".split()[: 1 + beat % 6]
        display.rows([Partial("p", "live", 55.0, 56.0, " ".join(words), "S1", len(words) - 1)])
        level = -20.0 - beat % 9
        talkers = (Talker("S1", None, level, True, True), Talker("S2", None, -30.0, True))
        display.status(Status("a microphone", 55.0 + beat / 10, -18.0, talkers, (0.5, 0.9), 0.2,
                              cpu=0.4, paused=state["paused"]))
        if beat == 5:
            os.write(2, b"ALSA lib: underrun\n")
        if beat > 5 and "fail" in sys.argv:
            raise RuntimeError("it broke")
        time.sleep(0.1)
"""


class Pane:
    """A shell in a terminal of its own."""

    def __init__(self, folder: Path, width: int, height: int, **env: str) -> None:
        self.name = f"podtool-{os.getpid()}-{next(NUMBERS)}"
        self.log = folder / "commands"
        self.driver = folder / "driver.py"
        self.driver.write_text(DRIVER)
        clean = {k: v for k, v in os.environ.items() if k not in ("TMUX", "NO_COLOR", "COLORTERM")}
        clean |= {"LC_ALL": "C.UTF-8", "HISTFILE": "", **env}
        term = env.get("TERM", "screen-256color")
        self.tmux(
            "-f", "/dev/null", "new-session", "-d", "-x", str(width), "-y", str(height),
            f"TERM={term} PS1='ready> ' exec bash --norc --noprofile -i",
            env=clean,
        )  # fmt: skip
        self.until(lambda: "ready>" in self.text())

    def tmux(self, *words: str, env: dict[str, str] | None = None) -> str:
        assert TMUX is not None
        done = subprocess.run(
            [TMUX, "-L", self.name, *words], env=env, capture_output=True, text=True, check=True
        )
        return done.stdout

    def text(self, *options: str) -> str:
        return self.tmux("capture-pane", "-p", *options)

    def lines(self) -> list[str]:
        return self.text().split("\n")

    def told(self, name: str) -> str:
        return self.tmux("display-message", "-p", f"#{{{name}}}").strip()

    def keys(self, *keys: str) -> None:
        self.tmux("send-keys", *keys)

    def shell(self, line: str) -> None:
        self.tmux("send-keys", "-l", line)
        self.keys("Enter")

    def until(self, true: Callable[[], bool], seconds: float = 10.0) -> None:
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, f"not seen in {seconds} s:\n{self.text()}"
            time.sleep(0.05)

    def sees(self, words: str) -> None:
        self.until(lambda: words in self.text())

    def sees_edges(self, first: str, last: str, height: int) -> None:
        """The words stand in the first and the last of `height` lines."""

        def true() -> bool:
            lines = self.lines()
            return first in lines[0] and last in "".join(lines[height - 1 : height])

        self.until(true)

    def start(self, *words: str) -> None:
        """Begin the display; the modes of the terminal before it are noted in the shell."""
        self.shell("clear; before=$(stty -g)")
        self.shell(f"{sys.executable} {self.driver} {self.log} {' '.join(words)}")
        self.until(lambda: self.told("alternate_on") == "1")
        self.sees("being")

    def ended(self, code: int) -> None:
        """The shell has the terminal again, as it was."""
        self.until(lambda: self.told("alternate_on") == "0" and "ready>" in self.lines_end())
        self.shell('echo code=$? same=$([ "$(stty -g)" = "$before" ] && echo yes)')
        self.sees(f"code={code} same=yes")
        assert self.told("cursor_flag") == "1" and self.told("wrap_flag") == "1"

    def lines_end(self) -> str:
        return self.text().rstrip().rpartition("\n")[2]

    def commands(self) -> list[str]:
        return self.log.read_text().splitlines()[1:]

    def pid(self) -> int:
        return int(self.log.read_text().split()[1])

    def close(self) -> None:
        subprocess.run([str(TMUX), "-L", self.name, "kill-server"], capture_output=True)


Open = Callable[..., Pane]


@pytest.fixture
def open_pane(tmp_path: Path) -> Iterator[Open]:
    panes: list[Pane] = []

    def open_(width: int, height: int, **env: str) -> Pane:
        panes.append(Pane(tmp_path, width, height, **env))
        return panes[-1]

    yield open_
    for pane in panes:
        pane.close()


def test_an_ordinary_terminal_and_its_keys(open_pane: Open) -> None:
    pane = open_pane(80, 24)
    pane.start("< /dev/zero")  # audio on stdin: keys come from the terminal all the same
    pane.sees("ALSA lib: underrun")  # what a library wrote to stderr does not tear the screen
    lines = pane.lines()
    assert "LIVE" in lines[0] and "a microphone" in lines[0]
    now = next(i for i, line in enumerate(lines) if "── now" in line)
    history, lanes = "\n".join(lines[:now]), "\n".join(lines[now:])
    assert re.search(r"00:50 ⇄ S1 +A voice that is not new", history)
    assert "S3 is S1 since 00:49" in history
    assert re.search(r"⇄ S1 +┃ \w", lanes) and "A voice that is not new." in lanes
    assert "Both of us at once. 二人" in lanes
    assert "latency 0.5 s, p95 0.9" in lines[22]
    pane.keys("r", "Tab", "Tab", "K", "i", "m", "x", "BSpace")
    pane.sees("name of S1: Kim")
    assert pane.told("cursor_flag") == "1"
    pane.keys("Enter")
    pane.sees("Kim ┃")
    assert pane.told("cursor_flag") == "0"
    pane.keys("m", "p")
    pane.sees("PAUSED")
    pane.keys("?")
    pane.sees("any key: back")
    pane.keys("x", "PPage")
    pane.sees("looking back")
    pane.keys("q")
    pane.ended(0)
    commands = pane.commands()
    assert commands[0] == "Rename(speaker='S1', name='Kim')" and commands[1].startswith("Mark(")
    assert commands[2:] == ["Pause()", "Quit()"]
    left = pane.text("-S", "-100")
    assert "[00:50] Kim: A voice that is not new." in left
    assert left.index("line 0 of") < left.index("line 8 of") < left.index("Both of us at once.")
    assert "underrun" in left


def test_a_window_changes_its_size(open_pane: Open) -> None:
    pane = open_pane(120, 40)
    pane.start()
    for width, height in ((60, 15), (40, 10), (100, 30)):
        pane.tmux("resize-window", "-x", str(width), "-y", str(height))
        pane.sees_edges("LIVE", "behind 0.2 s", height - 1)
        lines = pane.lines()
        assert sum("LIVE" in line for line in lines) == 1
        assert sum("behind" in line for line in lines) == 1
        assert any("┃" in line for line in lines)
        assert any("── now" in line for line in lines) == (height >= 14)
    pane.keys("C-c", "C-c", "C-c")  # as people do
    pane.ended(130)


def test_a_small_terminal_without_colours(open_pane: Open) -> None:
    pane = open_pane(50, 12, NO_COLOR="1")
    pane.start()
    styles = ";".join(re.findall(r"\x1b\[([0-9;]+)m", pane.text("-e"))).split(";")
    assert set(styles) <= {"0", "1", "2", "39", "49"} and {"1", "2"} <= set(styles)
    assert re.search(r"S1 +┃", pane.text()) and re.search(r"S2 +┃ \w", pane.text())
    os.kill(pane.pid(), 15)
    pane.ended(143)


def test_stopped_and_continued(open_pane: Open) -> None:
    pane = open_pane(80, 24)
    pane.start()
    pane.keys("C-z")
    pane.until(lambda: pane.told("alternate_on") == "0" and "Stopped" in pane.text())
    assert pane.told("cursor_flag") == "1"
    pane.shell("echo the shell ec''hoes")
    pane.sees("the shell echoes")
    pane.shell("bg")
    time.sleep(0.8)  # in the background it runs, and leaves the terminal alone
    assert pane.told("alternate_on") == "0"
    pane.shell("fg")
    pane.until(lambda: pane.told("alternate_on") == "1")
    pane.sees("still being")
    pane.keys("m")
    pane.until(lambda: any(c.startswith("Mark") for c in pane.commands()))
    os.kill(pane.pid(), 19)  # SIGSTOP: without being asked
    pane.until(lambda: "Stopped" in pane.text())
    pane.shell("fg")
    pane.sees("LIVE")
    pane.sees("still being")
    pane.keys("q")
    pane.ended(0)


def test_an_exception_leaves_the_terminal_whole(open_pane: Open) -> None:
    pane = open_pane(80, 24)
    pane.shell("before=$(stty -g)")
    pane.shell(f"{sys.executable} {pane.driver} {pane.log} fail")
    pane.sees("RuntimeError: it broke")
    pane.ended(1)
    assert "[00:51] S2: Both of us at once." in pane.text("-S", "-100")


def test_a_dumb_terminal_gets_lines(open_pane: Open) -> None:
    pane = open_pane(80, 24, TERM="dumb")
    pane.shell(f"{sys.executable} {pane.driver} {pane.log}")
    pane.sees("[00:51] S2: Both of us at once. 二人")
    pane.sees("S3 is S1 since 00:49")
    assert pane.told("alternate_on") == "0"
    pane.keys("C-c")
    pane.sees("KeyboardInterrupt")
    assert "being said" not in pane.text()


def test_begun_in_the_background_it_writes_lines_and_is_not_stopped(open_pane: Open) -> None:
    pane = open_pane(80, 24)
    pane.shell(f"{sys.executable} {pane.driver} {pane.log} &")
    pane.sees("S3 is S1 since 00:49")
    assert pane.told("alternate_on") == "0"
    pane.shell("kill $!; wait $!; echo code=$?")
    pane.sees("code=143")
