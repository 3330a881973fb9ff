"""Chatterbox (Resemble AI) speaks English and lends a voice to speech, by one and the same decoder.

Speech is 25 tokens a second, which say what is said and not by whom; a decoder makes sound of them
in the voice of a reference of up to 10 s. A language model writes the tokens of a text; of speech
they are heard. Code and weights are MIT. Everything that it makes carries the package's watermark
(Perth), as its authors want it. The English model of `ResembleAI/chatterbox` is meant; nothing is
fetched from here.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from podtool.audio import Audio
from podtool.dsp import overlap_add, window_starts
from podtool.engines.level_contour import as_long_as, levelled
from podtool.engines.local_models import model_folder
from podtool.engines.protocols import EngineContext, EngineInfo
from podtool.engines.torchaudio_stub import make_harmless
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
from podtool.errors import EngineFailure, EngineUnavailableError, InputError, ModelError
from podtool.resample import resample, to_mono

DEFAULT_MODEL = "ResembleAI/chatterbox"
DECODER = "s3gen.safetensors"
OWN_VOICE = "conds.pt"
SPEAKING_FILES = ("ve.safetensors", "t3_cfg.safetensors", DECODER, "tokenizer.json", OWN_VOICE)
INSTALL = "podtool engines install chatterbox"  # the package pins torch 2.6 and numpy below 2
REQUIRES = (
    "chatterbox-tts==0.1.7",
    "setuptools<81",  # the watermark and WORLD import pkg_resources
    "pyworld>=0.3.5",
    "soxr>=0.5",
)
RATE, HEARD_AT = 24000, 16000  # of what is said, and of what is heard, in Hz
TOKENS_S = 25
PROMPT_S, MANNER_S = 10.0, 6.0  # of a reference: for its sound, and for its manner of speaking
SLOWEST_CHARS_S, SPARE_S, LONGEST_S = 8.0, 2.0, 40.0  # a longer take has gone astray
EXAGGERATION, GUIDANCE, TEMPERATURE, REPETITION, MIN_P = 0.5, 0.5, 0.8, 1.2, 0.05  # its defaults
WINDOW_S, SHARED_S = 20.0, 1.0  # converted at once, and what neighbours share of it
FEWEST = 4  # tokens that the decoder makes sound of
MELS, EMBEDDING, TOKEN_BASE = 80, 192, 81  # of a voice's rows; 81 * 81 tokens

Samples = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ChatterboxVoice:
    """Somebody as the language model and as the decoder know them."""

    manner: Any
    sound: dict[str, Any]


class Chatterbox:
    """Speech at the model's own pace; one seed, one take."""

    info: ClassVar[EngineInfo] = EngineInfo(
        name="chatterbox",
        stage="speaking",
        version="1",
        licence="MIT; what it says carries an inaudible watermark",
        tier="best",
        sample_rate=RATE,
        runtimes=("cuda", "mps", "cpu"),
        packages=("torch", "chatterbox"),
        install=INSTALL,
        languages=("en",),
        options=("model",),
        requires=REQUIRES,
        paced=False,
        seeded=True,
    )
    clones = True
    sample_rate = RATE
    language = "en"

    def __init__(self, model: Any, own: ChatterboxVoice, device: str) -> None:
        self._model, self._own, self._device = model, own, device

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        """Option: `model`, a folder or a repository in the hub's cache.

        Raises ModelError where the model is not on this machine or is none, EngineUnavailableError
        where the package does not run.
        """
        folder = cls.locate(context)
        [package] = _modules("tts")
        device = context.torch_device
        _threads(context)
        try:
            model = package.ChatterboxTTS.from_local(folder, device)
        except Exception as error:
            raise ModelError(f"{folder} is not a Chatterbox: {_line(error)}") from None
        _refuse_partial(model.s3gen, folder / DECODER)
        own = ChatterboxVoice(model.conds.t3, model.conds.gen)
        return cls(model, own, device)

    @staticmethod
    def locate(context: EngineContext) -> Path:
        """Where the model is; nothing is imported. Raises ModelError where it is not here."""
        return _folder(context, SPEAKING_FILES)

    def speak(self, text: str, rate: float, seed: int) -> Iterator[Audio]:
        """Text -> one block of mono audio; the rate is not heeded."""
        return self.speak_as(text, self._own, seed)

    def speak_as(self, text: str, voice: ChatterboxVoice, seed: int) -> Iterator[Audio]:
        """As `speak`, in a voice of `voice_of`. Raises EngineFailure where the model fails."""
        if text.strip():
            yield Audio(self._said(text.strip(), voice, seed)[None, :], RATE)

    def voice_of(self, reference: Audio, text: str = "") -> ChatterboxVoice:
        """The voice of one person in a reference; the words that are said in it are not needed."""
        import torch

        mono = to_mono(reference)
        low = resample(mono, HEARD_AT).samples[0]
        model = self._model
        [cond] = _modules("models.t3.modules.cond_enc")
        with torch.inference_mode():
            sound = _sound_of(model.s3gen, mono, self._device)
            tokens, _ = model.s3gen.tokenizer(
                [low[: round(MANNER_S * HEARD_AT)]], max_len=model.t3.hp.speech_cond_prompt_len
            )
            person = model.ve.embeds_from_wavs([np.array(low)], sample_rate=HEARD_AT)
            manner = cond.T3Cond(
                speaker_emb=torch.from_numpy(person).mean(0, keepdim=True),
                cond_prompt_speech_tokens=tokens,
                emotion_adv=EXAGGERATION * torch.ones(1, 1, 1),
            ).to(device=self._device)
        return ChatterboxVoice(manner, sound)

    def _said(self, text: str, voice: ChatterboxVoice, seed: int) -> Samples:
        """(n,) samples of a text, with the watermark."""
        import torch
        from torch.nn.functional import pad

        model, settings = self._model, self._model.t3.hp
        [package] = _modules("tts")
        seconds = min(LONGEST_S, len(text) / SLOWEST_CHARS_S + SPARE_S)
        try:
            tokens = model.tokenizer.text_to_tokens(package.punc_norm(text)).to(self._device)
            tokens = torch.cat([tokens, tokens])  # with and without the text: guidance
            tokens = pad(tokens, (1, 0), value=settings.start_text_token)
            tokens = pad(tokens, (0, 1), value=settings.stop_text_token)
            with torch.inference_mode(), _seeded(self._device, seed):
                spoken = model.t3.inference(
                    t3_cond=replace(voice.manner),
                    text_tokens=tokens,
                    max_new_tokens=round(seconds * TOKENS_S),
                    temperature=TEMPERATURE,
                    cfg_weight=GUIDANCE,
                    repetition_penalty=REPETITION,
                    min_p=MIN_P,
                    top_p=1.0,
                )[0]
                spoken = spoken[spoken < TOKEN_BASE * TOKEN_BASE].to(self._device)
                if not len(spoken):
                    return np.zeros(0, np.float32)
                found = _sounded(model.s3gen, spoken[None], voice.sound)
            return _marked(model.watermarker, found)
        except (RuntimeError, ValueError, TypeError, IndexError, KeyError, AssertionError) as error:
            raise EngineFailure(f"Chatterbox failed on {text[:40]!r}: {_line(error)}") from error


