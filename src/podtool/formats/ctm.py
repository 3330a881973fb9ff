"""CTM: one line for each word (NIST sclite): recording, channel, start, duration, word, confidence.

The channel holds the speaker's label, so that overlapping speech stays in streams of its own; "1"
is nobody in particular. The eight-column form (type, speaker) is read as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from podtool.artifacts import Row, Utterance, Word
from podtool.errors import InputError
from podtool.formats.base import (
    from_label,
    lines_of,
    number,
    reserve,
    seconds,
    to_label,
    utterances,
)

GAP_S = 1.0  # a longer silence between words of one speaker starts a new utterance
_NOBODY = "1"


def write(rows: Sequence[Row], what: str = "auto") -> str:
    """The words of the utterances. Raises InputError where an utterance has none."""
    if what in ("turns", "segments"):
        raise InputError(f"CTM holds words, not {what}")
    lines: list[tuple[str, str, float, str]] = []
    for utterance in utterances(rows, "CTM"):
        if utterance.words is None and utterance.text.strip():
            raise InputError(
                f"CTM holds times of words, and utterance {utterance.id} has none",
                "Run `podtool transcribe`, which aligns words.",
            )
        recording = to_label(utterance.recording, spaces=True)
        if recording.startswith(";;"):
            recording = reserve(recording)
        channel = _channel(utterance.speaker)
        for word in _parts(utterance.words or ()):
            score = "" if word.score is None else f" {seconds(word.score)}"
            tail = f"{seconds(word.start)} {seconds(word.end - word.start)} {word.text}{score}\n"
            lines.append((recording, channel, word.start, f"{recording} {channel} {tail}"))
    return "".join(line[3] for line in sorted(lines, key=lambda line: line[:3]))


def _channel(speaker: str | None) -> str:
    if speaker is None:
        return _NOBODY
    label = to_label(speaker, spaces=True)
    return reserve(label) if label == _NOBODY else label


def _parts(words: Iterable[Word]) -> Iterable[Word]:
    """A token with white space inside as several words that share its time by length."""
    for word in words:
        pieces = word.text.split()
        size = sum(map(len, pieces))
        at = word.start
        for index, piece in enumerate(pieces):
            last = index == len(pieces) - 1
            end = word.end if last else at + (word.end - word.start) * len(piece) / size
            yield Word(piece, round(at, 6), round(end, 6), word.score)
            at = end


def read(text: str, name: str, recording: str = "", what: str = "auto") -> list[Row]:
    """Words, gathered into utterances at gaps of a second. Raises InputError naming the line."""
    streams: dict[tuple[str, str | None], list[list[Word]]] = {}
    ends: dict[tuple[str, str | None], float] = {}  # of the utterance that is being gathered
    for at, line in lines_of(text):
        where = f"{name}, line {at}"
        fields = line.split()
        if not fields or fields[0].startswith(";;"):
            continue
        if len(fields) not in (5, 6, 7, 8):
            raise InputError(f"{where}: a CTM line has 5 to 8 fields, this one {len(fields)}")
        start = number(fields[2], where, "the start")
        length = number(fields[3], where, "the duration")
        score = None
        if len(fields) > 5 and fields[5] not in ("NA", "<NA>"):
            score = number(fields[5], where, "the confidence")
        channel = fields[7] if len(fields) == 8 else fields[1]
        speaker = None if channel == _NOBODY else from_label(channel)
        word = Word(fields[4], start, round(start + length, 6), score)
        key = (from_label(fields[0]), speaker)
        groups = streams.setdefault(key, [])
        if groups and word.start < groups[-1][-1].start:
            raise InputError(
                f"{where}: the word starts before the one above it",
                "Sort the file: sort -k1,1 -k2,2 -k3,3n",
            )
        if groups and word.start - ends[key] <= GAP_S:
            groups[-1].append(word)
            ends[key] = max(ends[key], word.end)
        else:
            groups.append([word])
            ends[key] = word.end
    found = [
        Utterance("", of, words[0].start, max(w.end for w in words), _text(words), speaker,
                  words=tuple(words))
        for (of, speaker), groups in streams.items()
        for words in groups
    ]  # fmt: skip
    found.sort(key=lambda u: (u.recording, u.start, u.end))
    return [_numbered(u, i) for i, u in enumerate(found, 1)]


def _text(words: Sequence[Word]) -> str:
    return " ".join(w.text for w in words)


def _numbered(utterance: Utterance, at: int) -> Utterance:
    return replace(utterance, id=f"u{at:04d}")
