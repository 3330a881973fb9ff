"""Recognisers as live needs them: a quick guess while somebody talks, and a careful last word.

Both are work that is done in pieces, so that no push has to wait for the whole of a long one; what
a piece costs is told in milliseconds that do not depend on the clock (see `moonshine_decoder`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from podtool.artifacts import Word
from podtool.audio import Audio
from podtool.engines.beam_search import Work
from podtool.engines.protocols import AlignmentEngine, TranscriptionEngine
from podtool.stages.align import place_words

Samples = NDArray[np.float32]
RATE = 16000
_ALIGNING_MS = 13.0  # per second of audio
_ANY_ENGINE_MS = 60.0  # per second of audio, as far as one can say


class Reader(Protocol):
    """Mono 16 kHz of one utterance, as long as it is by now."""

    def guess(self, samples: Samples, memory: Any) -> Work[tuple[list[str], Any]]:
        """Words so far, and what helps to guess again when there is more."""
        ...

    def read(self, samples: Samples) -> Work[list[Word]]:
        """The words, on the clock of the samples."""
        ...


class MoonshineReader:
    """Moonshine: guesses go on from the tokens before, the last word is searched for."""

    def __init__(self, model: Any, aligner: AlignmentEngine | None, beam: int = 4) -> None:
        self._model, self._aligner, self._beam = model, aligner, beam

    def guess(self, samples: Samples, memory: Any) -> Work[tuple[list[str], Any]]:
        from podtool.engines.transcription_moonshine import level

        prepared = level(samples)
        if prepared is None:
            return [], memory
        found = yield from self._model.following(prepared, memory or ())
        return [text for text, _ in self._model.words(found)], found.tokens

    def read(self, samples: Samples) -> Work[list[Word]]:
        from podtool.engines.transcription_moonshine import ALPHA, level
        from podtool.text import spread_words

        prepared = level(samples)
        if prepared is None:
            return []
        found = yield from self._model.decoding(prepared[None], self._beam, ALPHA)
        words = self._model.words(found[0])
        timed = spread_words([w for w, _ in words], 0.0, len(samples) / RATE)
        spread = [Word(t, a, b, None, True) for t, a, b in timed]
        return (yield from _aligned(samples, spread, [s for _, s in words], self._aligner))


class EngineReader:
    """Any transcription engine, heard from the start of the utterance each time."""

    def __init__(
        self, engine: TranscriptionEngine, aligner: AlignmentEngine | None, language: str | None
    ) -> None:
        self._engine, self._aligner, self._language = engine, aligner, language

    def guess(self, samples: Samples, memory: Any) -> Work[tuple[list[str], Any]]:
        words = yield from self._words(samples)
        return [w.text for w in words], None

    def read(self, samples: Samples) -> Work[list[Word]]:
        words = yield from self._words(samples)
        if not any(w.interpolated for w in words):
            return words
        return (yield from _aligned(samples, words, [w.score for w in words], self._aligner))

    def _words(self, samples: Samples) -> Work[list[Word]]:
        found = self._engine.transcribe(Audio(samples[None], RATE), self._language)
        yield _ANY_ENGINE_MS * len(samples) / RATE
        return [w for u in found for w in (u.words or ())]


def _aligned(
    samples: Samples,
    words: Sequence[Word],
    scores: Sequence[float | None],
    aligner: AlignmentEngine | None,
) -> Work[list[Word]]:
    placed = list(words)
    if aligner is not None and words:
        placed = place_words(Audio(samples[None], RATE), [w.text for w in words], aligner, 0.0)
        yield _ALIGNING_MS * len(samples) / RATE
    return [
        Word(w.text, w.start, w.end, None if s is None else round(s, 4), w.interpolated)
        for w, s in zip(placed, scores, strict=True)
    ]


def agreed(before: Sequence[str], now: Sequence[str]) -> int:
    """How many first words two guesses share (LocalAgreement-2, Liu et al., Interspeech 2020)."""
    same = 0
    for a, b in zip(before, now, strict=False):
        if a.casefold().strip(".,?!") != b.casefold().strip(".,?!"):
            break
        same += 1
    return same
