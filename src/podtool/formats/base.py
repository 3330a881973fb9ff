"""What the format modules share: choosing rows, labels that fit into a column, strict numbers."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import quote, unquote

from podtool.artifacts import Recording, Row, Segment, Turn, Utterance
from podtool.errors import InputError
from podtool.rowio import of_kind

log = logging.getLogger(__name__)

WHAT = ("auto", "turns", "utterances", "segments")
Timed = Turn | Utterance | Segment
Writer = Callable[[Sequence[Row], str], str]
Reader = Callable[[str, str, str, str], list[Row]]


@dataclass(frozen=True, slots=True)
class Format:
    """An exchange format: how it is called, what its files end in, and its two directions.

    `write(rows, what)` gives the text; `read(text, name, recording, what)` gives the rows, `name`
    being what errors call the file and `recording` the id for formats that carry none.
    """

    name: str
    suffixes: tuple[str, ...]
    holds: str
    write: Writer
    read: Reader | None = None


# ---------------------------------------------------------------- rows out


def utterances(rows: Sequence[Row], format_name: str) -> list[Utterance]:
    """The utterances by time. Raises InputError where there are none."""
    found = sorted(of_kind(rows, Utterance), key=lambda u: (u.recording, u.start, u.end))
    if not found:
        raise InputError(
            f"{format_name} holds text, and there are no utterances to write",
            "Run `podtool transcribe` first.",
        )
    return found


def turns(rows: Sequence[Row]) -> list[Turn]:
    """The turns by time; where there are none, the utterances that have a speaker."""
    found = of_kind(rows, Turn)
    if not found:
        found = [
            Turn(u.id, u.recording, u.start, u.end, u.speaker, u.score)
            for u in of_kind(rows, Utterance)
            if u.speaker is not None
        ]
    if not found:
        raise InputError(
            "there are no turns, and no utterances with a speaker", "Run `podtool diarize` first."
        )
    return sorted(found, key=lambda t: (t.recording, t.start, t.end))


def segments(rows: Sequence[Row]) -> list[Segment]:
    """The segments by time. Raises InputError where there are none."""
    found = sorted(of_kind(rows, Segment), key=lambda s: (s.recording, s.start, s.end))
    if not found:
        raise InputError("there are no segments to write")
    return found


def choose(rows: Sequence[Row], what: str, format_name: str) -> Sequence[Timed]:
    """What a format for anything with times writes: utterances, else turns, unless told."""
    if what == "segments":
        return segments(rows)
    if what == "turns" or (what == "auto" and not of_kind(rows, Utterance)):
        return turns(rows)
    return utterances(rows, format_name)


def one_recording(items: Sequence[Timed], format_name: str) -> None:
    """Raises InputError where a format without recording names would mix several."""
    names = sorted({item.recording for item in items})
    if len(names) > 1:
        raise InputError(
            f"{format_name} holds one recording, the rows speak of {len(names)}: "
            + ", ".join(names),
            "Choose one with --only RECORDING.",
        )


def duration(rows: Sequence[Row], items: Sequence[Timed]) -> float:
    """Length of the recording in seconds where it is known, else the last end."""
    last = max((item.end for item in items), default=0.0)
    return max([last, *(r.duration for r in of_kind(rows, Recording))])


# ---------------------------------------------------------------- labels


def to_label(text: str, also: str = "", spaces: bool = False) -> str:
    """A label for a format in which some characters cannot stand: those become %XX (UTF-8).

    Control characters and "%" always, white space where `spaces`, and the characters of `also`.
    `from_label` is the inverse. Two different labels never become the same.
    """
    if not text.strip():
        raise InputError("a speaker or recording has an empty name", "Give it one.")

    def code(c: str) -> str:
        bad = c == "%" or c in also or (c.isspace() if spaces else not c.isprintable() and c != " ")
        return _percent(c) if bad else c

    return "".join(code(c) for c in text)


def _percent(c: str) -> str:
    return quote(c, safe="") if quote(c, safe="") != c else f"%{ord(c):02X}"


def reserve(label: str) -> str:
    """A label that a format uses for itself, written with its first character as %XX."""
    return _percent(label[0]) + label[1:]


def from_label(label: str) -> str:
    """The text behind a label written by `to_label`; sequences that are not UTF-8 stay."""

    def text(match: re.Match[str]) -> str:
        try:
            return unquote(match[0], errors="strict")
        except UnicodeDecodeError:
            return match[0]

    return re.sub(r"(?:%[0-9A-F]{2})+", text, label)


def bracketed(speaker: str | None, text: str) -> str:
    """`[S1] text`, the way to name a speaker in formats that have no place for one."""
    text = one_line(text)
    if speaker is None:
        return text
    return f"[{to_label(speaker, also=']')}] {text}".rstrip()


_BRACKET = re.compile(r"\[([^\]]+)\](?: |$)")


def unbracket(texts: Sequence[str]) -> list[tuple[str | None, str]]:
    """(speaker, text) of each line, where every line names one; otherwise the lines as they are.

    A bracket in some lines only is part of the text, such as "[laughter]".
    """
    matches = [_BRACKET.match(t) for t in texts]
    if not all(matches):
        if any(matches):
            log.info("some lines start with a bracket and some do not: kept as text")
        return [(None, t) for t in texts]
    return [(from_label(m[1]), t[m.end() :]) for m, t in zip(matches, texts, strict=True) if m]


def one_line(text: str) -> str:
    """White space, line feeds included, as single spaces."""
    return " ".join(text.split())


# ---------------------------------------------------------------- numbers


def seconds(value: float) -> str:
    """At least three decimals, at most six: 1.250, 1.250001."""
    text = f"{value:.6f}"
    while text.endswith("0") and len(text) - text.index(".") > 4:
        text = text[:-1]
    return text


_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")


def number(text: str, where: str, called: str, negative: bool = False) -> float:
    """A finite number, by default not below 0. Raises InputError."""
    if not _NUMBER.fullmatch(text) or not math.isfinite(float(text)):
        raise InputError(f"{where}: {called} is not a number: {text!r}")
    value = round(float(text), 6)
    if value < 0 and not negative:
        raise InputError(f"{where}: {called} is below 0: {text}")
    return value + 0.0


def clock(hours: str | None, minutes: str, secs: str, millis: str, where: str) -> float:
    """Seconds of a subtitle's time. Raises InputError for 60 minutes or seconds and above."""
    if int(minutes) > 59 or int(secs) > 59:
        raise InputError(f"{where}: minutes and seconds go up to 59")
    whole = int(hours or 0) * 3600 + int(minutes) * 60 + int(secs)
    return round(whole + int(millis) / 1000, 3)


def in_order(start: float, end: float, where: str) -> None:
    """Raises InputError for an end before its start."""
    if end < start:
        raise InputError(f"{where}: ends ({end} s) before it starts ({start} s)")


def lines_of(text: str) -> list[tuple[int, str]]:
    """(number from 1, line) with any line ending."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return list(enumerate(text.split("\n"), 1))
