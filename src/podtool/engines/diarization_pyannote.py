"""Diarization by pyannote's community-1 pipeline, through pyannote.audio.

The weights (CC BY 4.0) are behind a form on the hub: who has accepted its terms and fetched them
has them in the hub's cache, and nothing is fetched from here. pyannote.audio counts its use unless
told not to: it is told not to before it is imported. Its checkpoints are pickles that name classes
of other packages: torch is kept to plain tensors, and what else a file names becomes inert.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from podtool.audio import Audio
from podtool.engines.checkpoint import inert
from podtool.engines.local_models import model_folder
from podtool.engines.protocols import EngineContext, EngineInfo, VoiceSpan
from podtool.engines.torchaudio_stub import make_importable
from podtool.errors import EngineUnavailableError, ModelError

RATE = 16000
MODEL = "pyannote/speaker-diarization-community-1"
CHECKPOINTS = ("segmentation/pytorch_model.bin", "embedding/pytorch_model.bin")
NEEDED = ("config.yaml", *CHECKPOINTS, "plda/plda.npz", "plda/xvec_transform.npz")
PIPELINE = "pyannote.audio.pipelines.SpeakerDiarization"
SHORTEST_S = 0.1
_OFF = {"PYANNOTE_METRICS_ENABLED": "0", "OTEL_SDK_DISABLED": "true"}


class PyannoteCommunity:
    """A whole recording -> who speaks when, overlaps included."""

    info: ClassVar[EngineInfo] = EngineInfo(
        name="community-1",
        stage="diarization",
        version="1",
        licence="CC-BY-4.0",
        tier="best",
        sample_rate=RATE,
        runtimes=("cuda", "mps", "cpu"),
        packages=("torch", "pyannote.audio"),
        install="podtool engines install community-1",
        requires=("pyannote.audio>=4.0",),
    )
    counts: bool = True

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        """Raises ModelError where the model is not on this machine or is another one,
        EngineUnavailableError where pyannote.audio does not load.
        """
        folder = cls.locate(context)
        _refuse_others(folder / "config.yaml")
        os.environ.update(_OFF)
        make_importable()
        try:
            import torch
            from pyannote.audio import Pipeline
        except (ImportError, OSError) as error:
            raise EngineUnavailableError(
                f"pyannote.audio does not run here: {error}", cls.info.install
            ) from None
        if context.threads:
            torch.set_num_threads(context.threads)
        try:
            with _tensors_only([folder / path for path in CHECKPOINTS]):
                pipeline = Pipeline.from_pretrained(folder)
        except Exception as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ModelError(f"{folder} is not pyannote's community-1: {reason}") from None
        device = context.torch_device
        return cls(pipeline.to(torch.device(device)))

    @staticmethod
    def locate(context: EngineContext) -> Path:
        """Where the model is; nothing is imported. Raises ModelError where it is not here."""
        try:
            return model_folder(
                replace(context, options=None), MODEL, NEEDED, "pyannote's community-1"
            )
        except ModelError as error:
            terms = f"accept the terms on https://huggingface.co/{MODEL}, then: hf download {MODEL}"
            raise ModelError(error.message, terms if error.hint else None) from None

    def diarize(self, audio: Audio, least: int, most: int) -> list[VoiceSpan]:
        """Mono audio at 16 kHz -> voices in order of first appearance."""
        import torch

        if audio.duration < SHORTEST_S or not audio.samples.any():
            return []
        samples = torch.from_numpy(np.ascontiguousarray(audio.samples[:1]))
        heard = {"waveform": samples, "sample_rate": RATE}
        found = self._pipeline(heard, min_speakers=least, max_speakers=most)
        voices: dict[str, int] = {}
        spans = []
        for segment, _, label in found.speaker_diarization.itertracks(yield_label=True):
            start, end = max(0.0, segment.start), min(audio.duration, segment.end)
            if end > start:
                voice = voices.setdefault(str(label), len(voices))
                spans.append(VoiceSpan(float(start), float(end), voice))
        return spans


def _refuse_others(path: Path) -> None:
    """A pipeline's file names the classes that it is made of: only one is expected here."""
    import yaml

    try:
        config = yaml.safe_load(path.read_text("utf-8"))
        name, extra = config["pipeline"]["name"], "preprocessors" in config
    except (yaml.YAMLError, OSError, UnicodeDecodeError, KeyError, TypeError):
        raise ModelError(f"{path} is not that of a pipeline of pyannote") from None
    if name != PIPELINE or extra:
        raise ModelError(f"{path} is that of another pipeline, {name}")


@contextmanager
def _tensors_only(checkpoints: list[Path]) -> Iterator[None]:
    """torch.load as with `weights_only`, whatever its caller asks for.

    What the checkpoints name besides is inert, but for the three classes of pyannote's own that
    say what a model is for: those hold data alone.
    """
    import torch
    from pyannote.audio.core.task import Problem, Resolution, Specifications

    own = {f"{c.__module__}.{c.__name__}": c for c in (Problem, Resolution, Specifications)}
    named = {n for path in checkpoints for n in _classes_of(path)}
    allowed: list[Any] = [(own[n] if n in own else inert(n), n) for n in sorted(named)]
    before = os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD")
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    with ExitStack() as stack:
        stack.callback(_restore, "TORCH_FORCE_WEIGHTS_ONLY_LOAD", before)
        stack.enter_context(torch.serialization.safe_globals(allowed))
        yield


def _classes_of(path: Path) -> list[str]:
    """What a checkpoint names beyond tensors; nothing is loaded."""
    import torch

    try:
        return torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception as error:
        raise ModelError(f"{path} is not a checkpoint: {str(error).splitlines()[0]}") from None


def _restore(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value
