"""podtool's own separators as ONNX: speech from its background, and talkers from each other.

The networks hear 16 kHz. What a recording holds above 8 kHz follows the network's gain of 5 to
8 kHz: a network taught by speech that ends at 8 kHz would take every sibilant for background.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from podtool.audio import Audio
from podtool.engines.onnx_session import only_file, open_session
from podtool.engines.protocols import EngineContext, EngineInfo
from podtool.engines.separation_spectral import without_sides
from podtool.errors import EngineFailure, ModelError
from podtool.resample import resample
from podtool.segments import Span

Samples = NDArray[np.float32]
Spectrum = NDArray[np.complex64]
Memory = tuple[Samples, ...]  # hidden, cell and running levels of the causal form

RATE = 16000
MEMORY = ("hidden", "cell", "levels")  # names in the model file, `_after` them as outputs
GUIDE_HZ = (5000.0, 8000.0)  # whose gain the band above follows
_TINY = 1e-10
_CENTRED = 0.015  # energy of the side over that of the middle, where the voice is
_PLACED_HZ = 500.0


class PodtoolSeparation:
    """Speech from music and noise: any rate, any number of channels."""

    info: ClassVar[EngineInfo] = EngineInfo(
        name="podtool",
        stage="separation",
        version="1",
        licence="MIT",
        tier="embedded",
        sample_rate=0,
        channels=0,
        window_s=24.0,
        models=("podtool-background",),
        packages=("onnxruntime", "scipy"),
    )
    stems: tuple[str, ...] = ("speech",)

    def __init__(self, network: Network) -> None:
        self._network = network

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        return cls(Network.open(context.model("podtool-background"), context.threads))

    def separate(self, audio: Audio, speech: Sequence[Span] | None = None) -> dict[str, Audio]:
        """Stem `speech` of a window, same shape.

        `speech`: where somebody speaks, in seconds from its start, outside of which the stem is
        silent; None: anywhere.
        """
        rate = audio.sample_rate
        if audio.frames == 0 or not audio.samples.any():
            return {"speech": Audio(np.zeros_like(audio.samples), rate)}
        middle = audio.samples.mean(axis=0, dtype=np.float32)
        heard, spectrum, mask = self._listen(middle, rate)
        if (audio.samples == audio.samples[:1]).all():
            voice = self._voice(middle, heard, spectrum, mask, rate)[None]
        elif self._centred(audio, mask, spectrum):
            middle = without_sides(audio)
            voice = self._voice(middle, *self._listen(middle, rate), rate)[None]
        else:
            channels = [resample(Audio(c[None], rate), RATE).samples[0] for c in audio.samples]
            seen = [self._network.forward(c) for c in channels]
            triples = zip(audio.samples, channels, seen, strict=True)
            voice = np.stack([self._voice(c, h, s, mask, rate) for c, h, s in triples])
        voice = np.repeat(voice, audio.channels // len(voice), axis=0)
        if speech is not None:
            voice = voice * _gate(speech, audio.frames, rate)
        return {"speech": Audio(np.ascontiguousarray(voice, np.float32), rate)}

    def _listen(self, samples: Samples, rate: int) -> tuple[Samples, Spectrum, Spectrum]:
        """(n,) at `rate` -> the same at 16 kHz, its spectrum and the voice's mask."""
        heard = resample(Audio(samples[None], rate), RATE).samples[0]
        spectrum = self._network.forward(heard)
        return heard, spectrum, self._network.masks(spectrum, 1)[0][0]

    def _voice(
        self, samples: Samples, heard: Samples, spectrum: Spectrum, mask: Spectrum, rate: int
    ) -> Samples:
        """(n,) at `rate` of the voice in one channel."""
        masked = mask * spectrum
        low = self._network.backward(masked, len(heard))
        if rate == RATE:
            return low
        gain = self._network.guide(masked[None], spectrum, rate)
        voice: Samples = widen(low[None], heard, samples, rate, gain)[0]
        return voice

    def _centred(self, audio: Audio, mask: Spectrum, spectrum: Spectrum) -> bool:
        """Whether all voices are in the middle of the channels: then the rest is background."""
        power = np.abs(spectrum) ** 2
        # Low bins say nothing of where a voice is: spaced microphones hear them alike.
        voiced = (np.abs(mask) > 0.7) & (power > np.quantile(power, 0.95, axis=0))
        voiced[:, : round(_PLACED_HZ * self._network.shape.window / RATE)] = False
        if not voiced.any():
            return True
        middle = audio.samples.mean(axis=0, dtype=np.float32)
        for channel in audio.samples[:-1]:
            side = resample(Audio((channel - middle)[None], audio.sample_rate), RATE).samples[0]
            ratio = np.abs(self._network.forward(side)[voiced]) ** 2 / power[voiced]
            if float(np.median(ratio)) > _CENTRED:
                return False
        return True


