"""Whisper in MLX (mlx-whisper): the standard recogniser on Apple silicon, many languages.

The model is a folder (config.json and weights.safetensors or .npz, as mlx-community converts them)
or the name of a hub repository that is already in the hub's cache: nothing is fetched from here.
On Linux it runs on the CPU (`mlx[cpu]`), slowly.
"""

from __future__ import annotations

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

DEFAULT_MODEL = "whisper-large-v3-turbo-mlx"  # id in models.toml
NEEDED = ("config.json",)


class MlxWhisper:
    """Greedy decoding with word times by cross-attention; scores are Whisper's probabilities."""

    info: ClassVar[EngineInfo] = EngineInfo(
        name="mlx-whisper",
        stage="transcription",
        version="1",
        licence="MIT",
        tier="standard",
        sample_rate=16000,
        window_s=30.0,
        runtimes=("mlx",),
        packages=("mlx_whisper",),
        install="pip install 'podtool[mlx]'",
        options=("model", "prompt", "tokens"),
        stretch_s=29.5,
    )

    def __init__(self, folder: Path, tokens: int | None = None, prompt: str | None = None) -> None:
        self._folder = folder
        self._common: dict[str, Any] = {"sample_len": tokens} if tokens else {}
        if prompt:
            self._common["initial_prompt"] = prompt
        self._half = True

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        """Options: `model` (folder or hub repository), `prompt`, `tokens` (at most, per 30 s).

        Raises ModelError where the model is not on this machine, EngineUnavailableError where MLX
        does not run, ConfigError for an option that is not valid.
        """
        tokens = whole_number(context, "tokens")
        folder = cls.locate(context)
        try:
            import mlx.core  # noqa: F401 - libmlx.so is missing where `mlx` came without [cpu]
            import mlx_whisper  # noqa: F401
        except (ImportError, OSError) as error:
            raise EngineUnavailableError(
                f"mlx-whisper does not run here: {error}", cls.info.install
            ) from None
        engine = cls(folder, tokens, (context.options or {}).get("prompt"))
        engine._open()
        return engine

    @staticmethod
    def locate(context: EngineContext) -> Path:
        """Where the model is; nothing is imported. Raises ModelError where it is not here."""
        return model_folder(context, DEFAULT_MODEL, NEEDED, "a Whisper model for MLX")

    def _open(self) -> None:
        """Load the weights into the cache that mlx_whisper.transcribe looks in."""
        import mlx.core as mx
        from mlx_whisper.transcribe import ModelHolder

        try:
            model = ModelHolder.get_model(str(self._folder), mx.float16)
            self._half = model.encoder.conv1.weight.dtype == mx.float16
            if not self._half:  # positions and masks must have the weights' precision
                ModelHolder.model = None
                ModelHolder.get_model(str(self._folder), mx.float32)
        except (KeyError, TypeError, ValueError, OSError, RuntimeError) as error:
            raise ModelError(
                f"{self._folder} is not a Whisper model for MLX: {error}",
                "A folder with config.json and weights.safetensors, as mlx-community has them.",
            ) from None

    def transcribe(self, audio: Audio, language: str | None) -> list[Utterance]:
        """Mono audio at 16 kHz, at most 30 s -> utterances (Whisper's segments) with words.

        `language` None lets Whisper tell. Raises EngineUnavailableError for a language that Whisper
        does not know, EngineFailure where MLX fails.
        """
        return self._run(audio, language, 0.0)

    def transcribe_at(
        self, audio: Audio, language: str | None, temperature: float, seed: int
    ) -> list[Utterance]:
        """As `transcribe`, sampled: one draw."""
        import mlx.core as mx

        mx.random.seed(seed)
        return self._run(audio, language, temperature)

    def languages_heard(self, audio: Audio) -> dict[str, float]:
        """Mono audio at 16 kHz, 30 s of it -> probability of each language that Whisper knows."""
        import mlx.core as mx
        from mlx_whisper.audio import N_FRAMES, N_SAMPLES, log_mel_spectrogram, pad_or_trim
        from mlx_whisper.transcribe import ModelHolder

        precision = mx.float16 if self._half else mx.float32
        model = ModelHolder.get_model(str(self._folder), precision)
        if not model.is_multilingual:
            return {"en": 1.0}
        mel = log_mel_spectrogram(
            mx.array(_mono(audio)), n_mels=model.dims.n_mels, padding=N_SAMPLES
        )
        _, found = model.detect_language(pad_or_trim(mel, N_FRAMES, axis=-2).astype(precision))
        return {code: float(p) for code, p in found.items()}

    def _run(self, audio: Audio, language: str | None, temperature: float) -> list[Utterance]:
        import mlx_whisper
        from mlx_whisper.tokenizer import LANGUAGES

        code = language.split("-")[0].lower() if language else None
        if code is not None and code not in LANGUAGES:
            raise EngineUnavailableError(
                f"Whisper does not know the language {language}", "Give a BCP 47 tag such as de."
            )
        samples = _mono(audio)
        if float(np.abs(samples).max(initial=0.0)) < 1e-4:
            return []
        try:
            result = mlx_whisper.transcribe(
                samples,
                path_or_hf_repo=str(self._folder),
                language=code,
                temperature=temperature,  # one: the stage decides whether to ask again
                condition_on_previous_text=False,
                word_timestamps=True,
                verbose=None,
                fp16=self._half,
                **self._common,
            )
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise EngineFailure(
                f"mlx-whisper failed on {audio.duration:.1f} s of audio: {error}"
            ) from error
        found = str(result.get("language") or code or "")
        return numbered(
            row
            for segment in result["segments"]
            for row in utterance(
                in_order(
                    (
                        (str(w["word"]), float(w["start"]), float(w["end"]), w["probability"])
                        for w in segment.get("words", ())
                    ),
                    audio.duration,
                ),
                found,
            )
        )


def _mono(audio: Audio) -> NDArray[np.float32]:
    return np.ascontiguousarray(audio.samples.mean(axis=0, dtype=np.float32))
