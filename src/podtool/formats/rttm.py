"""RTTM: one line for each turn (NIST Rich Transcription, RT-09 evaluation plan, appendix A).

White space in a label is written as %20 and read back; the score goes to the confidence column.
"""

from __future__ import annotations

from collections.abc import Sequence

from podtool.artifacts import Row, Turn
from podtool.errors import InputError
from podtool.formats.base import (
    from_label,
    lines_of,
    log,
    number,
    reserve,
    seconds,
    to_label,
    turns,
)

# Line types of the standard that have no place in a diarization.
_OTHER = {
    "SEGMENT", "NOSCORE", "NO_RT_METADATA", "LEXEME", "NON-LEX", "NON-SPEECH", "FILLER", "EDIT",
    "SU", "IP", "CB", "A/P", "SPKR-INFO",
}  # fmt: skip


def write(rows: Sequence[Row], what: str = "auto") -> str:
    """Turns, or the spans of utterances that have a speaker, as SPEAKER lines."""
    if what in ("utterances", "segments"):
        raise InputError(f"RTTM holds turns, not {what}")
    return "".join(_line(turn) for turn in turns(rows))


def _line(turn: Turn) -> str:
    score = "<NA>" if turn.score is None else seconds(turn.score)
    recording = to_label(turn.recording, spaces=True)
    speaker = to_label(turn.speaker, spaces=True)
    if recording.startswith(";;"):  # would be a comment
        recording = reserve(recording)
    if speaker == "<NA>":
        speaker = reserve(speaker)
    return (
        f"SPEAKER {recording} 1 {seconds(turn.start)} {seconds(turn.end - turn.start)}"
        f" <NA> <NA> {speaker} {score} <NA>\n"
    )


def read(text: str, name: str, recording: str = "", what: str = "auto") -> list[Row]:
    """SPEAKER lines as turns. Raises InputError naming the line."""
    rows: list[Row] = []
    others = 0
    for at, line in lines_of(text):
        where = f"{name}, line {at}"
        fields = line.split()
        if not fields or fields[0].startswith(";;"):
            continue
        if fields[0] in _OTHER:
            others += 1
            continue
        if fields[0] != "SPEAKER":
            raise InputError(f"{where}: {fields[0]!r} is not a type of RTTM line")
        if len(fields) not in (9, 10):
            raise InputError(
                f"{where}: a SPEAKER line has 10 fields, this one {len(fields)}",
                "White space in a label has to be written as %20.",
            )
        start = number(fields[3], where, "the start")
        length = number(fields[4], where, "the duration")
        if fields[7] == "<NA>":
            raise InputError(f"{where}: the speaker is missing")
        score = None if fields[8] == "<NA>" else number(fields[8], where, "the confidence")
        rows.append(
            Turn(
                id=f"t{len(rows) + 1:04d}",
                recording=from_label(fields[1]),
                start=start,
                end=round(start + length, 6),
                speaker=from_label(fields[7]),
                score=score,
            )
        )
    if others:
        log.warning("%s: %d lines that are not turns were left out", name, others)
    return rows
