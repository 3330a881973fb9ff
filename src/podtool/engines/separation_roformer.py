"""Speech from music by roformers: MelBand-RoFormer and BS-RoFormer of the package audio-separator.

W.-T. Lu, J.-C. Wang, Q. Kong, Y.-N. Hung, "Music source separation with band-split RoPE
transformer", ICASSP 2024. A model is a checkpoint and the YAML that it was trained with, as
audio-separator and the collections that it draws on have them; the YAML is read as data, the
checkpoint as tensors. The package itself fetches models and wants more than the networks need:
they are reached without the rest of it.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from podtool.audio import Audio
from podtool.dsp import overlap_add, window_starts
from podtool.engines.checkpoint import fill, read_tensors
from podtool.engines.local_models import model_folder
from podtool.engines.protocols import EngineContext, EngineInfo
from podtool.errors import EngineUnavailableError, ModelError

Samples = NDArray[np.float32]
RATE, CHANNELS = 44100, 2
DEFAULT_MODEL = "melband-roformer-kim"
CHECKPOINTS = (".ckpt", ".safetensors", ".pt", ".pth")
SPEECH = ("vocals", "speech", "dialog", "dialogue", "voice")
_WHAT = "a roformer"
_NOT_SAVED = "rotary_embed.freqs"  # a constant, which some checkpoints leave out
_NEVER = ("sage_attention", "use_torch_checkpoint")  # of training and of speed alone
_UNUSED = "skip_connection"  # audio-separator takes it and makes nothing of it


@dataclass(frozen=True, slots=True)
class Roles:
    """How the speech comes out of the network: one of `stems` outputs, or what an output leaves."""

    stems: int
    at: int
    is_rest: bool = False


class Roformer:
    """Stereo 44.1 kHz windows -> the voices in them."""

    info: ClassVar[EngineInfo] = EngineInfo(
        name="roformer",
        stage="separation",
        version="1",
        licence="MIT; other models by their own licences, most of which are not stated",
        tier="best",
        sample_rate=RATE,
        channels=CHANNELS,
        window_s=30.0,  # cut further into what the network was trained on, 8 s as a rule
        runtimes=("cuda", "mps", "cpu"),
        packages=("torch", "audio_separator"),
        install="podtool engines install roformer",  # its onnx-weekly overwrites the package onnx
        options=("model",),
        requires=("audio-separator==0.47.1",),
    )
    stems: tuple[str, ...] = ("speech",)

    def __init__(self, network: Any, roles: Roles, chunk: int, device: str = "cpu") -> None:
        """`chunk`: frames that the network hears at once."""
        self._network = network.to(device)
        self._roles, self._chunk, self._device = roles, chunk, device
        self._hop = int(network.stft_kwargs["hop_length"])
        self._shortest = -(-2 * int(network.stft_kwargs["n_fft"]) // self._hop) * self._hop
        self._lock = threading.Lock()  # torch uses the cores by itself

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        """Option: `model`, an id of the store, a folder, or a repository in the hub's cache.

        Raises ModelError where the model is not on this machine, is none, or hears no voices;
        EngineUnavailableError where audio-separator's networks do not load.
        """
        import torch

        if context.threads:
            torch.set_num_threads(context.threads)
        checkpoint, config = _files(cls.locate(context))
        settings = read_config(config)
        roles, chunk = roles_of(settings, config), chunk_of(settings, config)
        network = network_of(settings, roles.stems, config)
        tensors = _tensors(checkpoint)
        constants = {k: v for k, v in network.state_dict().items() if k.endswith(_NOT_SAVED)}
        fill(network, {**constants, **tensors}, checkpoint)
        device = context.torch_device
        return cls(network, roles, chunk, device)

    @staticmethod
    def locate(context: EngineContext) -> Path:
        """Where the model is; nothing is imported. Raises ModelError where it is not here."""
        folder = model_folder(context, DEFAULT_MODEL, ("*.yaml",), _WHAT)
        _files(folder)
        return folder

    def separate(self, audio: Audio) -> dict[str, Audio]:
        """Stem `speech` of (2, n) samples, same shape; deterministic."""
        import torch

        frames = audio.frames
        if not frames:
            return {"speech": audio}
        needed = max(self._shortest, -(-frames // self._hop) * self._hop)
        window = min(self._chunk, needed)
        hop = window - window // 2 if window < frames else window

        def heard() -> Iterator[Samples]:
            for start in window_starts(frames, window, hop):
                piece = audio.samples[:, start : start + window]
                padded = np.pad(piece, ((0, 0), (0, window - piece.shape[1])))
                yield self._said(torch.from_numpy(padded))

        with self._lock, torch.inference_mode():
            parts = list(overlap_add(heard(), frames, window, hop))
        samples = np.ascontiguousarray(np.concatenate(parts, axis=1))
        return {"speech": Audio(samples, audio.sample_rate)}

    def _said(self, piece: Any) -> Samples:
        """(2, n) tensor, n a multiple of the hop -> the speech in it."""
        given = piece[None].to(self._device)
        found = self._network(given)
        if self._roles.stems > 1:
            found = found[:, self._roles.at]
        if self._roles.is_rest:
            found = given - found
        return np.asarray(found[0].float().cpu().numpy(), np.float32)


def read_config(path: Path) -> Mapping[str, Any]:
    """The YAML beside a checkpoint, as data. Raises ModelError where it is none of a roformer."""
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        pass

    def sequence(loader: Any, node: Any) -> tuple[Any, ...]:
        return tuple(loader.construct_sequence(node))

    Loader.add_constructor("tag:yaml.org,2002:python/tuple", sequence)
    try:
        found = yaml.load(path.read_text("utf-8"), Loader)
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"{path} cannot be read: {reason}") from None
    if not isinstance(found, Mapping) or not isinstance(found.get("model"), Mapping):
        raise ModelError(f"{path} is not that of {_WHAT}: it has no table `model`")
    return found


def roles_of(settings: Mapping[str, Any], path: Path) -> Roles:
    """Which output is the speech. Raises ModelError where none is."""
    training = settings.get("training") or {}
    names = [str(n).lower() for n in training.get("instruments") or ()]
    target = training.get("target_instrument")
    if not target:
        at = next((names.index(n) for n in SPEECH if n in names), None)
        if at is not None:
            return Roles(len(names), at)
    elif str(target).lower() in SPEECH:
        return Roles(1, 0)
    elif len(names) == 2 and any(n in SPEECH for n in names):
        return Roles(1, 0, is_rest=True)
    raise ModelError(f"{path}: no voices among what the model separates: {names or target}")


def chunk_of(settings: Mapping[str, Any], path: Path) -> int:
    """Frames that the network hears at once. Raises ModelError for another rate or mono."""
    audio, model = settings.get("audio") or {}, settings["model"]
    inference = settings.get("inference") or {}
    rate = audio.get("sample_rate", RATE)
    if rate != RATE or not model.get("stereo"):
        raise ModelError(f"{path}: the model is not for stereo at {RATE} Hz")
    try:
        hop = int(model.get("stft_hop_length") or audio["hop_length"])
        chunk = audio.get("chunk_size") or inference.get("chunk_size")
        chunk = int(chunk) if chunk else hop * (int(inference["dim_t"]) - 1)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path} does not say how much is heard at once: {error!r}") from None
    if hop < 1 or chunk < hop:
        raise ModelError(f"{path}: a chunk of {chunk} frames, a hop of {hop}")
    return chunk // hop * hop


def network_of(settings: Mapping[str, Any], stems: int, path: Path) -> Any:
    """audio-separator's untrained network in the sizes of the YAML.

    Raises ModelError where it asks for what the network does not have.
    """
    model = dict(settings["model"])
    mel = "num_bands" in model
    if mel == ("freqs_per_bands" in model):
        raise ModelError(f"{path} is neither that of a MelBand-RoFormer nor of a BS-RoFormer")
    kind = _networks("mel_band_roformer" if mel else "bs_roformer")
    network = kind.MelBandRoformer if mel else kind.BSRoformer
    if model.setdefault("num_stems", 1) != stems:
        raise ModelError(f"{path}: {model['num_stems']} outputs, and names for {stems}")
    known = set(inspect.signature(network.__init__).parameters) - {"self"}
    asked = {k: v for k, v in model.items() if k not in _NEVER}
    # Newer forks have switches that change no shape, so that the tensors would not tell.
    foreign = sorted(k for k, v in asked.items() if v and (k not in known or k == _UNUSED))
    if foreign:
        raise ModelError(f"{path}: the network of audio-separator has no {', '.join(foreign)}")
    given = {
        k: tuple(v) if isinstance(v, list) else v
        for k, v in asked.items()
        if k in known and not k.endswith("window_fn")
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it tries its STFT without a window
            return network(**given)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{path} makes no roformer: {reason}") from None


def _networks(name: str) -> ModuleType:
    """A module of audio-separator's networks, without importing the package around them."""
    places: list[str] | None = None
    for package in ("audio_separator", "audio_separator.separator"):
        spec = PathFinder.find_spec(package, places)
        if spec is None or not spec.submodule_search_locations:
            raise EngineUnavailableError("audio-separator is not installed", Roformer.info.install)
        places = list(spec.submodule_search_locations)
        if package not in sys.modules:
            bare = ModuleType(package)
            bare.__spec__, bare.__path__ = spec, places
            sys.modules[package] = bare
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(f"audio_separator.separator.uvr_lib_v5.roformer.{name}")
    except (ImportError, OSError) as error:
        raise EngineUnavailableError(
            f"audio-separator does not run here: {error}", Roformer.info.install
        ) from None


def _files(folder: Path) -> tuple[Path, Path]:
    """The checkpoint and the YAML of a folder. Raises ModelError where it has not one of each."""
    files = sorted(p for p in folder.iterdir() if p.is_file())
    checkpoints = [p for p in files if p.suffix in CHECKPOINTS]
    configs = [p for p in files if p.suffix in (".yaml", ".yml")]
    if len(checkpoints) != 1 or len(configs) != 1:
        raise ModelError(
            f"{folder} is not {_WHAT}: it holds {len(checkpoints)} checkpoints and "
            f"{len(configs)} .yaml files",
            "A folder with one checkpoint and the .yaml that it was trained with.",
        )
    return checkpoints[0], configs[0]


def _tensors(path: Path) -> dict[str, Any]:
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return dict(load_file(path))
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{path.name} is no checkpoint: {error}") from None
    found = read_tensors(path)
    for key in ("state_dict", "model"):
        if isinstance(found.get(key), Mapping):
            return dict(found[key])
    return found
