"""Tiny engines that misbehave as real ones do; loaded by workers, so nothing of pytest is here.

Options: `trouble` names what happens, `once` a file: where it is given, the trouble comes only as
long as that file is not there, and makes it.
"""

from __future__ import annotations

import ctypes
import math
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from podtool.artifacts import Utterance, Word
from podtool.audio import Audio
from podtool.engines.protocols import EngineContext, EngineInfo
from podtool.errors import ConfigError


def info(name: str, stage: str = "transcription", **more: Any) -> EngineInfo:
    return EngineInfo(name, stage, "1", "MIT", "best", 16000, **more)


def heard(audio: Audio) -> list[Utterance]:
    """A text that depends on the samples: lost or doubled chunks show."""
    level = f"level{round(1000 * float(np.abs(audio.samples).max(initial=0.0)))}"
    words = (Word(level, 0.0, audio.duration, 0.9),)
    return [Utterance("u0001", "", 0.0, audio.duration, level, None, None, "en", 0.9, None, words)]


class Voice:
    """A state that cannot be sent: it holds a function."""

    def __init__(self, level: float) -> None:
        self.level = level
        self.function = lambda: level

    def louder(self, gain: float) -> Voice:
        return Voice(self.level * gain)


class Good:
    info: ClassVar[EngineInfo] = info("good")

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        return cls()

    def transcribe(self, audio: Audio, language: str | None) -> list[Utterance]:
        return heard(audio)

    def pieces(self, audio: Audio, count: int = 2) -> Iterator[Audio]:
        for part in np.array_split(audio.samples, count, axis=1):
            yield Audio(part, audio.sample_rate)

    def echo(self, value: Any) -> Any:
        return value

    def voice(self, audio: Audio) -> Voice:
        return Voice(float(np.abs(audio.samples).max()))

    def say(self, voice: Voice, others: list[Voice]) -> float:
        return voice.level + sum(v.level for v in others)


class EightKilohertz(Good):
    info: ClassVar[EngineInfo] = EngineInfo("slow-rate", "transcription", "1", "MIT", "best", 8000)

    def transcribe(self, audio: Audio, language: str | None) -> list[Utterance]:
        assert audio.sample_rate == 8000
        return heard(audio)


class Swedish(Good):
    info: ClassVar[EngineInfo] = info("swedish")

    def transcribe(self, audio: Audio, language: str | None) -> list[Utterance]:
        raise ConfigError(f"not {language}", "Swedish it is.")


class Trouble(Good):
    info: ClassVar[EngineInfo] = info("trouble")

    def __init__(self, trouble: str, once: Path | None) -> None:
        self._trouble, self._once = trouble, once

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        options = context.options or {}
        once = options.get("once")
        engine = cls(options.get("trouble", ""), Path(once) if once else None)
        if engine._trouble.startswith("load-"):
            nothing = Audio(np.zeros((1, 1), np.float32), 1)
            engine._misbehave(engine._trouble.removeprefix("load-"), nothing)
        return engine

    def transcribe(self, audio: Audio, language: str | None) -> list[Utterance]:
        found = self._misbehave(self._trouble, audio)
        return heard(audio) if found is None else found

    def _misbehave(self, trouble: str, audio: Audio) -> Any:
        if self._once is not None:
            if self._once.exists():
                return None
            self._once.touch()
        if trouble == "segfault":
            ctypes.string_at(0)
        elif trouble == "hang":
            time.sleep(600)
        elif trouble == "hang-hard":  # holds the interpreter's lock: no other thread runs
            ctypes.PyDLL(None).sleep(600)
        elif trouble == "memory":
            hoard = []
            for _ in range(60):
                hoard.append(np.ones(4_000_000))  # 32 MB
                time.sleep(0.02)
        elif trouble == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        elif trouble == "exit":
            os._exit(3)
        elif trouble == "raise":
            raise RuntimeError("CUDA error: device-side assert triggered")
        elif trouble == "chatter":
            print("Loading 100%|####|", flush=True)
            os.write(1, b"\x00\xffptw1 garbage\n" * 20_000)
            os.write(2, b"warning: a wall of them\n")
        elif trouble == "slow":
            time.sleep(1.0)
        elif trouble == "nonsense":
            return [Utterance("u", "", 0.0, 1e9, "x")]
        elif trouble == "nan":
            return [Utterance("u", "", math.nan, 1.0, "x")]
        elif trouble == "text":
            return "hello"
        elif trouble == "object":
            return [object()]
        elif trouble == "closes":
            os.closerange(3, 64)
            time.sleep(600)
        return None


class Cursed(Trouble):
    info: ClassVar[EngineInfo] = info("cursed")

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        return cls("segfault", None)


class Stored(Good):
    info: ClassVar[EngineInfo] = info("stored")

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)
        self.threads = 0

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        return cls(context.model("some-weights"))
