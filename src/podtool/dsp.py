"""Fades, crossfades, overlap-add and time stretch on arrays of shape (channels, frames)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from podtool.audio import Audio

Samples = NDArray[np.float32]
Law = Literal["linear", "power"]


def ramp(frames: int, law: Law = "linear") -> NDArray[np.float64]:
    """Rising weights strictly inside (0, 1), one per frame.

    `linear`: a raised cosine; with its mirror image it sums to 1 (for correlated signals, such as
    a voice and its conversion). `power`: a quarter sine; the squares sum to 1 (for signals that
    have nothing to do with each other).
    """
    at = (np.arange(frames) + 0.5) / max(1, frames)
    if law == "power":
        return np.sin(0.5 * np.pi * at)
    return 0.5 - 0.5 * np.cos(np.pi * at)


def fade(samples: Samples, fade_in: int = 0, fade_out: int = 0, law: Law = "linear") -> Samples:
    """A copy with its first and last frames faded; fades longer than the signal are cut to half."""
    frames = samples.shape[1]
    if fade_in + fade_out > frames:
        fade_in = min(fade_in, frames // 2)
        fade_out = min(fade_out, frames - fade_in)
    out = samples.copy()
    if fade_in:
        out[:, :fade_in] *= ramp(fade_in, law).astype(np.float32)
    if fade_out:
        out[:, frames - fade_out :] *= ramp(fade_out, law)[::-1].astype(np.float32)
    return out


def crossfade(first: Samples, second: Samples, frames: int, law: Law = "linear") -> Samples:
    """`first`, then `second`, overlapping by `frames`: (c, a) and (c, b) -> (c, a + b - frames).

    Raises ValueError where a signal is shorter than the overlap.
    """
    if frames < 0 or frames > min(first.shape[1], second.shape[1]):
        raise ValueError(f"an overlap of {frames} frames does not fit both signals")
    if frames == 0:
        return np.concatenate([first, second], axis=1)
    up = ramp(frames, law)
    joint = first[:, -frames:] * up[::-1] + second[:, :frames] * up
    parts = [first[:, :-frames], joint.astype(np.float32), second[:, frames:]]
    return np.concatenate(parts, axis=1)


def window_starts(frames: int, window: int, hop: int) -> range:
    """Where windows begin so that they cover `frames`; the last one may run past the end."""
    if not 0 < hop <= window:
        raise ValueError("a hop is between 1 and the window")
    return range(0, max(1, frames - (window - hop)), hop)


def overlap_add(
    windows: Iterable[Samples], frames: int, window: int, hop: int
) -> Iterator[Samples]:
    """Results on the grid of `window_starts` -> consecutive pieces, `frames` in all.

    Each window (the last one cut at the end of the signal) is crossfaded with the one before over
    the `window - hop` frames that they share, so that windows of an unchanged signal give it back.
    At most half of a window may be shared. Memory: one window.
    """
    shared = window - hop
    if shared > hop:
        raise ValueError("at most half of a window may be shared with the next")
    up = ramp(shared).astype(np.float32)
    starts = window_starts(frames, window, hop)
    tail: Samples | None = None
    for start, whole in zip(starts, windows, strict=True):
        piece = whole[:, : frames - start]
        if tail is not None and shared:
            joint = tail * up[::-1] + piece[:, :shared] * up
            piece = np.concatenate([joint, piece[:, shared:]], axis=1)
        if start == starts[-1]:
            yield piece
        else:
            yield piece[:, :hop]
            tail = piece[:, hop:window]


def stretch(audio: Audio, frames: int) -> Audio:
    """The same speech at the same pitch in exactly `frames` frames (Signalsmith Stretch).

    Raises ValueError for an empty signal or target.
    """
    if audio.frames == 0 or frames <= 0:
        raise ValueError("nothing to stretch")
    if frames == audio.frames:
        return audio
    from python_stretch import Signalsmith

    machine = Signalsmith.Stretch()
    machine.preset(audio.channels, audio.sample_rate)
    machine.setTimeFactor(audio.frames / frames)
    out = np.asarray(machine.process(np.ascontiguousarray(audio.samples)), np.float32)
    out = out.reshape(audio.channels, -1)
    if out.shape[1] < frames:
        out = np.pad(out, ((0, 0), (0, frames - out.shape[1])))
    return Audio(np.ascontiguousarray(out[:, :frames]), audio.sample_rate)
