"""Whisper in CTranslate2 (faster-whisper): for NVIDIA GPUs, also good on a CPU; many languages.

The model is a folder in CTranslate2's format (model.bin, config.json, tokenizer.json) or the name
of a hub repository that is already in the hub's cache: nothing is fetched from here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from podtool.artifacts import Utterance
from podtool.audio import Audio
from podtool.engines.local_models import model_folder, whole_number
from podtool.engines.protocols import EngineContext, EngineInfo
from podtool.engines.readings import in_order, numbered, utterance
from podtool.errors import EngineFailure, EngineUnavailableError, ModelError

DEFAULT_MODEL = "mobiuslabsgmbh/faster-whisper-large-v3-turbo"  # MIT
NEEDED = ("model.bin", "config.json", "tokenizer.json")
RATE = 16000
FRAMES_PER_S = 100
SILENCE = 1e-4  # full scale is 1
SHORTEST = RATE // 10


class FasterWhisper:
    """Beam search with word times by cross-attention; scores are Whisper's probabilities."""

    info: ClassVar[EngineInfo] = EngineInfo(
        name="faster-whisper",
        stage="transcription",
        version="1",
        licence="MIT",
        tier="best",
        sample_rate=RATE,
        window_s=30.0,
        runtimes=("cuda", "cpu"),
        packages=("faster_whisper",),
        install="pip install 'podtool[faster-whisper]'",
        options=("model", "prompt", "tokens", "precision", "beam"),
        stretch_s=29.5,
    )

    def __init__(self, model: Any, prompt: str | None, tokens: int | None, beam: int) -> None:
        self._model = model
        self._common = {
            "initial_prompt": prompt,
            "max_new_tokens": tokens,
            "condition_on_previous_text": False,
            "word_timestamps": True,
            "without_timestamps": False,
        }
        self._beam = beam

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        """Options: `model` (folder or hub repository), `prompt`, `tokens` (at most, per window),
        `beam`, `precision` (CTranslate2's compute type; float16 on CUDA, else as stored).

        Raises ModelError where the model is not on this machine or is none, ConfigError for an
        option that is not valid, EngineUnavailableError without the package.
        """
        folder = cls.locate(context)
        tokens, beam = whole_number(context, "tokens"), whole_number(context, "beam") or 5
        try:
            from faster_whisper import WhisperModel
        except (ImportError, OSError) as error:
            raise EngineUnavailableError(
                f"faster-whisper does not run here: {error}", cls.info.install
            ) from None
        options = context.options or {}
        device = "cuda" if context.device == "cuda" else "cpu"
        precision = options.get("precision") or ("float16" if device == "cuda" else "default")
        try:
            model = WhisperModel(
                str(folder),
                device=device,
                compute_type=precision,
                cpu_threads=context.threads,
                local_files_only=True,
            )
        except Exception as error:
            raise ModelError(
                f"{folder} is not a Whisper model for CTranslate2: {error}",
                "A folder with model.bin, as Systran's on the hub or ct2-transformers-converter "
                "--quantization float16 makes it.",
            ) from None
        return cls(model, options.get("prompt") or None, tokens, beam)

    @staticmethod
    def locate(context: EngineContext) -> Path:
        """Where the model is; nothing is imported. Raises ModelError where it is not here."""
        return model_folder(context, DEFAULT_MODEL, NEEDED, "a Whisper model for CTranslate2")

    def transcribe(self, audio: Audio, language: str | None) -> list[Utterance]:
        """Mono audio at 16 kHz, at most 30 s -> utterances (Whisper's segments) with words.

        `language` None lets Whisper tell. Raises EngineUnavailableError for a language that Whisper
        does not know, EngineFailure where CTranslate2 fails.
        """
        return self._run(audio, language, beam_size=self._beam, temperature=0.0)

    def transcribe_at(
        self, audio: Audio, language: str | None, temperature: float, seed: int
    ) -> list[Utterance]:
        """As `transcribe`, sampled; of five draws the likeliest."""
        import ctranslate2

        ctranslate2.set_random_seed(seed)
        return self._run(audio, language, best_of=5, temperature=temperature)

    def transcribe_many(
        self, audios: Sequence[Audio], language: str | None
    ) -> list[list[Utterance]]:
        """Several stretches in one batch of the encoder and the decoder."""
        from faster_whisper import BatchedInferencePipeline

        heard = [_mono(a) for a in audios]
        spoken = [i for i, samples in enumerate(heard) if _loud(samples)]
        found: list[list[Utterance]] = [[] for _ in audios]
        if not spoken:
            return found
        ends = np.cumsum([len(heard[i]) for i in spoken]) / RATE
        starts = [0.0, *ends[:-1]]
        clips = [{"start": a, "end": b} for a, b in zip(starts, ends, strict=True)]
        try:
            segments, about = BatchedInferencePipeline(self._model).transcribe(
                np.concatenate([heard[i] for i in spoken]),
                language=self._code(language),
                beam_size=self._beam,
                temperature=0.0,
                vad_filter=False,
                clip_timestamps=clips,
                batch_size=len(spoken),
                **self._common,
            )
            firsts = [int(start * FRAMES_PER_S) for start in starts]
            for segment in segments:  # `seek` is the frame at which its stretch begins
                at = int(np.searchsorted(firsts, segment.seek, side="right")) - 1
                place, shift = spoken[at], starts[at]
                found[place] += self._rows([segment], about.language, audios[place].duration, shift)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise EngineFailure(
                f"faster-whisper failed on {len(spoken)} stretches: {error}"
            ) from error
        return [numbered(f) for f in found]

    def languages_heard(self, audio: Audio) -> dict[str, float]:
        """Mono audio at 16 kHz -> probability of each language that Whisper knows."""
        if not self._model.model.is_multilingual:
            return {"en": 1.0}
        _, _, found = self._model.detect_language(_mono(audio))
        return {code: float(probability) for code, probability in found}

    def _run(self, audio: Audio, language: str | None, **options: Any) -> list[Utterance]:
        code = self._code(language)
        samples = _mono(audio)
        if not _loud(samples):
            return []
        try:
            segments, about = self._model.transcribe(
                samples, language=code, **options, **self._common
            )
            return numbered(self._rows(segments, about.language, audio.duration))
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise EngineFailure(
                f"faster-whisper failed on {audio.duration:.1f} s of audio: {error}"
            ) from error

    def _code(self, language: str | None) -> str | None:
        code = language.split("-")[0].lower() if language else None
        if code is not None and code not in self._model.supported_languages:
            raise EngineUnavailableError(
                f"this Whisper does not know the language {language}",
                "Give a BCP 47 tag such as de, and a model that is not named .en.",
            )
        return code

    @staticmethod
    def _rows(
        segments: Iterable[Any], language: str, duration: float, shift: float = 0.0
    ) -> list[Utterance]:
        return [
            row
            for segment in segments
            for row in utterance(
                in_order(
                    (
                        (w.word, w.start - shift, w.end - shift, w.probability)
                        for w in segment.words or ()
                    ),
                    duration,
                ),
                language,
            )
        ]


def _mono(audio: Audio) -> NDArray[np.float32]:
    return np.ascontiguousarray(audio.samples.mean(axis=0, dtype=np.float32))


def _loud(samples: NDArray[np.float32]) -> bool:
    """Whether there is anything to hear, and enough of it for word times."""
    return len(samples) >= SHORTEST and float(np.abs(samples).max()) >= SILENCE
