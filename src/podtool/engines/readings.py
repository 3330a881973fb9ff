"""What a recogniser's own results become: words in order, within the audio, as utterances."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from podtool.artifacts import Utterance, Word
from podtool.text import spread_words

Piece = tuple[str, float, float, float]  # text, start and end in seconds, probability


def in_order(words: Iterable[Piece], duration: float) -> list[Word]:
    """Words (text, start, end, probability) as rows that neither overlap nor leave the audio."""
    found: list[Word] = []
    at = 0.0
    for text, start, end, probability in words:
        text = text.strip()
        if not text:
            continue
        first = min(max(start, at), duration)
        last = min(max(end, first), duration)
        found.append(Word(text, first, last, round(min(1.0, max(0.0, probability)), 4)))
        at = last
    return found


def joined(pieces: Iterable[Piece]) -> list[Piece]:
    """Tokens put together into words: one begins with each token that starts with a space.

    A token of punctuation alone belongs to the word before it. The probability of a word is the
    mean over its tokens.
    """
    groups: list[list[Piece]] = []
    for piece in pieces:
        if not groups or piece[0][:1].isspace():
            groups.append([])
        groups[-1].append(piece)
    words: list[Piece] = []
    for group in groups:
        text = "".join(p[0] for p in group)
        mean = sum(p[3] for p in group) / len(group)
        words.append((text, group[0][1], group[-1][2], mean))
    return words


def utterance(words: Sequence[Word], language: str | None) -> list[Utterance]:
    """One utterance of these words, or none without words."""
    if not words:
        return []
    scores = [w.score for w in words if w.score is not None]
    return [
        Utterance(
            id="u0001",
            recording="",
            start=words[0].start,
            end=words[-1].end,
            text=" ".join(w.text for w in words),
            language=language or None,
            score=round(sum(scores) / len(scores), 4) if scores else None,
            words=tuple(words),
        )
    ]


def numbered(utterances: Iterable[Utterance]) -> list[Utterance]:
    """Ids u0001, u0002, ... in the order given."""
    return [replace(u, id=f"u{n:04d}") for n, u in enumerate(utterances, start=1)]


def filled(words: Sequence[str], found: Sequence[Word | None], duration: float) -> list[Word]:
    """Aligned words in order; runs of words that have none share the time between their
    neighbours, marked `interpolated`, without a score.
    """
    result: list[Word] = []
    index = 0
    while index < len(words):
        word = found[index]
        if word is not None:
            result.append(word)
            index += 1
            continue
        stop = index
        while stop < len(words) and found[stop] is None:
            stop += 1
        begin = result[-1].end if result else 0.0
        following = found[stop] if stop < len(words) else None
        end = max(begin, following.start if following else duration)
        times = spread_words(list(words[index:stop]), begin, end)
        result += [Word(w, s, e, None, True) for w, s, e in times]
        index = stop
    return result
