"""Moonshine tiny-en: the embedded recogniser, English, a whole stretch of speech at a time.

Moonshine base has the same networks, wider: option `model` names its folder.
"""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from podtool.artifacts import Utterance, Word
from podtool.audio import Audio
from podtool.engines.local_models import model_folder, whole_number
from podtool.engines.moonshine_decoder import MoonshineModel
from podtool.engines.protocols import EngineContext, EngineInfo
from podtool.errors import EngineUnavailableError
from podtool.text import spread_words

BEAM = 4
ALPHA = 1.0
LEADS_S = (0.0, 0.3)
LEVEL_DBFS = -23.0
SILENCE_DBFS = -70.0


class Moonshine:
    """Beam search over the direct ONNX models; word scores are token probabilities."""

    info: ClassVar[EngineInfo] = EngineInfo(
        name="moonshine",
        stage="transcription",
        version="1",
        licence="MIT",
        tier="embedded",
        sample_rate=16000,
        window_s=30.0,
        models=("moonshine-tiny-en",),
        packages=("onnxruntime",),
        install="pip install onnxruntime",
        languages=("en",),
        options=("model", "beam"),
    )

    def __init__(self, model: MoonshineModel, beam: int = BEAM) -> None:
        self.model = model
        self._beam = beam

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        """Options: `model` (a folder of tiny-en or base-en), `beam` (hypotheses kept).

        Raises ModelError where the weights are missing.
        """
        needed = ("encoder_model.ort", "decoder_model_merged.ort", "tokenizer.bin")
        folder = model_folder(context, "moonshine-tiny-en", needed, "a Moonshine model")
        return cls(MoonshineModel(folder, context.threads), whole_number(context, "beam") or BEAM)

    def transcribe(self, audio: Audio, language: str | None) -> list[Utterance]:
        """One stretch of mono speech at 16 kHz, at most about 30 s -> at most one utterance.

        Word times are spread over the stretch by length (`interpolated`) until an aligner has
        seen them. Raises EngineUnavailableError for a language other than English.
        """
        if language is not None and language.split("-")[0].lower() != "en":
            raise EngineUnavailableError(
                f"moonshine-tiny-en reads English only, not {language}",
                "pip install 'podtool[mlx]', podtool models pull whisper-large-v3-turbo-mlx, "
                "then --engine mlx-whisper",
            )
        samples = audio.samples.mean(axis=0, dtype=np.float32)
        prepared = level(samples)
        if prepared is None:
            return []
        best = self.model.decode(shifted(prepared, LEADS_S), self._beam, ALPHA)[0]
        words = self.model.words(best)
        if not words:
            return []
        timed = spread_words([w for w, _ in words], 0.0, audio.duration)
        scored = tuple(
            Word(text, start, end, round(score, 4), True)
            for (text, score), (_, start, end) in zip(words, timed, strict=True)
        )
        score = float(np.exp(np.mean(best.log_probs)))
        text = " ".join(w for w, _ in words)
        return [
            Utterance(
                id="u0001",
                recording="",
                start=0.0,
                end=audio.duration,
                text=text,
                language="en",
                score=round(score, 4),
                words=scored,
            )
        ]


def level(samples: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """Samples (n,) brought to one level ; None for silence."""
    if len(samples) < 160:
        return None
    centred = samples - samples.mean(dtype=np.float64)
    rms = float(np.sqrt(np.mean(centred**2)))
    if rms < 10 ** (SILENCE_DBFS / 20):
        return None
    gain = min(10 ** (LEVEL_DBFS / 20) / rms, 0.99 / float(np.abs(centred).max()))
    levelled: NDArray[np.float32] = (centred * gain).astype(np.float32)
    return levelled


def shifted(samples: NDArray[np.float32], leads_s: tuple[float, ...]) -> NDArray[np.float32]:
    """Views (len(leads_s), n) of samples: silence of each length before them, equal ends."""
    leads = [round(lead * 16000) for lead in leads_s]
    views = np.zeros((len(leads), max(leads) + len(samples)), np.float32)
    for view, lead in zip(views, leads, strict=True):
        view[lead : lead + len(samples)] = samples
    return views
