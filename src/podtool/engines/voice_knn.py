"""kNN-VC: every 20 ms of speech is said with the four sounds of the target that are most like it.

M. Baas, B. van Niekerk, H. Kamper, "Voice Conversion With Just Nearest Neighbors", Interspeech
2023. WavLM's sixth layer hears source and target, and a HiFi-GAN trained on such matches speaks.
Nothing is fetched from here: WavLM comes from the hub's cache, the vocoder from torch's.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from podtool.audio import Audio
from podtool.engines import hifi_gan
from podtool.engines.checkpoint import read_tensors
from podtool.engines.hugging_face import classes
from podtool.engines.level_contour import as_long_as, levelled
from podtool.engines.local_models import model_folder
from podtool.engines.protocols import EngineContext, EngineInfo
from podtool.engines.voice_world import (
    Analysed,
    VoiceMap,
    World,
    bandwidth_warnings,
    high_band_change,
    pitch_map,
)
from podtool.engines.world_frames import BANDS
from podtool.engines.world_mapping import MappingParams
from podtool.engines.world_profile import SpeechProfile
from podtool.errors import EngineFailure, InputError, ModelError
from podtool.resample import resample, to_mono

RATE, HOP, WINDOW = 16000, 320, 400  # of WavLM, in samples
LAYER = 6  # says more of the sound and of the speaker than of the word
NEIGHBOURS = 4
ENCODER = "microsoft/wavlm-large"
VOCODER = "prematch_g_02500000.pt"
RELEASE = f"https://github.com/bshall/knn-vc/releases/download/v0.1/{VOCODER}"
BLOCK = 500  # frames matched at once

Samples = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class KnnMap(VoiceMap):
    """The sounds of the target; the rest is as the stages know it, and the mapping is empty."""

    sounds: Any = None  # (m, d) torch tensor


class Knn(World):
    """The converter; a voice of it is one of WORLD's with WavLM's frames in it, 20 ms apart."""

    info: ClassVar[EngineInfo] = EngineInfo(
        name="knn-vc",
        stage="conversion",
        version="1",
        licence="MIT; of WavLM's weights MIT or CC-BY-SA-3.0, its publishers disagree",
        tier="standard",
        sample_rate=0,
        runtimes=("cuda", "mps", "cpu"),
        packages=("torch", "transformers", "pyworld"),
        install="pip install 'podtool[knn-vc]'",
        options=("model",),
    )

    def __init__(self, encoder: Any, vocoder: hifi_gan.Weights, device: str, digest: str) -> None:
        """`digest`: of the encoder, by which voices know whether they fit."""
        self._encoder, self._vocoder = encoder, vocoder
        self._device, self._digest = device, digest

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        """Option: `model`, a folder with the vocoder's .pt file and WavLM in `wavlm/`.

        Raises ModelError where weights are missing, with the lines that fetch them, or are others;
        EngineUnavailableError where transformers is missing.
        """
        folder, file = cls.locate(context)
        [wavlm] = classes("kNN-VC", cls.info.install, "WavLMModel")
        tensors = read_tensors(file)
        vocoder = hifi_gan.folded(tensors.get("generator", tensors))
        try:
            encoder = wavlm.from_pretrained(folder, local_files_only=True)
        except Exception as error:
            raise ModelError(f"{folder} is not a WavLM: {error}") from None
        width, wanted = encoder.config.hidden_size, vocoder["lin_pre.weight"].shape[1]
        if width != wanted or encoder.config.num_hidden_layers < LAYER:
            raise ModelError(
                f"{file.name} speaks {wanted} values a frame and WavLM in {folder} hears {width}"
            )
        del encoder.encoder.layers[LAYER:]  # never asked for
        device = context.torch_device
        first = encoder.feature_projection.projection.weight.detach().float().numpy()
        digest = hashlib.sha256(first.tobytes()).hexdigest()
        weights = {name: value.to(device) for name, value in vocoder.items()}
        return cls(encoder.to(device).eval(), weights, device, digest)

    @staticmethod
    def locate(context: EngineContext) -> tuple[Path, Path]:
        """Where the model is; nothing is imported. Raises ModelError where it is not here."""
        return _encoder_folder(context), _vocoder_file(context)

    def _heard(self, profile: SpeechProfile, clips: list[Analysed]) -> SpeechProfile:
        heard = [self._hear(clip.samples) for clip in clips if len(clip.samples) >= WINDOW]
        width = int(self._encoder.config.hidden_size)
        found = np.concatenate(heard) if heard else np.zeros((0, width), np.float32)
        kept = found.astype(np.float16).astype(np.float32)  # as a state file gives them back
        return replace(profile, sounds=kept, sounds_by=self._digest)

    def _hear(self, samples: Samples) -> Samples:
        """(n,) samples at 16 kHz -> (ceil(n / 320), d) frames."""
        import torch

        count = max(1, -(-len(samples) // HOP))
        padded = np.zeros((1, (count - 1) * HOP + WINDOW), np.float32)
        padded[0, : min(len(samples), padded.shape[1])] = samples[: padded.shape[1]]
        with torch.inference_mode():
            given = torch.from_numpy(padded).to(self._device)
            states = self._encoder(given, output_hidden_states=True).hidden_states[LAYER]
        return np.asarray(states[0].float().cpu().numpy(), np.float32)

    def voice_map(
        self, source: SpeechProfile, target: SpeechProfile, params: MappingParams | None = None
    ) -> KnnMap:
        """The target's sounds; nothing is fitted. Raises InputError for a voice without them."""
        import torch

        if target.sounds is None or target.sounds_by != self._digest or not len(target.sounds):
            raise InputError(
                "the voice was made by another engine, or by other weights of this one",
                "Clone it again.",
            )
        return KnnMap(
            bands=BANDS,
            voiced=[],
            unvoiced=[],
            source_level=source.level,
            log_f0=pitch_map(source, target),
            strength=1.0,
            high_band_db=high_band_change(source, target),
            warnings=bandwidth_warnings(source, target),
            sounds=torch.from_numpy(target.sounds).to(self._device),
        )

    def convert_and_tell(self, speech: Audio, voice: VoiceMap) -> tuple[Audio, float]:
        """Speech at any rate -> mono of the same rate, length and level contour, and 0.0.

        Raises EngineFailure where torch fails.
        """
        assert isinstance(voice, KnnMap)
        mono = to_mono(speech)
        if not mono.frames:
            return mono, 0.0
        low = resample(mono, RATE).samples[0]
        try:
            said = self._said(self._hear(low), voice)[: len(low)]
        except RuntimeError as error:
            raise EngineFailure(f"kNN-VC failed on {mono.duration:.2f} s: {error}") from error
        below, out = as_long_as(low, RATE, mono), as_long_as(levelled(said, low, RATE), RATE, mono)
        wanted, have = (float(np.square(x, dtype=np.float64).sum()) for x in (below, out))
        if have > 0:  # what the contour and the other rate have left
            out = out * np.float32(np.clip(np.sqrt(wanted / have), 0.5, 2.0))
        if mono.sample_rate > RATE:
            high = mono.samples[0] - below
            out = out + high * np.float32(10 ** (voice.high_band_db / 20))
        return Audio(out[None, :], mono.sample_rate), 0.0

    def _said(self, heard: Samples, voice: KnnMap) -> Samples:
        """(n, d) frames of the source -> (n * 320,) samples in the target's sounds."""
        import torch
        from torch.nn.functional import normalize

        with torch.inference_mode():
            pool = normalize(voice.sounds, dim=1).T
            count = min(NEIGHBOURS, len(voice.sounds))
            parts = []
            for at in range(0, len(heard), BLOCK):
                block = torch.from_numpy(heard[at : at + BLOCK]).to(self._device)
                nearest = (normalize(block, dim=1) @ pool).topk(count, dim=1).indices
                parts.append(voice.sounds[nearest].mean(dim=1))
            return np.asarray(
                hifi_gan.generate(self._vocoder, torch.cat(parts)).cpu().numpy(), np.float32
            )


def _chosen(context: EngineContext) -> Path | None:
    chosen = (context.options or {}).get("model")
    return Path(chosen).expanduser() if chosen else None


def _encoder_folder(context: EngineContext) -> Path:
    own = _chosen(context)
    if own is not None and not (own / "wavlm" / "config.json").is_file():
        raise ModelError(f"{own} holds no WavLM: there is no wavlm/config.json")
    name = ENCODER if own is None else str(own / "wavlm")
    return model_folder(
        replace(context, options={"model": name}), name, ("config.json",), "a WavLM"
    )


def _vocoder_file(context: EngineContext) -> Path:
    own = _chosen(context)
    if own is not None:
        found = sorted(own.glob("*.pt"))
        if len(found) != 1:
            raise ModelError(f"{own} holds {len(found)} .pt files: one is to be the vocoder")
        return found[0]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "torch"
    file = Path(os.environ.get("TORCH_HOME") or cache) / "hub" / "checkpoints" / VOCODER
    if not file.is_file():
        raise ModelError(
            "the vocoder of kNN-VC is not on this machine",
            f"curl -L --create-dirs -o {file} {RELEASE}",
        )
    return file
