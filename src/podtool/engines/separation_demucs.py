"""Hybrid Transformer Demucs (htdemucs) through the demucs package, from a local repository.

The `vocals` source is the speech. A checkpoint of demucs is a pickle that names its class: it is
loaded with weights_only and demucs' own classes alone, after its checksum was compared.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from podtool.audio import Audio
from podtool.engines.protocols import EngineContext, EngineInfo
from podtool.errors import ModelError

_SPEECH = "vocals"


class Demucs:
    """Stereo 44.1 kHz windows -> the speech in them."""

    info: ClassVar[EngineInfo] = EngineInfo(
        name="demucs",
        stage="separation",
        version="1",
        licence="MIT; on the weights see docs/engines.md",
        tier="standard",
        sample_rate=44100,
        channels=2,
        window_s=31.0,  # four segments of 7.8 s with overlap, which demucs cuts by itself
        runtimes=("cuda", "mps", "cpu"),
        models=("htdemucs",),
        packages=("demucs", "torch"),
        install="pip install demucs",
    )
    stems: tuple[str, ...] = ("speech",)

    def __init__(self, model: Any, device: str = "cpu") -> None:
        self._model = model.to(device)
        self._device = device
        self._lock = threading.Lock()  # torch uses the cores by itself

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        import torch

        if context.threads:
            torch.set_num_threads(context.threads)
        model = load_repository(context.model(cls.info.models[0]))
        found = (int(model.samplerate), int(model.audio_channels))
        if found != (cls.info.sample_rate, cls.info.channels):
            raise ModelError(f"the demucs model is for {found[0]} Hz and {found[1]} channels")
        return cls(model, context.torch_device)

    def separate(self, audio: Audio) -> dict[str, Audio]:
        """Stem `speech` of (2, n) samples, same shape; deterministic (no random shifts)."""
        import torch
        from demucs.apply import apply_model

        mixture = torch.from_numpy(np.ascontiguousarray(audio.samples))
        mean, scale = mixture.mean(), mixture.mean(0).std() + 1e-8
        with self._lock, torch.inference_mode():
            sources = apply_model(
                self._model,
                ((mixture - mean) / scale)[None],
                shifts=0,
                split=True,
                overlap=0.25,
                device=self._device,
            )
        voice = sources[0, list(self._model.sources).index(_SPEECH)] * scale + mean
        samples = voice.cpu().numpy().astype(np.float32, copy=False)
        return {"speech": Audio(np.ascontiguousarray(samples), audio.sample_rate)}


class DemucsFt(Demucs):
    """htdemucs_ft: a network fine-tuned for each source, of which the one for vocals is asked."""

    info: ClassVar[EngineInfo] = replace(
        Demucs.info, name="demucs-ft", tier="best", models=("htdemucs-ft",)
    )


def load_repository(folder: Path) -> Any:
    """The one model (or bag of models) of a demucs repository: what `demucs --repo` would load,
    without those models of a bag that have no say in the speech.

    Raises ModelError for a folder without a model, a wrong checksum, or a pickle that names
    anything but demucs' own classes.
    """
    from demucs.repo import AnyModelRepo, BagOnlyRepo, LocalRepo, ModelLoadingError, check_checksum
    from demucs.states import load_model

    class SafeRepo(LocalRepo):
        """demucs' LocalRepo with a loader that runs no code of the file."""

        def get_model(self, sig: str) -> Any:
            if sig not in self._models:
                raise ModelLoadingError(f"no model {sig} in {self.root}")
            path = self._models[sig]
            if sig in self._checksums:
                check_checksum(path, self._checksums[sig])
            return load_model(read_package(path))  # type: ignore[no-untyped-call]

    try:
        models = SafeRepo(folder)
        bags = BagOnlyRepo(folder, models)
        names = [*bags.list_model()] or [*models.list_model()]
        if len(names) != 1:
            raise ModelError(f"{folder} holds {len(names) or 'no'} demucs models; one is expected")
        model = AnyModelRepo(models, bags).get_model(names[0])
    except ModelLoadingError as error:
        raise ModelError(f"demucs model: {error}", "podtool models verify") from None
    if _SPEECH not in model.sources:
        raise ModelError(f"the demucs model has no source {_SPEECH!r}")
    model = _of_speech(model)
    model.eval()
    return model


def _of_speech(model: Any) -> Any:
    """A bag without the models that have no weight in the speech: of htdemucs_ft one stays."""
    from demucs.apply import BagOfModels

    if not isinstance(model, BagOfModels):
        return model
    at = list(model.sources).index(_SPEECH)
    weights = [weight[at] for weight in model.weights]
    kept: list[Any] = [part for part, w in zip(model.models, weights, strict=True) if w]
    if not kept:
        raise ModelError(f"no model of the bag has a weight in {_SPEECH!r}")
    # One weight for all sources: those that nobody weighs would be divided by zero.
    return BagOfModels(kept, [[w] * len(model.sources) for w in weights if w])


def read_package(path: Path) -> dict[str, Any]:
    """A checkpoint as a dict (klass, args, kwargs, state), by torch's restricted unpickler."""
    import pickle

    import torch
    from demucs.demucs import Demucs as TimeDemucs
    from demucs.hdemucs import HDemucs
    from demucs.htdemucs import HTDemucs

    known = [TimeDemucs, HDemucs, HTDemucs, Fraction]
    try:
        with torch.serialization.safe_globals(known):
            package: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"{path} is not a demucs checkpoint: {reason}") from None
    if not isinstance(package, dict) or package.get("klass") not in known[:3]:
        raise ModelError(f"{path} is not a demucs checkpoint")
    return package
