"""Talkers told apart by SepFormer, through speechbrain.

Subakan et al., "Attention is all you need in speech separation", ICASSP 2021. A model is a folder
as speechbrain publishes it, or its name on the hub where that is in the hub's cache: nothing is
fetched from here. The network's sizes are read from the tensors. What they do not tell is taken
from hyperparams.yaml, read as data: to speechbrain that file is a program.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from podtool.audio import Audio
from podtool.engines.checkpoint import fill, read_tensors
from podtool.engines.local_models import model_folder
from podtool.engines.protocols import EngineContext, EngineInfo
from podtool.engines.talkers_levels import at_their_levels
from podtool.engines.torchaudio_stub import import_speechbrain
from podtool.errors import ModelError

Samples = NDArray[np.float32]
PARTS = ("encoder.ckpt", "masknet.ckpt", "decoder.ckpt")
HYPERPARAMS = "hyperparams.yaml"
_WHAT = "a SepFormer of speechbrain"


class Sepformer:
    """Two or three clean voices at 8 kHz: the models that LibriMix (CC BY 4.0) has trained."""

    two: ClassVar[str] = "speechbrain/sepformer-libri2mix"
    three: ClassVar[str] = "speechbrain/sepformer-libri3mix"  # used where it is on this machine
    info: ClassVar[EngineInfo] = EngineInfo(
        name="sepformer",
        stage="talkers",
        version="1",
        licence="Apache-2.0",
        tier="best",
        sample_rate=8000,
        runtimes=("cuda", "mps", "cpu"),
        packages=("torch", "speechbrain"),
        install="pip install speechbrain",
    )

    def __init__(self, networks: list[Network], device: str = "cpu") -> None:
        """`networks`: for different numbers of talkers, the smallest first."""
        self._networks = [n.to(device) for n in networks]
        self._device = device
        self._lock = threading.Lock()  # torch uses the cores by itself
        self.max_talkers = networks[-1].talkers

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        """Raises ModelError where the weights are missing, are no SepFormer, or of another rate."""
        import torch

        if context.threads:
            torch.set_num_threads(context.threads)
        folders = [cls.locate(context)]
        if cls.three:
            try:
                folders.append(_folder(context, cls.three))
            except ModelError:
                pass
        networks = [read(folder) for folder in folders]
        for folder, network in zip(folders, networks, strict=True):
            if network.sample_rate != cls.info.sample_rate:
                raise ModelError(f"the model in {folder} is for {network.sample_rate} Hz")
        device = context.torch_device
        return cls(sorted(networks, key=lambda n: n.talkers), device)

    @classmethod
    def locate(cls, context: EngineContext) -> Path:
        """Where the model is; nothing is imported. Raises ModelError where it is not here."""
        return _folder(context, cls.two)

    def talkers(self, audio: Audio, count: int) -> Samples:
        """One window of mono audio -> (count, n). Raises ValueError for an impossible count."""
        import torch

        if not 1 <= count <= self.max_talkers:
            raise ValueError(f"{count} talkers: 1 to {self.max_talkers} can be told apart")
        network = next(n for n in self._networks if n.talkers >= count)
        samples = np.ascontiguousarray(audio.samples[0])
        with self._lock, torch.inference_mode():
            heard = torch.from_numpy(samples)[None].to(self._device)
            outputs = network.separate(heard)[0].float().cpu().numpy()
        return at_their_levels(outputs, samples, count)


class SepformerWham(Sepformer):
    """Two voices in noise at 8 kHz. WHAM's noise is CC BY-NC 4.0, its speech WSJ0 of the LDC."""

    two = "speechbrain/sepformer-wham"
    three = ""
    info = replace(Sepformer.info, name="sepformer-wham")


class SepformerWhamr(Sepformer):
    """Two voices in noise and rooms at 16 kHz. Trained on WHAMR: CC BY-NC 4.0, and WSJ0."""

    two = "speechbrain/sepformer-whamr16k"
    three = ""
    info = replace(Sepformer.info, name="sepformer-whamr", sample_rate=16000)


@dataclass(frozen=True, slots=True)
class Network:
    """Encoder, masks and decoder of one model, how many it tells apart, at which rate."""

    encoder: Any
    masknet: Any
    decoder: Any
    talkers: int
    sample_rate: int

    def to(self, device: str) -> Network:
        """The same network on a device."""
        return replace(
            self,
            encoder=self.encoder.to(device),
            masknet=self.masknet.to(device),
            decoder=self.decoder.to(device),
        )

    def separate(self, mixture: Any) -> Any:
        """(batch, n) samples -> (batch, talkers, n), at any level."""
        import torch
        from torch.nn.functional import pad

        frames = mixture.shape[1]
        kernel, step = self.encoder.conv1d.kernel_size[0], self.encoder.conv1d.stride[0]
        least = max(kernel, frames + -(frames - kernel) % step)  # to a whole number of steps
        encoded = self.encoder(pad(mixture, (0, least - frames)))
        masks = self.masknet(encoded)
        voices = [self.decoder(encoded * mask)[..., :frames] for mask in masks]
        return torch.stack([v.reshape(len(mixture), frames) for v in voices], dim=1)


