"""The larger Moonshine models (small and medium, streaming ones) through moonshine-voice.

Their networks come in five parts that only the library knows how to run; tiny and base are run
directly by `moonshine`, which keeps more of what they know. The library's own voice detector, which
cuts sentences apart, is switched off: the stage has found the speech already. The library downloads
into a cache of its own, by its own command; nothing is fetched from here.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from podtool.artifacts import Utterance, Word
from podtool.audio import Audio
from podtool.engines.local_models import model_folder
from podtool.engines.protocols import EngineContext, EngineInfo
from podtool.engines.readings import in_order, utterance
from podtool.errors import EngineFailure, EngineUnavailableError, ModelError
from podtool.text import spread_words

DEFAULT_MODEL = "medium-streaming-en"
RATE = 16000
SHORTEST_S = 0.1
ARCHITECTURES = {  # moonshine_voice.ModelArch
    "tiny-streaming": 2,
    "base-streaming": 3,
    "small-streaming": 4,
    "medium-streaming": 5,
    "tiny": 0,
    "base": 1,
}


class MoonshineVoice:
    """Greedy decoding by the library; English only: the other languages are non-commercial."""

    info: ClassVar[EngineInfo] = EngineInfo(
        name="moonshine-voice",
        stage="transcription",
        version="1",
        licence="MIT",
        tier="best",
        sample_rate=RATE,
        window_s=30.0,
        packages=("moonshine_voice",),
        install="pip install 'podtool[moonshine-voice]'",
        languages=("en",),
        options=("model",),
    )

    def __init__(self, transcriber: Any) -> None:
        self._transcriber = transcriber

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        """Option: `model`, a folder whose path names one of `ARCHITECTURES`, such as
        .../medium-streaming-en/...; by default medium-streaming-en from the library's cache.

        Raises ModelError where the model is not on this machine or is none,
        EngineUnavailableError without the package.
        """
        folder, architecture = cls.locate(context)
        try:
            from moonshine_voice.moonshine_api import ModelArch
            from moonshine_voice.transcriber import Transcriber
        except (ImportError, OSError) as error:
            raise EngineUnavailableError(
                f"moonshine-voice does not run here: {error}", cls.info.install
            ) from None
        options = {"vad_threshold": "0.0", "return_audio_data": "false"}
        try:
            return cls(Transcriber(folder, ModelArch(architecture), options=options))
        except Exception as error:
            raise ModelError(f"{folder} is not a model of moonshine-voice: {error}") from None

    @staticmethod
    def locate(context: EngineContext) -> tuple[Path, int]:
        """Where the model is; nothing is imported. Raises ModelError where it is not here."""
        named = (context.options or {}).get("model")
        if named is None:
            folder = _in_cache(DEFAULT_MODEL)
        else:
            folder = model_folder(context, named, ("*.ort",), "a Moonshine model")
        for name, number in ARCHITECTURES.items():
            if any(part.startswith((f"{name}-", f"moonshine-{name}-")) for part in folder.parts):
                return folder, number
        raise ModelError(
            f"the path {folder} does not say which Moonshine this is",
            f"Name the folder after one of {', '.join(f'{n}-en' for n in ARCHITECTURES)}.",
        )

    def transcribe(self, audio: Audio, language: str | None) -> list[Utterance]:
        """Mono English speech at 16 kHz -> at most one utterance.

        Words have the model's times and confidences where it gives them, else times spread over
        the line by length (`interpolated`) and no score. Raises EngineUnavailableError for another
        language, EngineFailure where the library fails.
        """
        if language is not None and language.split("-")[0].lower() != "en":
            raise EngineUnavailableError(f"moonshine-voice reads English only, not {language}")
        samples = audio.samples.mean(axis=0, dtype=np.float32)
        if audio.duration < SHORTEST_S or not samples.any():
            return []
        try:
            heard = self._transcriber.transcribe_without_streaming(samples.tolist(), RATE)
        except Exception as error:
            raise EngineFailure(
                f"moonshine-voice failed on {audio.duration:.1f} s of audio: {error}"
            ) from error
        words: list[Word] = []
        for line in sorted(heard.lines, key=lambda a: float(a.start_time)):
            words += _words_of(line, audio.duration)
        return utterance(words, "en")


def _words_of(line: Any, duration: float) -> list[Word]:
    if line.words:
        return in_order(
            ((w.word, float(w.start), float(w.end), float(w.confidence)) for w in line.words),
            duration,
        )
    start = min(max(0.0, float(line.start_time)), duration)
    end = min(start + float(line.duration), duration)
    return [Word(w, a, b, None, True) for w, a, b in spread_words(line.text.split(), start, end)]


def _in_cache(model: str) -> Path:
    """The model where the library's own download puts it."""
    home = Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    base = os.environ.get("XDG_CACHE_HOME") if sys.platform != "darwin" else None
    default = Path(base or home) / "moonshine_voice"
    cache = Path(os.environ.get("MOONSHINE_VOICE_CACHE", default))
    found = sorted(cache.glob(f"download.moonshine.ai/model/{model}/**/streaming_config.json"))
    if not found:
        raise ModelError(
            f"Moonshine's {model} is not on this machine",
            "python -m moonshine_voice.download --stt --language en --model-arch 5",
        )
    return found[-1].parent
