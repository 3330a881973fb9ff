"""VoxCPM2 (OpenBMB, 2 B parameters) speaks thirty languages at 48 kHz, without being told which.

A language model over continuous sound: it takes another voice for every text unless it is given a
reference, so a sentence of its own, drawn with the number of the option `voice`, is what it always
hears first. Code and weights are Apache-2.0. Nothing is fetched from here; the weights are read as
tensors, and the package's denoiser, text normaliser and compiler are left out.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from podtool.audio import Audio
from podtool.engines.local_models import model_folder
from podtool.engines.protocols import EngineContext, EngineInfo
from podtool.engines.torchaudio_stub import make_harmless
from podtool.errors import ConfigError, EngineFailure, EngineUnavailableError, ModelError
from podtool.resample import resample, to_mono

DEFAULT_MODEL = "openbmb/VoxCPM2"
NEEDED = ("config.json", "model.safetensors", "audiovae.*", "tokenizer.json")
LANGUAGES = (
    "en", "zh", "ar", "my", "da", "nl", "fi", "fr", "de", "el", "he", "hi", "id", "it", "ja", "km",
    "ko", "lo", "ms", "no", "pl", "pt", "ru", "es", "sw", "sv", "tl", "th", "tr", "vi",
)  # fmt: skip
OPENING = "I will read to you what is written here, calmly and clearly, from beginning to end."
PROMPT_S = 20.0  # of a reference
SLOWEST_CHARS_S, SPARE_S = 8.0, 2.0  # a take that is longer than this allows has gone astray
STEPS, GUIDANCE = 10, 2.0  # the package's own


@dataclass(frozen=True, slots=True)
class VoxVoice:
    """Somebody as the model holds them: patches of sound."""

    patches: Any


class VoxCpm2:
    """Speech at the model's own pace; one seed, one take."""

    info: ClassVar[EngineInfo] = EngineInfo(
        name="voxcpm2",
        stage="speaking",
        version="1",
        licence="Apache-2.0",
        tier="best",
        sample_rate=48000,
        runtimes=("cuda", "mps", "cpu"),
        packages=("torch", "voxcpm"),
        install="podtool engines install voxcpm2",  # it brings a web server and pins datasets
        languages=LANGUAGES,
        options=("model", "voice", "language"),
        requires=("voxcpm==2.0.3", "soxr>=0.5"),
        paced=False,
        seeded=True,
    )
    clones = True

    def __init__(self, model: Any, voice: int = 0, language: str = "en") -> None:
        self._model, self._number = model, voice
        self._own: VoxVoice | None = None
        self.sample_rate = int(model.sample_rate)
        self.language = language

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        """Options: `model` (folder or hub repository), `voice` (a number: which of the voices that
        the model makes up), `language` (what the text is in; the model hears it by itself).

        Raises ModelError where the model is not on this machine or is none, ConfigError,
        EngineUnavailableError where the package does not run.
        """
        number, language = _number(context), (context.options or {}).get("language") or "en"
        if language not in LANGUAGES:
            raise ConfigError(
                f"VoxCPM2 does not speak {language!r}", f"It speaks: {', '.join(LANGUAGES)}"
            )
        folder = cls.locate(context)
        make_harmless()
        try:
            package = importlib.import_module("voxcpm.model.voxcpm2")
            import torch
        except Exception as error:  # of its many requirements any may break in its own way
            raise EngineUnavailableError(
                f"VoxCPM2 does not run here: {_line(error)}", cls.info.install
            ) from None
        if context.threads:
            torch.set_num_threads(context.threads)
        device = context.torch_device
        try:
            model = package.VoxCPM2Model.from_local(str(folder), optimize=False, device=device)
        except Exception as error:
            raise ModelError(f"{folder} is not a VoxCPM2: {_line(error)}") from None
        _refuse_partial(model, folder)
        return cls(model, number, language)

    @staticmethod
    def locate(context: EngineContext) -> Path:
        """Where the model is; nothing is imported. Raises ModelError where it is not here."""
        return model_folder(context, DEFAULT_MODEL, NEEDED, "a VoxCPM2")

    def speak(self, text: str, rate: float, seed: int) -> Iterator[Audio]:
        """Text -> one block of mono audio; the rate is not heeded."""
        if self._own is None:
            said = self._said(OPENING, None, self._number)
            self._own = self.voice_of(Audio(said[None, :], self.sample_rate))
        return self.speak_as(text, self._own, seed)

    def speak_as(self, text: str, voice: VoxVoice, seed: int) -> Iterator[Audio]:
        """As `speak`, in a voice of `voice_of`. Raises EngineFailure where the model fails."""
        text = " ".join(text.split())
        if text:
            yield Audio(self._said(text, voice, seed)[None, :], self.sample_rate)

    def voice_of(self, reference: Audio, text: str = "") -> VoxVoice:
        """The voice of one person in a reference; the words that are said in it are not needed."""
        import torch

        model = self._model
        rate = int(model.audio_vae.sample_rate)
        heard = resample(to_mono(reference), rate).samples[:, : round(PROMPT_S * rate)]
        patch = model.patch_size * model.chunk_size
        heard = np.pad(heard, ((0, 0), (0, -heard.shape[1] % patch)))
        with torch.inference_mode():
            given = torch.from_numpy(np.ascontiguousarray(heard)).to(model.device)
            found = model.audio_vae.encode(given, rate).cpu()
            shaped = found.view(model.audio_vae.latent_dim, -1, model.patch_size)
        return VoxVoice(shaped.permute(1, 2, 0))

    def _said(self, text: str, voice: VoxVoice | None, seed: int) -> NDArray[np.float32]:
        """(n,) samples of a text."""
        model = self._model
        patch_s = model.patch_size * model.audio_vae.decode_chunk_size / self.sample_rate
        patches = round((len(text) / SLOWEST_CHARS_S + SPARE_S) / patch_s)
        known = None
        if voice is not None:
            known = {"mode": "reference", "ref_audio_feat": voice.patches}
        try:
            with _seeded(str(model.device), seed):
                found, _, _ = model.generate_with_prompt_cache(
                    target_text=text,
                    prompt_cache=known,
                    max_len=patches,
                    inference_timesteps=STEPS,
                    cfg_value=GUIDANCE,
                )
        except (RuntimeError, ValueError, TypeError, IndexError, KeyError, AssertionError) as error:
            raise EngineFailure(f"VoxCPM2 failed on {text[:40]!r}: {_line(error)}") from error
        samples = np.asarray(found.float().cpu().numpy().reshape(-1), np.float32)
        if not np.isfinite(samples).all():
            raise EngineFailure(f"VoxCPM2 answers {text[:40]!r} with sounds that are no numbers")
        return samples


