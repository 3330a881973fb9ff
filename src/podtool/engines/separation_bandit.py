"""Speech from music and effects by Bandit v2, which was trained on the sound of films.

K. N. Watcharasupat, C.-W. Wu, I. Orife, "Remastering Divide and Remaster: A cinematic audio source
separation dataset with multilingual support", 2024. Bands of a musical scale, recurrent networks
along time and across bands in turn, and a complex mask for each band. The sizes are read from the
tensors; the networks for music and for effects are left in the file.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from podtool.audio import Audio
from podtool.engines.checkpoint import fill, read_tensors
from podtool.engines.protocols import EngineContext, EngineInfo
from podtool.errors import ModelError

RATE, SIZE, HOP = 48000, 2048, 512
BINS = SIZE // 2 + 1
SHORTEST = SIZE  # frames; less cannot be mirrored at its ends
_SPEECH = "speech"
_FCS, _RNNS = "band_split.norm_fc_modules.", "tf_model.seqband."
_MASKS = f"mask_estim.{_SPEECH}.norm_mlp."

Bands = list[tuple[int, int]]


class Bandit:
    """Mono windows at 48 kHz -> the speech in them."""

    info: ClassVar[EngineInfo] = EngineInfo(
        name="bandit",
        stage="separation",
        version="1",
        licence="CC-BY-SA-4.0",
        tier="best",
        sample_rate=RATE,
        window_s=8.0,  # what it was trained on
        runtimes=("cuda", "mps", "cpu"),
        models=("bandit-v2",),
        packages=("torch",),
        install="pip install torch",
    )
    stems: tuple[str, ...] = ("speech",)

    def __init__(self, network: Any, device: str = "cpu") -> None:
        self._network = network.to(device)
        self._device = device
        self._lock = threading.Lock()  # torch uses the cores by itself

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        """Raises ModelError where the weights are missing or are no Bandit v2."""
        import torch

        if context.threads:
            torch.set_num_threads(context.threads)
        folder = context.model(cls.info.models[0])
        found = sorted(folder.glob("*.ckpt"))
        if len(found) != 1:
            raise ModelError(f"{folder} holds {len(found)} checkpoints; one is expected")
        tensors = tensors_of(found[0])
        network = network_of(tensors)
        fill(network, tensors, found[0])
        return cls(network, context.torch_device)

    def separate(self, audio: Audio) -> dict[str, Audio]:
        """Stem `speech` of (1, n) samples, same shape; deterministic."""
        import torch

        frames = audio.frames
        padded = np.pad(audio.samples, ((0, 0), (0, max(0, SHORTEST - frames))))
        with self._lock, torch.inference_mode():
            given = torch.from_numpy(np.ascontiguousarray(padded)).to(self._device)
            found = self._network(given).float().cpu().numpy()
        samples = np.ascontiguousarray(found[:, :frames], np.float32)
        return {"speech": Audio(samples, audio.sample_rate)}


def tensors_of(path: Path) -> dict[str, Any]:
    """The tensors of a checkpoint that the speech needs, without what it says twice.

    As its authors publish them (`state_dict`, below `model.`) or as others have unpacked them.
    """
    found = read_tensors(path)
    found = dict(found.get("state_dict", found))
    found = {str(k).removeprefix("model."): v for k, v in found.items()}
    parts = (_FCS, _RNNS, _MASKS)
    return {
        k: v for k, v in found.items() if k.startswith(parts) and not _twice(k) and hasattr(v, "to")
    }


def _twice(key: str) -> bool:
    return key.startswith(_MASKS) and ".combined." in key


def bands_of(count: int) -> tuple[Bands, list[NDArray[np.float32]]]:
    """(first, last + 1) bin of each band, evenly spaced in pitch and overlapping, and the weight of
    each of its bins, which is one over the number of bands that share it."""
    step = RATE / SIZE
    highest = RATE / 2
    width = (highest / step) ** (1 / count)
    lowest = max(0.0, 12 * np.log2(step / 440) + 69)  # as MIDI numbers
    pitches = np.linspace(lowest, 12 * np.log2(highest / 440) + 69, count)
    centres = 440 * 2.0 ** ((pitches - 69) / 12)
    first = np.floor(centres / width / step).astype(int)
    last = np.minimum(np.ceil(centres * width / step).astype(int), BINS - 1)
    first[0], last[-1] = 0, BINS - 1
    bands = [(int(a), int(b) + 1) for a, b in zip(first, last, strict=True)]
    shared = np.zeros(BINS)
    for a, b in bands:
        shared[a:b] += 1
    assert all(after[0] <= before[1] for before, after in pairwise(bands))
    return bands, [np.asarray(1 / shared[a:b], np.float32) for a, b in bands]


def network_of(tensors: Mapping[str, Any]) -> Any:
    """An untrained Bandit for speech in the sizes of a checkpoint.

    Raises ModelError where the tensors are not those of a Bandit v2 for mono at 48 kHz.
    """
    try:
        count = 1 + max(int(m[1]) for k in tensors if (m := re.match(rf"{_FCS}(\d+)\.", k)))
        layers = [int(m[1]) for k in tensors if (m := re.match(rf"{_RNNS}(\d+)\.fc\.weight", k))]
        width = int(tensors[f"{_FCS}0.combined.1.weight"].shape[0])
        gates, cells = tensors[f"{_RNNS}0.rnn.weight_hh_l0"].shape
        hidden = int(tensors[f"{_MASKS}0.hidden.0.weight"].shape[0])
        both = f"{_RNNS}0.rnn.weight_ih_l0_reverse" in tensors
        kind = {3: "GRU", 4: "LSTM"}[gates // cells]
    except (KeyError, ValueError, AttributeError) as error:
        raise ModelError(f"the checkpoint is not a Bandit v2: {error!r}") from None
    if sorted(layers) != list(range(0, 2 * len(layers), 2)):
        raise ModelError("the checkpoint is not a Bandit v2: its layers do not take turns")
    return _network(count, len(layers), width, int(cells), hidden, kind, both)


def _network(
    count: int, layers: int, width: int, cells: int, hidden: int, kind: str, both: bool
) -> Any:
    import torch
    from torch import nn

    bands, weights = bands_of(count)

    class Band(nn.Module):
        def __init__(self, bins: int) -> None:
            super().__init__()
            self.combined = nn.Sequential(nn.LayerNorm(2 * bins), nn.Linear(2 * bins, width))

        def forward(self, x: Any) -> Any:
            return self.combined(x)

    class Along(nn.Module):
        """A recurrent network along the last but one axis, beside what went in."""

        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(width)
            self.rnn = getattr(nn, kind)(width, cells, batch_first=True, bidirectional=both)
            self.fc = nn.Linear(cells * (2 if both else 1), width)

        def forward(self, x: Any) -> Any:
            rows = self.norm(x).flatten(0, 1)
            return x + self.fc(self.rnn(rows)[0]).unflatten(0, x.shape[:2])

    class Turn(nn.Module):
        def forward(self, x: Any) -> Any:
            return x.transpose(1, 2)

    class Mask(nn.Module):
        def __init__(self, bins: int) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(width)
            self.hidden = nn.Sequential(nn.Linear(width, hidden), nn.Tanh())
            self.output = nn.Sequential(nn.Linear(hidden, 4 * bins), nn.GLU(dim=-1))

        def forward(self, x: Any) -> Any:
            """(b, t, width) -> (b, t, bins) complex."""
            found = self.output(self.hidden(self.norm(x)))
            return torch.view_as_complex(found.unflatten(-1, (-1, 2)).contiguous())

    class Split(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm_fc_modules = nn.ModuleList(Band(b - a) for a, b in bands)

        def forward(self, x: Any) -> Any:
            """(b, t, bins) complex -> (b, bands, t, width)."""
            pairs = zip(bands, self.norm_fc_modules, strict=True)
            return torch.stack(
                [fc(torch.view_as_real(x[..., a:b]).flatten(2)) for (a, b), fc in pairs], dim=1
            )

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.seqband = nn.Sequential(
                *(part for _ in range(layers) for part in (Along(), Turn()))
            )

        def forward(self, x: Any) -> Any:
            return self.seqband(x)

    class Masks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm_mlp = nn.ModuleList(Mask(b - a) for a, b in bands)
            for index, weight in enumerate(weights):
                self.register_buffer(f"weight{index}", torch.from_numpy(weight), persistent=False)

        def forward(self, x: Any) -> Any:
            """(b, bands, t, width) -> (b, t, bins) complex."""
            total = torch.zeros(*x[:, 0].shape[:2], BINS, dtype=torch.complex64, device=x.device)
            for index, (a, b) in enumerate(bands):
                total[..., a:b] += self.norm_mlp[index](x[:, index]) * self.get_buffer(
                    f"weight{index}"
                )
            return total

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.band_split, self.tf_model = Split(), Model()
            self.mask_estim = nn.ModuleDict({_SPEECH: Masks()})
            self.register_buffer("window", torch.hann_window(SIZE), persistent=False)

        def forward(self, x: Any) -> Any:
            """(b, n) -> (b, n)."""
            window = self.get_buffer("window")
            scale = window.square().sum().sqrt()
            sizes: dict[str, Any] = {"n_fft": SIZE, "hop_length": HOP, "window": window}
            spectrum = torch.stft(x, **sizes, pad_mode="reflect", return_complex=True) / scale
            turned = spectrum.transpose(1, 2)
            mask = self.mask_estim[_SPEECH](self.tf_model(self.band_split(turned)))
            return torch.istft((turned * mask).transpose(1, 2) * scale, **sizes, length=x.shape[-1])

    return Network()
