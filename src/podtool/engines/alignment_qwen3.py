"""Forced alignment with Qwen3-ForcedAligner through transformers: eleven languages.

A speech language model that classifies a marker before and after each word into 80 ms steps (Qwen3-
ASR technical report, arXiv 2601.21337). The model is a folder in transformers' own format (names
that end in -hf) or the name of a hub repository that is already in the hub's cache: nothing is
fetched from here, and pickled weights are not read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from podtool.artifacts import Word
from podtool.audio import Audio
from podtool.engines.hugging_face import classes
from podtool.engines.local_models import model_folder
from podtool.engines.protocols import EngineContext, EngineInfo
from podtool.engines.readings import filled
from podtool.errors import EngineFailure, ModelError

DEFAULT_MODEL = "Qwen/Qwen3-ForcedAligner-0.6B-hf"  # Apache-2.0
NEEDED = ("config.json", "*.safetensors", "tokenizer.json")
RATE = 16000
SHORTEST_S = 0.1


class Qwen3Aligner:
    """Times in steps of 80 ms; the model gives no scores."""

    info: ClassVar[EngineInfo] = EngineInfo(
        name="qwen3",
        stage="alignment",
        version="1",
        licence="Apache-2.0",
        tier="best",
        sample_rate=RATE,
        window_s=180.0,
        runtimes=("cuda", "mps", "cpu"),
        packages=("torch", "transformers"),
        install="pip install 'podtool[qwen3-aligner]'",
        languages=tuple("zh en yue fr de it ja ko pt ru es".split()),
        options=("model",),
    )

    def __init__(self, network: Any, processor: Any) -> None:
        self._network = network
        self._processor = processor

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        """Option: `model` (folder or hub repository).

        Raises ModelError where the model is not on this machine or is none,
        EngineUnavailableError where transformers is missing or too old.
        """
        folder = cls.locate(context)
        names = ("AutoProcessor", "Qwen3ASRForTokenClassification")
        processors, networks = classes("the qwen3 aligner", cls.info.install, *names)
        import torch

        device = context.torch_device
        precision = torch.bfloat16 if device == "cuda" else torch.float32
        try:
            processor = processors.from_pretrained(folder, local_files_only=True)
            network = networks.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, dtype=precision
            )
        except Exception as error:
            raise ModelError(f"{folder} is not a Qwen3-ForcedAligner: {error}") from None
        return cls(network.to(device).eval(), processor)

    @staticmethod
    def locate(context: EngineContext) -> Path:
        """Where the model is; nothing is imported. Raises ModelError where it is not here."""
        return model_folder(context, DEFAULT_MODEL, NEEDED, "a Qwen3-ForcedAligner")

    def align(self, audio: Audio, words: list[str]) -> list[Word]:
        """Mono audio at 16 kHz and the written words in it -> as many words, with times.

        Words without a letter or digit get times in between, marked `interpolated`. Raises
        EngineFailure where torch or the tokenizer fails.
        """
        split = self._processor.split_words_for_alignment
        parts = [len(split(w)) for w in words]
        samples = audio.samples.mean(axis=0, dtype=np.float32)
        if not sum(parts) or audio.duration < SHORTEST_S or not samples.any():
            return filled(words, [None] * len(words), audio.duration)
        try:
            times = self._times(np.ascontiguousarray(samples), words)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise EngineFailure(
                f"the qwen3 aligner failed on {audio.duration:.1f} s of audio: {error}"
            ) from error
        if len(times) != sum(parts):
            return filled(words, [None] * len(words), audio.duration)
        found: list[Word | None] = []
        at, last = 0, 0.0
        for word, count in zip(words, parts, strict=True):
            own = times[at : at + count]
            at += count
            if not own:
                found.append(None)
                continue
            start = min(max(own[0][0], last), audio.duration)
            last = min(max(own[-1][1], start), audio.duration)
            found.append(Word(word, start, last))
        return filled(words, found, audio.duration)

    def _times(self, samples: Any, words: list[str]) -> list[tuple[float, float]]:
        import torch

        inputs, lists = self._processor.prepare_forced_aligner_inputs(samples, " ".join(words))
        inputs = inputs.to(self._network.device, self._network.dtype)
        with torch.inference_mode():
            logits = self._network(**inputs).logits
        found = self._processor.decode_forced_alignment(
            logits, inputs["input_ids"], lists, self._network.config.timestamp_token_id
        )
        return [(float(w["start_time"]), float(w["end_time"])) for w in found[0]]