class PodtoolTalkers:
    """Up to three simultaneous talkers, mono 16 kHz, by the form that hears what follows too."""

    info: ClassVar[EngineInfo] = EngineInfo(
        name="podtool",
        stage="talkers",
        version="1",
        licence="MIT",
        tier="embedded",
        sample_rate=RATE,
        models=("podtool-talkers",),
        packages=("onnxruntime",),
    )

    def __init__(self, network: Network) -> None:
        self._network = network
        self.max_talkers = network.shape.talkers

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        return cls(Network.open(context.model("podtool-talkers"), context.threads))

    def talkers(self, audio: Audio, count: int) -> Samples:
        """One window of mono audio -> (count, n). Raises ValueError for an impossible count."""
        if not 1 <= count <= self.max_talkers:
            raise ValueError(f"{count} talkers: 1 to {self.max_talkers} can be told apart")
        samples = audio.samples[0]
        spectrum = self._network.forward(samples)
        masks, _ = self._network.masks(spectrum, count)
        return np.stack([self._network.backward(m * spectrum, len(samples)) for m in masks[:count]])


class TalkerStream:
    """The causal form, block by block: up to three talkers, `latency_s` behind what is pushed."""

    def __init__(self, network: Network, count: int = 2) -> None:
        """`count`: how many talk; it may be set anew at any time. Raises ModelError."""
        if not network.shape.causal:
            raise ModelError("these weights hear what follows: they cannot stream")
        shape = network.shape
        self.count = count
        self._network = network
        self._memory: Memory | None = None
        self._seen = np.zeros(shape.hop, np.float32)  # last half frame, and what waits for a frame
        self._tail = np.zeros((shape.talkers, shape.hop), np.float32)
        self._skip = shape.hop  # the first half frame is before the first sample
        self._owed = 0

    @classmethod
    def load(cls, context: EngineContext, count: int = 2) -> Self:
        """Raises ModelError where the weights are missing."""
        return cls(Network.open(context.model("podtool-talkers-streaming"), 1), count)

    @property
    def latency_s(self) -> float:
        """Seconds by which an output sample is behind its input: one frame."""
        return self._network.shape.window / RATE

    def push(self, block: Samples) -> Samples:
        """(n,) samples -> (talkers, m) that are complete by now; rows from `count` on are zero."""
        shape = self._network.shape
        self._owed += len(block)
        self._seen = np.concatenate([self._seen, np.asarray(block, np.float32)])
        frames = (len(self._seen) - shape.hop) // shape.hop
        if frames <= 0:
            return np.zeros((shape.talkers, 0), np.float32)
        used = self._seen[: (frames + 1) * shape.hop]
        self._seen = self._seen[frames * shape.hop :]
        spectrum = self._network.frames(used)
        masks, self._memory = self._network.masks(spectrum, self.count, self._memory)
        masks[self.count :] = 0
        out = np.empty((shape.talkers, frames, shape.hop), np.float32)
        for k, mask in enumerate(masks):
            first, second = self._network.pieces(mask * spectrum)
            out[k, 0] = self._tail[k] + first[0]
            out[k, 1:] = second[:-1] + first[1:]
            self._tail[k] = second[-1]
        ready = out.reshape(shape.talkers, -1)[:, self._skip :]
        self._skip = max(0, self._skip - frames * shape.hop)
        ready = ready[:, : self._owed]
        self._owed -= ready.shape[1]
        return ready

    def flush(self) -> Samples:
        """What is left after the last block: in all as many samples come out as went in."""
        shape = self._network.shape
        owed = self._owed
        rest = self.push(np.zeros(2 * shape.hop, np.float32))[:, :owed]
        self._owed = 0
        return rest


