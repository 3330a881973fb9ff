"""What the separation benchmarks score: the engines that run here, weights in training, peers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from mixtures import TALK_RATE, Samples

from podtool import engines
from podtool.audio import Audio
from podtool.engines.protocols import EngineContext, SeparationEngine, TalkerEngine
from podtool.segments import Span
from podtool.stages.separate import separate
from podtool.store import ModelStore


class Stream(Protocol):
    """As podtool.engines.separation_podtool.TalkerStream."""

    def push(self, block: Samples) -> Samples: ...
    def flush(self) -> Samples: ...


@dataclass(frozen=True, slots=True)
class System:
    """`speech`: a mixture and where somebody speaks (None: not told) -> what they say."""

    name: str
    speech: Callable[[Audio, list[Span] | None], Samples]


@dataclass(frozen=True, slots=True)
class TalkerSystem:
    """`apart`: (n,) at 16 kHz and how many talk -> (count, n); `stream`: the same in blocks."""

    name: str
    apart: Callable[[Samples, int], Samples]
    stream: Callable[[int], Stream] | None = None


Systems = tuple[list[System], list[TalkerSystem]]


def context() -> EngineContext:
    return EngineContext(store=ModelStore(), device="cpu", threads=1)


def installed() -> Systems:
    """Every engine that runs here, RNNoise, and what is not processed at all."""
    from podtool.engines.separation_podtool import TalkerStream

    given = context()
    found = [System("unprocessed", lambda audio, _: audio.samples)]
    for name in _available("separation", given):
        found.append(_staged(name, engines.load("separation", name, given)))
    found += _rnnoise()
    apart = []
    for name in _available("talkers", given):
        apart.append(_offline(f"{name} offline", engines.load("talkers", name, given)))
        if name == "podtool":
            apart.append(_streamed("podtool streaming", partial(TalkerStream.load, given)))
    return found, apart


def of_weights(paths: Iterable[Path], folder: Path) -> Systems:
    """Weights of a training through podtool's engines, exported into `folder`."""
    from podtool.engines.separation_podtool import (
        Network,
        PodtoolSeparation,
        PodtoolTalkers,
        TalkerStream,
        convert,
    )

    found, apart = [], []
    for path in paths:
        name = path.resolve().parent.name
        place = folder / name
        place.mkdir()
        convert(path, place / "separator.onnx")
        network = Network.open(place, 1)
        if network.shape.talkers == 1:
            found.append(_staged(name, PodtoolSeparation(network)))
        elif network.shape.causal:
            apart.append(_streamed(name, partial(TalkerStream, network)))
        else:
            apart.append(_offline(name, PodtoolTalkers(network)))
    return found, apart


def peak_memory(stage: str, name: str) -> float:
    """MB of a process that loads an engine and separates a minute, one thread."""
    command = [sys.executable, "-c", _MEMORY, stage, name]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout) / 1024


_MEMORY = """
import sys
from pathlib import Path
import numpy as np
from podtool import engines
from podtool.audio import Audio
from podtool.engines.protocols import EngineContext
from podtool.stages.separate import separate
from podtool.store import ModelStore

stage, name = sys.argv[1:]
engine = engines.load(stage, name, EngineContext(store=ModelStore(), device="cpu", threads=1))
rng = np.random.default_rng(0)
if stage == "talkers":
    x = rng.standard_normal((1, 60 * 16000), np.float32) * 0.05
    engine.talkers(Audio(x, 16000), 2)
else:
    x = rng.standard_normal((2, 60 * 44100), np.float32) * 0.05
    for _ in separate(Audio(x, 44100), engine, workers=1):
        pass
print(next(x.split()[1] for x in Path("/proc/self/status").open() if x.startswith("VmHWM")))
"""


def _available(stage: str, given: EngineContext) -> list[str]:
    names = engines.engine_names(stage)
    return [n for n in names if engines.availability(stage, n, given).available]


def _staged(name: str, engine: SeparationEngine) -> System:
    """An engine through the stage, as `podtool separate` runs it."""

    def speech(audio: Audio, spans: list[Span] | None) -> Samples:
        blocks = separate(audio, engine, spans, workers=1)
        return np.concatenate([b.speech.samples for b in blocks], axis=1)

    return System(name, speech)


def _offline(name: str, engine: TalkerEngine) -> TalkerSystem:
    return TalkerSystem(name, lambda x, n: engine.talkers(Audio(x[None], TALK_RATE), n))


def _streamed(name: str, start: Callable[[int], Any]) -> TalkerSystem:
    def apart(samples: Samples, count: int) -> Samples:
        stream = start(count)
        pieces = [stream.push(samples), stream.flush()]
        return np.concatenate(pieces, axis=1)[:count]

    return TalkerSystem(name, apart, start)


def _rnnoise() -> list[System]:
    """The peer, frame by frame at 48 kHz on the middle channel; nothing where not installed."""
    try:
        from pyrnnoise import RNNoise
    except ImportError:
        print("RNNoise is not here: pip install pyrnnoise", file=sys.stderr)
        return []
    import soxr

    delay = 960  # measured: two frames

    def speech(audio: Audio, _: list[Span] | None) -> Samples:
        machine = RNNoise(sample_rate=48000)
        middle = soxr.resample(audio.samples.mean(0), audio.sample_rate, 48000)
        pcm = np.clip(np.pad(middle, (0, 4 * 480)) * 32767, -32768, 32767).astype(np.int16)
        clean = np.concatenate([np.ravel(f) for _, f in machine.denoise_chunk(pcm[None])])
        back = soxr.resample(clean[delay:] / 32767, 48000, audio.sample_rate)[: audio.frames]
        voice = np.pad(back, (0, audio.frames - len(back))).astype(np.float32)
        return np.repeat(voice[None], audio.channels, 0)

    return [System("RNNoise", speech)]
