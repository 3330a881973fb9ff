"""Diarization by Nemotron-3-Diarization, through transformers: up to eight people, with overlaps.

A Sortformer with a speaker cache: the network reads a recording in chunks of half a minute and
remembers who was who. The model (OpenMDW-1.1) is a folder in transformers' own format, in the hub's
cache: nothing is fetched from here, and pickled weights are not read.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from podtool.audio import Audio
from podtool.engines.local_models import model_folder
from podtool.engines.protocols import EngineContext, EngineInfo, VoiceSpan
from podtool.engines.torchaudio_stub import make_harmless
from podtool.errors import EngineUnavailableError, ModelError

RATE = 16000
MODEL = "nvidia/Nemotron-3-Diarization"
NEEDED = ("config.json", "*.safetensors")
SHORTEST_S = 0.1


class Nemotron:
    """A whole recording -> who speaks when, in steps of 10 ms, overlaps included."""

    info: ClassVar[EngineInfo] = EngineInfo(
        name="nemotron",
        stage="diarization",
        version="1",
        licence="OpenMDW-1.1",
        tier="best",
        sample_rate=RATE,
        runtimes=("cuda", "mps", "cpu"),
        packages=("torch", "transformers"),
        install="pip install 'transformers>=5.24'",
    )
    counts: bool = False

    def __init__(self, network: Any, processor: Any) -> None:
        self._network = network
        self._processor = processor
        self.max_voices = int(network.config.head_config.num_speakers)

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        """Raises ModelError where the model is not on this machine or is none,
        EngineUnavailableError where transformers is missing or too old.
        """
        folder = _folder(context)
        make_harmless()
        try:
            import torch
            from transformers import (
                AutoProcessor,
                Nemotron3DiarizationForAudioFrameClassification,
            )
            from transformers.utils import logging
        except (ImportError, OSError) as error:
            raise EngineUnavailableError(
                f"Nemotron-3-Diarization does not run here: {error}", cls.info.install
            ) from None
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        if context.threads:
            torch.set_num_threads(context.threads)
        try:
            processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
            network = Nemotron3DiarizationForAudioFrameClassification.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
            )
        except Exception as error:
            raise ModelError(f"{folder} is not a Nemotron-3-Diarization: {error}") from None
        device = context.device if context.device in ("cuda", "mps") else "cpu"
        return cls(network.to(device).eval(), processor)

    @staticmethod
    def missing(context: EngineContext) -> ModelError | None:
        """What keeps the engine from loading here, beyond its packages; nothing is imported."""
        try:
            _folder(context)
        except ModelError as error:
            return error
        return None

    def diarize(self, audio: Audio, least: int, most: int) -> list[VoiceSpan]:
        """Mono audio at 16 kHz -> voices in order of arrival; `least` and `most` are not heeded."""
        import torch

        del least, most
        if audio.duration < SHORTEST_S or not audio.samples.any():
            return []
        samples = np.ascontiguousarray(audio.samples[0])
        inputs = self._processor(samples, sampling_rate=RATE, return_tensors="pt")
        inputs = inputs.to(self._network.device)
        with torch.inference_mode():
            logits = self._network(**inputs).logits.float().cpu()
        mask = inputs.get("attention_mask")
        mask = None if mask is None else mask.cpu()
        found = self._processor.extract_speaker_dict(logits, mask)[0]
        spans = ((s["Start"], min(s["End"], audio.duration), int(s["Speaker"])) for s in found)
        return [VoiceSpan(float(a), float(b), voice) for a, b, voice in spans if b > a]


def _folder(context: EngineContext) -> Path:
    return model_folder(
        replace(context, options=None), MODEL, NEEDED, "Nemotron-3-Diarization of NVIDIA"
    )
