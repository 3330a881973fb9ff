"""Two talkers told apart at 16 kHz by MossFormer2, the network of the package clearvoice.

Zhao et al., "MossFormer2: Combining transformer and RNN-free recurrent network for enhanced
time-domain monaural speech separation", ICASSP 2024. The network's sizes are read from the tensors.
clearvoice imports video libraries at its top, which the network does not need: it is reached
without them. The model is a folder in the hub's cache; nothing is fetched from here.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from podtool.audio import Audio
from podtool.engines.checkpoint import fill, read_tensors
from podtool.engines.local_models import model_folder
from podtool.engines.protocols import EngineContext, EngineInfo
from podtool.engines.talkers_levels import at_their_levels
from podtool.errors import EngineUnavailableError, ModelError

Samples = NDArray[np.float32]
RATE = 16000
SHORTEST = RATE // 10  # frames; the network's convolutions need some context
MODEL = "alibabasglab/MossFormer2_SS_16K"
POINTER = "last_best_checkpoint"  # a text file whose first line names the checkpoint
_CONSTANTS = ("rotary_pos_emb.freqs", "pos_enc.inv_freq")  # some versions do not save them


class MossFormer2:
    """Two voices of one window."""

    info: ClassVar[EngineInfo] = EngineInfo(
        name="mossformer2",
        stage="talkers",
        version="1",
        licence="Apache-2.0",
        tier="best",
        sample_rate=RATE,
        runtimes=("cuda", "mps", "cpu"),
        packages=("torch", "clearvoice"),
        install="podtool engines install mossformer2",  # clearvoice pins numpy below 2
        requires=("clearvoice==0.1.2",),
    )

    def __init__(self, network: Any, device: str = "cpu") -> None:
        self._network = network.to(device)
        self._device = device
        self._lock = threading.Lock()  # torch uses the cores by itself
        self.max_talkers = int(network.num_spks)

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        """Raises ModelError where the weights are missing or are no MossFormer2,
        EngineUnavailableError where clearvoice's network does not load.
        """
        import torch

        if context.threads:
            torch.set_num_threads(context.threads)
        path = _checkpoint(cls.locate(context))
        tensors = read_tensors(path)
        tensors = {
            k.removeprefix("module."): v for k, v in dict(tensors.get("model", tensors)).items()
        }
        network = network_of(tensors)
        constants = {k: v for k, v in network.state_dict().items() if k.endswith(_CONSTANTS)}
        fill(network, {**constants, **tensors}, path)
        device = context.torch_device
        return cls(network, device)

    @staticmethod
    def locate(context: EngineContext) -> Path:
        """Where the model is; nothing is imported. Raises ModelError where it is not here."""
        return model_folder(replace(context, options=None), MODEL, (POINTER,), "MossFormer2 SS 16K")

    def talkers(self, audio: Audio, count: int) -> Samples:
        """One window of mono audio -> (count, n). Raises ValueError for an impossible count."""
        import torch

        samples = np.ascontiguousarray(audio.samples[0])
        padded = np.pad(samples, (0, max(0, SHORTEST - len(samples))))
        with self._lock, torch.inference_mode():
            voices = self._network(torch.from_numpy(padded)[None].to(self._device))
            outputs = torch.cat([v[:1, : len(samples)] for v in voices]).float().cpu().numpy()
        return at_their_levels(outputs, samples, count)


def network_of(tensors: Mapping[str, Any]) -> Any:
    """clearvoice's untrained network in the sizes of a checkpoint.

    Raises ModelError where the tensors are not those of a MossFormer2.
    """
    blocks = "mask_net.mdl.intra_mdl.mossformerM.layers."
    try:
        channels, _, kernel = tensors["enc.conv1d.weight"].shape
        width = tensors["mask_net.conv1d_encoder.weight"].shape[0]
        talkers = tensors["mask_net.conv1d_out.weight"].shape[0] // width
        depth = 1 + max(
            int(k.removeprefix(blocks).split(".")[0]) for k in tensors if k.startswith(blocks)
        )
    except (KeyError, ValueError, AttributeError) as error:
        raise ModelError(f"the checkpoint is not a MossFormer2: {error!r}") from None
    return _network_module().MossFormer(
        in_channels=channels,
        out_channels=width,
        num_blocks=depth,
        kernel_size=kernel,
        norm="ln",
        num_spks=talkers,
        skip_around_intra=True,
        use_global_pos_enc=True,
    )


def _network_module() -> ModuleType:
    spec = importlib.util.find_spec("clearvoice")
    if spec is None or not spec.submodule_search_locations:
        raise EngineUnavailableError("clearvoice is not installed", MossFormer2.info.install)
    if "clearvoice" not in sys.modules:
        bare = ModuleType("clearvoice")
        bare.__spec__, bare.__path__ = spec, list(spec.submodule_search_locations)
        sys.modules["clearvoice"] = bare
    try:
        return importlib.import_module("clearvoice.models.mossformer2_ss.mossformer2")
    except (ImportError, OSError) as error:
        raise EngineUnavailableError(
            f"clearvoice does not run here: {error}", MossFormer2.info.install
        ) from None


def _checkpoint(folder: Path) -> Path:
    """The file that the pointer names. Raises ModelError where it is not beside it."""
    try:
        name = (folder / POINTER).read_text("utf-8").split()[0]
    except (OSError, UnicodeDecodeError, IndexError):
        raise ModelError(f"{folder / POINTER} names no checkpoint") from None
    path = folder / Path(name).name
    if not path.is_file():
        raise ModelError(f"{folder} lacks {path.name}", f"hf download {MODEL}")
    return path
