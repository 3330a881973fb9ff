"""Qwen3-TTS (Alibaba) speaks ten languages in voices of its own, through mlx-audio.

The models called CustomVoice are meant, which come with named voices. Base models speak as a
reference does and VoiceDesign ones as they are told; podtool takes a voice by conversion. Weights
are Apache-2.0. Nothing is fetched from here: mlx-audio, too, is given a folder.
"""

from __future__ import annotations

import importlib
import io
import json
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from podtool.audio import Audio
from podtool.engines.local_models import model_folder
from podtool.engines.protocols import EngineContext, EngineInfo
from podtool.engines.torchaudio_stub import make_harmless
from podtool.errors import ConfigError, EngineFailure, EngineUnavailableError, ModelError

DEFAULT_MODEL = "mlx-community/Qwen3-TTS-12Hz-0.6B-CustomVoice-8bit"
NEEDED = (
    "config.json", "*.safetensors", "tokenizer_config.json", "speech_tokenizer/config.json",
    "speech_tokenizer/*.safetensors",
)  # fmt: skip
DEFAULT_VOICE = "ryan"  # of those that are native to English; where it is missing, the first
LANGUAGES = {
    "en": "english", "zh": "chinese", "ja": "japanese", "ko": "korean", "de": "german",
    "fr": "french", "ru": "russian", "pt": "portuguese", "es": "spanish", "it": "italian",
}  # fmt: skip
FRAMES_S = 12.5
SLOWEST_CHARS_S, SPARE_S = 8.0, 2.0  # a take that is longer than this allows has gone astray
DENSE = ("zh", "ja", "ko")
SLOWEST_SIGNS_S = 2.0  # where a sign is a syllable or more


class Qwen3Tts:
    """Speech at the model's own pace; one seed, one take."""

    info: ClassVar[EngineInfo] = EngineInfo(
        name="qwen3-tts",
        stage="speaking",
        version="1",
        licence="Apache-2.0",
        tier="best",
        sample_rate=24000,
        runtimes=("mlx",),
        packages=("mlx", "mlx_audio"),
        install="pip install 'podtool[qwen3-tts]'",
        languages=tuple(LANGUAGES),
        options=("model", "voice", "language"),
        paced=False,
        seeded=True,
    )
    clones = False

    def __init__(self, model: Any, voice: str, language: str = "en") -> None:
        self._model, self._voice = model, voice
        self.language = language
        self.sample_rate = int(model.sample_rate)

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        """Options: `model` (folder or hub repository), `voice` (a name that the model knows),
        `language`.

        Raises ModelError where the model is not on this machine or is none with voices of its own,
        ConfigError for an unknown voice or language, EngineUnavailableError where mlx-audio does
        not run.
        """
        options = context.options or {}
        language = options.get("language") or "en"
        if language not in LANGUAGES:
            raise ConfigError(
                f"Qwen3-TTS does not speak {language!r}", f"It speaks: {', '.join(LANGUAGES)}"
            )
        folder = cls.locate(context)
        voice = _voice(_config(folder), options.get("voice"), folder)
        make_harmless()
        try:
            package = importlib.import_module("mlx_audio.tts.utils")
        except (ImportError, OSError) as error:
            raise EngineUnavailableError(
                f"mlx-audio does not run here: {error}", cls.info.install
            ) from None
        said = io.StringIO()  # it prints, also that a part of the model cannot be read
        try:
            with redirect_stdout(said):
                model = package.load_model(folder)
        except Exception as error:
            raise ModelError(f"{folder} is not a Qwen3-TTS: {_line(str(error))}") from None
        if model.tokenizer is None or model.speech_tokenizer is None:
            raise ModelError(f"{folder} is not a Qwen3-TTS: {_line(said.getvalue())}")
        return cls(model, voice, language)

    @staticmethod
    def locate(context: EngineContext) -> Path:
        """Where the model is; nothing is imported. Raises ModelError where it is not here."""
        return model_folder(context, DEFAULT_MODEL, NEEDED, "a Qwen3-TTS for MLX")

    def speak(self, text: str, rate: float, seed: int) -> Iterator[Audio]:
        """Text -> one block of mono audio; the rate is not heeded.

        Raises EngineFailure where the model fails.
        """
        text = " ".join(text.split())
        if not text:
            return
        import mlx.core as mx

        slowest = SLOWEST_SIGNS_S if self.language in DENSE else SLOWEST_CHARS_S
        frames = round((len(text) / slowest + SPARE_S) * FRAMES_S)
        try:
            mx.random.seed(seed)
            with redirect_stdout(io.StringIO()):
                results = self._model.generate(
                    text,
                    voice=self._voice,
                    lang_code=LANGUAGES[self.language],
                    max_tokens=frames,
                    verbose=False,
                )
                parts = [np.array(r.audio.astype(mx.float32)).reshape(-1) for r in results]
        except (RuntimeError, ValueError, TypeError, IndexError, KeyError) as error:
            raise EngineFailure(
                f"Qwen3-TTS failed on {text[:40]!r}: {_line(str(error))}"
            ) from error
        samples: NDArray[np.float32] = np.concatenate([*parts, np.zeros(0, np.float32)])
        if not np.isfinite(samples).all():
            raise EngineFailure(f"Qwen3-TTS answers {text[:40]!r} with sounds that are no numbers")
        yield Audio(samples[None, :], self.sample_rate)


def _config(folder: Path) -> dict[str, Any]:
    """config.json of a model with voices of its own. Raises ModelError for anything else.

    mlx-audio takes the kind of network from it, or else from the folder's name.
    """
    try:
        found = json.loads((folder / "config.json").read_text("utf-8"))
        kind, variant = found.get("model_type"), found.get("tts_model_type", "base")
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"{folder} is not a Qwen3-TTS: {error}") from None
    if kind != "qwen3_tts":
        raise ModelError(f"{folder} is not a Qwen3-TTS but a {kind}")
    if variant != "custom_voice":
        raise ModelError(
            f"{folder} is a Qwen3-TTS of the kind {variant}, which has no voices of its own",
            f"hf download {DEFAULT_MODEL}",
        )
    return dict(found)


def _voice(config: dict[str, Any], wanted: str | None, folder: Path) -> str:
    known = list((config.get("talker_config") or {}).get("spk_id") or {})
    if not known:
        raise ModelError(f"{folder} names no voices")
    if wanted is None:
        return DEFAULT_VOICE if DEFAULT_VOICE in known else str(known[0])
    if wanted.lower() not in known:
        raise ConfigError(
            f"the model has no voice {wanted!r}",
            f"It has: {', '.join(known)}. A clip of a person is made into a voice by "
            "`podtool clone`, with their consent.",
        )
    return wanted.lower()


def _line(text: str) -> str:
    return " ".join(text.split())[-200:]
