"""Which speaker of a recording is meant: by label, by enrolled name, or by a clip of the voice."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from podtool.artifacts import Row, Segment, Speaker, Turn
from podtool.engines.protocols import EngineContext
from podtool.errors import InputError
from podtool.rowio import of_kind
from podtool.segments import Span, subtract

log = logging.getLogger(__name__)

SAME_VOICE = 0.5  # cosine of two CAM++ embeddings from which a clip is taken for a speaker
CLEARLY = 0.05  # the second best has to be this far behind


def find_speaker(rows: Sequence[Row], wanted: str, context: EngineContext) -> str:
    """The label that `wanted` means. Raises InputError that says which speakers there are."""
    labels = speaker_labels(rows)
    if wanted in labels:
        return wanted
    named = [s.id for s in of_kind(rows, Speaker) if s.name == wanted]
    if len(named) == 1:
        return named[0]
    if Path(wanted).is_file():
        return _by_clip(rows, Path(wanted), context)
    raise InputError(f"there is no speaker {wanted!r}", f"There are: {told(rows) or 'none'}.")


def speaker_labels(rows: Sequence[Row]) -> list[str]:
    """Labels in order of first appearance."""
    turns = sorted(of_kind(rows, Turn), key=lambda t: (t.start, t.end))
    return list(dict.fromkeys([t.speaker for t in turns]))


def told(rows: Sequence[Row]) -> str:
    """The speakers as a phrase: label, name, seconds."""
    people = {s.id: s for s in of_kind(rows, Speaker)}
    parts = []
    for label in speaker_labels(rows):
        name = people[label].name if label in people else None
        seconds = sum(t.end - t.start for t in of_kind(rows, Turn) if t.speaker == label)
        parts.append(f"{label} ({name + ', ' if name else ''}{seconds:.0f} s)")
    return ", ".join(parts)


def where_to_hear(rows: Sequence[Row], label: str) -> Span | None:
    """The longest stretch in which a speaker is heard alone."""
    overlaps = [Span(s.start, s.end) for s in of_kind(rows, Segment) if s.label == "overlap"]
    own = [Span(t.start, t.end) for t in of_kind(rows, Turn) if t.speaker == label]
    others = [Span(t.start, t.end) for t in of_kind(rows, Turn) if t.speaker != label]
    alone = subtract(own, [*overlaps, *others]) or own
    return max(alone, key=lambda s: s.duration, default=None)


def _by_clip(rows: Sequence[Row], clip: Path, context: EngineContext) -> str:
    from podtool.speakers import MODEL, listen

    people = [s for s in of_kind(rows, Speaker) if s.embedding and s.embedding.model == MODEL]
    if not people:
        raise InputError(
            f"the speakers have no {MODEL} embeddings, so {clip} cannot be compared with them",
            "Name a speaker by its label, or let podtool diarize the recording again.",
        )
    vector = np.array(listen(clip, context)[1])
    scores = sorted(
        ((float(np.array(s.embedding.vector) @ vector), s.id) for s in people if s.embedding),
        reverse=True,
    )
    heard = ", ".join(f"{label} {score:.2f}" for score, label in scores)
    best, label = scores[0]
    if best < SAME_VOICE:
        raise InputError(
            f"nobody in the recording sounds like {clip}",
            f"Similarity: {heard} (least {SAME_VOICE}).",
        )
    if len(scores) > 1 and best - scores[1][0] < CLEARLY:
        raise InputError(f"{clip} could be {label} or {scores[1][1]}", f"Similarity: {heard}.")
    log.info("%s is %s (similarity: %s)", clip, label, heard)
    return label
