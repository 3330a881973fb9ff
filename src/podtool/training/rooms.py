"""Room impulse responses by the image source method, made once and kept.

Shoebox rooms by pyroomacoustics (R. Scheibler et al. 2018, after Allen & Berkley 1979), one
microphone and several mouths in each, so that the talkers of a scene share a room, not a place.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from podtool.errors import EngineUnavailableError
from podtool.training.corpus import RATE

_FORMAT = 2  # of the cache
SOURCES = 4  # three talkers and a noise
TAPS = RATE // 2
_SOUND = 343.0  # m/s
_ORDER = 40  # reflections; beyond it a tail is some 30 dB down, and the time grows by its cube
_DRY_DB = -50.0  # where the tail ends


@dataclass(frozen=True, slots=True)
class Rooms:
    """responses (rooms, sources, taps) float32, the direct sound 1 at lag 0; lengths in taps."""

    responses: NDArray[np.float32]
    lengths: NDArray[np.int32]

    @classmethod
    def make(cls, count: int, seed: int, cache: Path | None = None) -> Rooms:
        """`count` rooms, from the .npz file `cache` if it holds those of the same seed.

        Raises EngineUnavailableError without pyroomacoustics (and without a cache).
        """
        stamp = np.array([_FORMAT, count, seed, SOURCES, TAPS], np.int64)
        if cache and (kept := _kept(cache, stamp)):
            responses, lengths = kept
            return cls(responses.astype(np.float32), lengths)
        made = [_room(np.random.default_rng([seed, index])) for index in range(count)]
        responses = np.stack(made).astype(np.float16)  # 60 dB is all that a reflection needs
        lengths = _lengths(responses.astype(np.float32))
        if cache:
            cache.parent.mkdir(parents=True, exist_ok=True)
            partial = cache.with_name(f".{cache.name}.{os.getpid()}.npz")
            np.savez(partial, responses=responses, lengths=lengths, stamp=stamp)
            partial.replace(cache)
        return cls(responses.astype(np.float32), lengths)

    def pick(
        self, rng: np.random.Generator, count: int, shared: bool = True
    ) -> list[NDArray[np.float32]]:
        """`count` responses of one room (of a room each unless `shared`), cut where they end."""
        sources = rng.permutation(SOURCES)[np.arange(count) % SOURCES]
        rooms = rng.integers(len(self.responses), size=count)
        if shared:
            rooms[:] = rooms[:1]
        return [
            self.responses[room, source, : self.lengths[room, source]]
            for room, source in zip(rooms, sources, strict=True)
        ]


def _kept(
    cache: Path, stamp: NDArray[np.int64]
) -> tuple[NDArray[np.float16], NDArray[np.int32]] | None:
    try:
        with np.load(cache) as file:
            if np.array_equal(file["stamp"], stamp):
                return file["responses"], file["lengths"]
    except (OSError, ValueError, KeyError, BadZipFile):
        pass  # absent, or cut short: it is made again
    return None


def _room(rng: np.random.Generator) -> NDArray[np.float32]:
    """(sources, taps) of one random room: 2.5 to 9 m, RT60 .15 to .7 s, mouths at .3 to 3 m."""
    try:
        import pyroomacoustics as pra
    except ImportError:
        raise EngineUnavailableError(
            "simulated rooms need pyroomacoustics",
            "pip install 'podtool[train]', or set reverb_share = 0 in the recipe",
        ) from None
    size = np.array([rng.uniform(2.5, 9), rng.uniform(2.5, 7), rng.uniform(2.3, 3.5)])
    # A room cannot be dryer than its walls allow: retry with more reverberation.
    rt60 = rng.uniform(0.15, 0.7)
    while True:
        try:
            absorption, order = pra.inverse_sabine(rt60, size, c=_SOUND)
            break
        except ValueError:
            rt60 *= 1.15
    shoebox = pra.ShoeBox(
        size, fs=RATE, materials=pra.Material(absorption), max_order=min(order, _ORDER)
    )
    shoebox.set_sound_speed(_SOUND)
    microphone = size * rng.uniform([0.2, 0.2, 0.25], [0.8, 0.8, 0.55])
    shoebox.add_microphone(microphone)
    for _ in range(SOURCES):
        shoebox.add_source(_mouth(rng, size, microphone))
    shoebox.compute_rir()
    darker = rng.uniform(0, 60)
    return np.stack([_from_direct(np.asarray(r, np.float32), darker) for r in shoebox.rir[0]])


def _mouth(
    rng: np.random.Generator, size: NDArray[np.float64], microphone: NDArray[np.float64]
) -> NDArray[np.float64]:
    """A place in the room; its distance is a whole number of samples, so that the direct sound
    is one sample rather than a sinc that would be cut in half."""
    while True:
        metres = 0.3 * 10 ** rng.uniform(0, 1)
        metres = max(1, round(metres * RATE / _SOUND)) * _SOUND / RATE
        azimuth, height = rng.uniform(0, 2 * np.pi), rng.uniform(-0.35, 0.35)
        flat = np.sqrt(1 - height**2)
        place = microphone + metres * np.array(
            [flat * np.cos(azimuth), flat * np.sin(azimuth), height]
        )
        if np.all(place > 0.2) and np.all(place < size - 0.2):
            return place


def _from_direct(response: NDArray[np.float32], darker: float) -> NDArray[np.float32]:
    """Cut to start at the direct sound, .5 s, faded at the end, the direct sound at 1.

    Walls and air take more of the highs: above some 3 kHz it decays by `darker` dB/s faster.
    """
    from scipy.signal import lfilter

    loud = np.abs(response) > 0.5 * np.abs(response).max()  # a wall may add up to the direct sound
    start = int(np.argmax(loud))
    start += int(np.argmax(np.abs(response[start : start + 8])))
    out = np.zeros(TAPS, np.float32)
    part = response[start : start + TAPS]
    out[: len(part)] = part / response[start]
    low = lfilter([0.7], [1, -0.3], out)
    decay = 10 ** (-darker / 20 * np.arange(TAPS) / RATE)
    out = np.asarray(low + (out - low) * decay, np.float32)
    out[-TAPS // 8 :] *= np.linspace(1, 0, TAPS // 8, dtype=np.float32)
    return out


def _lengths(responses: NDArray[np.float32]) -> NDArray[np.int32]:
    """Taps until what is left holds 50 dB less than the whole."""
    left = np.cumsum(np.square(responses[..., ::-1]), axis=-1)[..., ::-1]
    loud = left > left[..., :1] * 10 ** (_DRY_DB / 10)
    return np.asarray(loud.sum(axis=-1), np.int32)
