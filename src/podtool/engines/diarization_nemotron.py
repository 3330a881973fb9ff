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
from podtool.engines.hugging_face import classes
from podtool.engines.local_models import model_folder
from podtool.engines.protocols import EngineContext, EngineInfo, VoiceSpan
from podtool.errors import ModelError

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
        folder = cls.locate(context)
        names = ("AutoProcessor", "Nemotron3DiarizationForAudioFrameClassification")
        processors, networks = classes("Nemotron-3-Diarization", cls.info.install, *names)
        import torch

        if context.threads:
            torch.set_num_threads(context.threads)
        try:
            processor = processors.from_pretrained(folder, local_files_only=True)
            network = networks.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
            )
        except Exception as error:
            raise ModelError(f"{folder} is not a Nemotron-3-Diarization: {error}") from None
        device = context.torch_device
        return cls(network.to(device).eval(), processor)

    @staticmethod
    def locate(context: EngineContext) -> Path:
        """Where the model is; nothing is imported. Raises ModelError where it is not here."""
        return model_folder(
            replace(context, options=None), MODEL, NEEDED, "Nemotron-3-Diarization of NVIDIA"
        )

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
