"""Praat TextGrid: a tier for each speaker, so overlap is kept, and `S1 - words` beneath it.

Writes the long text form; reads the long and the short one. Tier names follow the Montreal Forced
Aligner ("S1 - words"; "S1 - phones" is left out on reading).
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from podtool.artifacts import Row, Segment, Turn, Utterance, Word
from podtool.errors import InputError
from podtool.formats.base import (
    Timed,
    choose,
    duration,
    from_label,
    in_order,
    log,
    number,
    one_recording,
    reserve,
    seconds,
    to_label,
)

_NOBODY = "utterances"
_SEGMENTS = "segments"
_WORDS = " - words"
_PHONES = " - phones"
GAP_S = 1.0  # words without an utterance tier: a longer silence starts a new utterance


class Interval(NamedTuple):
    start: float
    end: float
    text: str


class Tier(NamedTuple):
    name: str
    intervals: list[Interval]


# ---------------------------------------------------------------- writing


def write(rows: Sequence[Row], what: str = "auto") -> str:
    """Utterances with their words, else turns, or segments, as interval tiers."""
    items = choose(rows, what, "TextGrid")
    one_recording(items, "TextGrid")
    end = duration(rows, items)
    tiers = list(_tiers(items))
    out = [
        'File type = "ooTextFile"\nObject class = "TextGrid"\n',
        f"xmin = 0\nxmax = {seconds(end)}\ntiers? <exists>\nsize = {len(tiers)}\nitem []:",
    ]
    for at, tier in enumerate(tiers, 1):
        tiled = _tiled(tier, end)
        out.append(f'    item [{at}]:\n        class = "IntervalTier"')
        out.append(f"        name = {_quoted(tier.name)}\n        xmin = 0")
        out.append(f"        xmax = {seconds(end)}\n        intervals: size = {len(tiled)}")
        for index, interval in enumerate(tiled, 1):
            out.append(
                f"        intervals [{index}]:\n            xmin = {seconds(interval.start)}"
            )
            out.append(f"            xmax = {seconds(interval.end)}")
            out.append(f"            text = {_quoted(interval.text)}")
    return "\n".join(out) + "\n"


def _tiers(items: Sequence[Timed]) -> Iterator[Tier]:
    if isinstance(items[0], Segment):
        yield Tier(
            _SEGMENTS, [Interval(s.start, s.end, s.label) for s in items if isinstance(s, Segment)]
        )
        return
    names: dict[str, list[Turn | Utterance]] = {}
    for item in items:
        if isinstance(item, (Turn, Utterance)):
            names.setdefault(_tier_name(item.speaker), []).append(item)
    for name, own in names.items():
        yield Tier(name, [Interval(i.start, i.end, _text(i)) for i in own])
        words = [w for i in own if isinstance(i, Utterance) for w in i.words or ()]
        if words:
            yield Tier(name + _WORDS, [Interval(w.start, w.end, w.text) for w in words])


def _text(item: Turn | Utterance) -> str:
    return item.speaker if isinstance(item, Turn) else item.text


def _tier_name(speaker: str | None) -> str:
    if speaker is None:
        return _NOBODY
    label = to_label(speaker)
    taken = label in (_NOBODY, _SEGMENTS) or label.endswith((_WORDS, _PHONES))
    return label[:-1] + reserve(label[-1]) if taken else label


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _tiled(tier: Tier, end: float) -> list[Interval]:
    """The intervals with empty ones between them, as Praat wants it."""
    tiled: list[Interval] = []
    dropped = 0
    at = 0.0
    for interval in sorted(tier.intervals):
        if not interval.text.strip() or interval.end - interval.start < 5e-7:
            dropped += 1
            continue
        if interval.start < at - 5e-7:
            raise InputError(
                f"a TextGrid tier cannot hold overlapping intervals: {tier.name!r} has two "
                f"at {interval.start:.3f} s",
                "`podtool check` lists them.",
            )
        if interval.start > at + 5e-7:
            tiled.append(Interval(at, interval.start, ""))
        tiled.append(interval)
        at = interval.end
    if at < end - 5e-7 or not tiled:
        tiled.append(Interval(at, end, ""))
    if dropped:
        log.warning("tier %r: %d intervals without text or length left out", tier.name, dropped)
    return tiled


# ---------------------------------------------------------------- reading


class _Token(NamedTuple):
    line: int
    text: str
    is_string: bool


_TOKENS = re.compile(r'"(?:[^"]|"")*"|!.*|"|[^\s"]+')
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")


class _Tokens:
    """Free-standing strings, numbers and flags, the way Praat itself reads its text files."""

    def __init__(self, text: str, name: str) -> None:
        self.name = name
        self.line = 1
        self._tokens = self._scan(text)

    def _scan(self, text: str) -> Iterator[_Token]:
        line, at = 1, 0
        for match in _TOKENS.finditer(text):
            line += text.count("\n", at, match.start())
            at = match.start()
            token = match[0]
            if token == '"':
                raise InputError(f"{self.name}, line {line}: a quote is not closed")
            if token.startswith('"'):
                yield _Token(line, token[1:-1].replace('""', '"'), True)
            elif _NUMBER.fullmatch(token) or (token[0] == "<" and token[-1] == ">"):
                yield _Token(line, token, False)

    def _next(self, wanted: str) -> _Token:
        token = next(self._tokens, None)
        if token is None:
            raise InputError(f"{self.name}: the file ends where {wanted} should be")
        self.line = token.line
        return token

    @property
    def where(self) -> str:
        return f"{self.name}, line {self.line}"

    def string(self, wanted: str) -> str:
        token = self._next(wanted)
        if not token.is_string:
            raise InputError(f"{self.where}: expected {wanted} in quotes, got {token.text!r}")
        return token.text

    def number(self, wanted: str) -> float:
        token = self._next(wanted)
        if token.is_string:
            raise InputError(f"{self.where}: expected {wanted}, got the text {token.text!r}")
        return number(token.text, self.where, wanted)

    def count(self, wanted: str) -> int:
        value = self.number(wanted)
        if value != int(value):
            raise InputError(f"{self.where}: {wanted} is not a whole number: {value}")
        return int(value)

    def flag(self) -> str:
        token = self._next("<exists>")
        return token.text


def tiers_of(text: str, name: str) -> list[Tier]:
    """The interval tiers of a TextGrid, empty intervals left out. Raises InputError."""
    tokens = _Tokens(text, name)
    if tokens.string("the file type") not in ("ooTextFile", "ooTextFile short"):
        raise InputError(f'{name}, line 1: a TextGrid starts with File type = "ooTextFile"')
    if tokens.string("the object class") != "TextGrid":
        raise InputError(f"{tokens.where}: this Praat file holds no TextGrid")
    tokens.number("xmin")
    tokens.number("xmax")
    if tokens.flag() != "<exists>":
        return []
    return [t for _ in range(tokens.count("the number of tiers")) if (t := _tier(tokens))]


def _tier(tokens: _Tokens) -> Tier | None:
    kind = tokens.string("the class of a tier")
    if kind not in ("IntervalTier", "TextTier"):
        raise InputError(f"{tokens.where}: {kind!r} is not a class of tier")
    name = tokens.string("the name of a tier")
    tokens.number("xmin")
    tokens.number("xmax")
    size = tokens.count("the number of intervals")
    intervals: list[Interval] = []
    for _ in range(size):
        start = tokens.number("the start")
        end = tokens.number("the end") if kind == "IntervalTier" else start
        where = tokens.where
        said = tokens.string("the text")
        in_order(start, end, where)
        if intervals and start < intervals[-1].end - 5e-7 and kind == "IntervalTier":
            raise InputError(f"{where}: the interval overlaps the one before it")
        intervals.append(Interval(start, end, said))
    if kind == "TextTier":
        log.warning("%s: tier %r holds points, not intervals: left out", tokens.name, name)
        return None
    return Tier(name, [i for i in intervals if i.text.strip()])


def read(text: str, name: str, recording: str, what: str = "auto") -> list[Row]:
    """Tiers as rows: turns where the text is the tier's name, else utterances of that speaker.

    `what` = segments takes every interval as a segment. Raises InputError naming the line.
    """
    tiers = [t for t in tiers_of(text, name) if not t.name.endswith(_PHONES)]
    words = {t.name[: -len(_WORDS)]: t.intervals for t in tiers if t.name.endswith(_WORDS)}
    others = {t.name: t.intervals for t in tiers if not t.name.endswith(_WORDS)}
    spoken: list[Utterance] = []
    turns: list[Turn] = []
    segments: list[Segment] = []
    for tier in tiers:
        if tier.name in words.keys() - others.keys() or tier.name.endswith(_WORDS):
            continue
        speaker = None if tier.name == _NOBODY else from_label(tier.name)
        if what == "segments" or (what == "auto" and tier.name == _SEGMENTS):
            segments += [Segment(recording, i.start, i.end, i.text) for i in tier.intervals]
        elif speaker is not None and _is_turns(tier, speaker, what):
            turns += [Turn("", recording, i.start, i.end, speaker) for i in tier.intervals]
        else:
            own = words.get(tier.name, [])
            spoken += [_utterance(i, own, recording, speaker) for i in tier.intervals]
    for base in words.keys() - others.keys():
        spoken += _from_words(words[base], recording, from_label(base))
    segments.sort(key=lambda s: (s.start, s.end))
    rows: list[Row] = [*segments]
    turns.sort(key=lambda t: (t.start, t.end))
    rows += [replace(t, id=f"t{at:04d}") for at, t in enumerate(turns, 1)]
    spoken.sort(key=lambda u: (u.start, u.end))
    rows += [replace(u, id=f"u{at:04d}") for at, u in enumerate(spoken, 1)]
    return rows


def _is_turns(tier: Tier, speaker: str, what: str) -> bool:
    return what == "turns" or (what == "auto" and all(i.text == speaker for i in tier.intervals))


def _middle(interval: Interval) -> float:
    return (interval.start + interval.end) / 2


def _utterance(
    interval: Interval, words: Sequence[Interval], recording: str, speaker: str | None
) -> Utterance:
    first = bisect_left(words, interval.start, key=_middle)
    last = bisect_left(words, interval.end, key=_middle)
    inside = tuple(Word(w.text, w.start, w.end) for w in words[first:last])
    return Utterance(
        "", recording, interval.start, interval.end, interval.text, speaker, words=inside or None
    )


def _from_words(words: Sequence[Interval], recording: str, speaker: str) -> Iterator[Utterance]:
    group: list[Interval] = []
    for at, word in enumerate(words):
        group.append(word)
        if at + 1 == len(words) or words[at + 1].start - word.end > GAP_S:
            said = Interval(group[0].start, group[-1].end, " ".join(w.text for w in group))
            yield _utterance(said, group, recording, speaker)
            group = []
