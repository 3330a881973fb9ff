"""Which output of a talker separator is whose: it gives them in no order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from podtool.audio import Audio

if TYPE_CHECKING:
    from podtool.engines.protocols import EmbeddingEngine

Samples = NDArray[np.float32]
Who = tuple[str, ...]

_VOICE_WEIGHT = 4.0  # of a cosine, against seconds of one person being heard on one output


def assign(
    outputs: Samples,
    rate: int,
    plan: Sequence[tuple[float, float, Who]],
    who: Who,
    voices: Mapping[str, NDArray[np.float32]] | None = None,
    embedding: EmbeddingEngine | None = None,
    before: Mapping[str, Samples] | None = None,
) -> list[int]:
    """For each label of `who` the number of its output, of (count, n) outputs.

    `plan`: (start, stop, who talks) in seconds of the window. `voices`: the speakers' embeddings;
    `before`: what each speaker was given at the start of this window by the one before. The best
    of all orders by seconds in which an output is heard while its speaker talks, likeness of
    voices, and agreement with the window before.
    """
    scores = _presence(outputs, rate, plan, who)
    if voices and embedding is not None:
        scores += _VOICE_WEIGHT * _likeness(outputs, rate, who, voices, embedding)
    if before:
        scores += _agreement(outputs, rate, who, before)
    labels = np.arange(len(who))

    def score(order: Sequence[int]) -> float:
        return float(scores[order, labels].sum())

    orders: list[list[int]] = [list(o) for o in permutations(range(len(outputs)), len(who))]
    return max(orders, key=score)


def _presence(
    outputs: Samples, rate: int, plan: Sequence[tuple[float, float, Who]], who: Who
) -> NDArray[np.float64]:
    """(count, labels): seconds in which a label talks, times the output's share of the sound."""
    scores = np.zeros((len(outputs), len(who)))
    for start, stop, people in plan:
        here = outputs[:, round(start * rate) : round(stop * rate)]
        power = np.square(here, dtype=np.float64).sum(axis=1)
        if power.sum() <= 1e-9 * max(1, here.shape[1]):
            continue
        for k, label in enumerate(who):
            if label in people:
                scores[:, k] += here.shape[1] / rate * power / power.sum()
    return scores


def _likeness(
    outputs: Samples,
    rate: int,
    who: Who,
    voices: Mapping[str, NDArray[np.float32]],
    embedding: EmbeddingEngine,
) -> NDArray[np.float64]:
    """(count, labels) cosines; zero for outputs without sound and speakers without a voice."""
    scores = np.zeros((len(outputs), len(who)))
    for i, output in enumerate(outputs):
        sound = loud_parts(output, rate)
        if len(sound) < 0.5 * rate:
            continue
        vector = embedding.embed(Audio(sound[None], rate))
        for k, label in enumerate(who):
            if label in voices:
                scores[i, k] = float(vector @ voices[label])
    return scores


def loud_parts(samples: Samples, rate: int) -> Samples:
    """The 20 ms frames within 30 dB of the loudest."""
    size = rate // 50
    frames = samples[: len(samples) // size * size].reshape(-1, size)
    power = np.square(frames, dtype=np.float64).mean(axis=1)
    return np.asarray(frames[power > max(1e-3 * power.max(initial=0.0), 1e-9)].reshape(-1))


def _agreement(
    outputs: Samples, rate: int, who: Who, before: Mapping[str, Samples]
) -> NDArray[np.float64]:
    """(count, labels): seconds shared with the window before, times the correlation there."""
    scores = np.zeros((len(outputs), len(who)))
    for k, label in enumerate(who):
        if label not in before:
            continue
        old = before[label].astype(np.float64)[: outputs.shape[1]]
        new = outputs[:, : len(old)].astype(np.float64)
        norm = np.sqrt((old @ old) * np.square(new).sum(axis=1)) + 1e-9
        scores[:, k] = len(old) / rate * (new @ old) / norm
    return scores
