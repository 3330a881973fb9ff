"""Audacity label tracks: start, end and label between tabs; labels may overlap.

Turns are labelled `S1`, utterances `[S1] text`, segments by their label. On reading, labels are
utterances where every one has such a bracket, else speakers of turns, unless told otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence

from podtool.artifacts import Row, Segment, Turn, Utterance
from podtool.errors import InputError
from podtool.formats.base import (
    Timed,
    bracketed,
    choose,
    from_label,
    in_order,
    lines_of,
    number,
    one_line,
    one_recording,
    to_label,
    unbracket,
)


def write(rows: Sequence[Row], what: str = "auto") -> str:
    """Utterances, else turns, or segments, as labels."""
    items = choose(rows, what, "Audacity labels")
    one_recording(items, "an Audacity label track")
    return "".join(f"{i.start:.6f}\t{i.end:.6f}\t{_label(i)}\n" for i in items)


def _label(item: Timed) -> str:
    if isinstance(item, Segment):
        return one_line(item.label)
    if isinstance(item, Utterance):
        return bracketed(item.speaker, item.text)
    return to_label(item.speaker, also="[")


def read(text: str, name: str, recording: str, what: str = "auto") -> list[Row]:
    """Labels as rows. Raises InputError naming the line."""
    times: list[tuple[float, float]] = []
    labels: list[str] = []
    for at, line in lines_of(text):
        where = f"{name}, line {at}"
        if not line.strip() or line.startswith("\\"):  # the second line of a spectral label
            continue
        fields = line.split("\t", 2)
        if len(fields) < 2:
            raise InputError(f"{where}: expected start, end and label with tabs between them")
        start = number(fields[0], where, "the start")
        end = number(fields[1], where, "the end")
        in_order(start, end, where)
        label = fields[2] if len(fields) == 3 else ""
        if not label.strip() and what != "utterances":
            raise InputError(f"{where}: the label is empty")
        times.append((start, end))
        labels.append(label)
    named = unbracket(labels)
    if what == "auto":
        what = "utterances" if labels and named[0][0] is not None else "turns"
    rows: list[Row] = []
    for (start, end), label, (speaker, said) in zip(times, labels, named, strict=True):
        at = len(rows) + 1
        if what == "segments":
            rows.append(Segment(recording, start, end, label))
        elif what == "turns":
            rows.append(Turn(f"t{at:04d}", recording, start, end, from_label(label)))
        else:
            rows.append(Utterance(f"u{at:04d}", recording, start, end, one_line(said), speaker))
    return rows