def read(folder: Path) -> Network:
    """The network of a folder. Raises ModelError where it is not a SepFormer of speechbrain."""
    facts = _Facts.read(folder / HYPERPARAMS)
    tensors = {part: read_tensors(folder / part) for part in PARTS}
    try:
        parts = _parts(tensors, facts)
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise ModelError(f"{folder} is not {_WHAT}: {error!r}") from None
    for part, (name, values) in zip(parts, tensors.items(), strict=True):
        fill(part, values, folder / name)
    encoder, masknet, decoder = parts
    return Network(encoder, masknet, decoder, masknet.num_spks, facts.sample_rate)


@dataclass(frozen=True, slots=True)
class _Facts:
    """What the tensors do not tell."""

    sample_rate: int
    chunk: int  # frames of the encoder that the inner transformer sees at once
    heads: tuple[int, int]  # of the inner and the outer transformer
    stride: int

    @classmethod
    def read(cls, path: Path) -> _Facts:
        found = _as_data(path)
        try:
            network = found["MaskNet"]
            blocks = [network["intra_model"], network["inter_model"]]
            usual: dict[str, object] = {
                "norm": "ln",
                "linear_layer_after_inter_intra": False,
                "skip_around_intra": True,
            }
            block: dict[str, object] = {"use_positional_encoding": True, "norm_before": True}
            for part, expected in [(network, usual), *((b, block) for b in blocks)]:
                for key, value in expected.items():
                    if part[key] != value:
                        raise ModelError(f"{path}: {key} is {part[key]!r}, not {value!r}")
            return cls(
                int(found["sample_rate"]),
                int(network["K"]),
                (int(blocks[0]["nhead"]), int(blocks[1]["nhead"])),
                int(found["Decoder"]["stride"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"{path} is not that of {_WHAT}: {error!r}") from None


def _as_data(path: Path) -> Mapping[str, Any]:
    """A HyperPyYAML file without what it would run: objects are their arguments, <x> is x."""
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        pass

    def plain(loader: Any, _: str, node: Any) -> Any:
        if isinstance(node, yaml.MappingNode):
            return loader.construct_mapping(node, deep=True)
        if isinstance(node, yaml.SequenceNode):
            return loader.construct_sequence(node, deep=True)
        return loader.construct_scalar(node)

    Loader.add_multi_constructor("!", plain)
    try:
        found = yaml.load(path.read_text("utf-8"), Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None
    if not isinstance(found, dict):
        raise ModelError(f"{path} is not that of {_WHAT}")

    def meant(value: Any, depth: int = 0) -> Any:
        if isinstance(value, dict):
            return {k: meant(v, depth) for k, v in value.items()}
        if isinstance(value, str) and value[:1] == "<" and value[-1:] == ">" and depth < 9:
            return meant(found.get(value[1:-1]), depth + 1)
        return value

    return {k: meant(v) for k, v in found.items()}


def _parts(tensors: Mapping[str, Mapping[str, Any]], facts: _Facts) -> tuple[Any, Any, Any]:
    """speechbrain's untrained encoder, mask network and decoder in the sizes of the tensors."""
    (module,) = import_speechbrain("lobes.models.dual_path")
    encoder, masknet, decoder = (tensors[part] for part in PARTS)
    channels, _, kernel = encoder["conv1d.weight"].shape
    width = masknet["conv1d.weight"].shape[0]
    depth = 1 + max(int(k.split(".")[1]) for k in masknet if k.startswith("dual_mdl."))

    def block(name: str, heads: int) -> Any:
        start = f"dual_mdl.0.{name}.mdl.layers."
        layers = 1 + max(int(k.removeprefix(start).split(".")[0]) for k in masknet if start in k)
        return module.SBTransformerBlock(
            num_layers=layers,
            d_model=width,
            nhead=heads,
            d_ffn=masknet[f"{start}0.pos_ffn.ffn.0.weight"].shape[0],
            dropout=0,
            use_positional_encoding=True,
            norm_before=True,
        )

    network = module.Dual_Path_Model(
        in_channels=channels,
        out_channels=width,
        intra_model=block("intra_mdl", facts.heads[0]),
        inter_model=block("inter_mdl", facts.heads[1]),
        num_layers=depth,
        norm="ln",
        K=facts.chunk,
        num_spks=masknet["conv2d.weight"].shape[0] // width,
        skip_around_intra=True,
        linear_layer_after_inter_intra=False,
    )
    back = module.Decoder(
        in_channels=channels,
        out_channels=1,
        kernel_size=decoder["weight"].shape[2],
        stride=facts.stride,
        bias=False,
    )
    return module.Encoder(kernel_size=kernel, out_channels=channels), network, back


def _folder(context: EngineContext, name: str) -> Path:
    return model_folder(replace(context, options=None), name, (*PARTS, HYPERPARAMS), _WHAT)
