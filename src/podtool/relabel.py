"""Edits of the speakers of a diarization: two labels that are one person, another label."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from podtool.artifacts import Embedding, Row, Segment, Speaker, Stem, Take, Turn, Utterance
from podtool.errors import InputError
from podtool.rowio import of_kind
from podtool.segments import Span, intersect, total, union

log = logging.getLogger(__name__)


def labels(rows: Sequence[Row]) -> list[str]:
    """The speaker labels that rows use, in order of appearance."""
    found: dict[str, None] = {}
    for row in rows:
        if isinstance(row, Speaker):
            found.setdefault(row.id)
        elif isinstance(row, (Turn, Utterance)) and row.speaker is not None:
            found.setdefault(row.speaker)
    return list(found)


def _require(rows: Sequence[Row], label: str) -> None:
    if label not in labels(rows):
        raise InputError(
            f"there is no speaker {label!r}", f"Speakers: {', '.join(labels(rows)) or 'none'}."
        )


def rename(rows: Sequence[Row], old: str, new: str) -> list[Row]:
    """The rows with another label for a speaker. Raises InputError: unknown, or taken."""
    _require(rows, old)
    if not new.strip():
        raise InputError("a label cannot be empty")
    if new in labels(rows):
        raise InputError(
            f"there is a speaker {new!r} already", "`podtool speakers merge` makes one of two."
        )
    return [_relabelled(row, {old: new}) for row in rows]


def merge(rows: Sequence[Row], keep: str, others: Sequence[str]) -> list[Row]:
    """The rows with the speakers `others` counted as `keep`.

    Turns that then overlap or touch become one, seconds are counted anew, embeddings are averaged
    by seconds of speech, and overlap is what is left between different speakers.
    Raises InputError for a label that does not exist.
    """
    for label in (keep, *others):
        _require(rows, label)
    if keep in others:
        raise InputError(f"{keep} cannot be merged into itself")
    names = dict.fromkeys(others, keep)
    result = [_relabelled(row, names) for row in rows]
    result = _join_turns(result, keep)
    result = _overlaps(result)
    result = _one_speaker(result, list(rows), keep, others)
    said = [u for u in of_kind(result, Utterance) if u.speaker == keep]
    said.sort(key=lambda u: (u.recording, u.start))
    for a, b in zip(said, said[1:], strict=False):
        if a.recording == b.recording and b.start < a.end - 1e-6:
            log.warning("utterances %s and %s of %s overlap now", a.id, b.id, keep)
    return result


def _relabelled(row: Row, names: dict[str, str]) -> Row:
    if isinstance(row, Speaker):
        return replace(row, id=names.get(row.id, row.id))
    if isinstance(row, Stem):
        for old, new in names.items():
            if row.speaker == old:
                name = f"speaker:{new}" if row.name == f"speaker:{old}" else row.name
                return replace(row, speaker=new, name=name)
        return row
    if isinstance(row, (Turn, Utterance, Take)) and row.speaker in names:
        return replace(row, speaker=names[row.speaker])
    return row


def _join_turns(rows: Sequence[Row], speaker: str) -> list[Row]:
    """Turns of the speaker that overlap or touch as one, at the place of the first."""
    own = [t for t in of_kind(rows, Turn) if t.speaker == speaker]
    joined: dict[str, Turn] = {}  # id of each turn -> the turn that it is now part of
    current: Turn | None = None
    group: list[str] = []
    for turn in sorted(own, key=lambda t: (t.recording, t.start, t.end)):
        if (
            current is not None
            and turn.recording == current.recording
            and turn.start <= current.end + 1e-6
        ):
            current = replace(current, end=max(current.end, turn.end), score=_score(current, turn))
            group.append(turn.id)
        else:
            current, group = turn, [turn.id]
        joined.update(dict.fromkeys(group, current))
    result: list[Row] = []
    seen: set[str] = set()
    for row in rows:
        if isinstance(row, Turn) and row.speaker == speaker:
            whole = joined[row.id]
            if whole.id in seen:
                continue
            seen.add(whole.id)
            row = whole
        elif isinstance(row, (Utterance, Take)) and row.turn in joined:
            row = replace(row, turn=joined[row.turn].id)
        result.append(row)
    return result


def _score(a: Turn, b: Turn) -> float | None:
    """Confidence of two turns as one, weighted by their lengths."""
    if a.score is None or b.score is None:
        return None
    lengths = np.array([max(t.end - t.start, 1e-6) for t in (a, b)])
    return float(np.average([a.score, b.score], weights=lengths))


def _overlaps(rows: Sequence[Row]) -> list[Row]:
    """Overlap segments, cut to the time in which different speakers still have turns."""
    turns = of_kind(rows, Turn)
    result: list[Row] = []
    for row in rows:
        if not isinstance(row, Segment) or row.label != "overlap" or not turns:
            result.append(row)
            continue
        shared = _shared([t for t in turns if t.recording == row.recording])
        for span in intersect(shared, [Span(row.start, row.end)]):
            result.append(replace(row, start=span.start, end=span.end))
    return result


def _shared(turns: Sequence[Turn], but: str | None = None) -> list[Span]:
    """Time in which two speakers or more talk (with `but`: that speaker and another)."""
    spans: dict[str, list[Span]] = {}
    for turn in turns:
        spans.setdefault(turn.speaker, []).append(Span(turn.start, turn.end))
    found: list[Span] = []
    for a, own in spans.items():
        if but is None or a == but:
            others = [s for b, theirs in spans.items() if b != a for s in theirs]
            found += intersect(own, others)
    return union(found)


def _one_speaker(
    rows: Sequence[Row], before: Sequence[Row], keep: str, others: Sequence[str]
) -> list[Row]:
    """One `speaker` row of each recording for the merged speaker, at the place of the first."""
    result: list[Row] = []
    done: set[str] = set()
    for row in rows:
        if isinstance(row, Speaker) and row.id == keep:
            if row.recording in done:
                continue
            done.add(row.recording)
            parts = [
                s
                for s in of_kind(before, Speaker)
                if s.recording == row.recording and s.id in (keep, *others)
            ]
            row = _speaker(parts, keep, [t for t in of_kind(rows, Turn)
                                         if t.recording == row.recording])  # fmt: skip
        result.append(row)
    return result


def _speaker(parts: Sequence[Speaker], keep: str, turns: Sequence[Turn]) -> Speaker:
    parts = sorted(parts, key=lambda s: s.id != keep)
    first = parts[0]
    own = [Span(t.start, t.end) for t in turns if t.speaker == keep]
    speech = total(own) if own else sum(s.speech_s for s in parts)
    overlap = total(_shared(turns, keep)) if own else None
    scores = [(s.score, s.speech_s) for s in parts if s.score is not None]
    names = [s.name for s in parts if s.name]
    return replace(
        first,
        id=keep,
        speech_s=speech,
        overlap_s=overlap,
        name=names[0] if names else None,
        score=_average([s for s, _ in scores], [w for _, w in scores]) if scores else None,
        embedding=_embedding(parts),
    )


def _average(values: Sequence[float], weights: Sequence[float]) -> float:
    if sum(weights) <= 0:
        return float(np.mean(values))
    return float(np.average(values, weights=weights))


def _embedding(parts: Sequence[Speaker]) -> Embedding | None:
    """Mean of the embeddings of one model by seconds of speech, at unit norm."""
    own = [(s.embedding, max(s.speech_s, 1e-3)) for s in parts if s.embedding is not None]
    if not own:
        return None
    model = own[0][0].model
    vectors = [w * np.array(e.vector) for e, w in own if e.model == model]
    mean = np.sum(vectors, axis=0)
    norm = float(np.linalg.norm(mean))
    return Embedding(model, tuple(float(x) for x in mean / norm)) if norm else own[0][0]
