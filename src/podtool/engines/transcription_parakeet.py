"""Parakeet (NVIDIA NeMo: FastConformer with a TDT, RNN-T or CTC decoder) through onnx-asr.

A transducer says nothing where nothing is said, and tells when each token begins. The model is a
folder as onnx-asr's conversions on the hub have it (vocab.txt, encoder-model.onnx and
decoder_joint-model.onnx, or model.onnx; their .int8 variants), or the name of such a repository
that is already in the hub's cache: nothing is fetched from here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from podtool.artifacts import Utterance
from podtool.audio import Audio
from podtool.engines.local_models import model_folder
from podtool.engines.protocols import EngineContext, EngineInfo
from podtool.engines.readings import Piece, in_order, joined, utterance
from podtool.errors import EngineFailure, EngineUnavailableError, ModelError

DEFAULT_MODEL = "istupakov/parakeet-tdt-0.6b-v3-onnx"  # CC-BY-4.0
RATE = 16000
SHORTEST_S = 0.1
FRAME_S = 0.08
TOKEN_S = 4 * FRAME_S  # the longest duration that a TDT model gives a token
EUROPEAN = tuple(
    "bg hr cs da nl en et fi fr de el hu it lv lt mt pl pt ro sk sl es sv ru uk".split()
)  # what parakeet-tdt-0.6b-v3 was trained on; v2 reads English only


class Parakeet:
    """Greedy decoding; scores are token probabilities."""

    info: ClassVar[EngineInfo] = EngineInfo(
        name="parakeet",
        stage="transcription",
        version="1",
        licence="CC-BY-4.0",
        tier="best",
        sample_rate=RATE,
        window_s=30.0,
        runtimes=("cuda", "cpu"),
        packages=("onnx_asr", "onnxruntime"),
        install="pip install 'podtool[parakeet]'",
        languages=EUROPEAN,
        options=("model", "precision"),
        stretch_s=24.0,
    )

    def __init__(self, model: Any) -> None:
        self._model = model

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        """Options: `model` (folder or hub repository), `precision` (int8, or full).

        Raises ModelError where the model is not on this machine or is none,
        EngineUnavailableError without the package.
        """
        folder = cls.locate(context)
        try:
            import onnx_asr
            import onnxruntime
        except (ImportError, OSError) as error:
            raise EngineUnavailableError(
                f"onnx-asr does not run here: {error}", cls.info.install
            ) from None
        wanted = (context.options or {}).get("precision")
        quantised = wanted == "int8" or (wanted is None and not _has(folder, ""))
        session = onnxruntime.SessionOptions()
        session.intra_op_num_threads = context.threads
        session.log_severity_level = 3
        cuda = ["CUDAExecutionProvider"] if context.device == "cuda" else []
        try:
            model = onnx_asr.load_model(
                _kind(folder),
                folder,
                quantization="int8" if quantised else None,
                sess_options=session,
                providers=[*cuda, "CPUExecutionProvider"],
            )
        except Exception as error:
            raise ModelError(f"{folder} is not a Parakeet that onnx-asr reads: {error}") from None
        return cls(model.with_timestamps())

    @staticmethod
    def locate(context: EngineContext) -> Path:
        """Where the model is; nothing is imported. Raises ModelError where it is not here."""
        return model_folder(
            context, DEFAULT_MODEL, ("vocab.txt", "*model*.onnx"), "a Parakeet for onnx-asr"
        )

    def transcribe(self, audio: Audio, language: str | None) -> list[Utterance]:
        """Mono audio at 16 kHz -> at most one utterance, words with times and scores.

        The model tells the language by itself; `language` is what the rows then say. Raises
        EngineFailure where onnxruntime fails.
        """
        return self.transcribe_many([audio], language)[0]

    def transcribe_many(
        self, audios: Sequence[Audio], language: str | None
    ) -> list[list[Utterance]]:
        """Several stretches, padded to the longest, in one run of the encoder."""
        long = [i for i, a in enumerate(audios) if a.duration >= SHORTEST_S]
        heard = [audios[i].samples.mean(axis=0, dtype=np.float32) for i in long]
        found: list[list[Utterance]] = [[] for _ in audios]
        try:
            results = self._model.recognize(heard, sample_rate=RATE) if heard else []
        except Exception as error:
            raise EngineFailure(f"onnx-asr failed on {len(heard)} stretches: {error}") from error
        for i, result in zip(long, results, strict=True):
            words = in_order(joined(_pieces(result)), audios[i].duration)
            found[i] = utterance(words, language)
        return found


def _pieces(result: Any) -> list[Piece]:
    """Tokens with times. onnx-asr tells where one begins; it ends where the next does, or before
    that at its longest, the last of all after one frame.
    """
    tokens, starts = result.tokens or [], result.timestamps or []
    ends = [min(b, a + TOKEN_S) for a, b in zip(starts, starts[1:], strict=False)]
    ends += [a + FRAME_S for a in starts[-1:]]
    scores = [float(np.exp(p)) for p in result.logprobs or [0.0] * len(tokens)]
    return list(zip(tokens, starts, ends, scores, strict=True))


def _has(folder: Path, suffix: str) -> bool:
    names = (f"encoder-model{suffix}.onnx", f"model{suffix}.onnx")
    return any((folder / name).is_file() for name in names)


def _kind(folder: Path) -> str:
    """onnx-asr's name of the architecture: as config.json says, else as the files look."""
    path = folder / "config.json"
    told = json.loads(path.read_text("utf-8")).get("model_type") if path.is_file() else None
    if isinstance(told, str):
        return told
    if any(folder.glob("decoder_joint-model*.onnx")):
        return "nemo-conformer-rnnt" if "rnnt" in folder.name else "nemo-conformer-tdt"
    return "nemo-conformer-ctc"
