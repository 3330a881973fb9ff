"""Pocket TTS (Kyutai, 100 M parameters) speaks on a CPU: six languages, voices of a catalogue.

The code is MIT and the weights are CC-BY-4.0; those that can clone a voice are gated, each voice of
the catalogue has a licence of its own (huggingface.co/kyutai/tts-voices; some are non-commercial).
The files are those of the hub's cache, in the revisions that the package pins, or a folder of the
user's own: nothing is fetched from here.
"""

from __future__ import annotations

import importlib.util
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from podtool.audio import Audio
from podtool.engines.protocols import EngineContext, EngineInfo
from podtool.errors import ConfigError, EngineFailure, EngineUnavailableError, ModelError
from podtool.resample import resample, to_mono

DEFAULT_VOICE = "alba"  # CC-BY-4.0
LANGUAGES = {
    "en": "english", "fr": "french", "de": "german", "pt": "portuguese", "it": "italian",
    "es": "spanish",
}  # fmt: skip
PROMPT_S = 30.0  # of a reference; the model was trained on no more


class PocketVoice:
    """A voice as the model holds it: its state after having heard somebody."""

    def __init__(self, state: Any) -> None:
        self._state = state


class PocketTts:
    """Speech at the model's own pace; one seed, one take."""

    info: ClassVar[EngineInfo] = EngineInfo(
        name="pocket-tts",
        stage="speaking",
        version="1",
        licence="MIT; weights CC-BY-4.0, gated for cloning; voices by their own licences",
        tier="standard",
        sample_rate=24000,
        packages=("torch", "pocket_tts"),
        install="pip install 'podtool[pocket-tts]'",
        languages=tuple(LANGUAGES),
        options=("model", "voice", "language"),
        paced=False,
        seeded=True,
    )

    def __init__(self, model: Any, voice: PocketVoice, language: str = "en") -> None:
        self._model, self._voice = model, voice
        self.language = language
        self.sample_rate = int(model.sample_rate)
        self.clones = bool(model.has_voice_cloning)

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        """Options: `language` (en, fr, de, pt, it, es), `voice` (a name of the catalogue, or a
        .safetensors file of `pocket-tts export-voice`), `model` (a folder with a .yaml file whose
        paths are relative to it, in place of the released weights).

        Raises ModelError where files are missing, with the lines that fetch them, ConfigError.
        """
        try:
            import torch
            from pocket_tts import TTSModel
        except (ImportError, OSError) as error:
            raise EngineUnavailableError(
                f"pocket-tts does not run here: {error}", cls.info.install
            ) from None
        options = context.options or {}
        language, config = _language(options), _config_of(options)
        voice = _voice_file(options)
        if context.threads:
            torch.set_num_threads(context.threads)
        with tempfile.TemporaryDirectory(prefix="podtool-") as folder:
            path = Path(folder) / "model.yaml"
            path.write_text(json.dumps(config), "utf-8")  # which is YAML
            try:
                model = TTSModel.load_model(config=path).to(_device(context))
                state = model.get_state_for_audio_prompt(voice)
            except Exception as error:
                raise ModelError(
                    f"pocket-tts cannot load {config['weights_path']}: {error}"
                ) from None
        # How frames gather into calls of the decoder depends on timing, and its rounding on that.
        model.max_decoder_frames_per_call = 1
        model.has_voice_cloning = "without-voice-cloning" not in config["weights_path"]
        return cls(model, PocketVoice(state), language)

    @staticmethod
    def locate(context: EngineContext) -> dict[str, Any] | None:
        """Where the model's parts are; the package alone knows. Raises ModelError."""
        if importlib.util.find_spec("pocket_tts") is None:
            return None
        return _config_of(context.options or {})

    def speak(self, text: str, rate: float, seed: int) -> Iterator[Audio]:
        """Text -> blocks of mono audio; the rate is not heeded."""
        return self.speak_as(text, self._voice, seed)

    def speak_as(self, text: str, voice: PocketVoice, seed: int) -> Iterator[Audio]:
        """As `speak`, in a voice of `voice_of`. Raises EngineFailure where the model fails."""
        import torch

        if not text.strip():
            return
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            try:
                parts = [
                    np.asarray(p.cpu().numpy(), np.float32).reshape(1, -1)
                    for p in self._model.generate_audio_stream(voice._state, text)
                ]
            except (RuntimeError, ValueError, AssertionError) as error:
                raise EngineFailure(f"pocket-tts failed on {text[:40]!r}: {error}") from error
        for samples in parts:
            yield Audio(samples, self.sample_rate)

    def voice_of(self, reference: Audio, text: str = "") -> PocketVoice:
        """The voice heard in a reference, up to 30 s of one person; `text` is not needed.

        Raises ModelError where the weights are those that cannot clone.
        """
        import torch

        if not self.clones:
            raise ModelError(
                "these weights of pocket-tts cannot clone a voice",
                "Accept the terms at huggingface.co/kyutai/pocket-tts, then: "
                "hf auth login && hf download kyutai/pocket-tts",
            )
        heard = resample(to_mono(reference), self.sample_rate)
        samples = heard.samples[:, : round(PROMPT_S * self.sample_rate)]
        with torch.random.fork_rng(devices=[]):
            state = self._model.get_state_for_audio_prompt(torch.from_numpy(samples.copy()))
        return PocketVoice(state)


