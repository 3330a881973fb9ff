"""Rows of a live session as they stand in the end: corrections applied, partials left out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from podtool.artifacts import Correction, Partial, Row, Speaker, Turn, Utterance
from podtool.rowio import of_kind


def corrected(speaker: str, start: float, corrections: Sequence[Correction]) -> str:
    """Who a row of `speaker` that starts then is, after the corrections in their order."""
    for c in corrections:
        after = start >= c.since - 1e-6 and (c.until is None or start < c.until - 1e-6)
        if speaker == c.source and after:
            speaker = c.target
    return speaker


def settled(rows: Iterable[Row]) -> list[Row]:
    """The rows with the speakers that they turned out to have; other files pass through as is.

    Of a speaker that was told of more than once the last row counts; those who turned out to be
    somebody else throughout have none. Utterances and turns are in order of time.
    """
    rows = list(rows)
    corrections = of_kind(rows, Correction)
    if not corrections and not of_kind(rows, Partial):
        return rows
    found: list[Row] = []
    speakers: dict[tuple[str, str], Speaker] = {}
    said: list[Turn | Utterance] = []
    for row in rows:
        if isinstance(row, Partial | Correction):
            continue
        if isinstance(row, Speaker):
            speakers[row.recording, row.id] = row
        elif isinstance(row, Turn | Utterance):
            own = [c for c in corrections if c.recording == row.recording]
            if row.speaker is not None:
                row = replace(row, speaker=corrected(row.speaker, row.start, own))
            said.append(row)
        else:
            found.append(row)
    gone = {(c.recording, c.source) for c in corrections if c.until is None}
    talking = {(r.recording, r.speaker) for r in said}
    kept = [s for key, s in speakers.items() if key in talking or key not in gone]
    return [*found, *sorted(said, key=lambda r: (r.start, r.end)), *kept]
