"""SRT and WebVTT. Overlapping utterances are overlapping cues; times are rounded to a millisecond.

VTT names speakers in voice tags, SRT by a bracket, `[S1] text`. Utterances with word times are cut
into cues that can be read: two lines of 42 characters and seven seconds at most.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from podtool.artifacts import Row, Utterance
from podtool.errors import InputError
from podtool.formats.base import (
    bracketed,
    clock,
    from_label,
    in_order,
    lines_of,
    one_line,
    one_recording,
    to_label,
    unbracket,
    utterances,
)

LINE_CHARS = 42  # the usual width of a subtitle line, two of them in a cue
CUE_CHARS = 2 * LINE_CHARS
CUE_S = 7.0
_TIME = r"(?:(\d{2,}):)?(\d{2}):(\d{2})[.,](\d{3})"
_TIMES = re.compile(rf"\s*{_TIME}\s+-->\s+{_TIME}(?:\s+.*)?")


class Cue(NamedTuple):
    """A text on screen from `start` to `end` seconds."""

    start: float
    end: float
    speaker: str | None
    text: str


def cues(utterance: Utterance) -> Iterator[Cue]:
    """One utterance as cues of readable size: cut between words, at punctuation where there is."""
    words = utterance.words or ()
    long = len(utterance.text) > CUE_CHARS or utterance.end - utterance.start > CUE_S
    if not long or not words:
        yield Cue(utterance.start, utterance.end, utterance.speaker, one_line(utterance.text))
        return
    first = 0
    while first < len(words):
        stop = first + 1
        chars = len(words[first].text)
        while stop < len(words):
            chars += 1 + len(words[stop].text)
            if chars > CUE_CHARS or words[stop].end - words[first].start > CUE_S:
                break
            stop += 1
        if stop < len(words):
            stop = _at_punctuation([w.text for w in words[first:stop]]) + first
        start = utterance.start if first == 0 else words[first].start
        end = utterance.end if stop == len(words) else words[stop - 1].end
        if end - start > CUE_S:  # silence around the words is not shown
            start, end = words[first].start, words[stop - 1].end
        text = one_line(" ".join(w.text for w in words[first:stop]))
        yield Cue(start, end, utterance.speaker, text)
        first = stop


def _at_punctuation(texts: Sequence[str]) -> int:
    """How many of the words to show: up to the last full stop or comma in the second half."""
    for marks in (".?!", ",;:"):
        for count in range(len(texts), len(texts) // 2, -1):
            if texts[count - 1].rstrip("\"')\u2019\u201d")[-1:] in set(marks):
                return count
    return len(texts)


def _stamp(time_s: float, mark: str) -> str:
    millis = round(time_s * 1000)
    minutes, rest = divmod(millis, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{rest // 1000:02d}{mark}{rest % 1000:03d}"


def _wrapped(text: str) -> str:
    lines = textwrap.wrap(text, LINE_CHARS, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines)


def _all_cues(rows: Sequence[Row], what: str, name: str) -> list[Cue]:
    if what in ("turns", "segments"):
        raise InputError(f"{name} holds text, not {what}")
    found = utterances(rows, name)
    one_recording(found, name)
    return sorted((c for u in found for c in cues(u)), key=lambda c: (c.start, c.end))


def write_srt(rows: Sequence[Row], what: str = "auto") -> str:
    """Utterances as SRT."""
    blocks = [
        f"{at}\n{_stamp(c.start, ',')} --> {_stamp(c.end, ',')}\n"
        f"{_wrapped(bracketed(c.speaker, c.text))}\n"
        for at, c in enumerate(_all_cues(rows, what, "SRT"), 1)
    ]
    return "\n".join(blocks)


def write_vtt(rows: Sequence[Row], what: str = "auto") -> str:
    """Utterances as WebVTT with voice tags."""
    blocks = ["WEBVTT\n"]
    for at, cue in enumerate(_all_cues(rows, what, "VTT"), 1):
        text = _escaped(_wrapped(cue.text))
        if cue.speaker is not None:
            text = f"<v {_escaped(to_label(cue.speaker))}>{text}"
        times = f"{_stamp(cue.start, '.')} --> {_stamp(cue.end, '.')}"
        blocks.append(f"{at}\n{times}\n{text}\n")
    return "\n".join(blocks)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


_ENTITIES = {
    "&amp;": "&", "&lt;": "<", "&gt;": ">", "&nbsp;": "\u00a0", "&lrm;": "\u200e",
    "&rlm;": "\u200f",
}  # fmt: skip


def _unescaped(text: str) -> str:
    return re.sub("|".join(_ENTITIES), lambda m: _ENTITIES[m[0]], text)


def _times(line: str, where: str) -> tuple[float, float]:
    match = _TIMES.fullmatch(line)
    if not match:
        raise InputError(f"{where}: expected HH:MM:SS,mmm --> HH:MM:SS,mmm, got {line.strip()!r}")
    start = clock(match[1], match[2], match[3], match[4], where)
    end = clock(match[5], match[6], match[7], match[8], where)
    in_order(start, end, where)
    return start, end


def _blocks(text: str) -> Iterator[list[tuple[int, str]]]:
    """Runs of lines between blank ones, with their numbers."""
    block: list[tuple[int, str]] = []
    for at, line in lines_of(text):
        if line.strip():
            block.append((at, line))
        elif block:
            yield block
            block = []
    if block:
        yield block


def _rows(found: Sequence[Cue], recording: str) -> list[Row]:
    ordered = sorted(found, key=lambda c: (c.start, c.end))
    return [
        Utterance(f"u{at:04d}", recording, c.start, c.end, c.text, c.speaker)
        for at, c in enumerate(ordered, 1)
    ]


_STYLE = re.compile(r"</?(?:[ibus]|font)(?: [^>]*)?>|\{\\an?\d+\}", re.IGNORECASE)


def read_srt(text: str, name: str, recording: str, what: str = "auto") -> list[Row]:
    """Cues as utterances, without italics and the like. Raises InputError naming the line."""
    times: list[tuple[float, float]] = []
    texts: list[str] = []
    for block in _blocks(text):
        at, index = block[0]
        if not index.strip().isdecimal():
            raise InputError(f"{name}, line {at}: expected the number of a cue, got {index!r}")
        if len(block) < 2:
            raise InputError(f"{name}, line {at}: the times of cue {index.strip()} are missing")
        times.append(_times(block[1][1], f"{name}, line {block[1][0]}"))
        texts.append(one_line(_STYLE.sub("", " ".join(line for _, line in block[2:]))))
    return _rows(
        [Cue(*t, *named) for t, named in zip(times, unbracket(texts), strict=True)], recording
    )


_VOICE = re.compile(r"<v(?:\.[^\s>]*)? ([^>]*)>")
_TAG = re.compile(r"</?(?:[biu]|c|ruby|rt|lang|v)(?:[.\s][^>]*)?>|<(?:\d{2,}:)?\d{2}:\d{2}\.\d{3}>")


def read_vtt(text: str, name: str, recording: str, what: str = "auto") -> list[Row]:
    """Cues as utterances, one for each voice in a cue. Raises InputError naming the line."""
    blocks = list(_blocks(text))
    if not blocks or not re.fullmatch(r"WEBVTT(?:[ \t].*)?", blocks[0][0][1]):
        raise InputError(f"{name}, line 1: a VTT file starts with WEBVTT")
    found: list[Cue] = []
    for block in blocks[1:]:
        if re.match(r"(NOTE|STYLE|REGION)(\s|$)", block[0][1]) and "-->" not in block[0][1]:
            continue
        if "-->" not in block[0][1]:  # the cue's name
            if len(block) == 1:
                raise InputError(f"{name}, line {block[0][0]}: a cue has a name and no times")
            block = block[1:]
        at = block[0][0]
        start, end = _times(block[0][1], f"{name}, line {at}")
        for speaker, said in _voices(" ".join(line for _, line in block[1:])):
            found.append(Cue(start, end, speaker, said))
    return _rows(found, recording)


def _voices(payload: str) -> Iterator[tuple[str | None, str]]:
    """(speaker, text) of the voice spans of one cue; text outside of them has no speaker."""
    pieces = _VOICE.split(payload)
    for index in range(0, len(pieces), 2):
        speaker = from_label(_unescaped(pieces[index - 1])) if index else None
        said = one_line(_unescaped(_TAG.sub("", pieces[index])))
        if said or index or len(pieces) == 1:
            yield speaker, said
