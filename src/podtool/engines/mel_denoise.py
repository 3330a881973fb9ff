"""Noise taken out of log-mel features before a voice is embedded, where it is loud.

Power spectral subtraction in the mel domain (Boll, "Suppression of acoustic noise in speech using
spectral subtraction", IEEE TASSP 1979) with a floor: the noise is what is heard while nobody
speaks, in the same minute. It costs next to nothing, since the features are there anyway.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class NoiseProfile:
    """Mean mel power (blocks, bands) of the pauses in each block of `block_s` seconds."""

    power: Floats
    known: NDArray[np.bool_]
    block_s: float

    def at(self, second: float) -> Floats | None:
        """The profile of the block, or of the nearest one that has pauses; None without any."""
        if not self.known.any():
            return None
        here = int(second / self.block_s)
        found = np.flatnonzero(self.known)
        return np.asarray(self.power[found[np.argmin(np.abs(found - here))]], np.float32)


def profile(
    pauses: NDArray[np.bool_],
    frame_s: float,
    features: Callable[[float, float], Floats],
    bands: int = 80,
    block_s: float = 60.0,
    enough_s: float = 0.5,
    longest_s: float = 5.0,
) -> NoiseProfile:
    """Listen to the pauses of a recording.

    `pauses` is true for frames of `frame_s` seconds without speech; `features(a, b)` gives the
    log-mel features of the seconds from a to b. At most `longest_s` of each block are heard.
    """
    size = max(1, round(block_s / frame_s))
    blocks = -(-len(pauses) // size)
    power = np.zeros((blocks, bands), np.float32)
    known = np.zeros(blocks, bool)
    for k in range(blocks):
        inside = np.concatenate(([0], pauses[k * size : (k + 1) * size].astype(np.int8), [0]))
        edges = np.flatnonzero(np.diff(inside))
        heard = 0.0
        found: list[Floats] = []
        for a, b in zip(edges[::2], edges[1::2], strict=True):
            start, stop = (k * size + int(a)) * frame_s, (k * size + int(b)) * frame_s
            if stop - start < 0.15 or heard >= longest_s:
                continue
            found.append(features(start, min(stop, start + longest_s - heard)))
            heard += stop - start
        if heard >= enough_s:
            power[k] = np.exp(np.concatenate(found)).mean(0)
            known[k] = True
    return NoiseProfile(power, known, size * frame_s)


def snr_db(features: Floats, noise: Floats) -> float:
    """Level of the features above the noise, in dB, averaged over the bands' energy."""
    whole = float(np.exp(features).mean(0).sum())
    rest = float(noise.sum())
    return float(10 * np.log10(max(whole - rest, 1e-12) / max(rest, 1e-12)))


def subtract(features: Floats, noise: Floats, floor: float = 0.1) -> Floats:
    """Log-mel features without the noise power; never less than `floor` of what was there."""
    power = np.exp(features)
    return np.asarray(np.log(np.maximum(power - noise, floor * power)), np.float32)
