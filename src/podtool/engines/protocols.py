"""What an engine is: one backend behind one Protocol per stage.

Chunking over long files, resampling, channels, ids and provenance belong to the stages; an engine
sees one window of audio at its own rate.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from podtool.artifacts import Utterance, Word
from podtool.audio import Audio, AudioSource
from podtool.segments import FrameGrid, Span


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """The static facts of an engine, known without importing its backend."""

    name: str
    stage: str
    version: str  # of the adapter: bump it when the output changes
    licence: str
    tier: str  # embedded, standard or best
    sample_rate: int  # what the engine wants; 0: any
    channels: int = 1
    window_s: float | None = None
    runtimes: tuple[str, ...] = ("cpu",)
    models: tuple[str, ...] = ()  # ids in models.toml
    packages: tuple[str, ...] = ()  # modules that must be importable
    install: str = ""  # the line that makes it importable
    deterministic: bool = True
    languages: tuple[str, ...] = ()
    options: tuple[str, ...] = ()  # names that `load` understands in EngineContext.options
    stretch_s: float = 16.0  # how long the speech should be that a recogniser reads at once
    requires: tuple[str, ...] = ()  # what pip installs into an environment of the engine's own
    paced: bool = True  # of a speaking engine: it heeds the rate
    seeded: bool = False  # of a speaking engine: another seed gives another take


@dataclass(frozen=True, slots=True)
class WorkerParams:
    """How engines are kept from harming a run; nothing of it changes what they answer."""

    isolate: Literal["auto", "always", "never"] = field(
        default="auto",
        metadata={
            "help": "Engines in processes of their own; auto: all but the embedded ones. MLX, GPL "
            "and what has an environment of its own always are."
        },
    )
    timeout_s: float = field(
        default=300.0, metadata={"help": "Longest time for one chunk in a worker, in seconds."}
    )
    load_timeout_s: float = field(
        default=900.0, metadata={"help": "Longest time for loading a worker, in seconds."}
    )
    heartbeat_s: float = field(
        default=60.0,
        metadata={"help": "How often stderr says that a worker is still busy, in seconds."},
    )
    max_memory_gb: float | None = field(
        default=None,
        metadata={"help": "Memory that one engine may take, in GB; engines then have workers."},
    )
    fallback: tuple[str, ...] = field(
        default=(),
        metadata={"help": "Engines that step in for one that fails; auto: the next that run here."},
    )

    def __post_init__(self) -> None:
        for name in ("timeout_s", "load_timeout_s", "heartbeat_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0")
        if self.max_memory_gb is not None and not self.max_memory_gb > 0:
            raise ValueError("max_memory_gb must be above 0")


@dataclass(frozen=True, slots=True)
class Incident:
    """Something that went wrong with an engine and did not end the run."""

    stage: str
    engine: str
    reason: str
    instead: str  # the engine that stepped in; the same one where it was started again


class ModelFolders(Protocol):
    """Where verified weights lie; podtool.store.ModelStore is the real one."""

    def folder(self, model_id: str) -> Path: ...


@dataclass(frozen=True, slots=True)
class VoiceSpan:
    """Seconds in which one voice is heard; voices are numbered from 0."""

    start: float
    end: float
    voice: int


@dataclass(frozen=True, slots=True)
class EngineContext:
    """What an engine may ask for when it is loaded."""

    store: ModelFolders
    device: str = "cpu"
    threads: int = 0  # 0: as many as there are cores
    options: dict[str, str] | None = None
    worker: WorkerParams = WorkerParams()
    incidents: list[Incident] = field(default_factory=list, compare=False)

    @property
    def torch_device(self) -> str:
        """Where torch works: on the device, or beside one that is not torch's on the CPU."""
        return self.device if self.device in ("cuda", "mps") else "cpu"

    def model(self, model_id: str) -> Path:
        """The folder of a set of weights. Raises ModelError where it is missing."""
        return self.store.folder(model_id)


class Engine(Protocol):
    info: ClassVar[EngineInfo]

    @classmethod
    def load(cls, context: EngineContext) -> Self: ...


class VadEngine(Engine, Protocol):
    def detect(self, audio: Audio) -> list[Span]:
        """Speech in a window of mono audio; times relative to its start."""
        ...


class SegmentationEngine(Engine, Protocol):
    grid: FrameGrid

    def activity(self, audio: Audio) -> NDArray[np.float32]:
        """One window of mono audio -> (frames, classes) powerset probabilities."""
        ...


class EmbeddingEngine(Engine, Protocol):
    dim: int

    def embed(self, audio: Audio) -> NDArray[np.float32]:
        """Mono audio of one speaker -> (dim,) of unit norm."""
        ...


class DiarizationEngine(Engine, Protocol):
    counts: bool  # whether it can be told how many voices there are

    def diarize(self, audio: Audio, least: int, most: int) -> list[VoiceSpan]:
        """A whole recording, mono -> who is heard when; where two talk at once, spans overlap.

        There are `least` to `most` voices in it, which an engine that does not count ignores.
        """
        ...


class SeparationEngine(Engine, Protocol):
    stems: tuple[str, ...]

    def separate(self, audio: Audio) -> dict[str, Audio]:
        """One window at the engine's rate -> stems of the same shape."""
        ...


class TalkerEngine(Engine, Protocol):
    max_talkers: int

    def talkers(self, audio: Audio, count: int) -> NDArray[np.float32]:
        """One window of mono audio in which `count` people talk -> (count, n), in no order.

        What they leave of the window is the residual: music, noise, and other voices.
        """
        ...


class TranscriptionEngine(Engine, Protocol):
    def transcribe(self, audio: Audio, language: str | None) -> list[Utterance]:
        """One stretch of mono speech -> utterances with times relative to its start."""
        ...


class SamplingEngine(TranscriptionEngine, Protocol):
    """A recogniser that can be asked again where its likeliest text is bad."""

    def transcribe_at(
        self, audio: Audio, language: str | None, temperature: float, seed: int
    ) -> list[Utterance]:
        """As `transcribe`, with tokens drawn at a temperature in (0, 1]; one seed, one result."""
        ...


class BatchEngine(TranscriptionEngine, Protocol):
    """A recogniser that reads several stretches faster together than one by one."""

    def transcribe_many(
        self, audios: Sequence[Audio], language: str | None
    ) -> list[list[Utterance]]:
        """What `transcribe` gives for each of them, times relative to each one's start."""
        ...


class LanguageEngine(TranscriptionEngine, Protocol):
    """A recogniser that tells which language is spoken."""

    def languages_heard(self, audio: Audio) -> dict[str, float]:
        """Mono speech, at most `window_s` of it -> the probability of each language code."""
        ...


class AlignmentEngine(Engine, Protocol):
    def align(self, audio: Audio, words: list[str]) -> list[Word]:
        """One stretch of mono speech and its words -> the words with times relative to it."""
        ...


class SpeakingEngine(Engine, Protocol):
    def speak(self, text: str, rate: float, seed: int) -> Iterator[Audio]:
        """Text -> audio; `rate` 1.0 is the engine's own pace."""
        ...


__all__ = [
    "AlignmentEngine",
    "AudioSource",
    "BatchEngine",
    "DiarizationEngine",
    "EmbeddingEngine",
    "Engine",
    "EngineContext",
    "EngineInfo",
    "LanguageEngine",
    "ModelFolders",
    "SamplingEngine",
    "SegmentationEngine",
    "SeparationEngine",
    "SpeakingEngine",
    "TalkerEngine",
    "TranscriptionEngine",
    "VadEngine",
    "VoiceSpan",
    "WorkerParams",
]
