"""Text that was hardly said: loops, more words than anybody says in the time, words in silence.

Recognisers that write token by token (Whisper above all) invent where they hear nothing, and go
round in circles where they lose the speech. None of the checks knows a language.
"""

from __future__ import annotations

import unicodedata
import zlib
from collections.abc import Sequence
from dataclasses import replace

from podtool.artifacts import Word
from podtool.segments import Span

# Times that one phrase of so many words may be said in a row before it counts as a loop.
_REPEATS = ((1, 8), (2, 6), (3, 5), (7, 4), (24, 3))
_LETTERS_PER_S = 30.0
_LETTERS_FREE = 20  # speech of half a second may hold a word or two more than it seems to
_RATIO = 2.4  # Whisper's own bound (Radford et al. 2022, section 4.5)
_NEAR_S = 0.5
_LONGEST_S = 0.6
_LETTER_S = 0.15
_SHORTEST_S = 0.02
_SILENCE_S = 0.25


def doubts(words: Sequence[str], speech_s: float) -> tuple[str, ...]:
    """What speaks against a text of a stretch with `speech_s` seconds of speech, worst first.

    "loop": a phrase again and again; "rate": more letters than can be said in the time.
    """
    found = []
    if loops(words) or _ratio(" ".join(words)) > _RATIO:
        found.append("loop")
    letters = sum(_syllables(w) for w in words)
    if letters > _LETTERS_FREE + _LETTERS_PER_S * speech_s:
        found.append("rate")
    return tuple(found)


def _syllables(word: str) -> int:
    """Letters of a word; a character that stands for a syllable or more counts as three."""
    return sum(3 if _is_syllable(c) else 1 for c in word if c.isalnum())


def _is_syllable(character: str) -> bool:
    return unicodedata.category(character) == "Lo" and character >= "\u3040"


def _ratio(text: str) -> float:
    raw = text.encode("utf-8")
    return len(raw) / len(zlib.compress(raw)) if raw else 0.0


def loops(words: Sequence[str]) -> list[Span]:
    """Runs of a phrase said over and over: spans of word indices, from the second time on.

    Characters that stand for syllables count as words where a language writes no spaces.
    """
    units: list[tuple[str, int]] = []
    for index, word in enumerate(words):
        plain = "".join(c for c in word.casefold() if c.isalnum()) or word
        single = any(_is_syllable(c) for c in plain)
        units += [(part, index) for part in (plain if single else [plain])]
    texts = [text for text, _ in units]
    found: list[Span] = []
    at = 0
    while at < len(texts):
        best = 0
        for period in range(1, min(_REPEATS[-1][0], (len(texts) - at) // 3) + 1):
            stop = at + period
            while stop < len(texts) and texts[stop] == texts[stop - period]:
                stop += 1
            if (stop - at) // period >= _allowed(period) and stop > best:
                best, first = stop, at + period
        if not best:
            at += 1
            continue
        start, end = units[first][1], units[best - 1][1] + 1
        if start < end:
            found.append(Span(float(start), float(end)))
        at = best
    return found


def _allowed(period: int) -> int:
    return next(times for longest, times in _REPEATS if period <= longest)


def without_loops(words: Sequence[Word]) -> list[Word]:
    """The words with every loop said once."""
    runs = loops([w.text for w in words])
    return [w for i, w in enumerate(words) if not any(r.start <= i < r.end for r in runs)]


def in_silence(word: Word, speech: Sequence[Span]) -> bool:
    """Whether no speech is heard within half a second of a word."""
    return not any(s.start < word.end + _NEAR_S and s.end > word.start - _NEAR_S for s in speech)


def odd_duration(word: Word) -> bool:
    """Whether a word lasts longer or shorter than it can be said.

    Longer: .6 s and .15 s per letter; shorter: 20 ms, the least that any aligner here tells apart.
    """
    length = word.end - word.start
    longest = _LONGEST_S + _LETTER_S * max(1, _syllables(word.text))
    return length > longest or length < _SHORTEST_S


def drawn_in(word: Word, speech: Sequence[Span]) -> Word:
    """A word that reaches over a silence, cut back to the side on which more of it is heard.

    Recognisers that tell times by attention let the last word before a pause run on through it.
    """
    if not odd_duration(word):
        return word
    parts = [
        Span(max(s.start, word.start), min(s.end, word.end))
        for s in speech
        if s.start < word.end and s.end > word.start
    ]
    parts = [p for p in parts if p.duration > 0]
    if not parts:
        return word
    best = max(parts, key=lambda p: (p.duration, -p.start))
    lost = word.end - word.start - best.duration
    return replace(word, start=best.start, end=best.end) if lost >= _SILENCE_S else word