def _device(context: EngineContext) -> str:
    return "cuda" if context.device == "cuda" else "cpu"  # it is small: Apple's GPU gains nothing


def _language(options: dict[str, str]) -> str:
    language = options.get("language") or "en"
    if language not in LANGUAGES:
        raise ConfigError(
            f"pocket-tts does not speak {language!r}", f"It speaks: {', '.join(LANGUAGES)}"
        )
    return language


def _config_of(options: dict[str, str]) -> dict[str, Any]:
    """The model's configuration with local paths in it. Raises ModelError for what is missing."""
    chosen = options.get("model")
    return _own(Path(chosen).expanduser()) if chosen else _released(LANGUAGES[_language(options)])


def _own(folder: Path) -> dict[str, Any]:
    """The configuration in a folder of the user's own."""
    found = sorted(folder.glob("*.yaml"))
    if len(found) != 1:
        raise ModelError(
            f"{folder} is not a model of pocket-tts: it holds {len(found)} .yaml files"
        )

    def local(path: str) -> str:
        if "://" in path or not (folder / path).is_file():
            raise ModelError(f"{folder} holds no {path}")
        return str(folder / path)

    return _with_paths(_read(found[0]), local)


def _released(language: str) -> dict[str, Any]:
    """The released model of a language out of the hub's cache; cloning weights where they lie."""
    spec = importlib.util.find_spec("pocket_tts")
    if spec is None or spec.origin is None:
        raise ModelError("pocket_tts is not installed", PocketTts.info.install)
    config = _read(Path(spec.origin).parent / "config" / f"{language}.yaml")
    public = config.pop("weights_path_without_voice_cloning", config["weights_path"])
    if _cached(config["weights_path"]) is None:
        config["weights_path"] = public
    gone: list[str] = []

    def local(origin: str) -> str:
        found = _cached(origin)
        if found is None:
            gone.append(origin)
        return str(found)

    found = _with_paths(config, local)
    if gone:
        raise ModelError(
            f"weights of pocket-tts ({language}) are not on this machine",
            " && ".join(_fetch(origin) for origin in gone),
        )
    return found


def _voice_file(options: dict[str, str]) -> Path:
    """The file of the option `voice`. Raises ConfigError for a clip, ModelError for none."""
    name, chosen = options.get("voice") or DEFAULT_VOICE, options.get("model")
    if name.endswith(".safetensors"):
        own = Path(name).expanduser()
        if not own.is_file():
            raise ModelError(f"there is no voice {own}")
        return own
    if "/" in name or "." in name:
        raise ConfigError(
            f"{name} is no voice of pocket-tts's own",
            "A clip of a person is made into a voice by `podtool clone`, with their consent.",
        )
    if chosen:
        own = Path(chosen).expanduser() / f"{name}.safetensors"
        if not own.is_file():
            raise ModelError(f"there is no voice {own}", "Name a .safetensors file as the voice.")
        return own
    from pocket_tts.utils.utils import get_predefined_voice

    origin = get_predefined_voice(LANGUAGES[_language(options)], name)
    found = _cached(origin)
    if found is None:
        raise ModelError(f"the voice {name} of pocket-tts is not on this machine", _fetch(origin))
    return found


def _read(path: Path) -> dict[str, Any]:
    import yaml

    try:
        config = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from None
    if not isinstance(config, dict) or not {"flow_lm", "mimi", "weights_path"} <= config.keys():
        raise ModelError(f"{path} does not describe a model of pocket-tts")
    return config


def _with_paths(config: dict[str, Any], local: Callable[[str], str]) -> dict[str, Any]:
    """The configuration with every path in it passed through `local`."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            found[key] = _with_paths(value, local)
        elif isinstance(value, str) and (key.startswith("weights_path") or key == "tokenizer_path"):
            found[key] = local(value)
        else:
            found[key] = value
    return found


def _parts(origin: str) -> tuple[str, str, str]:
    """hf://org/name/file@revision -> org/name, file, revision."""
    path, _, revision = origin.removeprefix("hf://").partition("@")
    org, name, file = path.split("/", 2)
    return f"{org}/{name}", file, revision or "main"


def _cached(origin: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    repo, file, revision = _parts(origin)
    found = try_to_load_from_cache(repo, file, revision=revision)
    return Path(found) if isinstance(found, str) else None


def _fetch(origin: str) -> str:
    repo, file, revision = _parts(origin)
    return f"hf download {repo} {file} --revision {revision}"
