"""CSM-1B (Sesame) speaks through transformers: English, in the voice of what it has heard before.

A language model over the codes of the Mimi codec that goes on from earlier sentences and their
sound. By itself it takes another voice for every sentence, so one sentence of its own, drawn with
the number of the option `voice`, is what it always goes on from. The weights are Apache-2.0 and
gated, with Llama 3.2's tokenizer; their card forbids imitating anybody without consent. Nothing is
fetched from here, and pickled weights are not read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from podtool.audio import Audio
from podtool.engines.hugging_face import classes
from podtool.engines.local_models import model_folder
from podtool.engines.protocols import EngineContext, EngineInfo
from podtool.errors import ConfigError, EngineFailure, ModelError
from podtool.resample import resample, to_mono

DEFAULT_MODEL = "sesame/csm-1b"
NEEDED = ("config.json", "*.safetensors", "tokenizer.json", "*processor_config.json")
OPENING = "I will read to you what is written here, calmly and clearly, from beginning to end."
PROMPT_S = 20.0  # of a reference: context is dear, 12.5 frames a second
SLOWEST_CHARS_S, SPARE_S = 8.0, 2.0  # a take that is longer than this allows has gone astray


@dataclass(frozen=True, slots=True)
class CsmVoice:
    """What the model goes on from: a text, and (n,) samples of it at the model's rate."""

    text: str
    samples: NDArray[np.float32]


class Csm:
    """Speech at the model's own pace; one seed, one take."""

    info: ClassVar[EngineInfo] = EngineInfo(
        name="csm",
        stage="speaking",
        version="1",
        licence="Apache-2.0, gated; tokenizer: Llama 3.2 Community License",
        tier="best",
        sample_rate=24000,
        runtimes=("cuda", "mps", "cpu"),
        packages=("torch", "transformers"),
        install="pip install 'podtool[csm]'",
        languages=("en",),
        options=("model", "voice"),
        paced=False,
        seeded=True,
    )
    clones = True

    def __init__(self, network: Any, processor: Any, voice: int = 0) -> None:
        self._network, self._processor = network, processor
        self._number = voice
        self._own: CsmVoice | None = None
        self.sample_rate = int(processor.feature_extractor.sampling_rate)
        self.language = "en"

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        """Options: `model` (folder or hub repository), `voice` (a number: which of the voices that
        the model makes up).

        Raises ModelError where the model is not on this machine or is none, ConfigError,
        EngineUnavailableError where transformers is missing or too old.
        """
        number = _number(context)
        folder = cls.locate(context)
        names = ("AutoProcessor", "CsmForConditionalGeneration")
        processors, networks = classes("CSM", cls.info.install, *names)
        import torch

        device = context.torch_device
        precision = torch.bfloat16 if device == "cuda" else torch.float32
        try:
            processor = processors.from_pretrained(folder, local_files_only=True)
            network = networks.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, dtype=precision
            )
        except Exception as error:
            raise ModelError(f"{folder} is not a CSM: {error}") from None
        return cls(network.to(device).eval(), processor, number)

    @staticmethod
    def locate(context: EngineContext) -> Path:
        """Where the model is; nothing is imported. Raises ModelError where it is not here."""
        try:
            return model_folder(context, DEFAULT_MODEL, NEEDED, "a CSM")
        except ModelError as error:
            if error.hint == f"hf download {DEFAULT_MODEL}":
                hint = f"Accept its terms at huggingface.co/{DEFAULT_MODEL}, then: {error.hint}"
                raise ModelError(error.message, hint) from None
            raise

    def speak(self, text: str, rate: float, seed: int) -> Iterator[Audio]:
        """Text -> one block of mono audio; the rate is not heeded."""
        if self._own is None:
            self._own = CsmVoice(OPENING, self._said(OPENING, None, self._number))
        return self.speak_as(text, self._own, seed)

    def speak_as(self, text: str, voice: CsmVoice, seed: int) -> Iterator[Audio]:
        """As `speak`, in a voice of `voice_of`. Raises EngineFailure where the model fails."""
        if text.strip():
            yield Audio(self._said(text.strip(), voice, seed)[None, :], self.sample_rate)

    def voice_of(self, reference: Audio, text: str = "") -> CsmVoice:
        """The voice of one person in a reference, and the words that are said in it."""
        heard = resample(to_mono(reference), self.sample_rate).samples[0]
        return CsmVoice(text, np.ascontiguousarray(heard[: round(PROMPT_S * self.sample_rate)]))

    def _said(self, text: str, voice: CsmVoice | None, seed: int) -> NDArray[np.float32]:
        """(n,) samples of a text."""
        import torch

        talk: list[dict[str, Any]] = []
        if voice is not None and len(voice.samples):
            heard = {"type": "audio", "audio": voice.samples}
            talk.append({"role": "0", "content": [{"type": "text", "text": voice.text}, heard]})
        talk.append({"role": "0", "content": [{"type": "text", "text": text}]})
        network = self._network
        codec = network.config.codec_config
        frames = (len(text) / SLOWEST_CHARS_S + SPARE_S) * codec.frame_rate
        devices = [network.device] if network.device.type == "cuda" else []
        try:
            inputs = self._processor.apply_chat_template(talk, tokenize=True, return_dict=True)
            inputs = inputs.to(network.device)
            if "input_values" in inputs:
                inputs["input_values"] = inputs["input_values"].to(network.dtype)
            with torch.inference_mode(), torch.random.fork_rng(devices=devices):
                torch.manual_seed(seed)
                found = network.generate(
                    **inputs,
                    output_audio=True,
                    max_new_tokens=int(frames),
                    do_sample=True,
                    depth_decoder_do_sample=True,
                )
        except (RuntimeError, ValueError, TypeError, IndexError, KeyError) as error:
            raise EngineFailure(f"CSM failed on {text[:40]!r}: {error}") from error
        samples = found[0].float().cpu().numpy().reshape(-1)
        if not np.isfinite(samples).all():
            raise EngineFailure(f"CSM answers {text[:40]!r} with sounds that are no numbers")
        return np.asarray(samples, np.float32)


def _number(context: EngineContext) -> int:
    given = (context.options or {}).get("voice") or "0"
    if not given.isdigit():
        raise ConfigError(
            f"the voice of CSM is a number, not {given!r}",
            "A clip of a person is made into a voice by `podtool clone`, with their consent.",
        )
    return int(given)
