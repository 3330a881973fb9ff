"""Whose words are whose, where the speaker changed in what was taken for one utterance.

While somebody talks it is not known yet that somebody else has taken over: two voices that are
alike, and no pause between them. When the last word is read it mostly is, and words have times.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from podtool.artifacts import Word

LEAST_S = 0.3  # of words, else they belong to those around them
REACH_S = 1.2  # within which the words tell better than the voices where the change was
SENTENCE_S = 0.4  # of a pause, that the end of a sentence counts as
AWAY = 0.2  # of a pause, that each second away from where the voices change costs


def by_person(
    words: Sequence[Word], people: Sequence[Hashable | None]
) -> list[tuple[Hashable | None, list[Word]]]:
    """Words in order of time and who each is heard from -> stretches of one person.

    None is whoever the words around are from. Every word is in one stretch, in order.
    """
    if not words:
        return []
    runs = _runs(_filled(people))
    while len(runs) > 1:
        spans = [words[b - 1].end - words[a].start for a, b, _ in runs]
        shortest = min(range(len(runs)), key=lambda k: spans[k])
        if spans[shortest] >= LEAST_S:
            break
        beside = shortest - 1 if shortest else 1
        if 0 < shortest < len(runs) - 1 and spans[shortest + 1] > spans[shortest - 1]:
            beside = shortest + 1
        owner = runs[beside][2]
        labels = [who for a, b, who in runs for _ in range(a, b)]
        a, b, _ = runs[shortest]
        labels[a:b] = [owner] * (b - a)
        runs = _runs(labels)
    edges = [0]
    for (a, b, _), (_, stop, _) in zip(runs, runs[1:], strict=False):
        edges.append(_change(words, max(a, edges[-1]) + 1, b, stop - 1))
    edges.append(len(words))
    return [
        (who, list(words[a:b]))
        for (_, _, who), a, b in zip(runs, edges, edges[1:], strict=False)
        if b > a
    ]


def _change(words: Sequence[Word], first: int, at: int, last: int) -> int:
    """The word, of those from `first` to `last`, that the second person begins with."""

    def weight(k: int) -> float:
        gap = max(0.0, words[k].start - words[k - 1].end)
        sentence = SENTENCE_S if words[k - 1].text.endswith((".", "?", "!")) else 0.0
        return gap + sentence - AWAY * abs(words[k].start - words[at].start)

    near = [k for k in range(first, last + 1) if abs(words[k].start - words[at].start) <= REACH_S]
    return max([at, *near], key=weight)


def _filled(people: Sequence[Hashable | None]) -> list[Hashable | None]:
    filled = list(people)
    for order in (range(1, len(filled)), range(len(filled) - 2, -1, -1)):
        step = 1 if order.step > 0 else -1
        for k in order:
            if filled[k] is None:
                filled[k] = filled[k - step]
    return filled


def _runs(labels: Sequence[Hashable | None]) -> list[tuple[int, int, Hashable | None]]:
    """(first, end, label) of each stretch of equal labels."""
    found: list[tuple[int, int, Hashable | None]] = []
    for k, label in enumerate(labels):
        if found and found[-1][2] == label:
            found[-1] = (found[-1][0], k + 1, label)
        else:
            found.append((k, k + 1, label))
    return found
