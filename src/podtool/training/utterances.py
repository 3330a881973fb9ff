"""What the converter is taught with: each utterance as frames, looked at once and kept.

Of an utterance there are WORLD's envelope and pitch, the phones that forced alignment finds in its
transcript, and what the recogniser's encoder hears in it: as it is, and in disguised copies with
other formants, pitch and colour, which say the same in the voice of nobody in particular.
Source of the disguise: H.-S. Choi et al., "Neural analysis and synthesis: reconstructing speech
from self-supervised representations", NeurIPS 2021 (information perturbation).
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from podtool.audio import Audio
from podtool.engines.alignment_pocketsphinx import PocketSphinxAligner
from podtool.engines.converter_frames import FRAME_S, PHONES
from podtool.engines.moonshine_decoder import MoonshineModel
from podtool.engines.protocols import EngineContext
from podtool.engines.transcription_moonshine import level
from podtool.engines.world_frames import BINS, F0_CEIL, F0_FLOOR, FFT, RATE, TO_MEL, world
from podtool.training import files
from podtool.training.corpus import Clip

_FORMAT = 1  # of the cache
UNKNOWN = 255  # the number of a frame whose phone nobody knows

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Spoken:
    """One utterance in frames of 10 ms.

    envelope (n, 80) natural log power on the mel grid; f0 (n,) Hz, 0 where unvoiced; phones (n,)
    numbers in PHONES; states (1 + copies, m, 288) of the recogniser's encoder, 24 ms apart: of the
    utterance as it is, then of its disguised copies.
    """

    envelope: NDArray[np.float16]
    f0: NDArray[np.float32]
    phones: NDArray[np.uint8]
    states: NDArray[np.float16]

    @property
    def frames(self) -> int:
        return len(self.f0)


class Listener:
    """Turns clips into frames, or takes them from the folder where they were kept before."""

    def __init__(self, context: EngineContext, folder: Path, copies: int) -> None:
        """`copies`: disguised ones of each clip. Raises ModelError without the recogniser."""
        self._model = MoonshineModel(context.model("moonshine-tiny-en"), context.threads)
        self._aligner = PocketSphinxAligner.load(context)
        self.folder, self.copies = folder, copies

    def hear(self, clip: Clip) -> Spoken:
        """A clip of speech as frames."""
        path = self.folder / f"{self._key(clip)}.npz"
        try:
            with np.load(path) as kept:
                return Spoken(*(kept[name] for name in Spoken.__dataclass_fields__))
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
            pass
        found = self._heard(clip)
        packed = io.BytesIO()
        np.savez(packed, **{name: getattr(found, name) for name in Spoken.__dataclass_fields__})
        files.write(path, packed.getbuffer())
        return found

    def _key(self, clip: Clip) -> str:
        facts = f"{_FORMAT} {self.copies} {clip.text}".encode()
        return hashlib.sha256(facts + clip.samples.tobytes()).hexdigest()[:24]

    def _heard(self, clip: Clip) -> Spoken:
        samples = clip.samples[0].astype(np.float32) / 32768
        pyworld = world()
        x = samples.astype(np.float64)
        rough, times = pyworld.dio(
            x, RATE, f0_floor=F0_FLOOR, f0_ceil=F0_CEIL, frame_period=1000 * FRAME_S
        )
        f0 = pyworld.stonemask(x, rough, times, RATE)
        spectrum = pyworld.cheaptrick(x, f0, times, RATE, fft_size=FFT)
        states = [self._states(samples)]
        if self.copies:
            aperiodicity = pyworld.d4c(x, f0, times, RATE, fft_size=FFT)
            rng = np.random.default_rng(int(self._key(clip), 16))
            for _ in range(self.copies):
                copy = pyworld.synthesize(
                    *disguised(f0, spectrum, aperiodicity, rng), RATE, 1000 * FRAME_S
                )
                copy = np.pad(copy, (0, max(0, len(x) - len(copy))))[: len(x)]
                states.append(self._states(copy.astype(np.float32)))
        return Spoken(
            (np.log(spectrum + 1e-16) @ TO_MEL.T).astype(np.float16),
            f0.astype(np.float32),
            self._phones(samples, clip.text, len(f0)),
            np.stack(states).astype(np.float16),
        )

    def _states(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        prepared = level(samples)
        heard = self._model.encode((samples if prepared is None else prepared)[None])
        return np.asarray(heard[0])

    def _phones(self, samples: NDArray[np.float32], text: str, frames: int) -> NDArray[np.uint8]:
        found = np.full(frames, UNKNOWN, np.uint8)
        if text:
            audio = Audio(samples[None], RATE)
            for phone, start, end in self._aligner.phones(audio, text.split()):
                found[round(start / FRAME_S) : round(end / FRAME_S)] = PHONES.index(phone)
        return found


def disguised(
    f0: Floats, spectrum: Floats, aperiodicity: Floats, rng: np.random.Generator
) -> tuple[Floats, Floats, Floats]:
    """WORLD's frames as somebody else would have them: formants by up to a fifth, pitch by up to
    half an octave and mostly the same way, and another colour."""
    size = rng.uniform(-1.0, 1.0)
    warp = float(np.exp(0.16 * size + rng.normal(0.0, 0.03)))
    pitch = 2.0 ** (0.4 * size + rng.normal(0.0, 0.12))
    at = np.clip(np.arange(BINS) / warp, 0, BINS - 1)
    left = np.minimum(at.astype(int), BINS - 2)
    share = at - left

    def moved(x: Floats) -> Floats:
        return np.ascontiguousarray(x[:, left] * (1 - share) + x[:, left + 1] * share)

    knots = rng.normal(0.0, 0.5, 6)  # natural log power: some 2 dB each
    colour = np.interp(np.linspace(0, 5, BINS), np.arange(6), knots)
    other = np.exp(moved(np.log(spectrum + 1e-16)) + colour)
    return np.ascontiguousarray(f0 * pitch), other, moved(aperiodicity)


def some_minutes(clips: list[Clip], minutes: float, seed: int) -> list[Clip]:
    """As many of one person's clips, drawn at random, as make `minutes`; at least one."""
    order = np.random.default_rng(seed).permutation(len(clips))
    chosen: list[Clip] = []
    left = minutes * 60 * RATE
    for k in order:
        if left <= 0:
            break
        chosen.append(clips[k])
        left -= clips[k].frames
    return chosen
