"""Parakeet in MLX (parakeet-mlx): the same models as `parakeet`, on Apple silicon.

The model is a folder (config.json and model.safetensors, as mlx-community converts them) or the
name of a hub repository that is already in the hub's cache: nothing is fetched from here. On Linux
it runs on the CPU (`mlx[cpu]`), slowly.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from podtool.artifacts import Utterance
from podtool.audio import Audio
from podtool.engines.local_models import model_folder
from podtool.engines.protocols import EngineContext, EngineInfo
from podtool.engines.readings import in_order, joined, utterance
from podtool.engines.transcription_parakeet import EUROPEAN, RATE, SHORTEST_S
from podtool.errors import EngineFailure, EngineUnavailableError, ModelError

DEFAULT_MODEL = "mlx-community/parakeet-tdt-0.6b-v3"  # CC-BY-4.0


class ParakeetMlx:
    """Greedy decoding; scores are the confidences that parakeet-mlx gives its tokens."""

    info: ClassVar[EngineInfo] = EngineInfo(
        name="parakeet-mlx",
        stage="transcription",
        version="1",
        licence="CC-BY-4.0",
        tier="best",
        sample_rate=RATE,
        window_s=30.0,
        runtimes=("mlx",),
        packages=("parakeet_mlx",),
        install="pip install 'podtool[parakeet-mlx]'",
        languages=EUROPEAN,
        options=("model",),
        stretch_s=24.0,
    )

    def __init__(self, model: Any, precision: Any) -> None:
        self._model = model
        self._precision = precision

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        """Option: `model` (folder or hub repository).

        Raises ModelError where the model is not on this machine or is none,
        EngineUnavailableError where MLX does not run.
        """
        folder = cls.locate(context)
        try:
            import mlx.core as mx
            from parakeet_mlx import from_pretrained
        except (ImportError, OSError) as error:
            raise EngineUnavailableError(
                f"parakeet-mlx does not run here: {error}", cls.info.install
            ) from None
        on_gpu = mx.default_device().type == mx.DeviceType.gpu
        precision = mx.bfloat16 if on_gpu else mx.float32
        try:
            # An absolute path: a relative one could be taken for the name of a hub repository.
            model = from_pretrained(str(folder.resolve()), dtype=precision)
        except Exception as error:
            raise ModelError(f"{folder} is not a Parakeet for MLX: {error}") from None
        return cls(model, precision)

    @staticmethod
    def locate(context: EngineContext) -> Path:
        """Where the model is; nothing is imported. Raises ModelError where it is not here."""
        return model_folder(
            context, DEFAULT_MODEL, ("config.json", "model.safetensors"), "a Parakeet for MLX"
        )

    def transcribe(self, audio: Audio, language: str | None) -> list[Utterance]:
        """Mono audio at 16 kHz -> at most one utterance, words with times and scores.

        The model tells the language by itself; `language` is what the rows then say. Raises
        EngineFailure where MLX fails.
        """
        if audio.duration < SHORTEST_S:
            return []
        import mlx.core as mx
        from parakeet_mlx.audio import get_logmel

        samples = mx.array(audio.samples.mean(axis=0, dtype=np.float32)).astype(self._precision)
        try:
            mel = get_logmel(samples, self._model.preprocessor_config)
            tokens = self._model.generate(mel)[0].tokens
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise EngineFailure(
                f"parakeet-mlx failed on {audio.duration:.1f} s of audio: {error}"
            ) from error
        pieces = [(t.text, float(t.start), float(t.end), float(t.confidence)) for t in tokens]
        return utterance(in_order(joined(pieces), audio.duration), language)
