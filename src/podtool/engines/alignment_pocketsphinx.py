"""Forced alignment with PocketSphinx's en-us model: when each known word begins and ends.

The 10 ms frames of a Viterbi alignment; the score of a word is how close its states come, per
frame, to the best states of the whole model (a goodness of pronunciation), squeezed into [0, 1].
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from podtool.artifacts import Word
from podtool.audio import Audio
from podtool.engines.letter_to_sound import pronounce, spelled
from podtool.engines.protocols import EngineContext, EngineInfo
from podtool.engines.readings import filled
from podtool.text import spoken_words

FRAME_S = 0.01
RATE = 16000


class PocketSphinxAligner:
    """Words that the dictionary lacks get a pronunciation by letter-to-sound rules."""

    info: ClassVar[EngineInfo] = EngineInfo(
        name="pocketsphinx",
        stage="alignment",
        version="1",
        licence="BSD-2-Clause",
        tier="embedded",
        sample_rate=RATE,
        window_s=60.0,
        packages=("pocketsphinx",),
        install="pip install pocketsphinx",
        languages=("en",),
    )

    def __init__(self, decoder: Any) -> None:
        self._decoder = decoder

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        from pocketsphinx import Decoder

        # Batch CMN: with the live one an alignment depends on what was aligned before it.
        return cls(
            Decoder(
                samprate=RATE,
                lm=None,
                cmn="batch",
                dither=False,
                bestpath=False,  # the lattice pass gives pauses to the word before them
                beam=1e-80,
                wbeam=1e-60,
                pbeam=1e-80,
                loglevel="FATAL",
            )
        )

    def align(self, audio: Audio, words: list[str]) -> list[Word]:
        """Mono audio at 16 kHz and the written words in it -> as many words, with times.

        Digits and currency are aligned as what one says. Words without a sound (a dash alone), or
        all words where the alignment fails (no such speech), get times in between, marked
        `interpolated`, without a score.
        """
        spoken = [[w for w in spoken_words(word) if self._know(w, word)] for word in words]
        flat = [w for group in spoken for w in group]
        samples = audio.samples.mean(axis=0, dtype=np.float32)
        found = self._run(samples, flat) if flat else []
        if len(found) != len(flat) or not flat:
            return filled(words, [None] * len(words), audio.duration)
        result: list[Word | None] = []
        at = 0
        for word, group in zip(words, spoken, strict=True):
            parts = found[at : at + len(group)]
            at += len(group)
            if not parts:
                result.append(None)
                continue
            frames = sum(p[1] - p[0] for p in parts)
            score = sum(p[2] * (p[1] - p[0]) for p in parts) / max(1, frames)
            end = min(parts[-1][1] * FRAME_S, audio.duration)
            start = min(parts[0][0] * FRAME_S, max(0.0, end - FRAME_S))
            result.append(Word(word, start, end, round(score, 4)))
        return filled(words, result, audio.duration)

    def phones(self, audio: Audio, words: list[str]) -> list[tuple[str, float, float]]:
        """(phone of the CMU set or "SIL", start, end) in seconds; empty where alignment fails."""
        flat = [w for word in words for w in spoken_words(word) if self._know(w, word)]
        samples = audio.samples.mean(axis=0, dtype=np.float32)
        if not flat or not self._run(samples, flat):
            return []
        decoder = self._decoder
        try:
            decoder.set_alignment()  # of the words just found: the next pass gives their phones
            self._hear(_pcm(samples))
            found = [(p.name, p.start, p.duration) for w in decoder.get_alignment() for p in w]
        except RuntimeError:
            return []
        return [
            (name if name.isalpha() else "SIL", start * FRAME_S, (start + length) * FRAME_S)
            for name, start, length in found
        ]

    def _know(self, word: str, written: str) -> bool:
        if self._decoder.lookup_word(word) is not None:
            return True
        base, _, tail = word.partition("'")
        known = self._decoder.lookup_word(base) if tail == "s" else None
        if known is not None:
            phones = f"{known} Z"
        elif written.strip(".,!?;:").isupper() and 1 < len(word) <= 4:
            phones = spelled(word)
        else:
            phones = pronounce(word)
        if not phones:
            return False
        self._decoder.add_word(word, phones, False)
        return True

    def _run(self, samples: NDArray[np.float32], words: list[str]) -> list[tuple[int, int, float]]:
        """(first frame, end frame, score) of each word; empty where the alignment fails."""
        if not np.any(samples) or len(samples) < RATE // 20:
            return []
        decoder = self._decoder
        decoder.reinit_feat()  # its noise tracker would carry over from what came before
        try:
            decoder.set_align_text(" ".join(words))
            self._hear(_pcm(samples))
            segments = list(decoder.seg() or ())
        except RuntimeError:
            return []
        return [
            (s.start_frame, s.end_frame + 1, _goodness(s.ascore, s.end_frame + 1 - s.start_frame))
            for s in segments
            if not s.word.startswith(("<", "[", "++"))
        ]

    def _hear(self, pcm: bytes) -> None:
        self._decoder.start_utt()
        self._decoder.process_raw(pcm, full_utt=True)
        self._decoder.end_utt()


def _pcm(samples: NDArray[np.float32]) -> bytes:
    peak = float(np.abs(samples).max())
    return bytes(np.round(samples * (0.9 / peak) * 32767).astype("<i2").tobytes())


def _goodness(score: float, frames: int) -> float:
    """Score in [0, 1] of a word from PocketSphinx's acoustic score, which is relative to the best
    active state of each frame and comes as exp(log-likelihood / 1024).

    On read speech right words lie at -1.2 per frame (5 % below -3.1), words that were not said at
    -6.3 (10 % above -3.5): .5 is put between.
    """
    if score <= 0.0 or frames <= 0:
        return 0.0
    per_frame = 1024.0 * math.log(score) / frames
    return 1.0 / (1.0 + math.exp(min(50.0, -1.5 * (per_frame + 3.2))))
