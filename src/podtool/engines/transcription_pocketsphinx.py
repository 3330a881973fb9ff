"""PocketSphinx as a recogniser: the last resort, in the wheel itself, about one word in three wrong
on clean reading (WER .32 to .46). It needs no weights from anywhere."""

from __future__ import annotations

import logging
from typing import Any, ClassVar, Self

import numpy as np

from podtool.artifacts import Utterance, Word
from podtool.audio import Audio
from podtool.engines.protocols import EngineContext, EngineInfo
from podtool.errors import EngineUnavailableError

RATE = 16000
_FRAME_S = 0.01
log = logging.getLogger(__name__)


class PocketSphinx:
    """The en-us model and its trigram; word times and posterior probabilities of its own."""

    info: ClassVar[EngineInfo] = EngineInfo(
        name="pocketsphinx",
        stage="transcription",
        version="1",
        licence="BSD-2-Clause",
        tier="embedded",
        sample_rate=RATE,
        window_s=30.0,
        packages=("pocketsphinx",),
        install="pip install pocketsphinx",
        languages=("en",),
    )

    def __init__(self, decoder: Any) -> None:
        self._decoder = decoder

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        from pocketsphinx import Decoder

        log.warning("PocketSphinx gets about a third of the words wrong: pull moonshine-tiny-en")
        # Batch CMN: with the live one a result depends on what was read before it.
        return cls(Decoder(samprate=RATE, cmn="batch", dither=False, loglevel="FATAL"))

    def transcribe(self, audio: Audio, language: str | None) -> list[Utterance]:
        """Mono audio at 16 kHz -> at most one utterance, lower case, without punctuation."""
        if language is not None and language.split("-")[0].lower() != "en":
            raise EngineUnavailableError(
                f"pocketsphinx reads English only, not {language}", "--engine mlx-whisper"
            )
        samples = audio.samples.mean(axis=0, dtype=np.float32)
        peak = float(np.abs(samples).max(initial=0.0))
        if peak < 1e-4 or len(samples) < RATE // 20:
            return []
        pcm = np.round(samples * (0.9 / peak) * 32767).astype("<i2")
        decoder = self._decoder
        decoder.reinit_feat()  # its noise tracker would carry over from what came before
        decoder.start_utt()
        decoder.process_raw(pcm.tobytes(), full_utt=True)
        decoder.end_utt()
        words = tuple(
            Word(
                s.word.partition("(")[0],  # was(2) is a second way to say it
                s.start_frame * _FRAME_S,
                min((s.end_frame + 1) * _FRAME_S, audio.duration),
                round(min(1.0, max(0.0, float(s.prob))), 4),
            )
            for s in decoder.seg() or ()
            if not s.word.startswith(("<", "[", "++"))
        )
        if not words:
            return []
        scores = [w.score or 0.0 for w in words]
        return [
            Utterance(
                id="u0001",
                recording="",
                start=words[0].start,
                end=words[-1].end,
                text=" ".join(w.text for w in words),
                language="en",
                score=round(sum(scores) / len(scores), 4),
                words=words,
            )
        ]
