"""SI-SDR improvement of the separation engines on speech over music and noise of known level.

usage: python benchmarks/separation.py [ENGINE ...]     (data: PODTOOL_DATA and its sibling `train`)

Twelve clips of 20 s at 44.1 kHz: two people of the training speech in the middle of the stereo
picture with pauses, over stereo music or a mono noise, each at 0, 5, 10 and 20 dB of speech
over background. None of it is from the shows. RNNoise (pyrnnoise) is scored beside where installed.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile as sf
from harness import say
from numpy.typing import NDArray

from podtool.audio import Audio
from podtool.segments import Span

RATE = 44100
SECONDS = 20
DATA = Path(os.environ.get("PODTOOL_DATA", Path(__file__).parents[2] / "shared" / "data"))
LEVELS_DB = (0, 5, 10, 20)
KINDS = ("music", "noise")
Samples = NDArray[np.float32]


def read(path: Path, channels: int) -> Samples:
    """(channels, frames) at 44.1 kHz."""
    import soxr

    samples, rate = sf.read(path, dtype="float32", always_2d=True)
    samples = samples.mean(1, keepdims=True) if channels == 1 else samples
    samples = np.repeat(samples, 2, 1) if samples.shape[1] < channels else samples[:, :channels]
    return np.asarray(soxr.resample(samples, rate, RATE).T, np.float32)


def rms(samples: Samples) -> float:
    return float(np.sqrt(np.mean(samples.astype(np.float64) ** 2)) + 1e-12)


def clips(count: int = 6) -> list[tuple[str, Samples, Samples]]:
    """(name, speech, background), both stereo; speech at an RMS of .06, background likewise."""
    rows = [json.loads(line) for line in (DATA / "MANIFEST.jsonl").open()]
    train = DATA.parent / "train"
    talk = [json.loads(line) for line in (train / "MANIFEST.jsonl").open()]
    talk = [r for r in talk if 5 < r["duration_s"] < 9]
    music = [
        r for r in rows if r["kind"] == "music" and r["duration_s"] > 20 and not r.get("vocals")
    ]
    noise = [
        r
        for r in rows
        if r["kind"] == "noise" and r["duration_s"] > 8 and "babble" not in r["path"]
    ]
    rng = np.random.default_rng(3)
    result = []
    for kind, pool in (("music", music), ("noise", noise)):
        for k, row in enumerate(rng.choice(np.array(pool, object), count, replace=False)):
            frames = SECONDS * RATE
            speech = np.zeros(frames, np.float32)
            at = RATE
            for part in rng.choice(np.array(talk, object), 3, replace=False):
                voice = read(train / part["path"], 1)[0]
                stop = min(frames, at + len(voice))
                speech[at:stop] = voice[: stop - at] / rms(voice)
                at = stop + int(rng.uniform(0.3, 1.5) * RATE)
                if at >= frames:
                    break
            bed = read(DATA / row["path"], 2 if kind == "music" else 1)
            bed = np.tile(bed, (1, frames // bed.shape[1] + 1))[:, :frames]
            bed = np.repeat(bed, 2, 0) if bed.shape[0] == 1 else bed
            active = speech[np.abs(speech) > 0]
            result.append(
                (f"{kind}-{k}", np.stack([speech * 0.06 / rms(active)] * 2), bed / rms(bed) * 0.06)
            )
    return result


Separator = Callable[[Audio, list[Span]], Samples]


def rnnoise() -> Separator | None:
    """The peer, frame by frame at 48 kHz on the middle channel; None where not installed."""
    try:
        from pyrnnoise import RNNoise
    except ImportError:
        return None
    import soxr

    delay = 960  # measured: two frames

    def run(audio: Audio, _: list[Span]) -> Samples:
        machine = RNNoise(sample_rate=48000)
        middle = soxr.resample(audio.samples.mean(0), audio.sample_rate, 48000)
        pcm = np.clip(np.pad(middle, (0, 4 * 480)) * 32767, -32768, 32767).astype(np.int16)
        clean = np.concatenate([np.ravel(f) for _, f in machine.denoise_chunk(pcm[None])])
        back = soxr.resample(clean[delay:] / 32767, 48000, audio.sample_rate)[: audio.frames]
        voice = np.pad(back, (0, audio.frames - len(back))).astype(np.float32)
        return np.repeat(voice[None], audio.channels, 0)

    return run


def engine(name: str) -> Separator:
    """An engine of podtool through the stage, as `podtool separate` runs it."""
    from podtool.engines import load
    from podtool.engines.protocols import EngineContext
    from podtool.stages.separate import separate
    from podtool.store import ModelStore

    loaded = load("separation", name, EngineContext(store=ModelStore(), threads=1))

    def run(audio: Audio, spans: list[Span]) -> Samples:
        found = separate(audio, loaded, spans, workers=1)
        return np.concatenate([b.speech.samples for b in found], axis=1)

    return run


def si_sdr(estimate: Samples, truth: Samples) -> float:
    """Scale-invariant signal-to-distortion ratio in dB over all channels (Le Roux et al., 2019)."""
    e, t = estimate.astype(np.float64).ravel(), truth.astype(np.float64).ravel()
    target = t * (e @ t) / (t @ t)
    return float(10 * np.log10((target @ target) / ((e - target) @ (e - target) + 1e-20)))


def energy_spans(speech: Samples) -> list[Span]:
    """Where the dry speech is loud, in steps of 20 ms: what a perfect VAD would give."""
    step = RATE // 50
    power = np.mean(speech[0][: speech.shape[1] // step * step].reshape(-1, step) ** 2, axis=1)
    active = np.convolve(power > power.max() * 1e-4, np.ones(9), "same") > 0
    edges = np.flatnonzero(np.diff(np.concatenate(([0], active.astype(int), [0]))))
    return [Span(a * 0.02, b * 0.02) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def score(name: str, run: Separator, scenes: list[tuple[str, Samples, Samples]]) -> None:
    """Mean SI-SDRi of speech for each background and level, and CPU time, as metric rows."""
    gains: dict[tuple[str, int], list[float]] = {}
    took = 0.0
    for scene, speech, bed in scenes:
        spans = energy_spans(speech)
        for level in LEVELS_DB:
            mixture = speech + bed * np.float32(10 ** (-level / 20))
            began = time.process_time()
            estimate = run(Audio(mixture, RATE), spans)
            took += time.process_time() - began
            gain = si_sdr(estimate, speech) - si_sdr(mixture, speech)
            gains.setdefault((scene.split("-")[0], level), []).append(gain)
    for kind in KINDS:
        for level in LEVELS_DB:
            found = gains[kind, level]
            say(
                "si_sdr_improvement",
                float(np.mean(found)),
                "dB",
                f"{name}, {kind} {level} dB",
                len(found),
            )
    cpu = took / (len(scenes) * len(LEVELS_DB) * SECONDS)
    say("separation_cpu", cpu, "CPU s per s", name)


def main(names: list[str]) -> None:
    scenes = clips()
    for name in names or ["spectral"]:
        score(name, engine(name), scenes)
    peer = rnnoise()
    if peer is not None:
        score("RNNoise", peer, scenes)


if __name__ == "__main__":
    main(sys.argv[1:])
