"""Speaker embedding by ECAPA-TDNN, the model and features of speechbrain (192 values).

Desplanques et al., "ECAPA-TDNN: Emphasized channel attention, propagation and aggregation in TDNN
based speaker verification", Interspeech 2020. The network's sizes are read from the checkpoint:
its hyperparams.yaml can name any Python object and is not needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from podtool.audio import Audio
from podtool.engines.checkpoint import fill, read_tensors
from podtool.engines.protocols import EngineContext, EngineInfo
from podtool.engines.torchaudio_stub import import_speechbrain
from podtool.errors import ModelError

RATE = 16000
SHORTEST = RATE // 10  # frames; the network's convolutions need some context
FILE = "embedding_model.ckpt"


class Ecapa:
    """Voice -> point on the unit sphere of 192 dimensions."""

    info: ClassVar[EngineInfo] = EngineInfo(
        name="ecapa",
        stage="embedding",
        version="1",
        licence="Apache-2.0",
        tier="standard",
        sample_rate=RATE,
        runtimes=("cuda", "mps", "cpu"),
        models=("ecapa-voxceleb",),
        packages=("torch", "speechbrain"),
        install="pip install speechbrain",
    )

    def __init__(self, network: Any, device: str = "cpu") -> None:
        features, processing = import_speechbrain("lobes.features", "processing.features")
        self._network = network.to(device)
        self._features = features.Fbank(n_mels=80, sample_rate=RATE).to(device)
        normalise = processing.InputNormalization(norm_type="sentence", std_norm=False)
        self._normalise = normalise.to(device).eval()
        self._device = device
        self.dim = int(network.fc.conv.weight.shape[0])

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        """Raises ModelError where the weights are missing, or not those of an ECAPA-TDNN."""
        path = context.model("ecapa-voxceleb") / FILE
        tensors = read_tensors(path)
        network = network_of(tensors)
        fill(network, tensors, path)
        return cls(network, context.device)

    def embed(self, audio: Audio) -> NDArray[np.float32]:
        """Mono 16 kHz audio of one speaker -> (dim,) of unit norm."""
        import torch

        samples = np.ascontiguousarray(audio.samples[0])
        if len(samples) < SHORTEST:
            samples = np.pad(samples, (0, SHORTEST - len(samples)))
        with torch.inference_mode():
            features = self._features(torch.from_numpy(samples)[None].to(self._device))
            whole = torch.ones(1, device=self._device)
            found = self._network(self._normalise(features, whole), whole)[0, 0]
            vector = found.float().cpu().numpy()
        return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-9), np.float32)


def network_of(tensors: Mapping[str, Any]) -> Any:
    """speechbrain's untrained network in the sizes of a checkpoint.

    Raises ModelError where the tensors are not those of an ECAPA-TDNN.
    """
    (module,) = import_speechbrain("lobes.models.ECAPA_TDNN")
    try:
        first = tensors["blocks.0.conv.conv.weight"].shape
        blocks = [tensors[f"blocks.{i}.tdnn2.conv.conv.weight"].shape[0] for i in (1, 2, 3)]
        merged = tensors["mfa.conv.conv.weight"].shape[0]
        attention = tensors["asp.tdnn.conv.conv.weight"].shape[0]
        squeezed = tensors["blocks.1.se_block.conv1.conv.weight"].shape[0]
        outputs = tensors["fc.conv.weight"].shape[0]
    except KeyError as error:
        raise ModelError(
            f"{FILE} is not an ECAPA-TDNN: it has no {error}",
            "podtool models verify ecapa-voxceleb",
        ) from None
    return module.ECAPA_TDNN(
        first[1],
        channels=[first[0], *blocks, merged],
        kernel_sizes=[5, 3, 3, 3, 1],
        dilations=[1, 2, 3, 4, 1],
        attention_channels=attention,
        se_channels=squeezed,
        lin_neurons=outputs,
    )