def _refuse_partial(model: Any, folder: Path) -> None:
    """The package takes weights of which a part is missing; it would stay random."""
    import torch
    from safetensors import safe_open

    have: set[str] = set()
    for name, prefix in (("model", ""), ("audiovae", "audio_vae.")):
        path = folder / f"{name}.safetensors"
        if path.is_file():
            with safe_open(str(path), framework="pt") as file:
                keys = list(file.keys())
        else:
            found = torch.load(folder / f"{name}.pth", "cpu", weights_only=True, mmap=True)
            keys = list(found.get("state_dict", found))
        have |= {f"{prefix}{key}" for key in keys}
    gone = [name for name, _ in model.named_parameters() if name not in have]
    if gone:
        raise ModelError(f"{folder} lacks {len(gone)} tensors, {gone[0]} among them")


@contextmanager
def _seeded(device: str, seed: int) -> Iterator[None]:
    """Within, torch draws by a seed; outside as before."""
    import torch

    devices = [torch.cuda.current_device()] if device.startswith("cuda") else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def _number(context: EngineContext) -> int:
    given = (context.options or {}).get("voice") or "0"
    if not given.isdigit():
        raise ConfigError(
            f"the voice of VoxCPM2 is a number, not {given!r}",
            "A clip of a person is made into a voice by `podtool clone`, with their consent.",
        )
    return int(given)


def _line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
