"""podtool's own voice converter: what is said, said again in the mel-cepstra of an enrolled voice.

Moonshine's encoder hears the speech, a small network tells its sounds without the speaker and gives
their envelope in the target's voice, which it looks up in the enrolment (`voice_podtool_model`).
Pitch, aperiodicity, the band above 8 kHz and the level are treated as by `voice_world`, which also
draws what it is given as sound. Two things follow the network, both fitted to the enrolment alone,
so that more of it helps: its last layer, by ridge regression, and optimal transport of all that it
makes of the source onto what the target's frames are like, which restores their spread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from podtool.engines import converter_frames as seen
from podtool.engines.converter_frames import DCT, Habits
from podtool.engines.moonshine_decoder import MoonshineModel
from podtool.engines.onnx_session import only_file, open_session
from podtool.engines.protocols import EngineContext, EngineInfo
from podtool.engines.transcription_moonshine import level
from podtool.engines.voice_world import (
    VOICING_FRAMES,
    Analysed,
    VoiceMap,
    World,
    bandwidth_warnings,
    high_band_change,
    in_speech,
    pitch_map,
)
from podtool.engines.world_frames import BANDS, Floats, Frames, smooth
from podtool.engines.world_mapping import MappingParams, apply, fit
from podtool.engines.world_profile import SpeechProfile, speech_frames
from podtool.errors import InputError, ModelError

if TYPE_CHECKING:
    from podtool.engines.voice_podtool_model import Converter

KNOWN_FRAMES = 6000  # 60 s of the target that may be looked up; more is thinned out evenly
FOLDS = 4  # parts of the enrolment, each said from the others to see what the network gets wrong
RIDGE_FRAMES = 400.0  # of enrolment, against which the last layer is refitted
SURE = (0.25, 0.5)  # probability of the likeliest phone: the source's timbre below, the voice above
SURE_FRAMES = 21  # of 10 ms, over which that is smoothed

Samples = NDArray[np.float32]


class Network:
    """The two halves of the converter through onnxruntime."""

    def __init__(self, path: Path, threads: int) -> None:
        self._session = open_session(path, threads)
        shapes = {i.name: i.shape for i in self._session.get_inputs()}
        self.sounds = int(shapes["sounds"][2])
        self.digest = str(self._session.get_modelmeta().custom_metadata_map.get("weights", ""))
        self._none = {
            "states": np.zeros((1, 1, seen.STATES), np.float32),
            "shape": np.zeros((1, 1, seen.SHAPE), np.float32),
            "sounds": np.zeros((1, 1, self.sounds), np.float32),
            "pitch": np.zeros((1, 1, seen.PITCH), np.float32),
            "known_sounds": np.zeros((1, 1, self.sounds), np.float32),
            "known_cepstra": np.zeros((1, 1, seen.CEPSTRA), np.float32),
            "voice": np.zeros((1, seen.VOICE), np.float32),
        }

    def listen(self, states: Samples, shape: Samples) -> tuple[Samples, Samples]:
        """(n, 288) and (n, 31) -> sounds (n, k) and the probabilities of phones (n, 40)."""
        return self._run(("heard", "phones"), {"states": states, "shape": shape})

    def speak(self, sounds: Samples, pitch: Samples, known: Known) -> tuple[Samples, Samples]:
        """(n, k) and (n, 4) -> cepstra (n, 40) and what they are a linear function of (n, c)."""
        given = {"sounds": sounds, "pitch": pitch, "known_sounds": known.sounds}
        given |= {"known_cepstra": known.cepstra, "voice": known.voice}
        return self._run(("cepstra", "hidden"), given)

    def _run(self, names: tuple[str, str], given: dict[str, Samples]) -> tuple[Samples, Samples]:
        feed = self._none | {k: np.asarray(v[None], np.float32) for k, v in given.items()}
        first, second = self._session.run(list(names), feed)
        return first[0], second[0]


class Speaker(Protocol):
    """The half that speaks: that of all voices, or one with the weights of a voice."""

    def speak(self, sounds: Samples, pitch: Samples, known: Known) -> tuple[Samples, Samples]: ...


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a voice, 10 ms apart: sounds (m, k), cepstra (m, 40), F0 (m,), and its
    means and spreads (161,)."""

    sounds: Samples
    cepstra: Samples
    f0: Samples
    voice: Samples
    habits: Habits

    @classmethod
    def of(cls, profile: SpeechProfile) -> Known:
        assert profile.sounds is not None
        step = max(2, -(-len(profile.f0) // KNOWN_FRAMES))
        habits = Habits.of(profile.envelope, profile.f0)
        sounds, envelope = profile.sounds[::step], profile.envelope[::step]
        return cls.of_frames(sounds, envelope, profile.f0[::step], habits)

    @classmethod
    def of_frames(cls, sounds: Samples, envelope: Samples, f0: Samples, habits: Habits) -> Known:
        """From sounds (m, k), envelopes (m, 80) and F0 (m,) of speech, 10 ms apart or more."""
        cepstra = seen.cepstra(envelope, habits.level)
        return cls(sounds, cepstra, f0, seen.voice(cepstra, f0, habits), habits)

    def part(self, chosen: NDArray[np.bool_]) -> Known:
        """Some of its frames."""
        return replace(
            self, sounds=self.sounds[chosen], cepstra=self.cepstra[chosen], f0=self.f0[chosen]
        )


@dataclass(frozen=True, slots=True)
class LearntMap(VoiceMap):
    """From one person to another: `voiced` and `unvoiced` are steps on what the network gives."""

    source: Habits | None = None
    known: Known | None = None
    last: Floats | None = None  # (c + 1, 40) added to the network's last layer
    speaker: Speaker | None = None  # the network's half, or that of the voice's own weights


class PodtoolVoice(World):
    """The converter; a voice of it is one of WORLD's in which the sounds stand too."""

    info: ClassVar[EngineInfo] = EngineInfo(
        name="podtool",
        stage="conversion",
        version="2",
        licence="MIT",
        tier="embedded",
        sample_rate=0,
        models=("podtool-converter", "moonshine-tiny-en"),
        packages=("pyworld", "onnxruntime"),
        install=World.info.install,
    )

    def __init__(
        self,
        network: Network,
        encode: Callable[[Samples], Samples],
        weights: Callable[[], Path] | None = None,
    ) -> None:
        """`encode`: 16 kHz samples (1, n) -> the recogniser's states (1, m, 288); `weights`: the
        file that the network was converted from, which adapting it takes."""
        self._network, self._encode, self._weights = network, encode, weights

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        """Raises ModelError where the weights are missing."""
        path = only_file(context.model("podtool-converter"), "converter.onnx")
        recogniser = MoonshineModel(context.model("moonshine-tiny-en"), context.threads)
        source = getattr(context.store, "source", None)  # a worker's store has none
        return cls(
            Network(path, context.threads),
            recogniser.encode,
            None if source is None else lambda: source(cls.info.models[0], path.name),
        )

    @property
    def speaking(self) -> Speaker:
        """What speaks in voices without weights of their own."""
        return self._network

    def taught(self) -> Converter:
        """The network as it was taught, in torch. Raises ModelError where its file is not there or
        not the one that this engine was made of."""
        from podtool.audio import sha256_of
        from podtool.engines.voice_podtool_model import load

        if self._weights is None:
            raise ModelError("the weights of this converter are not to be had in a form to adapt")
        path = self._weights()
        if sha256_of(path)[:16] != self._network.digest:
            raise ModelError(
                f"{path} is not what the converter was made of",
                f"podtool models pull {self.info.models[0]}",
            )
        return load(path)

    def _heard(self, profile: SpeechProfile, clips: list[Analysed]) -> SpeechProfile:
        habits = Habits.of(profile.envelope, profile.f0)
        found, envelopes = [], []
        for clip in clips:
            sounds, _ = self.listen(clip.samples, clip.frames, habits)
            found.append(np.repeat(sounds, 2, axis=0)[: len(clip.frames.f0)])
            envelopes.append(clip.frames.envelope)
        sounds = np.zeros((0, self._network.sounds), np.float32)
        if clips:  # as in the profile, without silence
            sounds = np.concatenate(found)[speech_frames(np.concatenate(envelopes))]
        sounds = sounds.astype(np.float16).astype(np.float32)  # as a state file would give them
        return replace(profile, sounds=sounds, sounds_by=self._network.digest)

    def listen(self, samples: Samples, frames: Frames, habits: Habits) -> tuple[Samples, Samples]:
        """Sounds and phones of 16 kHz samples, 10 ms apart."""
        envelope = frames.envelope[::2]
        prepared = level(samples)
        if prepared is None or len(prepared) < seen.CENTRE * 2:
            states = np.zeros((len(envelope), seen.STATES), np.float32)
        else:
            states = seen.interpolated(self._encode(prepared[None])[0], len(envelope))
        return self._network.listen(states, seen.shape(envelope, habits))

    def voice_map(
        self, source: SpeechProfile, target: SpeechProfile, params: MappingParams | None = None
    ) -> LearntMap:
        """Fit what follows the network to the pair; deterministic.

        Raises InputError for a profile without sounds, or with those of other weights.
        """
        params = params or MappingParams()
        for profile in (source, target):
            if profile.sounds is None or profile.sounds_by != self._network.digest:
                raise InputError(
                    "the voice was made by another engine, or by another version of this one",
                    "Clone it again.",
                )
        known = Known.of(target)
        speaker = self._speaker(target)
        plain = LearntMap(
            bands=BANDS,
            voiced=[],
            unvoiced=[],
            source_level=source.level,
            log_f0=pitch_map(source, target),
            strength=params.strength,
            high_band_db=high_band_change(source, target),
            warnings=bandwidth_warnings(source, target),
            source=Habits.of(source.envelope, source.f0),
            known=known,
            last=refitted(speaker, known),
            speaker=speaker,
        )
        return self._spread_restored(plain, source, target, params)

    def _speaker(self, target: SpeechProfile) -> Speaker:
        if target.adapted is None:
            return self._network
        from podtool.engines.voice_podtool_model import SpeakingHalf

        return SpeakingHalf(target.adapted)

    def _spread_restored(
        self, plain: LearntMap, source: SpeechProfile, target: SpeechProfile, params: MappingParams
    ) -> LearntMap:
        """With the steps that make the source as the network says it as varied as the target is."""
        assert source.sounds is not None and plain.source is not None
        a = self._said(plain, source.sounds[::2], source.f0, source.envelope)
        habits = Habits.of(target.envelope, target.f0)
        b = seen.cepstra(target.envelope, habits.level).astype(np.float64)
        return replace(
            plain,
            voiced=fit(a, b, source.voiced, target.voiced, params, params.classes),
            unvoiced=fit(a, b, ~source.voiced, ~target.voiced, params, params.classes_unvoiced),
        )

    def _said(
        self, voice: LearntMap, sounds: Samples, f0: NDArray[Any], envelope: NDArray[Any]
    ) -> Floats:
        """(n, 40) cepstra of the network, last layer refitted, 5 ms apart as `f0` and `envelope`
        are; sounds are 10 ms apart."""
        assert voice.source is not None and voice.known is not None
        assert voice.last is not None and voice.speaker is not None
        known = voice.known
        mapped = voice.pitch(np.asarray(f0[::2], np.float64))
        pitch = seen.pitch(mapped, envelope[::2], voice.source, known.habits)
        cepstra, hidden = voice.speaker.speak(sounds, pitch, known)
        said = cepstra.astype(np.float64)
        if len(voice.last) > 1:
            said += _with_one(hidden) @ voice.last
        return doubled(said, len(f0))

    def _change(self, voice: VoiceMap, frames: Frames, heard: Samples) -> tuple[Floats, float]:
        assert isinstance(voice, LearntMap) and voice.source is not None
        envelope = frames.envelope
        sounds, phones = self.listen(heard, frames, voice.source)
        said = self._said(voice, sounds, frames.f0, envelope)
        weight = smooth((frames.f0 > 0).astype(np.float64)[:, None], VOICING_FRAMES)
        meant = weight * apply(voice.voiced, said) + (1 - weight) * apply(voice.unvoiced, said)
        change: Floats = meant - seen.cepstra(envelope, voice.source.level)
        change[:, 0] = 0.0  # the level contour stays the source's
        speech = in_speech(envelope, voice.source_level)
        sure = doubled(certainty(phones)[:, None], len(speech))[:, 0]
        left = float(((1 - sure) * speech).sum() / max(1e-9, speech.sum()))
        change *= (speech * sure)[:, None]
        return np.asarray(voice.strength * change @ DCT), left


def refitted(speaker: Speaker, known: Known) -> Floats:
    """(c + 1, 40) what is to be added to the last layer, by what the network gets wrong when it
    says each part of the enrolment from the other parts."""
    if len(known.f0) < 2 * FOLDS:
        return np.zeros((1, seen.CEPSTRA))
    part = np.arange(len(known.f0)) * FOLDS // len(known.f0)
    at_zero = replace(known.habits, level=0.0)  # as cepstra are
    inputs, errors = [], []
    for k in range(FOLDS):
        here = known.part(part == k)
        pitch = seen.pitch(here.f0, here.cepstra @ DCT, at_zero, known.habits)
        found, hidden = speaker.speak(here.sounds, pitch, known.part(part != k))
        inputs.append(_with_one(hidden))
        errors.append(here.cepstra - found)
    x, y = np.concatenate(inputs).astype(np.float64), np.concatenate(errors).astype(np.float64)
    ridge = RIDGE_FRAMES * np.eye(x.shape[1])
    return np.asarray(np.linalg.solve(x.T @ x + ridge, x.T @ y))


def certainty(phones: Samples) -> Floats:
    """(n, 40) probabilities of phones -> (n,) how far the sounds are to be trusted, 0 to 1."""
    low, high = SURE
    likeliest = phones.max(axis=1).astype(np.float64)[:, None]
    smoothed = smooth(likeliest, min(SURE_FRAMES, 2 * len(phones) - 1))[:, 0]
    return np.asarray(np.clip((smoothed - low) / (high - low), 0.0, 1.0))


def doubled(x: Floats, count: int) -> Floats:
    """(n, d) 10 ms apart -> (count, d) 5 ms apart, halfway between neighbours."""
    out = np.repeat(x, 2, axis=0)
    out[1:-1:2] = 0.5 * (x[:-1] + x[1:])
    return out[:count]


def _with_one(x: Samples) -> Samples:
    return np.concatenate([x, np.ones((len(x), 1), x.dtype)], axis=1)


def convert(source: Path, target: Path) -> None:
    """Weights as safetensors -> ONNX with both halves in it."""
    import torch
    from torch import Tensor, nn

    from podtool.audio import sha256_of
    from podtool.engines.checkpoint import export_onnx
    from podtool.engines.voice_podtool_model import load

    network = load(source).requires_grad_(False)

    class Halves(nn.Module):
        def forward(
            self,
            states: Tensor,
            shape: Tensor,
            sounds: Tensor,
            pitch: Tensor,
            known_sounds: Tensor,
            known_cepstra: Tensor,
            voice: Tensor,
        ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            heard, odds = network.listen(states, shape)
            return (
                heard,
                odds.softmax(dim=2),
                *network.speak(sounds, pitch, known_sounds, known_cepstra, voice),
            )

    generator = torch.Generator().manual_seed(0)

    def example(heard: int, said: int, known: int) -> tuple[Tensor, ...]:
        sounds = network.params.sounds
        sizes = [(heard, seen.STATES), (heard, seen.SHAPE), (said, sounds), (said, seen.PITCH)]
        sizes += [(known, sounds), (known, seen.CEPSTRA)]
        parts = [torch.randn(1, *size, generator=generator) for size in sizes]
        return *parts, torch.randn(1, seen.VOICE, generator=generator)

    names = ("states", "shape", "sounds", "pitch", "known_sounds", "known_cepstra", "voice")

    def check(path: Path) -> None:
        given = example(31, 17, 57)
        feed = {name: x.numpy() for name, x in zip(names, given, strict=True)}
        found = open_session(path, 1).run(None, feed)
        expected = Halves()(*given)
        if not all(np.allclose(f, e, atol=1e-3) for f, e in zip(found, expected, strict=True)):
            raise ModelError("the converted voice converter does not agree with its weights")

    axes = ("heard", "heard", "said", "said", "known", "known")
    inputs: dict[str, dict[int, str]] = {n: {1: a} for n, a in zip(names[:-1], axes, strict=True)}
    inputs["voice"] = {}
    outputs = {"heard": "heard", "phones": "heard", "cepstra": "said", "hidden": "said"}
    export_onnx(
        Halves(),
        example(40, 50, 60),
        target,
        inputs,
        {name: {1: axis} for name, axis in outputs.items()},
        check,
        {"weights": sha256_of(source)[:16]},
    )
