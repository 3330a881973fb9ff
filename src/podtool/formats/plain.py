"""Plain text for people: a paragraph whenever the speaker changes. It has no times: write only."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from podtool.artifacts import Row
from podtool.errors import InputError
from podtool.formats.base import one_line, one_recording, utterances


def write(rows: Sequence[Row], what: str = "auto") -> str:
    """`S1: text`, a blank line between speakers."""
    if what in ("turns", "segments"):
        raise InputError(f"plain text holds utterances, not {what}")
    found = utterances(rows, "plain text")
    one_recording(found, "plain text")
    paragraphs = []
    for speaker, group in groupby(found, key=lambda u: u.speaker):
        text = one_line(" ".join(u.text for u in group))
        paragraphs.append(text if speaker is None else f"{one_line(speaker)}: {text}")
    return "\n\n".join(paragraphs) + "\n"
