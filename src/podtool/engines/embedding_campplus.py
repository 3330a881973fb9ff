"""Speaker embedding by CAM++ (3D-Speaker, Chinese and English, 192 values), as ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from podtool.audio import Audio
from podtool.engines.fbank import FRAME, HOP, log_mel
from podtool.engines.onnx_session import only_file, open_session
from podtool.engines.protocols import EngineContext, EngineInfo
from podtool.errors import EngineFailure, ModelError

MIN_FRAMES = 20  # below this the statistics of the pooling layer are noise


class CamPlusPlus:
    """Voice -> point on the unit sphere of 192 dimensions."""

    info: ClassVar[EngineInfo] = EngineInfo(
        name="campplus",
        stage="embedding",
        version="1",
        licence="Apache-2.0",
        tier="embedded",
        sample_rate=16000,
        models=("campplus",),
        packages=("onnxruntime",),
        install="pip install onnxruntime",
    )
    dim: int = 192

    def __init__(self, session: Any) -> None:
        self._session = session

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        folder = context.model("campplus")
        return cls(open_session(only_file(folder, "campplus.onnx"), 1))

    def embed(self, audio: Audio) -> NDArray[np.float32]:
        """Mono 16 kHz audio of one speaker -> (192,) of unit norm."""
        return self.embed_features(self.features(audio.samples[0]))

    def features(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n,) samples -> (frames, 80) log-mel features, one every 10 ms, mean not removed."""
        return log_mel(samples)

    def embed_features(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """(frames, 80) features, of which some may have been left out -> (192,), unit norm."""
        if len(features) < MIN_FRAMES:
            features = np.resize(features, (MIN_FRAMES, features.shape[1]))
        centred = features - features.mean(0, keepdims=True)
        vector = self._session.run(None, {"features": centred[None].astype(np.float32)})[0][0]
        norm = float(np.linalg.norm(vector))
        if not np.isfinite(norm) or norm == 0.0:
            raise EngineFailure("CAM++ gave no finite embedding")
        return np.asarray(vector / norm, np.float32)

    @staticmethod
    def frame_of(seconds: float) -> int:
        """The first feature frame whose middle lies at or after a time."""
        return max(0, int(np.ceil((seconds * 16000 - FRAME / 2) / HOP)))


def convert(source: Path, target: Path) -> None:
    """campplus_cn_en_common.pt -> campplus.onnx: (batch, frames, 80) -> (batch, 192)."""
    import torch

    from podtool.engines.checkpoint import export_onnx, fill, read_tensors
    from podtool.engines.embedding_campplus_model import build

    network = build()
    fill(network, read_tensors(source), source)
    generator = torch.Generator().manual_seed(0)
    example = torch.randn(1, 317, 80, generator=generator)

    def check(path: Path) -> None:
        other = torch.randn(1, 250, 80, generator=generator)
        with torch.no_grad():
            expected = network(other).numpy()
        found = open_session(path, 1).run(None, {"features": other.numpy()})[0]
        if not np.allclose(found, expected, atol=1e-3):
            raise ModelError("the converted CAM++ does not agree with the checkpoint")

    export_onnx(
        network,
        (example,),
        target,
        {"features": {0: "batch", 1: "frames"}},
        {"embedding": {0: "batch"}},
        check,
    )
