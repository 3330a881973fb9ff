"""Words heard twice: when two people talk at once and one recording serves both streams.

The recogniser follows whoever is louder, so one person's words turn up on both streams. Each such
run of words stays with the stream whose sentence it continues, and leaves the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from podtool.artifacts import Word
from podtool.segments import Span, intersect
from podtool.text import is_title, normalise

SENTENCE_END = (".", "?", "!", '."', '?"', '!"')
_NEAR_S = 0.4
_SENTENCE_GAP_S = 0.5


@dataclass(slots=True)
class Stream:
    """The words of one stretch of one speaker, in order."""

    speaker: str
    span: Span
    words: list[Word]


def settle(streams: Sequence[Stream], doubtful: float) -> None:
    """Take out of the streams, in place, words in overlaps that belong to somebody else.

    Of a run of equal words at the same time in two streams, one copy is kept. After that, words
    that score under `doubtful` go where somebody else has a surer word at the same time: two voices
    at once make the recogniser invent.
    """
    ordered = sorted(streams, key=lambda s: (s.span.start, s.span.end, s.speaker))
    for i, first in enumerate(ordered):
        for second in ordered[i + 1 :]:
            if second.span.start >= first.span.end:
                break
            if second.speaker != first.speaker:
                _settle_pair(first, second)
    lost = [
        {i for i, w in enumerate(s.words) if _outdone(w, s, ordered, doubtful)} for s in ordered
    ]
    for stream, indices in zip(ordered, lost, strict=True):
        stream.words = [w for i, w in enumerate(stream.words) if i not in indices]


def _outdone(word: Word, own: Stream, streams: Sequence[Stream], doubtful: float) -> bool:
    """Whether a doubtful word sounds at the same time as a surer one of somebody else."""
    if word.score is None or word.score >= doubtful:
        return False
    return any(
        rival.start < word.end and rival.end > word.start and (rival.score or 0.0) > word.score
        for other in streams
        if other.speaker != own.speaker
        and other.span.start < word.end
        and other.span.end > word.start
        for rival in other.words
    )


def _inside(word: Word, spans: Sequence[Span]) -> bool:
    middle = (word.start + word.end) / 2
    return any(s.start <= middle < s.end for s in spans)


def _settle_pair(first: Stream, second: Stream) -> None:
    shared = intersect([first.span], [second.span])
    left = [i for i, w in enumerate(first.words) if _inside(w, shared)]
    right = [i for i, w in enumerate(second.words) if _inside(w, shared)]
    lost: tuple[set[int], set[int]] = (set(), set())
    for a, b, size in _runs(first.words, left, second.words, right):
        mine = _weight(first.words, a, size, shared)
        theirs = _weight(second.words, b, size, shared)
        if mine >= theirs:
            lost[1].update(range(b, b + size))
        else:
            lost[0].update(range(a, a + size))
    first.words = [w for i, w in enumerate(first.words) if i not in lost[0]]
    second.words = [w for i, w in enumerate(second.words) if i not in lost[1]]


def _runs(
    a: Sequence[Word], left: Sequence[int], b: Sequence[Word], right: Sequence[int]
) -> list[tuple[int, int, int]]:
    """Longest common runs (index in a, index in b, length) of words at about the same time."""
    said = {i: normalise(a[i].text) for i in left}
    heard = {j: normalise(b[j].text) for j in right}

    def same(i: int, j: int) -> bool:
        return (
            i in said
            and j in heard
            and said[i] == heard[j]
            and abs(a[i].start - b[j].start) <= _NEAR_S
        )

    runs: list[tuple[int, int, int]] = []
    for i in left:
        for j in right:
            if same(i, j) and not same(i - 1, j - 1):
                size = 1
                while same(i + size, j + size):
                    size += 1
                runs.append((i, j, size))
    kept: list[tuple[int, int, int]] = []
    for run in sorted(runs, key=lambda r: (-r[2], r[0], r[1])):
        i, j, size = run
        if all((i + size <= k or k + n <= i) and (j + size <= m or m + n <= j) for k, m, n in kept):
            kept.append(run)
    return kept


def _weight(words: Sequence[Word], at: int, size: int, shared: Sequence[Span]) -> tuple[int, float]:
    """How much of the same sentence lies outside the overlap, and how sure the words are."""
    outside = 0
    index = at
    while index > 0 and _joined(words[index - 1], words[index]):
        index -= 1
        outside += not _inside(words[index], shared)
    index = at + size - 1
    while index + 1 < len(words) and _joined(words[index], words[index + 1]):
        index += 1
        outside += not _inside(words[index], shared)
    scores = [w.score or 0.0 for w in words[at : at + size]]
    return outside, sum(scores) / size


def ends_sentence(word: Word) -> bool:
    """Whether a written word is the last of its sentence: not Mr. and the like."""
    return word.text.endswith(SENTENCE_END) and not is_title(word.text)


def _joined(before: Word, after: Word) -> bool:
    """Whether two words belong to one sentence."""
    return not ends_sentence(before) and after.start - before.end < _SENTENCE_GAP_S