# ---------------------------------------------------------------- the network


@dataclass(frozen=True, slots=True)
class Shape:
    """What has to be known of a network to run it; it lies in the model file."""

    window: int
    hop: int
    bands: int
    layers: int
    hidden: int
    talkers: int
    causal: bool


class Network:
    """A separator in ONNX with the short-time Fourier transform around it."""

    def __init__(self, session: Any) -> None:
        """Raises ModelError where the file is none of podtool's separators."""
        try:
            facts = json.loads(session.get_modelmeta().custom_metadata_map["shape"])
            self.shape = Shape(**facts)
        except (KeyError, ValueError, TypeError):
            raise ModelError("this is not a separator of podtool") from None
        self._session = session
        n = np.arange(self.shape.window)
        self._window = np.sin(np.pi * (n + 0.5) / self.shape.window).astype(np.float32)

    @classmethod
    def open(cls, folder: Path, threads: int = 0) -> Self:
        return cls(open_session(only_file(folder, "separator.onnx"), threads))

    def forward(self, samples: Samples) -> Spectrum:
        """(n,) -> (frames, bins); the first frame begins half a frame before the signal."""
        hop = self.shape.hop
        return self.frames(np.pad(samples, (hop, hop + -len(samples) % hop)))

    def frames(self, samples: Samples) -> Spectrum:
        """(k + 1 hops,) -> (k, bins)."""
        from scipy.fft import rfft

        shape = self.shape
        windows = np.lib.stride_tricks.sliding_window_view(samples, shape.window)[:: shape.hop]
        return np.asarray(rfft(windows * self._window, axis=1), np.complex64)

    def backward(self, spectrum: Spectrum, frames: int) -> Samples:
        """The inverse of `forward`: (k, bins) -> (frames,)."""
        first, second = self.pieces(spectrum)
        return np.ascontiguousarray((second[:-1] + first[1:]).reshape(-1)[:frames])

    def pieces(self, spectrum: Spectrum) -> tuple[Samples, Samples]:
        """First and second halves, (k, hop) each, of the frames to add up."""
        from scipy.fft import irfft

        frames = irfft(spectrum, n=self.shape.window, axis=1) * self._window
        frames = frames.astype(np.float32, copy=False)
        return frames[:, : self.shape.hop], frames[:, self.shape.hop :]

    def masks(
        self, spectrum: Spectrum, count: int, memory: Memory | None = None
    ) -> tuple[NDArray[np.complex64], Memory]:
        """(talkers, k, bins) masks of a spectrum, and the memory of the causal form after it."""
        shape = self.shape
        seen = np.stack((spectrum.real, spectrum.imag), -1)[None].astype(np.float32)
        given = {"spectrum": seen, "counts": np.array([count], np.int64)}
        if shape.causal:
            given |= dict(zip(MEMORY, memory or self._no_memory(), strict=True))
        found = self._session.run(None, given)
        masks = found[0][0]
        if not np.isfinite(masks).all():
            raise EngineFailure("the separator gave no finite masks")
        pairs = np.ascontiguousarray(masks.transpose(1, 0, 2, 3)).view(np.complex64)[..., 0]
        return pairs, tuple(found[1:])

    def _no_memory(self) -> Memory:
        size = (self.shape.layers, self.shape.bands, self.shape.hidden)
        levels = np.zeros(self.shape.window // 2 + 2, np.float32)
        return np.zeros(size, np.float32), np.zeros(size, np.float32), levels

    def guide(self, voices: Spectrum, spectrum: Spectrum, rate: int) -> Samples:
        """(s, k, bins) of voices in (k, bins) -> (s, k): their gain in `GUIDE_HZ`, 0 to 1.

        A recording of a rate under 16 kHz has its guide as far down as its band ends.
        """
        share = min(1.0, rate / RATE)
        low, high = (round(share * f * self.shape.window / RATE) for f in GUIDE_HZ)
        own = (np.abs(voices[..., low:high]) ** 2).sum(-1)
        all_of_it = (np.abs(spectrum[:, low:high]) ** 2).sum(-1)
        return np.asarray(np.sqrt(np.clip(own / (all_of_it + _TINY), 0, 1)), np.float32)


def widen(low: Samples, heard: Samples, samples: Samples, rate: int, gains: Samples) -> Samples:
    """Voices at 16 kHz (s, n) -> the same at `rate` (s, m), with all that `samples` has above.

    `heard` (n,) is `samples` (m,) at 16 kHz; `gains` (s, k) are for frames evenly over it.
    """
    frames = len(samples)
    back = resample(Audio(np.concatenate([heard[None], low]), RATE), rate).samples
    back = np.pad(back, ((0, 0), (0, max(0, frames - back.shape[1]))))[:, :frames]
    above = samples - back[0]
    at = np.linspace(0, frames, gains.shape[1])
    now = np.arange(frames)
    rising = np.stack([np.interp(now, at, g) for g in gains]).astype(np.float32)
    return np.asarray(back[1:] + rising * above, np.float32)


def _gate(spans: Sequence[Span], frames: int, rate: int) -> Samples:
    """(frames,) of 1 where somebody speaks and 0 elsewhere, with ramps of 10 ms inside."""
    gate = np.zeros(frames, np.float32)
    for start, stop in spans:
        a, b = max(0, round(start * rate)), min(frames, round(stop * rate))
        gate[a:b] = 1
    length = max(1, rate // 100)
    summed = np.cumsum(np.pad(gate, (length, length)), dtype=np.float64)
    smooth = (summed[2 * length :] - summed[: -2 * length]) / (2 * length)
    return np.minimum(gate, smooth).astype(np.float32)


# ---------------------------------------------------------------- conversion


def convert(source: Path, target: Path) -> None:
    """Weights as safetensors -> ONNX, with the shape of the network in its metadata."""
    import torch
    from torch import nn

    from podtool.engines.checkpoint import export_onnx
    from podtool.engines.separation_podtool_model import load

    network = load(source).requires_grad_(False)
    p = network.params
    shape = {
        "window": p.window,
        "hop": p.hop,
        "bands": len(p.bands),
        "layers": p.layers,
        "hidden": p.hidden,
        "talkers": p.talkers,
        "causal": p.causal,
    }
    if p.sample_rate != RATE:
        raise ModelError(f"{source.name} is for {p.sample_rate} Hz; podtool's engines hear {RATE}")

    class Streamed(nn.Module):
        """The causal form with its memory as plain inputs and outputs."""

        def forward(self, *given: torch.Tensor) -> tuple[torch.Tensor, ...]:
            masks, memory = network(*given[:2], given[2:])
            return masks, *memory

    class Whole(nn.Module):
        def forward(self, *given: torch.Tensor) -> torch.Tensor:
            masks: torch.Tensor = network(*given)[0]
            return masks

    generator = torch.Generator().manual_seed(0)

    def example(frames: int) -> tuple[torch.Tensor, ...]:
        spectrum = torch.randn(1, frames, p.window // 2 + 1, 2, generator=generator)
        counts = torch.tensor([p.talkers])
        size = (p.layers, len(p.bands), p.hidden)
        cells = tuple(torch.randn(*size, generator=generator) * 0.1 for _ in range(2))
        levels = torch.rand(p.window // 2 + 2, generator=generator)
        return (spectrum, counts, *cells, levels) if p.causal else (spectrum, counts)

    wrapped = Streamed() if p.causal else Whole()

    def check(path: Path) -> None:
        other = example(37)
        with torch.no_grad():
            expected = wrapped(*other)[0] if p.causal else wrapped(*other)
        names = ("spectrum", "counts", *MEMORY)
        given = {n: x.numpy() for n, x in zip(names, other, strict=False)}
        found = open_session(path, 1).run(None, given)[0]
        if not np.allclose(found, expected.numpy(), atol=1e-3):
            raise ModelError("the converted separator does not agree with its weights")

    kept = MEMORY if p.causal else ()
    export_onnx(
        wrapped.eval(),
        example(50),
        target,
        {"spectrum": {1: "frames"}, "counts": {}, **{name: {} for name in kept}},
        {"masks": {1: "frames"}, **{f"{name}_after": {} for name in kept}},
        check,
        {"shape": json.dumps(shape)},
    )
