"""How fast each engine is on this machine, measured once and remembered.

Every engine is timed in a worker, so that one which crashes or hangs ends nothing but its own turn.
`$PODTOOL_HOME/benchmarks.json` keeps the figures, with what they hold for: the adapter's version
and the device.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from podtool import engines
from podtool.audio import Audio
from podtool.engines.protocols import EngineContext, EngineInfo
from podtool.errors import EngineUnavailableError
from podtool.home import home
from podtool.resample import resample, to_mono

TEXT = "She opened the window, looked at the street, and closed it again. " * 4


@dataclass(frozen=True, slots=True)
class Timing:
    """What one engine took: seconds to load, seconds per second of audio, peak memory in MB."""

    stage: str
    engine: str
    version: str
    device: str
    audio_s: float
    load_s: float
    rtf: float
    peak_mb: float


def stages() -> list[str]:
    """The stages that can be timed without a voice to convert to."""
    return [s for s in engines.BUILTIN if s in _TASKS]


def bench(stage: str, name: str, audio: Audio, context: EngineContext) -> Timing:
    """Time one engine on audio of any rate and channels. Raises what loading or running it does.

    The first call warms up on two seconds and does not count.
    """
    if stage not in _TASKS:
        raise EngineUnavailableError(f"{stage} is not timed", f"Stages: {', '.join(stages())}")
    context = replace(context, worker=replace(context.worker, isolate="always", fallback=()))
    began = time.perf_counter()
    engine = engines.load(stage, name, context)
    load_s = time.perf_counter() - began
    try:
        info: EngineInfo = engine.info
        heard = resample(audio if info.channels != 1 else to_mono(audio), info.sample_rate)
        if not info.sample_rate:
            heard = audio
        if info.channels > heard.channels:
            heard = Audio(np.repeat(heard.samples[:1], info.channels, 0), heard.sample_rate)
        _TASKS[stage](engine, heard.read(0, 2 * heard.sample_rate))
        began = time.perf_counter()
        seconds = _TASKS[stage](engine, heard)
        took = time.perf_counter() - began
        return Timing(
            stage, name, info.version, context.device, round(seconds, 3), round(load_s, 3),
            round(took / seconds, 5), round(engine.peak_mb, 1),
        )  # fmt: skip
    finally:
        engine.close()


def remember(timing: Timing) -> None:
    """Keep a figure, in place of an older one of the same engine and device."""
    path = _path()
    kept = [t for t in _read() if _key(t) != _key(timing)]
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    records = [asdict(t) for t in [*kept, timing]]
    part.write_text(json.dumps(records, indent=1) + "\n", "utf-8")
    os.replace(part, path)


def remembered(info: EngineInfo, device: str) -> Timing | None:
    """The figure of an engine, where it was measured with this version of its adapter."""
    return next(
        (
            t
            for t in _read()
            if (t.stage, t.engine, t.version, t.device)
            == (info.stage, info.name, info.version, device)
        ),
        None,
    )


def _path() -> Path:
    return home() / "benchmarks.json"


def _read() -> list[Timing]:
    with suppress(OSError, ValueError, TypeError):
        return [Timing(**record) for record in json.loads(_path().read_text("utf-8"))]
    return []  # none yet, or not ours: measured again when asked for


def _key(timing: Timing) -> tuple[str, str, str]:
    return timing.stage, timing.engine, timing.device


def _windows(engine: Any, audio: Audio) -> list[Audio]:
    """The audio in pieces as long as the engine takes them."""
    longest = engine.info.window_s or 60.0
    size = max(1, round(longest * audio.sample_rate))
    return [audio.read(s, min(s + size, audio.frames)) for s in range(0, audio.frames, size)]


def _each(method: str, *args: Any, longest_s: float = 1e9) -> Callable[[Any, Audio], float]:
    def run(engine: Any, audio: Audio) -> float:
        for window in _windows(engine, audio):
            size = round(longest_s * window.sample_rate)
            for first in range(0, window.frames, size):
                getattr(engine, method)(window.read(first, first + size), *args)
        return audio.duration

    return run


def _align(engine: Any, audio: Audio) -> float:
    words = TEXT.split()[: max(1, round(2.5 * audio.duration))]
    engine.align(audio, words)
    return audio.duration


def _speak(engine: Any, audio: Audio) -> float:
    text = TEXT[: max(20, round(15 * min(audio.duration, 60.0)))]
    return float(sum(block.duration for block in engine.speak(text, 1.0, 0)))


_TASKS: dict[str, Callable[[Any, Audio], float]] = {
    "vad": _each("detect"),
    "segmentation": _each("activity"),
    "embedding": _each("embed", longest_s=3.0),
    "separation": _each("separate"),
    "talkers": _each("talkers", 2, longest_s=12.0),
    "transcription": _each("transcribe", "en", longest_s=15.0),
    "alignment": _align,
    "speaking": _speak,
}


def sample(audio: Audio, seconds: float = 60.0) -> Audio:
    """A stretch of that length: the start, repeated where it is shorter."""
    frames = round(seconds * audio.sample_rate)
    times = -(-frames // max(1, audio.frames))
    return Audio(np.tile(audio.samples, (1, times))[:, :frames], audio.sample_rate)


def made_up(seconds: float = 60.0, rate: int = 44100) -> Audio:
    """A buzz that comes and goes like syllables (2, n): for machines without a recording."""
    t = np.arange(round(seconds * rate)) / rate
    buzz = sum(np.sin(2 * np.pi * 120 * k * t) / k for k in range(1, 20))
    wave = 0.05 * buzz * (1 + np.sin(2 * np.pi * 3 * t)) * (np.sin(2 * np.pi * 0.2 * t) > -0.7)
    return Audio(np.tile(wave.astype(np.float32), (2, 1)), rate)
