"""Whisper in MLX (mlx-whisper): the standard recogniser on Apple silicon, many languages.

The model is a folder (config.json and weights.safetensors or .npz, as mlx-community converts them)
or the name of a hub repository that is already in the hub's cache: nothing is fetched from here.
On Linux it runs on the CPU (`mlx[cpu]`), slowly.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from podtool.artifacts import Utterance, Word
from podtool.audio import Audio
from podtool.engines.protocols import EngineContext, EngineInfo
from podtool.errors import ConfigError, EngineFailure, EngineUnavailableError, ModelError

DEFAULT_MODEL = "whisper-large-v3-turbo-mlx"  # id in models.toml


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
    )

    def __init__(self, folder: Path, tokens: int | None = None) -> None:
        self._folder = folder
        self._tokens = tokens
        self._half = True

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        """Options: `model` (folder or hub repository), `tokens` (at most, per 30 s).

        Raises ModelError where the model is not on this machine, EngineUnavailableError where MLX
        does not run, ConfigError for an option that is not valid.
        """
        options = context.options or {}
        tokens = options.get("tokens")
        if tokens is not None and (not tokens.isdigit() or int(tokens) < 1):
            raise ConfigError(f"tokens must be a whole number from 1, not {tokens!r}")
        folder = _folder_of(context)
        try:
            import mlx.core  # noqa: F401 - libmlx.so is missing where `mlx` came without [cpu]
            import mlx_whisper  # noqa: F401
        except (ImportError, OSError) as error:
            raise EngineUnavailableError(
                f"mlx-whisper does not run here: {error}", cls.info.install
            ) from None
        engine = cls(folder, int(tokens) if tokens else None)
        engine._open()
        return engine

    @staticmethod
    def missing(context: EngineContext) -> ModelError | None:
        """What keeps the engine from loading here, beyond its packages; nothing is imported."""
        try:
            _folder_of(context)
        except ModelError as error:
            return error
        return None

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
        import mlx_whisper
        from mlx_whisper.tokenizer import LANGUAGES

        code = language.split("-")[0].lower() if language else None
        if code is not None and code not in LANGUAGES:
            raise EngineUnavailableError(
                f"Whisper does not know the language {language}", "Give a BCP 47 tag such as de."
            )
        samples = np.ascontiguousarray(audio.samples.mean(axis=0, dtype=np.float32))
        if float(np.abs(samples).max(initial=0.0)) < 1e-4:
            return []
        options: dict[str, Any] = {"sample_len": self._tokens} if self._tokens else {}
        try:
            result = mlx_whisper.transcribe(
                samples,
                path_or_hf_repo=str(self._folder),
                language=code,
                temperature=0.0,  # a fallback to sampling would make results differ between runs
                condition_on_previous_text=False,
                word_timestamps=True,
                verbose=None,
                fp16=self._half,
                **options,
            )
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise EngineFailure(
                f"mlx-whisper failed on {audio.duration:.1f} s of audio: {error}"
            ) from error
        found = str(result.get("language") or code or "")
        utterances = [_utterance(s, found, audio.duration) for s in result["segments"]]
        kept = [u for u in utterances if u.text]
        return [
            Utterance(f"u{n:04d}", u.recording, u.start, u.end, u.text, None, None, u.language,
                      u.score, None, u.words)
            for n, u in enumerate(kept, start=1)
        ]  # fmt: skip


def _folder_of(context: EngineContext) -> Path:
    """The model of the option `model`, else the one in the store. Raises ModelError."""
    chosen = (context.options or {}).get("model", DEFAULT_MODEL)
    return context.model(chosen) if chosen == DEFAULT_MODEL else find_model(chosen)


def find_model(name: str) -> Path:
    """The folder of a model: a path, or a hub repository in the local cache.

    Raises ModelError with the line that fetches it.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelError(
                f"{folder} holds no config.json",
                "Convert a Whisper model for MLX, or take one from mlx-community.",
            )
        return folder
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ModelError(f"there is no model folder {name}")
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError
    except ImportError:
        raise ModelError(f"{name} is not on this machine", "pip install huggingface_hub") from None
    try:
        return Path(snapshot_download(repo_id=name, local_files_only=True))
    except (LocalEntryNotFoundError, ValueError):
        raise ModelError(
            f"the Whisper model {name} is not on this machine", f"hf download {name}"
        ) from None


def _utterance(segment: dict[str, Any], language: str, duration: float) -> Utterance:
    words = []
    at = 0.0
    for word in segment.get("words", ()):
        text = str(word["word"]).strip()
        if text:
            start = min(max(float(word["start"]), at), duration)
            end = min(max(float(word["end"]), start), duration)
            score = min(1.0, max(0.0, float(word["probability"])))
            words.append(Word(text, start, end, round(score, 4)))
            at = end
    scores = [w.score or 0.0 for w in words]
    return Utterance(
        id="",
        recording="",
        start=words[0].start if words else 0.0,
        end=words[-1].end if words else 0.0,
        text=" ".join(w.text for w in words),
        language=language or None,
        score=round(sum(scores) / len(scores), 4) if scores else None,
        words=tuple(words),
    )
