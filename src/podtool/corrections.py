"""Rows of a live session as they stand in the end: corrections applied, partials left out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from podtool.artifacts import Correction, Partial, Provenance, Row, Speaker, Turn, Utterance
from podtool.rowio import of_kind
from podtool.segments import Span, total

UNKNOWN = "S?"  # who says something until a correction tells who it was
Numbered = Sequence[tuple[int, Row]]


def corrected(speaker: str, start: float, corrections: Sequence[Correction]) -> str:
    """Who a row of `speaker` that starts then is, after the corrections in their order."""
    for c in corrections:
        after = start >= c.since - 1e-6 and (c.until is None or start < c.until - 1e-6)
        if speaker == c.source and after:
            speaker = c.target
    return speaker


def is_live(rows: Iterable[Row]) -> bool:
    """Whether `podtool live` wrote them, and nobody has settled them."""
    return any(
        isinstance(r, Partial | Correction) or (isinstance(r, Provenance) and r.stage == "live")
        for r in rows
    )


def settled(rows: Iterable[Row]) -> list[Row]:
    """The rows with the speakers that they turned out to have; other files pass through as is.

    Of a speaker that was told of more than once the last row counts; those who turned out to be
    somebody else throughout have none, nor has `UNKNOWN`. The seconds of speakers are those of
    their turns, where there are turns. Utterances and turns are in order of time.
    """
    return [row for _, row in settled_lines(list(enumerate(rows)))]


def settled_lines(rows: Numbered) -> list[tuple[int, Row]]:
    """As `settled`, each row with the number that it came with."""
    if not is_live(row for _, row in rows):
        return list(rows)
    corrections = of_kind((row for _, row in rows), Correction)
    found: list[tuple[int, Row]] = []
    speakers: dict[tuple[str, str], tuple[int, Speaker]] = {}
    said: list[tuple[int, Turn | Utterance]] = []
    for line, row in rows:
        if isinstance(row, Partial | Correction):
            continue
        if isinstance(row, Speaker):
            speakers[row.recording, row.id] = line, row
        elif isinstance(row, Turn | Utterance):
            said.append((line, _named(row, corrections)))
        else:
            found.append((line, row))
    gone = {(c.recording, c.source) for c in corrections if c.until is None}
    talking = {(r.recording, r.speaker) for _, r in said}
    turns = of_kind((row for _, row in said), Turn)
    kept = [
        (line, _counted(speaker, turns))
        for key, (line, speaker) in speakers.items()
        if key in talking or key not in gone
    ]
    return [*found, *sorted(said, key=lambda r: (r[1].start, r[1].end)), *kept]


def _named(row: Turn | Utterance, corrections: Sequence[Correction]) -> Turn | Utterance:
    if row.speaker is None:
        return row
    own = [c for c in corrections if c.recording == row.recording]
    return replace(row, speaker=corrected(row.speaker, row.start, own))


def _counted(speaker: Speaker, turns: Sequence[Turn]) -> Speaker:
    here = [t for t in turns if t.recording == speaker.recording]
    if not here:
        return speaker
    own = total(Span(t.start, t.end) for t in here if t.speaker == speaker.id)
    return replace(speaker, speech_s=round(own, 6))