@dataclass(frozen=True, slots=True)
class ChatterboxMap(VoiceMap):
    """The sound of the target; the rest is as the stages know it, and the mapping is empty."""

    sound: Any = None


class ChatterboxVc(World):
    """The converter; a voice of it is one of WORLD's with the decoder's reference in it."""

    info: ClassVar[EngineInfo] = EngineInfo(
        name="chatterbox",
        stage="conversion",
        version="1",
        licence="MIT; what it converts carries an inaudible watermark",
        tier="best",
        sample_rate=0,
        runtimes=("cuda", "mps", "cpu"),
        packages=("torch", "chatterbox", "pyworld"),
        install=INSTALL,
        options=("model",),
        requires=REQUIRES,
    )

    def __init__(self, decoder: Any, watermark: Any, device: str) -> None:
        self._decoder, self._watermark, self._device = decoder, watermark, device
        first = decoder.flow.input_embedding.weight.detach().float().cpu().numpy()
        self._digest = hashlib.sha256(first.tobytes()).hexdigest()

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        """Option: `model`, a folder or a repository in the hub's cache.

        Raises ModelError where the model is not on this machine or is none, EngineUnavailableError
        where the package does not run.
        """
        folder = cls.locate(context)
        decoders, converter = _modules("models.s3gen", "vc")
        from safetensors.torch import load_file

        device = context.torch_device
        _threads(context)
        decoder = decoders.S3Gen()
        try:
            decoder.load_state_dict(load_file(folder / DECODER), strict=False)
        except Exception as error:
            raise ModelError(f"{folder} is not a Chatterbox: {_line(error)}") from None
        _refuse_partial(decoder, folder / DECODER)
        watermark = converter.perth.PerthImplicitWatermarker()
        return cls(decoder.to(device).eval(), watermark, device)

    @staticmethod
    def locate(context: EngineContext) -> Path:
        """Where the model is; nothing is imported. Raises ModelError where it is not here."""
        return _folder(context, (DECODER,))

    def _heard(self, profile: SpeechProfile, clips: list[Analysed]) -> SpeechProfile:
        """The profile with the decoder's reference in it: rows of mels and their tokens, at half
        the rate of the rows, after three rows with the embedding."""
        import torch

        joined = np.concatenate([clip.samples for clip in clips] or [np.zeros(0, np.float32)])
        rows = np.zeros((0, MELS + 2), np.float32)
        if len(joined) >= HEARD_AT // 2:
            with torch.inference_mode():
                sound = _sound_of(self._decoder, Audio(joined[None, :], HEARD_AT), self._device)
            rows = _as_rows(sound)
        kept = rows.astype(np.float16).astype(np.float32)  # as a state file gives them back
        return replace(profile, sounds=kept, sounds_by=self._digest)

    def voice_map(
        self, source: SpeechProfile, target: SpeechProfile, params: MappingParams | None = None
    ) -> ChatterboxMap:
        """The target's sound; nothing is fitted. Raises InputError for a voice without it."""
        rows = target.sounds
        if rows is None or target.sounds_by != self._digest or rows.shape[1] != MELS + 2:
            raise InputError(
                "the voice was made by another engine, or by other weights of this one",
                "Clone it again.",
            )
        if not len(rows):
            raise InputError("there is less than half a second of the voice", "Clone more of it.")
        return ChatterboxMap(
            bands=BANDS,
            voiced=[],
            unvoiced=[],
            source_level=source.level,
            log_f0=pitch_map(source, target),
            strength=1.0,
            high_band_db=high_band_change(source, target),
            warnings=bandwidth_warnings(source, target),
            sound=_of_rows(rows, self._device),
        )

    def convert_and_tell(self, speech: Audio, voice: VoiceMap) -> tuple[Audio, float]:
        """Speech at any rate -> mono of the same rate, length and level contour, and 0.0.

        What it holds above 12 kHz is lost. Raises EngineFailure where the model fails.
        """
        assert isinstance(voice, ChatterboxMap)
        mono = to_mono(speech)
        if not mono.frames:
            return mono, 0.0
        given = resample(mono, RATE)
        window = min(given.frames, round(WINDOW_S * RATE))
        hop = window if window == given.frames else window - round(SHARED_S * RATE)

        def said() -> Iterator[Samples]:
            for start in window_starts(given.frames, window, hop):
                piece = given.samples[:, start : start + window]
                made = self._said(Audio(np.ascontiguousarray(piece), RATE), voice.sound)
                yield np.pad(made, ((0, 0), (0, window - made.shape[1])))

        try:
            parts = list(overlap_add(said(), given.frames, window, hop))
        except (RuntimeError, ValueError, IndexError, AssertionError) as error:
            raise EngineFailure(
                f"Chatterbox failed on {mono.duration:.2f} s: {_line(error)}"
            ) from error
        made = levelled(np.concatenate(parts, axis=1)[0], given.samples[0], RATE)
        return Audio(as_long_as(made, RATE, mono)[None, :], mono.sample_rate), 0.0

    def _said(self, speech: Audio, sound: dict[str, Any]) -> Samples:
        """(1, n) at 24 kHz in another voice, as long as it was."""
        import torch

        frames = speech.frames
        low = resample(speech, HEARD_AT).samples
        token = HEARD_AT // TOKENS_S  # which needs all of its 40 ms
        length = max(FEWEST, -(-low.shape[1] // token)) * token
        low = np.pad(low, ((0, 0), (0, length - low.shape[1])))
        with torch.inference_mode(), _seeded(self._device, 0):
            tokens, _ = self._decoder.tokenizer(torch.from_numpy(low).to(self._device))
            found = _sounded(self._decoder, tokens, sound)
        found = _marked(self._watermark, found)[:frames]
        return np.asarray(np.pad(found, (0, frames - len(found)))[None, :], np.float32)


def _folder(context: EngineContext, needed: tuple[str, ...]) -> Path:
    try:
        return model_folder(context, DEFAULT_MODEL, needed, "a Chatterbox")
    except ModelError as error:
        # The repository holds further models, of several GB.
        if error.hint == f"hf download {DEFAULT_MODEL}":
            raise ModelError(error.message, f"{error.hint} {' '.join(needed)}") from None
        raise


def _modules(*names: str) -> list[Any]:
    """Modules of the package by name. Raises EngineUnavailableError where it does not run."""
    make_harmless()
    try:
        perth = importlib.import_module("perth")
        if perth.PerthImplicitWatermarker is None:  # it says no more
            raise ImportError("its watermark needs setuptools below 81")
        return [importlib.import_module(f"chatterbox.{name}") for name in names]
    except Exception as error:  # of its many requirements any may break in its own way
        raise EngineUnavailableError(
            f"Chatterbox does not run here: {_line(error)}", INSTALL
        ) from None


def _threads(context: EngineContext) -> None:
    import torch

    if context.threads:
        torch.set_num_threads(context.threads)


@contextmanager
def _seeded(device: str, seed: int) -> Iterator[None]:
    """Within, torch draws by a seed; outside as before."""
    import torch

    devices = [torch.cuda.current_device()] if device == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def _refuse_partial(decoder: Any, path: Path) -> None:
    """The package takes a decoder of which a part is missing; it would stay random."""
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as file:
        have = set(file.keys())
    gone = [name for name, _ in decoder.named_parameters() if name not in have]
    if gone:
        raise ModelError(f"{path.name} lacks {len(gone)} tensors, {gone[0]} among them")


def _sound_of(decoder: Any, reference: Audio, device: str) -> dict[str, Any]:
    """What the decoder goes on from, of the first 10 s of a reference."""
    heard = resample(to_mono(reference), RATE).samples[0][: round(PROMPT_S * RATE)]
    heard = heard[: len(heard) // (RATE // TOKENS_S) * (RATE // TOKENS_S)]  # mels and tokens agree
    return dict(decoder.embed_ref(np.ascontiguousarray(heard), RATE, device=device))


def _sounded(decoder: Any, tokens: Any, sound: dict[str, Any]) -> Samples:
    """(1, n) tokens -> (m,) samples."""
    found, _ = decoder.inference(speech_tokens=tokens, ref_dict=dict(sound))
    samples = np.asarray(found.squeeze(0).float().cpu().numpy(), np.float32)
    if not np.isfinite(samples).all():
        raise ValueError("sounds that are no numbers")
    return samples


def _marked(watermark: Any, samples: Samples) -> Samples:
    """(n,) with the package's watermark in it."""
    marked = watermark.apply_watermark(np.ascontiguousarray(samples), sample_rate=RATE)
    return np.asarray(marked, np.float32)


def _as_rows(sound: dict[str, Any]) -> Samples:
    """(3 + n, 82): the embedding, then mels and tokens, in digits that float16 holds exactly."""
    mels = sound["prompt_feat"][0].float().cpu().numpy()
    tokens = sound["prompt_token"][0].cpu().numpy()
    head = np.zeros((3, MELS + 2), np.float32)
    head[:, :64] = sound["embedding"].float().cpu().numpy().reshape(3, EMBEDDING // 3)
    body = np.zeros((2 * len(tokens), MELS + 2), np.float32)
    body[:, :MELS] = mels[: len(body)]
    body[:, MELS], body[:, MELS + 1] = np.repeat(np.divmod(tokens, TOKEN_BASE), 2, axis=1)
    return np.concatenate([head, body])


def _of_rows(rows: Samples, device: str) -> dict[str, Any]:
    import torch

    body = rows[3:]
    digits = body[::2, MELS:].round().astype(np.int64)
    tokens = torch.from_numpy(digits[:, 0] * TOKEN_BASE + digits[:, 1])[None]
    return {
        "prompt_token": tokens.to(device),
        "prompt_token_len": torch.tensor([tokens.shape[1]]).to(device),
        "prompt_feat": torch.from_numpy(body[None, :, :MELS].copy()).to(device),
        "prompt_feat_len": None,
        "embedding": torch.from_numpy(rows[:3, :64].reshape(1, -1).copy()).to(device),
    }


def _line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
